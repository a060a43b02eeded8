import math

import pytest

from adaptlr.range_test import RangeTest


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
    test = RangeTest(num_steps=20, divergence=1.5)
    assert not test.diverged([1.0, 1.4])
    assert test.diverged([1.0, 1.0, 1.0, 1.6, 1.6])
    assert test.diverged([1.0, math.nan])
    assert not test.diverged([])


def test_a_single_spike_of_a_fine_ramp_is_not_divergence():
    fine = RangeTest(num_steps=100)
    flat = [1.0] * 50
    assert not fine.diverged([*flat, 2.0])
    assert fine.diverged([*flat, *[2.0] * 5])


def test_a_lucky_batch_after_the_bounce_is_not_the_minimum():
    """Losses of a real ramp (AdamW with its coupled decay on separable data)."""
    losses = [2.0, 1.9, 1.8, 1.5, 1.6, 1.6, 1.5, 1.6, 1.8, 1.8, 1.5, 1.2, 1.1, 0.68, 0.43, 0.32,
              0.14, 0.0017, 1.4, 1.6, 1.2e-07]  # fmt: skip
    reading = RangeTest(1e-6, 10.0, num_steps=20).read(losses)
    assert reading.minimum < 0.5


def test_the_start_is_the_mean_over_the_first_decade():
    losses = [1.0, 3.0] * 7 + [2.0] * 30 + [1.0] * 10 + [5.0] * 3
    reading = RangeTest(1e-6, 10.0, num_steps=99).read(losses)
    assert "fell from 2 to" in reading.verdict


def test_a_fall_within_the_noise_of_the_start_is_no_minimum():
    noise = [1.0, 1.4, 0.8, 1.3, 0.7, 1.2, 0.9, 1.1, 0.6, 1.3, 1.0, 1.2, 0.8, 1.4] * 3
    reading = RangeTest(1e-6, 10.0, num_steps=99).read([*noise, *[5.0] * 10])
    assert "no minimum" in reading.verdict


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"min_lr": 0.0}, "min_lr"),
        ({"min_lr": 1.0, "max_lr": 0.1}, "max_lr"),
        ({"num_steps": 1}, "num_steps"),
        ({"divergence": 1.0}, "divergence"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=rf"RangeTest\({name}=\.\.\.\).*Received: {name}="):
        RangeTest(**arguments)
