import ast
import dataclasses
import doctest
import math
import pickle
import re
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptlr import schedules
from adaptlr.schedules import (
    ByEpoch,
    Clipped,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclical,
    CyclicalMomentum,
    Exponential,
    InverseSquareRoot,
    InverseTime,
    Joined,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    Polynomial,
    Scaled,
    StepDecay,
    Warmup,
    WarmupStableDecay,
)


def rates(schedule, steps):
    steps = range(steps) if isinstance(steps, int) else steps
    return pytest.approx([schedule(step) for step in steps], rel=1e-12, abs=1e-15)


# Traces


def test_constant_never_moves():
    assert rates(Constant(0.1), (0, 1, 10**9)) == [0.1, 0.1, 0.1]


def test_step_decay_cuts_at_each_multiple():
    assert rates(StepDecay(8, 2, gamma=0.5), 6) == [8, 8, 4, 4, 2, 2]


def test_a_milestone_is_the_first_step_of_the_new_rate():
    assert rates(MultiStep(8, (1, 3), gamma=0.5), 5) == [8, 4, 4, 2, 2]
    assert rates(MultiStep(8, ()), 3) == [8, 8, 8]


def test_a_boundary_is_the_last_step_of_the_old_value():
    assert rates(Piecewise((1, 3), (8, 4, 2)), 6) == [8, 8, 4, 4, 2, 2]


def test_factors_above_one_let_the_rate_grow():
    assert rates(StepDecay(1, 2, gamma=2), 6) == [1, 1, 2, 2, 4, 4]
    assert rates(MultiStep(1, (1, 3), gamma=2), 5) == [1, 2, 2, 4, 4]
    assert rates(Exponential(1, 2, 4), 5) == [1, 2, 4, 8, 16]
    assert rates(CosineRestarts(2, 2, t_mul=1, m_mul=2), 6) == [2, 1, 4, 2, 8, 4]


@pytest.mark.parametrize(
    "schedule", [StepDecay(8, 1, 2), Exponential(8, 1, 2), CosineRestarts(8, 1, 1, 2)]
)
def test_growth_ends_at_the_largest_number_of_single_precision(schedule):
    assert schedule(120) == 2.0**123
    assert [schedule(step) for step in (126, 10**6)] == [LARGEST, LARGEST]


def test_repeated_and_zero_boundaries():
    assert rates(MultiStep(8, (0, 2, 2), gamma=0.5), 4) == [4, 4, 1, 1]
    assert rates(Piecewise((0, 2, 2), (8, 4, 2, 1)), 5) == [8, 4, 4, 1, 1]
    assert rates(Joined((Constant(8), Linear(4, 2), Constant(1)), (0, 0)), 3) == [1, 1, 1]


def test_a_factor_for_each_milestone():
    assert rates(MultiStep(8, (1, 3, 4), gamma=(0.5, 2, 0.25)), 6) == [8, 4, 4, 8, 2, 2]
    assert repr(MultiStep(8, [1], gamma=[2])) == (
        "MultiStep(initial_learning_rate=8.0, milestones=(1,), gamma=(2.0,))"
    )


def test_exponential_in_a_curve_and_in_steps():
    assert rates(Exponential(8, 2, 0.25), 5) == [8, 4, 2, 1, 0.5]
    assert rates(Exponential(8, 2, 0.25, staircase=True), 5) == [8, 8, 2, 2, 0.5]


def test_inverse_time_in_a_curve_and_in_steps():
    assert rates(InverseTime(12, 2, 2), 5) == [12, 6, 4, 3, 2.4]
    assert rates(InverseTime(12, 2, 2, staircase=True), 5) == [12, 12, 4, 4, 2.4]


def test_polynomial_lands_and_stays():
    assert rates(Polynomial(18, 4, 2, power=2), 6) == [18, 11, 6, 3, 2, 2]


def test_polynomial_in_cycles_doubles_its_length():
    assert rates(Polynomial(8, 2, 0, cycle=True), 6) == [8, 4, 0, 2, 0, 8 / 6]


def test_linear_goes_down_and_up():
    assert rates(Linear(8, 4), 6) == [8, 6, 4, 2, 0, 0]
    assert rates(Linear(0, 4, 8), 6) == [0, 2, 4, 6, 8, 8]


def test_cosine_is_half_way_at_half_time_and_ends_at_alpha():
    assert rates(Cosine(8, 4, alpha=0.25), (0, 2, 4, 5)) == [8, 5, 2, 2]


def test_cosine_rises_to_a_final_rate_above_the_first():
    assert rates(Cosine(2, 4, alpha=4), (0, 2, 4, 5)) == [2, 5, 8, 8]


def test_cosine_restarts_grow_longer_and_lower():
    schedule = CosineRestarts(8, 2, t_mul=2, m_mul=0.5)
    assert rates(schedule, (0, 1, 2, 4, 6, 10, 14)) == [8, 4, 4, 2, 2, 1, 1]


def test_cosine_restarts_of_equal_length():
    assert rates(CosineRestarts(8, 2, t_mul=1), 6) == [8, 4, 8, 4, 8, 4]


@pytest.mark.parametrize("t_mul", [2, 3, 7])
def test_cosine_restarts_hit_every_restart(t_mul):
    schedule, start, length = CosineRestarts(1, 10, t_mul=t_mul, m_mul=0.5), 0, 10
    for restarts in range(12):
        just_before = 0.5**restarts * (1 + math.cos(math.pi * (1 - 1 / length))) / 2
        assert rates(schedule, (start, start + length - 1)) == [0.5**restarts, just_before]
        start, length = start + length, length * t_mul


def test_cyclical_triangles():
    assert rates(Cyclical(2, 6, 2), 9) == [2, 4, 6, 4, 2, 4, 6, 4, 2]


def test_cyclical_triangles_halved():
    assert rates(Cyclical(2, 6, 2, "triangular2"), 9) == [2, 4, 6, 4, 2, 3, 4, 3, 2]


def test_cyclical_triangles_under_an_exponential():
    schedule = Cyclical(2, 6, 2, "exp_range", gamma=0.5)
    assert rates(schedule, 7) == [2, 2 + 2 / 2, 2 + 4 / 4, 2 + 2 / 8, 2, 2 + 2 / 32, 2 + 4 / 64]


def test_cyclical_triangles_by_a_function_of_the_step():
    halved = Cyclical(2, 6, 2, lambda step: 0.5 ** (step // 4))
    assert rates(halved, 9) == [2, 4, 6, 4, 2, 3, 4, 3, 2]
    assert rates(Cyclical(2, 6, 2, Exponential(1, 1, 0.5)), 4) == [2, 3, 3, 2.25]


def test_cyclical_triangles_that_fall_otherwise_than_they_climb():
    assert rates(Cyclical(2, 6, 1, step_size_down=4), 7) == [2, 6, 5, 4, 3, 2, 6]
    halved = Cyclical(2, 6, 2, "triangular2", step_size_down=1)
    assert rates(halved, 7) == [2, 4, 6, 2, 3, 4, 2]


def test_cyclical_triangles_from_the_top():
    assert rates(Cyclical(2, 6, 2, start_at_top=True), 7) == [6, 4, 2, 4, 6, 4, 2]
    halved = Cyclical(2, 6, 1, "triangular2", step_size_down=2, start_at_top=True)
    assert rates(halved, 7) == [6, 4, 2, 4, 3, 2, 3]


def test_one_cycle_in_three_phases():
    schedule = OneCycle(
        8, 11, 3 / 11, div_factor=4, final_div_factor=2, anneal="linear", three_phase=True
    )
    assert rates(schedule, (0, 1, 2, 3, 4, 7, 10, 99)) == [2, 5, 8, 5, 2, 1.5, 1, 1]
    momentum = CyclicalMomentum(schedule, 0.5, 0.9)
    assert rates(momentum, (0, 1, 2, 3, 4, 7, 10)) == [0.9, 0.7, 0.5, 0.7, 0.9, 0.9, 0.9]


def test_three_phases_leave_room_for_two_climbs():
    message = "OneCycle(pct_start=...) must be at most 0.5 with three_phase=True"
    with pytest.raises(ValueError, match=re.escape(message)):
        OneCycle(8, 10, 0.51, three_phase=True)


def test_momentum_stays_in_its_bounds_under_any_function():
    cycle = Cyclical(2, 6, 2, lambda step: 3 - 2 * step)
    assert rates(CyclicalMomentum(cycle, 0.5, 0.9), (0, 1, 2)) == [0.9, 0.7, 0.9]


def test_one_cycle_climbs_falls_and_stays():
    schedule = OneCycle(8, 10, 0.5, div_factor=4, final_div_factor=2, anneal="linear")
    assert rates(schedule, (0, 2, 4, 9, 10, 99)) == [2, 5, 8, 1, 1, 1]


def test_one_cycle_in_cosines_is_half_way_at_half_time():
    schedule = OneCycle(8, 11, 5 / 11, div_factor=4, final_div_factor=2)
    assert rates(schedule, (0, 2, 4, 7, 10, 11)) == [2, 5, 8, 4.5, 1, 1]


@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_one_cycle_of_a_very_short_run_ends_at_its_end(total_steps):
    schedule = OneCycle(8, total_steps, div_factor=4, final_div_factor=2)
    assert rates(schedule, (total_steps - 1, total_steps)) == [1, 1]


def test_momentum_mirrors_the_cycle_and_not_its_ends():
    cyclical = CyclicalMomentum(Cyclical(2, 6, 2, "triangular2"), 0.5, 0.9)
    one_cycle = CyclicalMomentum(OneCycle(8, 10, 0.5, anneal="linear"), 0.5, 0.9)
    assert rates(cyclical, 8) == [0.9, 0.7, 0.5, 0.7, 0.9, 0.8, 0.7, 0.8]
    assert rates(one_cycle, (0, 2, 4, 9, 10)) == [0.9, 0.7, 0.5, 0.9, 0.9]


@pytest.mark.parametrize(
    ("shape", "decay"),
    [
        ("linear", [8, 6.5, 5, 3.5, 2, 2]),
        ("1-sqrt", [8, 5, 8 - 6 * 0.5**0.5, 8 - 6 * 0.75**0.5, 2, 2]),
        ("cosine", [8, 8 - 3 * (1 - 0.5**0.5), 5, 8 - 3 * (1 + 0.5**0.5), 2, 2]),
    ],
)
def test_warmup_stable_decay(shape, decay):
    schedule = WarmupStableDecay(8, 2, 3, 4, shape, end_learning_rate=2)
    assert rates(schedule, 11) == [0, 4, 8, 8, 8, *decay]


def test_warmup_stable_decay_without_its_first_phases():
    assert rates(WarmupStableDecay(8, 0, 0, 4, "linear"), 6) == [8, 6, 4, 2, 0, 0]


def test_inverse_square_root_peaks_after_the_warm_up():
    assert rates(InverseSquareRoot(8, 4), (0, 1, 4, 16, 64)) == [0, 2, 8, 4, 2]


def test_inverse_square_root_is_that_of_the_transformer():
    model_size, warmup_steps = 512, 4000
    schedule = InverseSquareRoot((model_size * warmup_steps) ** -0.5, warmup_steps)
    steps = (1, 10, 3999, 4000, 4001, 100_000)
    assert rates(schedule, steps) == [
        model_size**-0.5 * min(step**-0.5, step * warmup_steps**-1.5) for step in steps
    ]


def test_warmup_then_the_schedule_from_its_own_start():
    assert rates(Warmup(Linear(8, 4), 2), 8) == [0, 4, 8, 6, 4, 2, 0, 0]
    assert rates(Warmup(Linear(8, 4), 3, 2), 5) == [2, 4, 6, 8, 6]


def test_exponential_warmup_multiplies():
    assert rates(Warmup(Constant(8), 3, 1, "exponential"), 5) == [1, 2, 4, 8, 8]
    assert rates(Warmup(Constant(0), 2, 1, "exponential"), 4) == [1, 0, 0, 0]


def test_warmups_of_other_shapes():
    half = 0.5**0.5
    assert rates(Warmup(Constant(8), 4, 2, "cosine"), 5) == [
        2,
        5 - 3 * half,
        5,
        5 + 3 * half,
        8,
    ]
    assert rates(Warmup(Constant(8), 4, 2, "1-sqrt"), 5) == [
        2,
        8 - 6 * 0.75**0.5,
        8 - 6 * half,
        5,
        8,
    ]


def test_no_warmup_is_the_schedule():
    assert rates(Warmup(Linear(8, 4), 0), 6) == [8, 6, 4, 2, 0, 0]


def test_joined_schedules_start_at_their_own_step_0():
    schedule = Joined([Linear(8, 4), Constant(1), Linear(0, 2, 6)], [2, 4])
    assert rates(schedule, 8) == [8, 6, 1, 1, 0, 3, 6, 6]


def test_scaled_multiplies():
    assert rates(Scaled(Linear(8, 4), 0.5), 6) == [4, 3, 2, 1, 0, 0]


def test_scaled_by_a_schedule_is_a_product():
    assert rates(Scaled(Linear(8, 4), StepDecay(1, 2, 0.5)), 6) == [8, 6, 2, 1, 0, 0]


def test_clipped_to_its_bounds():
    assert rates(Clipped(Linear(8, 4), 1), 6) == [8, 6, 4, 2, 1, 1]
    assert rates(Clipped(Linear(8, 4), 1, 5), 6) == [5, 5, 4, 2, 1, 1]


def test_by_epoch_asks_once_for_each_epoch_in_order():
    asked = []

    def halve(epoch, rate):
        asked.append((epoch, rate))
        return rate / 2

    schedule = ByEpoch(halve, 8, steps_per_epoch=3)
    assert rates(schedule, (7, 0, 3, 8.5)) == [1, 4, 2, 1]
    assert asked == [(0, 8), (1, 4), (2, 2)]
    assert rates(ByEpoch(lambda epoch, rate: rate * epoch if epoch else rate, 2, 1), 4) == [
        2,
        2,
        4,
        12,
    ]


def test_any_callable_is_a_schedule():
    def squares(step):
        return step**2

    assert rates(Scaled(squares, 2), 4) == [0, 2, 8, 18]
    assert rates(Warmup(lambda step: 6 + step, 2), 5) == [0, 3, 6, 7, 8]
    assert rates(Joined((squares, squares), (3,)), 6) == [0, 1, 4, 0, 1, 4]


# Properties

numbers = st.floats(1e-6, 1e3)
fractions = st.floats(0, 1)
factors = st.floats(1e-3, 1)
LARGEST = float(np.finfo("float32").max)
counts = st.integers(1, 10**4)
steps = st.integers(0, 10**4) | st.integers(0, 10**9) | st.floats(0, 1e9)
bounds = st.tuples(numbers, numbers).map(sorted)
boundaries = st.lists(st.integers(0, 10**4), max_size=4).map(sorted).map(tuple)


@st.composite
def bounded_schedules(draw):
    """A schedule with the lowest and the highest rate that it may give."""
    low, high = draw(bounds)
    count, other = draw(counts), draw(st.integers(0, 10**4))
    factor, fraction, flag = draw(factors), draw(fractions), draw(st.booleans())
    cuts = draw(boundaries)
    return draw(
        st.sampled_from(
            [
                (Constant(high), high, high),
                (StepDecay(high, count, factor), 0, high),
                (StepDecay(high, count, 1 + low), high, LARGEST),
                (MultiStep(high, cuts, factor), 0, high),
                (MultiStep(low, cuts, (1 + factor, *[factor] * 4)[: len(cuts)]), 0, 2 * low),
                (Piecewise(cuts, [low, high, low, high, low][: len(cuts) + 1]), low, high),
                (Exponential(high, count, factor, flag), 0, high),
                (Exponential(high, count, 1 + high, flag), high, LARGEST),
                (InverseTime(high, count, low, flag), 0, high),
                (Polynomial(high, count, low, factor * 3, flag), low, high),
                (Linear(low, count, high), low, high),
                (Cosine(high, count, fraction), fraction * high, high),
                (Cosine(low, count, 1 + fraction), low, (1 + fraction) * low),
                (CosineRestarts(high, count, 1, 1 + factor, fraction), 0, LARGEST),
                (
                    CosineRestarts(high, count, 1 + 9 * fraction, factor, fraction),
                    fraction * high,
                    high,
                ),
                (CosineRestarts(high, count, 1 + 1e-12 * fraction, factor), 0, high),
                (Cyclical(low, high, count), low, high),
                (Cyclical(low, high, count, "triangular2"), low, high),
                (Cyclical(low, high, count, "exp_range", factor), low, high),
                (Cyclical(low, high, count, Constant(factor), 1, other + 1, flag), low, high),
                (OneCycle(high, count, min(factor, 0.99), 1 + low), 0, high),
                (OneCycle(high, count, anneal="linear"), 0, high),
                (OneCycle(high, count, factor / 2, three_phase=True), 0, high),
                (WarmupStableDecay(high, other, count, count, "1-sqrt", low), 0, high),
                (WarmupStableDecay(high, other, count, count, "cosine", low), 0, high),
                (InverseSquareRoot(high, count), 0, high),
                (Warmup(Cosine(high, count), other, low), 0, high),
                (Warmup(Linear(high, count), other, low, "cosine"), 0, high),
                (Warmup(Linear(high, count), other, low, "1-sqrt"), 0, high),
                (Warmup(Linear(high, count), other, low, "exponential"), 0, high),
                (Joined([Constant(low), Linear(high, count)], [count]), 0, high),
                (Scaled(Linear(high, count), factor), 0, high * factor),
                (Scaled(Linear(high, count), Cosine(factor, other + 1)), 0, high * factor),
                (Clipped(Linear(high * 2, count), low), low, high * 2),
                (Clipped(Linear(high * 2, count), low, high), low, high),
                (CyclicalMomentum(Cyclical(low, high, count), 0.8, 0.9), 0.8, 0.9),
                (CyclicalMomentum(OneCycle(high, count), 0.8, 0.9), 0.8, 0.9),
            ]
        )
    )


@given(bounded_schedules(), steps)
def test_every_step_has_a_finite_rate_within_the_bounds(bounded, step):
    schedule, low, high = bounded
    rate = schedule(step)
    assert type(rate) is float
    assert low * (1 - 1e-12) <= rate <= high * (1 + 1e-12)


@given(bounded_schedules(), st.integers(0, 10**6))
def test_a_rate_stays_from_the_last_change_on(bounded, later):
    schedule, _, _ = bounded
    rest = getattr(schedule, "last_change", None)
    if rest is not None:
        assert type(rest) is int
        assert schedule(rest + later) == schedule(rest)


@pytest.mark.parametrize(
    ("schedule", "rest"),
    [
        (Constant(1), 0),
        (MultiStep(8, (3, 7)), 7),
        (MultiStep(8, ()), 0),
        (Piecewise((3, 7), (8, 4, 2)), 8),
        (Polynomial(8, 4), 4),
        (Polynomial(8, 4, cycle=True), None),
        (Linear(8, 4), 4),
        (Cosine(8, 4), 4),
        (OneCycle(8, 10), 9),
        (OneCycle(8, 10, three_phase=True), 9),
        (WarmupStableDecay(8, 2, 3, 4), 9),
        (Warmup(Cosine(8, 4), 3), 7),
        (Warmup(lambda step: 1.0, 3), None),
        (Joined((StepDecay(8, 2), Cosine(8, 4)), (5,)), 9),
        (Joined((Cosine(8, 4),), ()), 4),
        (Joined((Cosine(8, 4), StepDecay(8, 2)), (5,)), None),
        (Scaled(Cosine(8, 4), 2), 4),
        (Scaled(Cosine(8, 4, 0.5), Linear(1, 6)), 6),
        (Scaled(Cosine(8, 4), StepDecay(1, 6)), None),
        (Clipped(Cosine(8, 4), 1), 4),
    ],
)
def test_the_last_change_is_known_where_there_is_one(schedule, rest):
    assert schedule.last_change == rest
    if rest:
        assert schedule(rest - 1) != schedule(rest)


@given(bounded_schedules())
def test_a_schedule_prints_as_the_call_that_builds_it(bounded):
    schedule, _, _ = bounded
    assert ast.parse(repr(schedule), mode="eval").body.func.id == type(schedule).__name__
    assert eval(repr(schedule), vars(schedules)) == schedule


@given(bounded_schedules())
def test_equal_arguments_make_equal_schedules(bounded):
    schedule, _, _ = bounded
    copy = dataclasses.replace(schedule)
    assert copy is not schedule
    assert (copy, hash(copy)) == (schedule, hash(schedule))
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert Scaled(schedule, 2) != Scaled(schedule, 3)


@given(bounds, counts, steps)
def test_a_height_lies_between_0_and_1(pair, count, step):
    low, high = pair
    assert 0 <= Cyclical(low, high, count, "triangular2").height(step) <= 1
    assert 0 <= OneCycle(high, count).height(step) <= 1


@given(numbers, counts, st.floats(1, 10), st.integers(0, 10**4))
def test_cosine_restarts_agree_with_a_walk(rate, first, t_mul, step):
    start, length, restarts = Fraction(0), Fraction(first), 0
    while step >= start + length:
        start, length, restarts = start + length, length * Fraction(t_mul), restarts + 1
    expected = rate * 0.5**restarts * (1 + math.cos(math.pi * (step - start) / length)) / 2
    assert CosineRestarts(rate, first, t_mul, 0.5)(step) == pytest.approx(expected, 1e-6, 1e-9)


@pytest.mark.parametrize("more", [2.0**-52, 1e-12, 1e-7])
def test_cosine_restarts_that_hardly_grow_agree_with_those_that_do_not(more):
    growing, plain = CosineRestarts(1.0, 3, 1.0 + more, 0.5), CosineRestarts(1.0, 3, 1.0, 0.5)
    for step in range(60):
        if step % 3:  # at a restart the one is still before it, and the other is not
            assert growing(step) == pytest.approx(plain(step), rel=1e-2)


def test_schedules_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Constant(0.1).learning_rate = 0.2


def test_integers_are_stored_as_floats_and_lists_as_tuples():
    assert repr(Linear(1, 10)) == (
        "Linear(initial_learning_rate=1.0, decay_steps=10, end_learning_rate=0.0)"
    )
    assert repr(Piecewise([5], [1, 0])) == "Piecewise(boundaries=(5,), values=(1.0, 0.0))"
    assert Piecewise([5], iter([1, 0])) == Piecewise((5,), (1.0, 0.0))


# Refusals

NAN, INFINITY = math.nan, math.inf
RATES = (-0.1, NAN, INFINITY, -INFINITY, "0.1", None, True, [0.1])
POSITIVE, FRACTIONS, CUTS = (0.0, *RATES), (1.1, *RATES), (0.0, 1.1, *RATES)
COUNTS_FROM_0 = (-1, 1.5, 2.5, "2", None, True, NAN, INFINITY)
COUNTS = (0, *COUNTS_FROM_0)
CALLABLES, FLAGS, WORDS = (0.1, "cosine", None), (0, 1, "yes", None), ("cubic", None, 1)
STEPS = ((-1, 1), (2, 1), (1.5, 2), (True, 2), ("1", "2"), 3, None)

REFUSED = {
    Constant(0.1): {"learning_rate": RATES},
    StepDecay(0.1, 2): {"initial_learning_rate": POSITIVE, "step_size": COUNTS, "gamma": POSITIVE},
    MultiStep(0.1, (1, 2)): {
        "initial_learning_rate": POSITIVE,
        "milestones": STEPS,
        "gamma": (0.0, *RATES[:-1], (0.1,), (0.1, 0.0), (0.1, "0.1"), (0.1, 0.2, 0.3)),
    },
    Piecewise((1, 2), (1, 2, 3)): {
        "boundaries": STEPS,
        "values": ((1.0,), *((1.0, 2.0, value) for value in (-0.1, NAN, INFINITY, "3", True)), 1),
    },
    Exponential(0.1, 2, 0.5): {
        "initial_learning_rate": POSITIVE,
        "decay_steps": COUNTS,
        "decay_rate": POSITIVE,
        "staircase": FLAGS,
    },
    InverseTime(0.1, 2, 0.5): {
        "initial_learning_rate": POSITIVE,
        "decay_steps": COUNTS,
        "decay_rate": POSITIVE,
        "staircase": FLAGS,
    },
    Polynomial(0.1, 2): {
        "initial_learning_rate": RATES,
        "decay_steps": COUNTS,
        "end_learning_rate": RATES,
        "power": POSITIVE,
        "cycle": FLAGS,
    },
    Linear(0.1, 2): {
        "initial_learning_rate": RATES,
        "decay_steps": COUNTS,
        "end_learning_rate": RATES,
    },
    Cosine(0.1, 2): {
        "initial_learning_rate": POSITIVE,
        "decay_steps": COUNTS,
        "alpha": RATES,
    },
    CosineRestarts(0.1, 2): {
        "initial_learning_rate": POSITIVE,
        "first_decay_steps": COUNTS,
        "t_mul": (0.9, *POSITIVE),
        "m_mul": POSITIVE,
        "alpha": FRACTIONS,
    },
    Cyclical(0.1, 0.2, 2): {
        "base_lr": (0.3, *RATES),
        "max_lr": POSITIVE,
        "step_size": COUNTS,
        "mode": WORDS,
        "gamma": CUTS,
        "step_size_down": tuple(count for count in COUNTS if count is not None),
        "start_at_top": FLAGS,
    },
    OneCycle(0.1, 10): {
        "max_lr": POSITIVE,
        "total_steps": COUNTS,
        "pct_start": (1.0, *POSITIVE),
        "div_factor": (0.9, *POSITIVE),
        "final_div_factor": (0.9, *POSITIVE),
        "anneal": WORDS,
        "three_phase": FLAGS,
    },
    CyclicalMomentum(OneCycle(0.1, 10)): {
        "cycle": (Constant(0.1), *CALLABLES),
        "base_momentum": (0.96, *FRACTIONS),
        "max_momentum": (1.0, *FRACTIONS),
    },
    WarmupStableDecay(0.1, 2, 2, 2): {
        "max_lr": POSITIVE,
        "warmup_steps": COUNTS_FROM_0,
        "stable_steps": COUNTS_FROM_0,
        "decay_steps": COUNTS,
        "shape": WORDS,
        "end_learning_rate": (0.2, *RATES),
    },
    InverseSquareRoot(0.1, 2): {"max_lr": POSITIVE, "warmup_steps": COUNTS},
    Warmup(Constant(0.1), 2): {
        "schedule": CALLABLES,
        "warmup_steps": COUNTS_FROM_0,
        "start": RATES,
        "shape": WORDS,
    },
    Warmup(Constant(0.1), 2, 0.1, "exponential"): {"start": POSITIVE},
    Joined((Constant(0.1), Constant(0.2)), (1,)): {
        "schedules": ((Constant(0.1),), (Constant(0.1), 0.2), Constant(0.1)),
        "boundaries": STEPS,
    },
    Scaled(Constant(0.1), 2): {"schedule": CALLABLES, "factor": POSITIVE},
    Clipped(Constant(0.1), 0.1, 0.2): {
        "schedule": CALLABLES,
        "minimum": (0.3, *RATES),
        "maximum": tuple(rate for rate in RATES if rate is not None),
    },
    ByEpoch(max, 0.1, 2): {
        "function": CALLABLES,
        "initial_learning_rate": RATES,
        "steps_per_epoch": COUNTS,
    },
}


@pytest.mark.parametrize(
    ("good", "name", "bad"),
    [
        (good, name, bad)
        for good, refused in REFUSED.items()
        for name, values in refused.items()
        for bad in values
    ],
    ids=lambda value: type(value).__name__ if dataclasses.is_dataclass(value) else str(value),
)
def test_a_bad_argument_is_refused_by_name(good, name, bad):
    with pytest.raises((TypeError, ValueError)) as refusal:
        dataclasses.replace(good, **{name: bad})
    assert str(refusal.value).startswith(f"{type(good).__name__}({name}=...) must be ")
    assert str(refusal.value).endswith(f". Received: {name}={bad!r}")


def test_every_argument_is_in_the_table_of_refusals():
    for good, refused in REFUSED.items():
        arguments = {field.name for field in dataclasses.fields(good)}
        assert set(refused) == arguments or isinstance(good, Warmup)
    assert {type(good).__name__ for good in REFUSED} == set(schedules.__all__) - {"Schedule"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Cosine(0.1, 0),
            "Cosine(decay_steps=...) must be an integer of at least 1. Received: decay_steps=0",
        ),
        (
            lambda: Cyclical(0.1, 0.2, 2, "square"),
            "Cyclical(mode=...) must be one of 'triangular', 'triangular2', 'exp_range'. "
            "Received: mode='square'",
        ),
        (
            lambda: Cyclical(0.2, 0.1, 2),
            "Cyclical(base_lr=...) must be at most max_lr=0.1. Received: base_lr=0.2",
        ),
        (
            lambda: Piecewise([1, 2], [1, 2]),
            "Piecewise(values=...) must be one longer than boundaries=(1, 2). "
            "Received: values=(1.0, 2.0)",
        ),
        (
            lambda: MultiStep(0.1, [2, 1]),
            "MultiStep(milestones=...) must be in order. Received: milestones=(2, 1)",
        ),
    ],
)
def test_a_refusal_says_the_rule(build, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build()


def test_a_subclass_with_types_of_its_own_is_checked_all_the_same():
    class Own:
        pass

    @dataclasses.dataclass(frozen=True)
    class Noted(Cosine):
        note: Own | None = None

    assert Noted(0.1, 4, note=Own())(2) == Cosine(0.1, 4)(2)
    with pytest.raises(ValueError, match=r"^Noted\(decay_steps="):
        Noted(0.1, 0)


# The module


def test_every_public_name_is_listed_and_has_an_example():
    assert schedules.__all__ == sorted(
        name for name, value in vars(schedules).items() if isinstance(value, type)
    )
    assert all(">>> " in getattr(schedules, name).__doc__ for name in schedules.__all__)


def test_examples_in_the_docstrings_run():
    modules = {sys.modules[getattr(schedules, name).__module__] for name in schedules.__all__}
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= len(schedules.__all__)


@pytest.mark.parametrize("schedule", list(REFUSED), ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("kind", [np.uint64, np.uint8, np.int8, np.float32])
def test_a_step_of_numpy_is_a_step(schedule, kind):
    """An unsigned one would wrap below 0 where a phase is subtracted, a narrow one above 255."""
    for step in (0, 1, 15, 100):
        assert schedule(kind(step)) == schedule(step)
        assert type(schedule(kind(step))) is float


def test_an_unsigned_step_in_a_phase_before_the_last():
    assert WarmupStableDecay(0.1, 10, 10, 10)(np.uint64(15)) == 0.1
