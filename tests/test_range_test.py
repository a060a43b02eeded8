import math

import pytest

from adaptlr.range_test import RangeTest, smooth


def test_ramp_is_geometric_between_its_ends():
    test = RangeTest(1e-4, 1.0, num_steps=5)
    assert [test.rate(i) for i in range(5)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_reads_the_minimum_and_the_rate_that_brought_half_of_the_fall():
    # Losses are measured before the update, so 0.5 is what the rate 0.1 led to.
    reading = RangeTest(1e-4, 1.0, num_steps=5).read([2.0, 2.0, 1.9, 1.0, 0.5, 3.0])
    assert reading.minimum == pytest.approx(0.1)
    assert reading.half == pytest.approx(1e-3)
    assert reading.suggestion == pytest.approx(1e-2)
    assert "fell from 2 to 0.5" in reading.verdict


@pytest.mark.parametrize("losses", [[1.0, 1.1, 1.2], [1.0, 1.0]])
def test_a_curve_without_a_minimum_gives_no_rate(losses):
    reading = RangeTest().read(losses)
    assert reading.suggestion is None
    assert "no minimum" in reading.verdict


@pytest.mark.parametrize("losses", [[], [math.nan], [math.nan, math.nan], [1.0]])
def test_too_few_finite_losses_give_no_rate(losses):
    assert RangeTest().read(losses).suggestion is None


def test_diverged():
    test = RangeTest(divergence=1.5)
    assert not test.diverged([1.0, 1.4])
    assert test.diverged([1.0, 1.6])
    assert test.diverged([1.0, math.nan])
    assert not RangeTest(divergence=1.5, smoothing=0.9).diverged([1.0, 1.6])


def test_smoothing_is_unbiased_from_the_first_value():
    assert smooth([4.0, 4.0, 4.0], 0.9) == pytest.approx([4.0, 4.0, 4.0])
    assert smooth([0.0, 3.0], 0.5) == pytest.approx([0.0, 2.0])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"min_lr": 0.0}, "min_lr"),
        ({"min_lr": 1.0, "max_lr": 0.1}, "max_lr"),
        ({"num_steps": 1}, "num_steps"),
        ({"divergence": 1.0}, "divergence"),
        ({"smoothing": -0.1}, "smoothing"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=rf"RangeTest\({name}=\.\.\.\).*Received: {name}="):
        RangeTest(**arguments)
