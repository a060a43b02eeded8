import math

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.optimizers import schedules as keras_schedules

from adaptlr.schedules import (
    Cosine,
    CosineRestarts,
    Cyclical,
    CyclicalMomentum,
    Exponential,
    InverseTime,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    Polynomial,
    StepDecay,
    Warmup,
)


def trace(schedule, steps):
    return [float(schedule(step)) for step in range(steps)]


# Keras, in float32


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Exponential(0.1, 7, 0.5), keras_schedules.ExponentialDecay(0.1, 7, 0.5)),
        (Exponential(0.1, 7, 0.5, True), keras_schedules.ExponentialDecay(0.1, 7, 0.5, True)),
        (
            Piecewise((5, 20), (0.1, 0.5, 0.01)),
            keras_schedules.PiecewiseConstantDecay([5, 20], [0.1, 0.5, 0.01]),
        ),
        (Polynomial(0.1, 20), keras_schedules.PolynomialDecay(0.1, 20)),
        (
            Polynomial(0.1, 20, 0.01, power=2.5),
            keras_schedules.PolynomialDecay(0.1, 20, 0.01, power=2.5),
        ),
        (
            Polynomial(0.1, 8, 0.01, power=0.5, cycle=True),
            keras_schedules.PolynomialDecay(0.1, 8, 0.01, power=0.5, cycle=True),
        ),
        (InverseTime(0.1, 7, 0.5), keras_schedules.InverseTimeDecay(0.1, 7, 0.5)),
        (InverseTime(0.1, 7, 0.5, True), keras_schedules.InverseTimeDecay(0.1, 7, 0.5, True)),
        (Cosine(0.1, 30), keras_schedules.CosineDecay(0.1, 30)),
        (Cosine(0.1, 30, 0.2), keras_schedules.CosineDecay(0.1, 30, 0.2)),
        (
            Warmup(Cosine(0.1, 20, 0.2), 10, 0.02),
            keras_schedules.CosineDecay(0.02, 20, 0.2, warmup_target=0.1, warmup_steps=10),
        ),
        (
            Warmup(Cosine(0.1, 20), 10),
            keras_schedules.CosineDecay(0.0, 20, warmup_target=0.1, warmup_steps=10),
        ),
        (CosineRestarts(0.1, 4), keras_schedules.CosineDecayRestarts(0.1, 4)),
        (
            CosineRestarts(0.1, 7, t_mul=1.0, m_mul=0.8, alpha=0.1),
            keras_schedules.CosineDecayRestarts(0.1, 7, t_mul=1.0, m_mul=0.8, alpha=0.1),
        ),
        (
            CosineRestarts(0.1, 7, t_mul=1.7, m_mul=0.8, alpha=0.1),
            keras_schedules.CosineDecayRestarts(0.1, 7, t_mul=1.7, m_mul=0.8, alpha=0.1),
        ),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_schedule_is_that_of_keras(ours, theirs):
    assert trace(ours, 50) == pytest.approx(trace(theirs, 50), rel=1e-5, abs=1e-7)


def test_keras_takes_a_rate_from_a_schedule_as_it_is():
    optimizer = keras.optimizers.SGD()
    optimizer.learning_rate = Cosine(0.5, 4)(2)
    assert float(optimizer.learning_rate) == pytest.approx(0.25)


# PyTorch, in float64


def torch_trace(name, steps, learning_rate=1.0, momentum=False, **arguments):
    """Rates, or momenta, of a scheduler of PyTorch on an optimizer without work."""
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=learning_rate, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    values = []
    for _ in range(steps):
        values.append(float(optimizer.param_groups[0]["momentum" if momentum else "lr"]))
        optimizer.step()
        scheduler.step()
    return values


def same(values):
    return pytest.approx(values, rel=1e-9, abs=1e-12)


few = settings(max_examples=25)
rates = st.floats(1e-5, 10.0)
factors = st.floats(0.05, 1.0)
growths = st.floats(0.05, 1.5)
counts = st.integers(1, 15)


@few
@given(rates, counts, growths)
def test_step_decay_is_step_lr(rate, step_size, gamma):
    theirs = torch_trace("StepLR", 30, rate, step_size=step_size, gamma=gamma)
    assert trace(StepDecay(rate, step_size, gamma), 30) == same(theirs)


@few
@given(rates, st.lists(st.integers(0, 15), max_size=4).map(sorted), growths)
def test_multi_step_is_multi_step_lr(rate, milestones, gamma):
    theirs = torch_trace("MultiStepLR", 20, rate, milestones=milestones, gamma=gamma)
    assert trace(MultiStep(rate, milestones, gamma), 20) == same(theirs)


@few
@given(rates, growths)
def test_exponential_is_exponential_lr(rate, gamma):
    theirs = torch_trace("ExponentialLR", 20, rate, gamma=gamma)
    assert trace(Exponential(rate, 1, gamma), 20) == same(theirs)


@few
@given(rates, factors, factors, counts)
def test_linear_is_linear_lr(rate, first, last, steps):
    theirs = torch_trace(
        "LinearLR", 20, rate, start_factor=first, end_factor=last, total_iters=steps
    )
    assert trace(Linear(first * rate, steps, last * rate), 20) == same(theirs)


@few
@given(rates, counts, st.floats(0.5, 3.0))
def test_polynomial_is_polynomial_lr(rate, steps, power):
    theirs = torch_trace("PolynomialLR", 20, rate, total_iters=steps, power=power)
    assert trace(Polynomial(rate, steps, 0.0, power), 20) == same(theirs)


@few
@given(rates, counts, st.floats(0.0, 3.0))
def test_cosine_is_cosine_annealing_lr_up_to_its_end(rate, steps, alpha):
    theirs = torch_trace("CosineAnnealingLR", steps + 1, rate, T_max=steps, eta_min=alpha * rate)
    assert trace(Cosine(rate, steps, alpha), steps + 1) == same(theirs)


@few
@given(rates, counts, st.integers(1, 3), factors)
def test_cosine_restarts_are_warm_restarts(rate, first, t_mul, alpha):
    theirs = torch_trace(
        "CosineAnnealingWarmRestarts", 60, rate, T_0=first, T_mult=t_mul, eta_min=alpha * rate
    )
    assert trace(CosineRestarts(rate, first, t_mul, alpha=alpha), 60) == same(theirs)


@few
@given(
    st.tuples(rates, rates).map(sorted),
    counts,
    st.none() | counts,
    st.sampled_from(["triangular", "triangular2", "exp_range"]),
    factors,
    st.booleans(),
)
def test_cyclical_is_cyclic_lr(bounds, step_size, down, mode, gamma, momentum):
    base_lr, max_lr = bounds
    theirs = torch_trace(
        "CyclicLR",
        70,
        momentum=momentum,
        base_lr=base_lr,
        max_lr=max_lr,
        step_size_up=step_size,
        step_size_down=down,
        mode=mode,
        gamma=gamma,
        base_momentum=0.8,
        max_momentum=0.9,
    )
    ours = Cyclical(base_lr, max_lr, step_size, mode, gamma, down)
    assert trace(CyclicalMomentum(ours, 0.8, 0.9) if momentum else ours, 70) == same(theirs)


@few
@given(rates, counts, st.sampled_from(["cycle", "iterations"]), factors)
def test_any_function_of_the_step_is_a_scale_fn(rate, step_size, scale_mode, factor):
    theirs = torch_trace(
        "CyclicLR",
        70,
        base_lr=rate,
        max_lr=2 * rate,
        step_size_up=step_size,
        scale_fn=lambda count: factor**count,
        scale_mode=scale_mode,
        cycle_momentum=False,
    )

    def scale(step):
        return factor ** (1 + step // (2 * step_size) if scale_mode == "cycle" else step)

    assert trace(Cyclical(rate, 2 * rate, step_size, scale), 70) == same(theirs)


@few
@given(
    rates,
    st.integers(2, 60),
    st.floats(0.05, 0.95),
    st.floats(1.0, 100.0),
    st.floats(1.0, 1e5),
    st.sampled_from(["cos", "linear"]),
    st.booleans(),
    st.booleans(),
)
def test_one_cycle_is_one_cycle_lr(max_lr, steps, start, div, final_div, anneal, three, momentum):
    start = min(start, 0.5) if three else start
    if math.isclose(start * steps, 1.0):
        steps += 1  # PyTorch divides by a climb of no steps
    theirs = torch_trace(
        "OneCycleLR",
        steps,
        momentum=momentum,
        max_lr=max_lr,
        total_steps=steps,
        pct_start=start,
        anneal_strategy=anneal,
        div_factor=div,
        final_div_factor=final_div,
        three_phase=three,
    )
    ours = OneCycle(max_lr, steps, start, div, final_div, anneal, three)
    assert trace(CyclicalMomentum(ours) if momentum else ours, steps) == same(theirs)
