"""Every bad argument of every callback is refused by the names that the user wrote, in words."""

from __future__ import annotations

import inspect
import re

import pytest

import adaptlr
from adaptlr.controllers import Divergence, Feedback, Plateau
from adaptlr.monitor import Monitor
from adaptlr.range_test import RangeTest
from adaptlr.schedules import Constant, Cyclical
from adaptlr.writers import MemoryWriter

nan, inf = float("nan"), float("inf")
NO_NUMBER = ("0.5", None, True, nan, inf, [0.1])
NO_COUNT = (-1, 1.5, "3", True, None)
NO_NAME = ("", None, 5, ["loss"])
NO_FLAG = ("no", 0, None)
NO_VERBOSITY = ("x", None, 0.5, -1, [1])
NO_PATH = (5, 0.5, ["logs"], object)

# What every callback has.
SHARED = {
    "log_dir": NO_PATH,
    "verbose": NO_VERBOSITY,
    "writers": (MemoryWriter(), [MemoryWriter], "log", 3, None, [None]),
    "optimizers": ([], "adam", ["adam"], 3, [None]),
}
BACKED_UP = {**SHARED, "backup_dir": NO_PATH, "backup_freq": (0, -1, 1.5, "batch", None, True)}
MOMENTUM = ((0.8, 0.9), (1.0, 0.5), (0.9, 0.0), (0.9,), 0.9, ("a", "b"))

# For each callback: arguments to construct it with, and bad values of each argument.
BAD = {
    adaptlr.AutoLR: (
        {},
        {
            **BACKED_UP,
            "validation_data": (iter([1]), (x for x in [1])),
            "monitor": NO_NAME,
            "mode": ("up", "", None, 1),
            "horizon": ("none", 5, True),
        },
    ),
    adaptlr.PlateauLR: (
        {},
        {
            **BACKED_UP,
            "monitor": NO_NAME,
            "factor": (0.0, 1.0, 2, -0.1, *NO_NUMBER),
            "patience": NO_COUNT,
            "mode": ("up", "", None, 1),
            "min_delta": (-0.1, *NO_NUMBER),
            "cooldown": NO_COUNT,
            "min_lr": (-0.1, *NO_NUMBER),
            "warmup_steps": NO_COUNT,
            "restore_best_weights": NO_FLAG,
            "threshold": ("rel", "", None),
            "smoothing": (-0.1, 1.0, *NO_NUMBER),
            "stop": NO_FLAG,
        },
    ),
    adaptlr.CyclicalLR: (
        {"base_lr": 0.1, "max_lr": 1.0, "step_size": 3},
        {
            **BACKED_UP,
            "base_lr": (-0.1, *NO_NUMBER),
            "max_lr": (0.0, 0.1, 0.05, *NO_NUMBER),
            "step_size": (0, *NO_COUNT),
            "mode": ("triangle", "", None),
            "step_size_down": (0, -1, 1.5, "3", True),
            "start_at_top": (None, 1, "yes"),
            "gamma": (0.0, 1.1, *NO_NUMBER),
            "momentum": MOMENTUM,
        },
    ),
    adaptlr.OneCycleLR: (
        {"max_lr": 1.0},
        {
            **BACKED_UP,
            "max_lr": (0.0, -1.0, *NO_NUMBER),
            "total_steps": (0, 1, -1, 1.5, "3", True),
            "pct_start": (0.0, 1.0, *NO_NUMBER),
            "div_factor": (0.5, *NO_NUMBER),
            "final_div_factor": (0.5, *NO_NUMBER),
            "three_phase": (None, 1, "yes"),
            "momentum": MOMENTUM,
        },
    ),
    adaptlr.ScheduleLR: (
        {"schedule": Constant(0.1)},
        {
            **BACKED_UP,
            "schedule": (0.1, None, "cosine"),
            "controller": ("loss", 5, Plateau, adaptlr.PlateauLR()),
        },
    ),
    adaptlr.LRFinder: (
        {},
        {
            **SHARED,
            "min_lr": (0.0, -1.0, *NO_NUMBER),
            "max_lr": (0.0, 1e-8, *NO_NUMBER),
            "num_steps": (0, 1, *NO_COUNT),
            "shape": ("log", "", None),
            "divergence": (1.0, 0.5, *NO_NUMBER),
            "validation_data": (iter([1]), (x for x in [1])),
        },
    ),
}
CASES = [
    pytest.param(kind, given, name, value, id=f"{kind.__name__}-{name}-{value!r:.20}")
    for kind, (given, bad) in BAD.items()
    for name, values in bad.items()
    for value in values
]


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__)
def test_each_argument_has_bad_values_here(kind):
    assert set(BAD[kind][1]) == set(inspect.signature(kind).parameters)


@pytest.mark.parametrize(("kind", "given", "name", "value"), CASES)
def test_a_bad_argument_is_refused_by_its_own_name(kind, given, name, value):
    with pytest.raises((TypeError, ValueError)) as raised:
        kind(**{**given, name: value})
    message = str(raised.value)
    start, end = f"{kind.__name__}({name}=...) must be ", f"Received: {name}={value!r}"
    assert message.startswith(start)
    assert message.endswith(end)
    rule = message.removeprefix(start).removesuffix(end)
    assert not re.search(r"[<>≤≥]", rule), "bounds are said in words"


@pytest.mark.parametrize(
    ("kind", "given", "rule"),
    [
        (adaptlr.PlateauLR, {"factor": 2}, "a number above 0 and below 1"),
        (Plateau, {"factor": 2}, "a number above 0 and below 1"),
        (adaptlr.PlateauLR, {"smoothing": 1.0}, "a number of at least 0 and below 1"),
        (Monitor, {"smoothing": 1.0}, "a number of at least 0 and below 1"),
        (adaptlr.LRFinder, {"divergence": 1.0}, "a number above 1"),
        (RangeTest, {"divergence": 1.0}, "a number above 1"),
        (Feedback, {"usual": 0.5}, "a number of at least 1"),
        (adaptlr.PlateauLR, {"patience": -1}, "an integer of at least 0"),
        (Divergence, {"inner": Plateau(), "max_restores": 0}, "an integer of at least 1"),
        (Cyclical, {"base_lr": 0.1, "max_lr": 1.0, "step_size": 0}, "an integer of at least 1"),
    ],
)
def test_bounds_are_said_in_words(kind, given, rule):
    name, value = list(given.items())[-1]
    with pytest.raises(ValueError, match="must be") as raised:
        kind(**given)
    wanted = f"{kind.__name__}({name}=...) must be {rule}. Received: {name}={value!r}"
    assert str(raised.value) == wanted


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("verbose", [0, 1, False, True])
def test_what_keras_takes_for_verbose_is_taken(kind, verbose):
    assert kind(**BAD[kind][0], verbose=verbose).decisions == []


@pytest.mark.parametrize(
    "backup_freq", ["epoch", 1, 100], ids=["epoch", "each step", "each hundred"]
)
def test_a_good_backup_freq_is_taken(backup_freq, tmp_path):
    for kind, (given, bad) in BAD.items():
        if "backup_freq" in bad:
            kind(**given, backup_dir=tmp_path, backup_freq=backup_freq)
