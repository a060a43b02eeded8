import pytest

from adaptlr.plotting import finder_curve
from adaptlr.range_test import Curve, RangeTest

pytest.importorskip("matplotlib")

RAMP = RangeTest(1e-3, 1.0, num_steps=4)


def labels(figure):
    return [line.get_label() for line in figure.axes[0].get_lines()]


def test_draws_losses_and_marks_each_suggestion_on_the_smoothed_curve():
    curve = RAMP.curve([2.0, 2.0, 1.0, 0.5, 3.0])
    figure = finder_curve(curve)
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["batch loss"].get_ydata()) == [2.0, 1.0, 0.5, 3.0]
    assert list(lines["smoothed"].get_ydata()) == list(curve.smoothed)
    centre = lines["centre: 0.01 (suggestion)"]
    assert list(centre.get_xdata()) == pytest.approx([curve.suggestions["centre"]])
    assert len([label for label in lines if ": " in label]) == 4
    assert axes.get_xscale() == "log"
    assert "held-out loss" not in lines


def test_held_out_losses_are_drawn_where_there_are_any():
    curve = RAMP.curve([2.0, 2.0, 1.0, 0.5, 3.0], validation_losses=[2.1, 1.1, 0.6])
    assert "held-out loss" in labels(finder_curve(curve))


def test_the_verdict_is_the_caption():
    curve = RAMP.curve([2.0] * 5)
    figure = finder_curve(curve)
    assert figure.get_supxlabel().replace("\n", " ") == curve.verdict
    assert not [label for label in labels(figure) if "suggestion" in label]


def test_losses_that_explode_do_not_set_the_scale():
    figure = finder_curve(RAMP.curve([2.0, 2.0, 1.0, 0.5, 1e30], diverged=True))
    assert figure.axes[0].get_ylim()[1] < 10.0


def test_a_linear_ramp_has_a_linear_axis():
    curve = RangeTest(1e-3, 1.0, 4, shape="linear").curve([2.0, 2.0, 1.0, 0.5, 3.0])
    assert finder_curve(curve).axes[0].get_xscale() == "linear"


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_saves(tmp_path, suffix):
    path = tmp_path / f"curve.{suffix}"
    finder_curve(RAMP.curve([2.0, 2.0, 1.0, 0.5, 3.0]), path)
    assert path.stat().st_size > 1000


def test_nothing_to_draw_is_drawn_as_nothing():
    assert "no ramp" in finder_curve(Curve()).get_supxlabel()
