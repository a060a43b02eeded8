"""The values that other libraries' own tests expect, from our schedules and plateau rule.

PyTorch `test/optim/test_lrscheduler.py`, optax `schedules/_schedule_test.py` and
`contrib/_reduce_on_plateau_test.py`, transformers `tests/optimization/test_optimization.py`,
Composer `tests/optim/test_scheduler.py`, ignite `tests/ignite/handlers/test_param_scheduler.py`,
timm `tests/test_scheduler.py`, Keras `learning_rate_schedule_test.py` and
`reduce_lr_on_plateau_test.py`. What has no counterpart here is listed in docs/migration.md.
"""

import math

import keras
import pytest
from models import Metrics, one_weight, steps

import adaptlr
from adaptlr import schedules as s
from adaptlr.controllers import Observation, Plateau, Run
from adaptlr.monitor import Monitor


def cosine(start, end, share):
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def half_wave(count, start=0.05, end=0.0):
    return [cosine(start, end, step / count) for step in range(count)]


def cuts(milestones, gamma=0.1):
    return s.MultiStep(1.0, milestones, gamma)


HEIGHTS = [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0.25, 0.5, 0.75, 1]
UNEVEN = [0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 1 / 2, 1, 5 / 6, 4 / 6]
UP_AND_DOWN = [1, 2, 3, 4, 5, 13 / 3, 11 / 3, 3, 7 / 3, 5 / 3, 1]
TRIANGULAR2 = [1, 2, 3, 4, 5, 4, 3, 2, 1, 1.5, 2, 2.5, 3, 2.5, 2, 1.5, 1, 1.25, 1.5, 1.75, 2, 1.75]

PYTORCH = {
    "step": (s.StepDecay(0.05, 3, 0.1), [0.05] * 3 + [0.005] * 3 + [0.0005] * 3 + [0.00005]),
    "multistep": (
        s.MultiStep(0.05, (2, 5, 9), 0.1),
        [0.05] * 2 + [0.005] * 3 + [0.0005] * 4 + [0.00005] * 3,
    ),
    "constant": (s.Piecewise((4,), (0.025, 0.05)), [0.025] * 5 + [0.05] * 5),
    "linear": (
        s.Warmup(s.Constant(0.05), 4, start=0.025),
        [0.025, 0.03125, 0.0375, 0.04375, 0.05, 0.05],
    ),
    "linear to another factor": (
        s.Linear(0.05 / 4, 4, 0.05 * 3 / 5),
        [0.05 * (1 / 4 + step * (3 / 5 - 1 / 4) / 4) for step in range(4)] + [0.03] * 6,
    ),
    "exponential": (s.Exponential(0.05, 1, 0.9), [0.05 * 0.9**step for step in range(10)]),
    "polynomial": (
        s.Polynomial(0.05, 5, 0.0, 0.9),
        [0.05 * (1 - step / 5) ** 0.9 for step in range(5)] + [0.0] * 5,
    ),
    "cosine": (s.Cosine(0.05, 10, 1e-10 / 0.05), half_wave(10, 0.05, 1e-10)),
    "sequential 1": (
        s.Joined((s.Exponential(0.05, 1, 0.8), s.StepDecay(0.05, 4, 0.1)), (3,)),
        [0.05, 0.04, 0.032] + [0.05 * 0.1 ** (step // 4) for step in range(16)],
    ),
    "sequential 2": (
        s.Joined((s.Constant(0.005), s.Exponential(0.05, 1, 0.9)), (3,)),
        [0.005] * 3 + [0.05 * 0.9**step for step in range(10)],
    ),
    "sequential 3": (
        s.Joined(
            (s.Constant(0.005), s.Exponential(0.05, 1, 0.8), s.StepDecay(0.05, 2, 0.1)), (3, 6)
        ),
        [0.005] * 3 + [0.05, 0.04, 0.032, 0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005],
    ),
    "sequential of a chain": (
        s.Joined(
            (s.Scaled(s.Linear(0.005, 5, 0.05), factor=s.Constant(0.1)), s.Constant(0.025)), (5,)
        ),
        [0.0005, 0.0014, 0.0023, 0.0032, 0.0041] + [0.025] * 5,
    ),
    "sequential up and down": (
        s.Joined((s.Linear(0.2, 4, 1.6), s.Linear(1.6, 4, 0.2)), (4,)),
        [0.2, 0.55, 0.9, 1.25, 1.6, 1.25, 0.9, 0.55],
    ),
    "chained 2": (s.Warmup(s.Constant(0.05), 3, 0.02), [0.02, 0.03, 0.04] + [0.05] * 7),
    "chained 3": (
        s.Scaled(s.Warmup(s.Constant(0.05), 3, 0.02), factor=cuts((4, 8, 10))),
        [0.02, 0.03, 0.04, 0.05] + [0.005] * 4 + [0.0005] * 2,
    ),
    "chained 4": (
        s.Scaled(
            s.Scaled(s.Exponential(0.05, 1, 0.9), factor=s.Piecewise((3,), (0.2, 1.0))),
            factor=s.StepDecay(1.0, 3, 0.1),
        ),
        [0.05 * 0.2 * 0.9**step for step in range(3)]
        + [0.05 * 0.2 * 0.9**3 * 0.1]
        + [0.05 * 0.9**step * 0.1 for step in (4, 5)]
        + [0.05 * 0.9**step * 0.01 for step in (6, 7, 8)],
    ),
    "step and multistep": (
        s.Scaled(s.StepDecay(0.05, 3, 0.1), factor=cuts((2, 5, 9))),
        [0.05] * 2 + [0.005] + [5e-4] * 2 + [5e-5] + [5e-6] * 3 + [5e-8],
    ),
    "exponential and linear": (
        s.Scaled(s.Exponential(0.05, 1, 0.9), factor=s.Linear(0.4, 4, 0.9)),
        [0.05 * 0.9**k * (0.4 + k / 4 * 0.5 if k < 4 else 0.9) for k in range(10)],
    ),
    "step and constant": (
        s.Scaled(s.StepDecay(0.05, 3, 0.1), factor=s.Piecewise((3,), (0.4, 1.0))),
        [0.02] * 3 + [0.002] + [0.005] * 2 + [0.0005] * 3 + [0.00005],
    ),
    "cosine and multistep": (
        s.Scaled(s.Cosine(0.05, 10), factor=cuts((2, 5, 9))),
        [
            rate * cut
            for rate, cut in zip(
                half_wave(10), [1] * 2 + [0.1] * 3 + [0.01] * 4 + [0.001], strict=True
            )
        ],
    ),
    "cosine and linear": (
        s.Scaled(s.Cosine(0.05, 10), factor=s.Linear(0.4, 4, 1.0)),
        [rate * min(0.4 + k / 4 * 0.6, 1) for k, rate in enumerate(half_wave(10))],
    ),
    "cyclic": (s.Cyclical(1, 5, 4), [1, 2, 3, 4, 5, 4, 3, 2, 1, 2, 3]),
    "cyclic triangular2": (s.Cyclical(1, 5, 4, "triangular2"), TRIANGULAR2),
    "cyclic exp_range": (
        s.Cyclical(1, 5, 4, "exp_range", 0.9),
        [1 + 4 * height * 0.9**step for step, height in enumerate(HEIGHTS)],
    ),
    "cyclic up and down": (s.Cyclical(1, 5, 4, step_size_down=6), UP_AND_DOWN),
    "cyclic triangular2 up and down": (
        s.Cyclical(1, 5, 2, "triangular2", step_size_down=6),
        [1 + 4 * UNEVEN[step % 8] * 0.5 ** (step // 8) for step in range(24)],
    ),
    "cyclic exp_range up and down": (
        s.Cyclical(1, 5, 2, "exp_range", 0.9, step_size_down=6),
        [1 + 4 * height * 0.9**step for step, height in enumerate(UNEVEN)],
    ),
    "one cycle linear": (
        s.OneCycle(25, 10, final_div_factor=2, anneal="linear"),
        [1, 13, 25, 21.5, 18, 14.5, 11, 7.5, 4, 0.5],
    ),
    "one cycle of three phases": (
        s.OneCycle(25, 10, 0.4, final_div_factor=4, anneal="linear", three_phase=True),
        [1, 9, 17, 25, 17, 9, 1, 0.75, 0.5, 0.25],
    ),
    "one cycle cosine": (
        s.OneCycle(25, 10, final_div_factor=2),
        [1, 13] + [cosine(25, 0.5, step / 7) for step in range(8)],
    ),
    "lambda": (lambda step: 0.4 * 0.8**step, [0.4 * 0.8**step for step in range(10)]),
    "multiplicative": (
        s.ByEpoch(lambda epoch, rate: rate * 0.8 if epoch else rate, 0.4, 1),
        [0.4 * 0.8**step for step in range(10)],
    ),
    "warm restarts": (
        s.CosineRestarts(0.05, 10, t_mul=2),
        half_wave(10) + half_wave(20) + half_wave(40),
    ),
}

# Momenta of the same tests lie between 1 and 5 or 22; ours are those of an optimizer, below 1.
MOMENTA = {
    "cyclic": (s.Cyclical(1, 5, 4), 5, [5, 4, 3, 2, 1, 2, 3, 4, 5, 4, 3]),
    "cyclic up and down": (
        s.Cyclical(1, 5, 4, step_size_down=6),
        5,
        [5, 4, 3, 2, 1, 5 / 3, 7 / 3, 3, 11 / 3, 13 / 3, 5],
    ),
    "one cycle": (
        s.OneCycle(25, 10, final_div_factor=2, anneal="linear"),
        22,
        [22, 11.5, 1, 4, 7, 10, 13, 16, 19, 22],
    ),
    "one cycle of three phases": (
        s.OneCycle(25, 10, 0.4, final_div_factor=4, anneal="linear", three_phase=True),
        22,
        [22, 15, 8, 1, 8, 15, 22, 22, 22, 22],
    ),
}

OPTAX = {
    "linear": (s.Linear(10, 10, 20), [*range(10, 20), *[20] * 5]),
    "quadratic": (
        s.Polynomial(25, 10, 10, 2),
        [10 + 15 * (1 - step / 10) ** 2 for step in range(10)] + [10] * 5,
    ),
    "quadratic, begun later": (
        s.Joined((s.Constant(30), s.Polynomial(30, 10, 10, 2)), (4,)),
        [30] * 4 + [10 + 20 * (1 - step / 10) ** 2 for step in range(10)] + [10] * 6,
    ),
    "piecewise": (
        s.MultiStep(0.1, (3, 6), gamma=(2, 0.5)),
        [0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1],
    ),
    "exponential": (s.Exponential(32, 1, 0.5), [32, 16, 8, 4, 2]),
    "cosine": (s.Cosine(0.1, 5, 0.1), half_wave(5, 0.1, 0.01) + [0.01] * 7),
    "linear between values": (
        s.Joined((s.Linear(200, 5, 300), s.Linear(300, 5, 75)), (5,)),
        [200, 220, 240, 260, 280, 300, 255, 210, 165, 120, 75, 75, 75],
    ),
    "cosine between values": (
        s.Joined((s.Cosine(400, 3, 0.6), s.Cosine(240, 2, 1.2)), (3,)),
        [400, 360, 280, 240, 264, 288, 288, 288, 288],
    ),
    "an interval of no steps": (
        s.Joined((s.Constant(13), s.Linear(26, 5, 78)), (0,)),
        [26, 36.4, 46.8, 57.2, 67.6, 78],
    ),
    "one cycle linear": (
        s.Joined((s.Linear(100, 3, 1000), s.Linear(1000, 4, 100), s.Linear(100, 3, 1)), (3, 7)),
        [100, 400, 700, 1000, 775, 550, 325, 100, 67, 34, 1, 1],
    ),
    "one cycle cosine": (
        s.OneCycle(1000, 6, pct_start=3 / 6, div_factor=10, final_div_factor=100),
        [100, 550, 1000, 750.25, 250.75, 1, 1],
    ),
}

TRANSFORMERS = {
    "constant with warm-up": (s.Warmup(s.Constant(10), 4), [0, 2.5, 5, 7.5, 10, 10, 10]),
    "linear": (s.Warmup(s.Linear(10, 8), 2), [0, 5, 10, 8.75, 7.5, 6.25, 5, 3.75, 2.5, 1.25]),
    "cosine": (s.Warmup(s.Cosine(10, 8), 2), [0, 5, 10, 9.61, 8.53, 6.91, 5, 3.08, 1.46, 0.38]),
    "restarts": (
        s.Warmup(s.CosineRestarts(10, 4, t_mul=1), 2),
        [0, 5, 10, 8.53, 5, 1.46, 10, 8.53, 5, 1.46],
    ),
    "polynomial": (
        s.Warmup(s.Polynomial(10, 8, 1e-7, 2), 2),
        [0, 5, 10, 7.656, 5.625, 3.906, 2.5, 1.406, 0.625, 0.156],
    ),
    "inverse square root": (
        s.InverseSquareRoot(10, 2),
        [0, 5, 10, 8.165, 7.071, 6.325, 5.774, 5.345, 5, 4.714],
    ),
}

IGNITE = {
    "linear": (s.Cyclical(0, 1, 5, start_at_top=True), [1, 0.8, 0.6, 0.4, 0.2, 0, 0.2, 0.4, 0.6]),
    "cosine": (s.Cosine(1e-9, 10, 1e9), [0, 0.024472, 0.095492, 0.206107, 0.345492, 0.5]),
}


@pytest.mark.parametrize(
    ("ours", "expected", "digits"),
    [
        pytest.param(ours, expected, digits, id=f"{peer} {name}")
        for peer, table, digits in (
            ("pytorch", PYTORCH, 1e-9),
            ("optax", OPTAX, 1e-6),
            ("transformers", TRANSFORMERS, 1e-2),
            ("ignite", IGNITE, 1e-5),
        )
        for name, (ours, expected) in table.items()
    ],
)
def test_every_step_has_the_rate_that_their_test_expects(ours, expected, digits):
    found = [ours(step) for step in range(len(expected))]
    assert found == pytest.approx(expected, rel=digits, abs=digits)


@pytest.mark.parametrize("name", MOMENTA)
def test_every_step_has_the_momentum_that_their_test_expects(name):
    cycle, high, expected = MOMENTA[name]
    ours = s.CyclicalMomentum(cycle, base_momentum=1 / 100, max_momentum=high / 100)
    assert [100 * ours(step) for step in range(len(expected))] == pytest.approx(expected)


EPOCH = 1000  # steps of an epoch in Composer's tests; their run has a thousand epochs
RUN = 1000 * EPOCH
COMPOSER = [
    (s.StepDecay(1, 10, 0.1), {5: 1, 15: 0.1, 35: 0.001}),
    (s.StepDecay(1, 2 * EPOCH, 0.8), {1000: 1, 3000: 0.8, 7000: 0.512}),
    (s.StepDecay(1, 10 * 0.5, 0.5), {3: 1, 8: 0.5, 18: 0.125}),
    (s.MultiStep(1, (10, 30, 70), 0.1), {5: 1, 20: 0.1, 50: 0.01, 100: 0.001}),
    (s.MultiStep(1, (100, EPOCH, 10 * EPOCH), 0.5), {50: 1, 500: 0.5, 5000: 0.25, 50_000: 0.125}),
    (s.Linear(1, RUN), {100_000: 0.9, 200_000: 0.8, 400_000: 0.6}),
    (s.Linear(0, RUN, 2), {100_000: 0.2, 200_000: 0.4, 400_000: 0.8}),
    (s.Linear(0, RUN / 4, 1), {100_000: 0.4, 200_000: 0.8, 400_000: 1}),
    (s.Exponential(1, EPOCH, 0.5), {1000: 0.5, 2000: 0.25, 4000: 0.0625}),
    (s.Cosine(1, RUN), {0: 1, 333_333: 0.75, 500_000: 0.5, 666_667: 0.25, 1_000_000: 0}),
    (s.Cosine(1, 30, 0.5), {0: 1, 10: 0.875, 15: 0.75, 20: 0.625, 30: 0.5, 50: 0.5}),
    (s.CosineRestarts(1, 30, t_mul=1), {0: 1, 10: 0.75, 15: 0.5, 20: 0.25, 30: 1, 40: 0.75}),
    (
        s.CosineRestarts(1, 3000, t_mul=1.5),
        {0: 1, 1000: 0.75, 3000: 1, 4500: 0.75, 7500: 1, 14_250: 1},
    ),
    (s.CosineRestarts(1, 15_000, alpha=0.5), {0: 1, 5000: 0.875, 15_000: 1, 25_000: 0.875}),
    (s.Polynomial(1, RUN, 0, 2), {0: 1, 100_000: 0.81, 200_000: 0.64, 500_000: 0.25}),
    (s.Polynomial(1, 100, 0.5, 2), {0: 1, 10: 0.905, 20: 0.82, 50: 0.625}),
    (s.Warmup(s.MultiStep(1, (10, 30), 0.1), 10), {0: 0, 5: 0.5, 15: 1, 25: 0.1, 45: 0.01}),
    (s.Warmup(s.Constant(3), RUN / 2), {0: 0, 250_000: 1.5, 500_000: 3, 502_000: 3}),
    (
        s.Warmup(s.Linear(1, RUN / 2), RUN / 2),
        {0: 0, 250_000: 0.5, 500_000: 1, 750_000: 0.5, RUN: 0},
    ),
    (
        s.Warmup(s.Linear(3, 1000, 2), 500_000),
        {250_000: 1.5, 500_000: 3, 500_500: 2.5, 501_000: 2, 502_000: 2},
    ),
    (
        s.Warmup(s.Cosine(1, 100_000), 900_000),
        {0: 0, 450_000: 0.5, 900_000: 1, 933_333: 0.75, 950_000: 0.5, RUN: 0},
    ),
    (
        s.Warmup(s.Polynomial(1, 100_000, 0, 2), 900_000),
        {0: 0, 450_000: 0.5, 900_000: 1, 913_397: 0.75, 929_289: 0.5, RUN: 0},
    ),
]
TIMM = [
    (s.Cosine(0.1, 100, 0.01), {0: 0.1, 50: 0.0505, 100: 0.001}),
    (
        s.Joined((s.CosineRestarts(0.1, 50, 1, alpha=0.01), s.Constant(0.001)), (100,)),
        {0: 0.1, 50: 0.1, 100: 0.001, 109: 0.001},
    ),
    (s.StepDecay(0.1, 10, 0.5), {9: 0.1, 10: 0.05, 20: 0.025}),
    (s.MultiStep(0.1, (9, 19, 29), 0.5), {8: 0.1, 11: 0.05, 21: 0.025, 31: 0.0125}),
    (s.Polynomial(0.1, 100, 0.001), {0: 0.1, 100: 0.001}),
    (s.Warmup(s.Cosine(0.1, 100), 5, 0.001), {0: 0.001, 5: 0.1}),
]
FURTHER_OPTAX = [
    (
        s.Joined(
            [s.Warmup(s.Cosine(1.6 * 0.5**i, n), 500) for i, n in enumerate((1500, 2500, 4500))],
            (2000, 5000),
        ),
        {500: 1.6, 2500: 0.8, 5500: 0.4},
    ),
    (s.Cosine(1000, 10**10), {10**9: 975.52826}),
]
KERAS = [
    (s.Exponential(0.05, 10, 0.96), {5: 0.05 * 0.96**0.5}),
    (s.Exponential(0.1, 3, 0.96, staircase=True), {1: 0.1, 2: 0.1, 100: 0.1 * 0.96**33}),
    (
        s.Piecewise([100, 110, 120], [1, 0.1, 0.01, 0.001]),
        {-999: 1, 100: 1, 105: 0.1, 110: 0.1, 120: 0.01, 999: 0.001},
    ),
    (s.Piecewise([1, 2, 3], [0.4, 0.5, 0.6, 0.7]), {0: 0.4, 1: 0.4, 2: 0.5, 3: 0.6, 4: 0.7}),
    (s.Polynomial(0.05, 10, 0.001), {5: 0.0255, 10: 0.001, 15: 0.001}),
    (s.Polynomial(0.05, 10, 0.001, cycle=True), {15: 0.049 * 0.25 + 0.001}),
    (s.Polynomial(0.05, 10, 0.001, 0.5), {5: 0.049 * 0.5**0.5 + 0.001, 10: 0.001, 15: 0.001}),
    (s.Polynomial(0.05, 10, 0.001, 0.5, cycle=True), {15: 0.049 * 0.25**0.5 + 0.001}),
    (s.Polynomial(0.001, 10, cycle=True), {0: 0.001}),
    (s.InverseTime(0.1, 10, 0.96), {k: 0.1 / (1 + k / 10 * 0.96) for k in range(11)}),
    (
        s.InverseTime(0.1, 10, 0.96, staircase=True),
        {k: 0.1 / (1 + 0.96 * (k // 10)) for k in (9, 10)},
    ),
    (
        s.Cosine(1, 1000, 0.1),
        {k: cosine(1, 0.1, min(k, 1000) / 1000) for k in range(0, 1500, 250)},
    ),
    (s.Warmup(s.Cosine(10, 1000), 2000), {500: 2.5, 2000: 10, 2500: 5, 2750: cosine(10, 0, 0.75)}),
    (
        s.CosineRestarts(1, 1000, m_mul=0.9),
        {750: cosine(1, 0, 0.75), 1250: 0.9 * cosine(1, 0, 0.125)},
    ),
    (s.CosineRestarts(1, 1000, t_mul=1), {1250: cosine(1, 0, 0.25)}),
    (s.CosineRestarts(1, 1000, alpha=0.1), {1250: cosine(1, 0.1, 0.125)}),
]


@pytest.mark.parametrize(
    ("ours", "expected", "tolerance"),
    [
        pytest.param(ours, expected, tolerance, id=f"{peer} {number}")
        for peer, table, tolerance in (
            ("composer", COMPOSER, 1e-3),
            ("timm", TIMM, 1e-5),
            ("optax", FURTHER_OPTAX, 1e-5),
            ("keras", KERAS, 1e-6),
        )
        for number, (ours, expected) in enumerate(table)
    ],
)
def test_some_steps_have_the_rates_that_their_test_expects(ours, expected, tolerance):
    found = {step: ours(step) for step in expected}
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


# Plateau detection


def plateau_rates(values, mode="min", base=0.5, factor=0.1, **arguments):
    """Rates of the epochs in whose course the values are measured."""
    monitor = Monitor("score", mode, arguments.pop("min_delta"), arguments.pop("threshold"))
    controller = Plateau(monitor, factor=factor, **arguments)
    state, rate, rates = controller.init(Run(base)), base, []
    for epoch, value in enumerate(values):
        seen = Observation(epoch + 1, epoch, True, learning_rate=rate, monitored=value)
        state, decision = controller.update(state, seen)
        rate = base * decision.scale
        rates.append(rate)
    return rates


RISING = [1.5 * 1.005**epoch for epoch in range(20)]
ONCE_CUT = [0.5] * 6 + [0.05] * 11 + [0.005] * 3


@pytest.mark.parametrize(
    ("values", "mode", "patience", "cooldown", "threshold", "delta", "expected"),
    [
        ([10 - 0.0167 * e for e in range(20)], "min", 5, 5, "absolute", 0.01, [0.5] * 20),
        (
            [10 - 0.0165 * e for e in range(22)],
            "min",
            5,
            0,
            "absolute",
            0.1,
            [0.5] * 6 + [0.05] * 7 + [0.005] * 7 + [0.0005] * 2,
        ),
        (
            [-0.8] * 2 + [-0.234] * 20,
            "max",
            5,
            5,
            "absolute",
            1e-4,
            [0.5] * 8 + [0.05] * 11 + [0.005] * 3,
        ),
        ([1.5 * 1.025**e for e in range(20)], "max", 3, 0, "relative", 0.1, [0.5] * 20),
        (RISING, "max", 5, 5, "relative", 0.1, ONCE_CUT),
        ([1.5 * 0.85**e for e in range(20)], "min", 10, 0, "relative", 0.1, [0.5] * 20),
        ([1] * 7 + [0.6] + [0.5] * 12, "min", 5, 5, "relative", 0.1, ONCE_CUT),
    ],
    ids=range(1, 8),
)
def test_a_plateau_of_pytorch(values, mode, patience, cooldown, threshold, delta, expected):
    """Patience and cooldown are one more here; the rate is looked at before the epoch's step."""
    rates = plateau_rates(
        values,
        mode,
        patience=patience + 1,
        cooldown=cooldown + 1,
        min_delta=delta,
        threshold=threshold,
    )
    assert rates == pytest.approx(expected)


def test_a_plateau_of_pytorch_has_a_floor():
    rates = plateau_rates(
        RISING, "max", patience=6, cooldown=6, min_lr=0.4, min_delta=0.1, threshold="relative"
    )
    assert rates == pytest.approx([0.5] * 6 + [0.4] * 14)


def test_plateaus_of_optax():
    """A patience and a cooldown of 5: cut at the sixth equal value, then five epochs of rest."""
    rates = plateau_rates(
        [1.0] * 17, base=1.0, patience=5, cooldown=6, min_lr=0.01, min_delta=1e-4,
        threshold="relative",
    )  # fmt: skip
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 10 + [0.01] * 2)


@pytest.mark.parametrize(
    ("arguments", "epochs", "expected"),
    [
        ({"min_delta": 100}, 2, 0.01),
        ({"min_delta": 10, "min_lr": 0.005}, 4, 0.005),
        ({"min_delta": 100, "cooldown": 2}, 4, 0.001),
    ],
    ids=["cut", "min_lr", "cooldown"],
)
def test_plateaus_of_keras(arguments, epochs, expected):
    model = one_weight(keras.optimizers.Adam(0.1))
    feed = Metrics("score", [1.0] * epochs)
    callback = adaptlr.PlateauLR("score", patience=1, factor=0.1, mode="min", **arguments)
    model.fit(**steps(1), epochs=epochs, callbacks=[feed, callback])
    assert float(model.optimizer.learning_rate) == pytest.approx(expected)
