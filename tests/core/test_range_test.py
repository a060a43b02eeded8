import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptlr.range_test import (
    Curve,
    RangeTest,
    minimum,
    read_curve,
    read_rate,
    steepest,
    valley,
)


def test_ramp_is_geometric_between_its_ends():
    test = RangeTest(1e-4, 1.0, num_steps=5)
    assert [test.rate(i) for i in range(5)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_reads_the_minimum_and_the_rate_that_brought_half_of_the_fall():
    # Losses are measured before the update, so 0.5 is what the rate 0.1 led to.
    reading = read_rate(RangeTest(1e-4, 1.0, num_steps=5), [2.0, 2.0, 1.9, 1.0, 0.5, 3.0])
    assert reading.minimum == pytest.approx(0.1)
    assert reading.half == pytest.approx(1e-3)
    assert reading.suggestion == pytest.approx(1e-2)
    assert "fell from 2 to 0.5" in reading.verdict


@pytest.mark.parametrize("losses", [[1.0, 1.1, 1.2], [1.0, 1.0]])
def test_a_curve_without_a_minimum_gives_no_rate(losses):
    reading = read_rate(RangeTest(), losses)
    assert reading.suggestion is None
    assert "no minimum" in reading.verdict


@pytest.mark.parametrize("losses", [[], [math.nan], [math.nan, math.nan], [1.0]])
def test_too_few_finite_losses_give_no_rate(losses):
    assert read_rate(RangeTest(), losses).suggestion is None


@pytest.mark.parametrize(("steps", "most"), [(20, 16), (50, 8), (100, 6)])
def test_the_noise_of_small_batches_hardly_ever_ends_a_ramp(steps, most):
    """Without the five standard errors they end some 40, 35 and 15 of these 200."""
    test, draw, ended = RangeTest(1e-6, 10.0, steps), random.Random(1), 0
    for _ in range(200):
        losses = [math.exp(draw.gauss(0.0, 0.3)) for _ in range(steps // 2)]
        ended += any(test.diverged(losses[:n]) for n in range(1, len(losses) + 1))
    assert ended <= most


@pytest.mark.parametrize("growth", [1.5, 2.0, 4.0])
def test_an_explosion_ends_a_ramp_as_soon_as_it_is_one_and_a_half_times_the_start(growth):
    test, draw, losses = RangeTest(1e-6, 10.0, 50), random.Random(0), []
    for i in range(50):
        level = 2.3 if i < 25 else 1.5 * growth ** (i - 25)
        losses.append(level * math.exp(draw.gauss(0.0, 0.05)))
    end = next(n for n in range(1, 51) if test.diverged(losses[:n]))
    recent = [sum(losses[n - 3 : n]) / 3.0 for n in range(26, 51)]
    start = sum(losses[:7]) / 7.0
    assert end == 26 + next(i for i, mean in enumerate(recent) if mean > 1.5 * start)


def test_under_momentum_a_ramp_is_read_where_its_steps_are_as_large():
    """The velocity of SGD, built up over the ramp, against what a constant rate would build up."""
    test = RangeTest(1e-6, 10.0, 50, momentum=0.9)
    velocity = 0.0
    for i in range(30):
        velocity = 0.9 * velocity + test.rate(i)
    assert test.rate_in_effect(29) == pytest.approx(velocity * (1.0 - 0.9))
    assert test.rate(29) / test.rate_in_effect(29) == pytest.approx(3.5, rel=0.02)
    losses = [2.0] * 30 + [1.2, 1.0, 1.0, 1.0, 1.5, 4.0]
    plain, lagging = read_rate(RangeTest(1e-6, 10.0, 50), losses), read_rate(test, losses)
    assert plain.suggestion / lagging.suggestion == pytest.approx(3.5, rel=0.02)
    assert RangeTest(1e-6, 10.0, 50).rate_in_effect(29) == pytest.approx(test.rate(29))


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
    reading = read_rate(RangeTest(1e-6, 10.0, num_steps=20), losses)
    assert reading.minimum < 0.5


def test_the_start_is_the_mean_over_the_first_decade():
    losses = [1.0, 3.0] * 7 + [2.0] * 30 + [1.0] * 10 + [5.0] * 3
    reading = read_rate(RangeTest(1e-6, 10.0, num_steps=99), losses)
    assert "fell from 2 to" in reading.verdict


def test_a_fall_within_the_noise_of_the_start_is_no_minimum():
    noise = [1.0, 1.4, 0.8, 1.3, 0.7, 1.2, 0.9, 1.1, 0.6, 1.3, 1.0, 1.2, 0.8, 1.4] * 3
    reading = read_rate(RangeTest(1e-6, 10.0, num_steps=99), [*noise, *[5.0] * 10])
    assert "no minimum" in reading.verdict


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"min_lr": 0.0}, "min_lr"),
        ({"min_lr": 1.0, "max_lr": 0.1}, "max_lr"),
        ({"num_steps": 1}, "num_steps"),
        ({"divergence": 1.0}, "divergence"),
        ({"shape": "cosine"}, "shape"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=rf"RangeTest\({name}=\.\.\.\).*Received: {name}="):
        RangeTest(**arguments)


DECADES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]


class TestRules:
    """Against curves that are read by hand; one step is one decade."""

    def test_minimum(self):
        assert minimum(DECADES, [2.0, 1.9, 1.0, 0.5, 0.8, 9.0]) == 0.1

    def test_steepest_is_where_the_steepest_fall_begins(self):
        assert steepest(DECADES, [2.0, 1.9, 1.0, 0.5, 0.8, 9.0]) == 1e-3  # -0.9 a decade

    def test_steepest_counts_the_distance_between_rates(self):
        # -0.4 over half a decade is steeper than -0.6 over a whole one.
        rates = [1e-3, 1e-2, 10**-1.5, 1e-1]
        assert steepest(rates, [2.0, 1.4, 1.0, 0.9]) == 1e-2

    def test_steepest_ignores_what_comes_after_the_minimum(self):
        assert steepest(DECADES, [2.0, 1.9, 1.0, 0.5, 9.0, 0.6]) == 1e-3

    def test_valley_is_half_way_down(self):
        # Six falling losses, the last at index 5: 5 - 6 + 6 // 3 + 6 // 6 = 2.
        assert valley(DECADES, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) == 1e-2

    def test_valley_takes_the_longest_fall_not_the_deepest(self):
        # 5, 4, 3, 2 (to index 3) is longer than 9, 0: 3 - 4 + 4 // 3 + 4 // 6 = 0.
        assert valley(DECADES, [5.0, 4.0, 3.0, 2.0, 9.0, 0.0][:5]) == 1e-4
        # With the 0 it is 5, 4, 3, 2, 0 (to index 5): 5 - 5 + 5 // 3 + 5 // 6 = 1.
        assert valley(DECADES, [5.0, 4.0, 3.0, 2.0, 9.0, 0.0]) == 1e-3

    @pytest.mark.parametrize("rule", [minimum, steepest, valley])
    def test_a_rising_curve_gives_its_first_rate(self, rule):
        assert rule(DECADES, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == 1e-4

    @given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
    def test_valley_agrees_with_the_definition_spelled_out(self, losses):
        """The longest falling subsequence that ends at each loss, by comparing all pairs."""
        lengths = []
        for i, loss in enumerate(losses):
            before = [lengths[j] for j in range(i) if losses[j] > loss]
            lengths.append(1 + max(before, default=0))
        longest = max(lengths)
        index = lengths.index(longest) - longest + longest // 3 + longest // 6
        rates = [1.001**i for i in range(len(losses))]
        assert valley(rates, losses) == rates[max(0, index)]


def fall(test, at, depth=1.0, noise=0.0):
    """Losses of a ramp that falls from 2 around the rate `at`, and rises at 30 times that."""
    losses = []
    for i in range(test.num_steps + 1):
        rate = test.rate(max(0, i - 1))
        loss = 2.0 - depth / (1.0 + at / rate) + min((rate / (30.0 * at)) ** 2, 50.0)
        losses.append(loss + noise * (-1) ** i)
    return losses


class TestCurve:
    def test_pairs_each_rate_with_the_loss_that_it_led_to(self):
        curve = read_curve(
            RangeTest(1e-3, 1.0, num_steps=4), [2.0, 2.0, 1.0, 0.5, 3.0], True, [7, 8, 9]
        )
        assert curve.learning_rates == pytest.approx((1e-3, 1e-2, 1e-1, 1.0))
        assert curve.losses == (2.0, 1.0, 0.5, 3.0)
        assert curve.validation_losses == (7, 8, 9)

    def test_a_clear_fall(self):
        test = RangeTest(1e-6, 10.0, num_steps=100)
        curve = read_curve(test, fall(test, at=1e-3))
        assert curve.suggestions["centre"] == read_rate(test, fall(test, at=1e-3)).suggestion
        assert curve.suggestions["centre"] == pytest.approx(3e-3, rel=0.5)
        assert curve.suggestions["steepest"] == pytest.approx(1e-3, rel=0.5)
        # Without noise the valley begins at once: half-way from 1e-6 to the minimum near 5e-3.
        assert curve.suggestions["valley"] == pytest.approx(7e-5, rel=0.2)
        assert curve.suggestions["minimum/10"] == pytest.approx(1e-3, rel=0.5)
        assert curve.verdict.startswith("the loss fell from 1.997 to 1.206 at rate 0.00658")
        assert "times the noise" in curve.verdict

    def test_a_linear_ramp(self):
        test = RangeTest(1e-4, 0.5, num_steps=100, shape="linear")
        assert test.rate(0) == 1e-4
        assert test.rate(99) == 0.5
        assert test.rate(50) - test.rate(49) == pytest.approx(test.rate(1) - test.rate(0))
        curve = read_curve(test, fall(test, at=0.03))
        assert curve.shape == "linear"
        assert curve.suggestions["centre"] == pytest.approx(0.06, rel=0.3)
        assert curve.suggestions["steepest"] < 0.03

    @pytest.mark.parametrize(
        ("losses", "diverged", "words"),
        [
            ([], True, "not finite before any step: check the data"),
            ([2.0], True, "diverged at the very start"),
            ([2.0, 9.0, 50.0], True, "diverged at the very start"),
            # An explosion that then comes down again must not pass for learning.
            ([2.0, 900.0, 800.0, *[500.0] * 20], False, "diverged at the very start"),
            ([0.5 + 1.5 * 0.7**i for i in range(40)], False, "fell at once"),
            ([2.0], False, "ended before the ramp had begun"),
            ([2.0, 2.1] * 40, True, "no minimum: the loss stayed within its noise"),
            ([2.0, 2.1] * 20, False, "where the training ended, 61 steps too early"),
            ([2.0] * 101, False, "no minimum: up to a rate of 10 the loss never fell"),
            ([2.0] * 101, False, "raise max_lr, or take more steps"),
            ([2.0] * 90 + [2.4] * 11, False, "by more than its noise (0.002): take more steps"),
        ],
    )
    def test_without_a_usable_rate_the_verdict_says_why(self, losses, diverged, words):
        curve = read_curve(RangeTest(1e-6, 10.0, num_steps=100), losses, diverged)
        assert set(curve.suggestions.values()) == {None}
        assert words in curve.verdict

    @pytest.mark.parametrize(
        ("ramp", "changes", "words"),
        [
            ((1e-6, 1e-3), {}, "still falling, so the suggestion may be too low: raise max_lr"),
            ((1e-6, 10.0), {"depth": 0.2, "noise": 0.06}, "times the noise, so the suggestion is"),
        ],
    )
    def test_with_a_doubtful_rate_the_verdict_says_so(self, ramp, changes, words):
        test = RangeTest(*ramp, num_steps=100)
        curve = read_curve(test, fall(test, at=1e-3, **changes))
        assert curve.suggestions["centre"] is not None
        assert words in curve.verdict

    def test_a_ramp_that_was_cut_short_says_so(self):
        test = RangeTest(1e-6, 10.0, num_steps=100)
        curve = read_curve(test, fall(test, at=1e-3)[:50])
        assert "ended 51 steps before the ramp" in curve.verdict

    @given(st.lists(st.floats(0.0, 1.0), min_size=101, max_size=101), st.floats(1e-3, 1e3))
    def test_the_unit_of_the_loss_plays_no_part(self, noise, unit):
        test = RangeTest(1e-6, 10.0, num_steps=100)
        losses = [a + 0.2 * b for a, b in zip(fall(test, at=1e-3), noise, strict=True)]
        plain, scaled = (
            read_curve(test, losses),
            read_curve(test, [unit * loss for loss in losses]),
        )
        assert scaled.suggestions["centre"] == plain.suggestions["centre"]

    @given(st.lists(st.floats(-1e6, 1e6), max_size=101), st.booleans(), st.sampled_from(
        ["exponential", "linear"]))  # fmt: skip
    def test_any_losses_give_a_verdict_and_rates_inside_the_ramp(self, losses, diverged, shape):
        curve = read_curve(RangeTest(1e-6, 10.0, num_steps=100, shape=shape), losses, diverged)
        assert curve.verdict
        assert len(curve.learning_rates) == len(curve.losses) == len(curve.smoothed)
        assert curve.suggestions.keys() == Curve().suggestions.keys()
        for name, rate in curve.suggestions.items():
            assert rate is None or 1e-7 <= rate <= 10.0, name

    def test_noise_alone_seldom_gives_a_rate(self):
        found = 0
        for seed in range(200):
            draw = random.Random(seed)
            losses = [2.0 + draw.gauss(0.0, 0.2) for _ in range(101)]
            found += (
                read_curve(RangeTest(1e-6, 10.0, 100), losses).suggestions["centre"] is not None
            )
        assert found < 10
