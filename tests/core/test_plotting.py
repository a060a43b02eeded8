import pickle

import pytest

from adaptlr.plotting import comparison, finder_curve
from adaptlr.range_test import Curve, RangeTest, read_curve
from adaptlr.writers import MemoryWriter, Record

Figure = pytest.importorskip("matplotlib.figure").Figure

RAMP = RangeTest(1e-3, 1.0, num_steps=4)


def labels(figure):
    return [line.get_label() for line in figure.axes[0].get_lines()]


def test_draws_losses_and_marks_each_suggestion_on_the_smoothed_curve():
    curve = read_curve(RAMP, [2.0, 2.0, 1.0, 0.5, 3.0])
    figure = finder_curve(curve)
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["batch loss"].get_ydata()) == [2.0, 1.0, 0.5, 3.0]
    assert list(lines["smoothed"].get_ydata()) == list(curve.smoothed)
    centre = lines["centre: 0.01 (suggestion)"]
    assert list(centre.get_xdata()) == pytest.approx([curve.suggestions["centre"]])
    assert len([label for label in lines if ": " in label]) == 4
    assert axes.get_xscale() == "log"
    assert "validation loss" not in lines


def test_held_out_losses_are_drawn_where_there_are_any():
    curve = read_curve(RAMP, [2.0, 2.0, 1.0, 0.5, 3.0], validation_losses=[2.1, 1.1, 0.6])
    assert "validation loss" in labels(finder_curve(curve))


def test_the_verdict_is_the_caption():
    curve = read_curve(RAMP, [2.0] * 5)
    figure = finder_curve(curve)
    assert figure.get_supxlabel().replace("\n", " ") == curve.verdict
    assert not [label for label in labels(figure) if "suggestion" in label]


def test_the_rate_that_was_held_is_marked_beside_the_suggestions():
    curve = read_curve(RAMP, [2.0, 2.0, 1.0, 0.5, 3.0])
    (line,) = [
        line
        for line in finder_curve(curve, held=0.025).axes[0].get_lines()
        if line.get_label().startswith("held")
    ]
    assert line.get_label() == "held: 0.025"
    assert list(line.get_xdata()) == [0.025, 0.025]
    assert len(labels(finder_curve(curve, held=0.025))) == len(labels(finder_curve(curve))) + 1


def test_figures_are_matplotlib_s_own_and_hold_what_a_notebook_shows():
    figure = finder_curve(read_curve(RAMP, [2.0, 2.0, 1.0, 0.5, 3.0]))
    assert type(figure) is Figure
    assert figure._repr_png_().startswith(b"\x89PNG")
    copied = pickle.loads(pickle.dumps(figure))
    assert copied._repr_png_() == figure._repr_png_()


def test_losses_that_explode_do_not_set_the_scale():
    figure = finder_curve(read_curve(RAMP, [2.0, 2.0, 1.0, 0.5, 1e30], diverged=True))
    assert figure.axes[0].get_ylim()[1] < 10.0


def test_a_linear_ramp_has_a_linear_axis():
    curve = read_curve(RangeTest(1e-3, 1.0, 4, shape="linear"), [2.0, 2.0, 1.0, 0.5, 3.0])
    assert finder_curve(curve).axes[0].get_xscale() == "linear"


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_saves(tmp_path, suffix):
    path = tmp_path / f"curve.{suffix}"
    finder_curve(read_curve(RAMP, [2.0, 2.0, 1.0, 0.5, 3.0]), path)
    assert path.stat().st_size > 1000


def test_nothing_to_draw_is_drawn_as_nothing():
    assert "no ramp" in finder_curve(Curve()).get_supxlabel()


def run_with(values, rate=0.1, decisions=()):
    run = MemoryWriter()
    for step, value in enumerate(values, start=1):
        run.write_scalars(10 * step, {"epoch/val_loss": value})
        run.write_scalars(10 * step, {"learning_rate": rate, "loss": value / 2.0})
    for step, rule in decisions:
        run.write_decision(Record(step, 0, rate, rule, "because"))
    return run


def drawn(axes):
    return {tuple(line.get_ydata()) for line in axes.get_lines()}


class TestComparison:
    def test_one_run_shows_rate_under_loss_and_its_decisions(self):
        run = run_with([2.0, 1.0], decisions=[(0, "start"), (10, "settle"), (20, "stop")])
        above, below = comparison({"run": run}).axes
        assert {(2.0, 1.0), (1.0, 0.5)} <= drawn(above)
        assert (0.1, 0.1) in drawn(below)
        assert [text.get_text() for text in above.texts] == ["settle", "stop"]
        assert [t.get_text() for t in above.get_legend().get_texts()] == ["run", "training loss"]

    def test_runs_of_one_name_are_their_mean_and_range_as_far_as_all_go(self):
        runs = [run_with([2.0, 1.0, 0.5]), run_with([4.0, 2.0])]
        above, below = comparison({"seeds": runs, "other": run_with([3.0])}).axes
        assert (3.0, 1.5) in drawn(above)
        assert (1.0, 0.5) in drawn(above)  # the one that goes on
        (band,) = above.collections
        assert {2.0, 4.0} <= {y for _, y in band.get_paths()[0].vertices}
        assert len(below.collections) == 1

    def test_decisions_of_a_named_run(self):
        runs = {"a": run_with([1.0]), "b": run_with([1.0], decisions=[(10, "cool")])}
        assert [t.get_text() for t in comparison(runs, marked="b").axes[0].texts] == ["cool"]
        assert not comparison(runs).axes[0].texts

    def test_crowded_decisions_take_two_rows_and_then_lose_their_name(self):
        run = run_with([1.0] * 10, decisions=[(50, "one"), (50, "two"), (50, "three")])
        above, below = comparison({"run": run}).axes
        heights = [text.xy[1] for text in above.texts]
        assert [text.get_text() for text in above.texts] == ["one", "two"]
        assert heights[0] < heights[1]
        assert sum(list(line.get_xdata()) == [50, 50] for line in below.get_lines()) == 3

    @pytest.mark.parametrize(
        ("values", "scale"),
        [([1.0, 0.5], "linear"), ([1.0, 0.01], "log"), ([1.0, float("nan")], "linear")],
    )
    def test_the_scale_follows_the_values(self, values, scale):
        assert comparison({"run": run_with(values), "b": MemoryWriter()}).axes[0].get_yscale() == (
            scale
        )

    def test_an_empty_run(self):
        assert comparison({"run": MemoryWriter()}).axes[0].get_ylabel() == "val_loss"

    @pytest.mark.parametrize(
        ("runs", "marked", "message"),
        [
            ({"a": []}, None, r"runs=\.\.\.\) must hold a run .* Received: runs=\{'a': \[\]\}"),
            ({"a": [], "b": MemoryWriter()}, "a", r"Received: runs=\{'a': \[\]\}"),
            ({"a": MemoryWriter()}, "z", r"must be one of the names, 'a', or .*marked='z'"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, runs, marked, message):
        with pytest.raises(ValueError, match=message):
            comparison(runs, marked=marked)
