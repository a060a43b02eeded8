"""What prints as the call that builds it, and that it does."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import adaptlr
from adaptlr import controllers, schedules
from adaptlr._arguments import parse, pasteable
from adaptlr.monitor import Monitor
from adaptlr.range_test import RangeTest

NAMES = {
    **{name: getattr(schedules, name) for name in schedules.__all__},
    **{name: getattr(controllers, name) for name in controllers.__all__ if name != "Constant"},
    **{name: getattr(adaptlr, name) for name in adaptlr.__all__ if "LR" in name},
    "Monitor": Monitor,
    "RangeTest": RangeTest,
}

THINGS = [
    schedules.Warmup(schedules.Cosine(0.1, 100), warmup_steps=10),
    schedules.Joined([schedules.Constant(0.1), schedules.Linear(0.1, 5)], [3]),
    schedules.WarmupStableDecay(0.1, 10, 20, 30),
    controllers.Plateau(Monitor("loss", smoothing=0.5), factor=0.5),
    controllers.Divergence(controllers.Feedback(patience=5)),
    controllers.RangeFinder(RangeTest(1e-4, 1.0, 50), Monitor("val_loss")),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
def test_schedules_controllers_and_monitors_can_be_pasted(thing):
    assert parse(repr(thing), NAMES) == thing


@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (adaptlr.AutoLR(), "AutoLR()"),
        (adaptlr.AutoLR(horizon=None, verbose=1), "AutoLR(horizon=None, verbose=1)"),
        (adaptlr.PlateauLR("loss", 0.5), "PlateauLR(monitor='loss', factor=0.5)"),
        (adaptlr.LRFinder(log_dir=pathlib.PurePosixPath("a/b")), "LRFinder(log_dir='a/b')"),
        (
            adaptlr.CyclicalLR(0.1, np.float32(0.5), 4, momentum=(0.9, 0.8)),
            "CyclicalLR(base_lr=0.1, max_lr=0.5, step_size=4, momentum=(0.9, 0.8))",
        ),
        (adaptlr.OneCycleLR(0.1, momentum=None), "OneCycleLR(max_lr=0.1, momentum=None)"),
        (
            adaptlr.ScheduleLR(schedules.Constant(0.1), controllers.Divergence(THINGS[3])),
            f"ScheduleLR(schedule=Constant(learning_rate=0.1), "
            f"controller={controllers.Divergence(THINGS[3])!r})",
        ),
    ],
    ids=lambda x: x.split("(")[0] if isinstance(x, str) else "",
)
def test_callbacks_can_be_pasted(callback, text):
    assert repr(callback) == text
    assert repr(parse(text, NAMES)) == text


def test_what_no_text_builds_is_left_open():
    assert repr(adaptlr.ScheduleLR(lambda step: 0.1)) == "ScheduleLR(schedule=...)"
    assert repr(adaptlr.AutoLR((np.ones(3), np.ones(3)))) == "AutoLR(validation_data=(..., ...))"
    assert pasteable(schedules.Scaled(lambda step: 0.1, 2.0)) == "..."


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Plateau.__class__()",
        "Plateau(patience=open('x'))",
        "Plateau(patience=",
        "Plateau(*[1])",
        "Plateau(**{})",
        "exec('1')",
    ],
)
def test_nothing_but_the_names_given_is_called(text):
    with pytest.raises((ValueError, TypeError)):
        parse(text, NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Plateau", r"write Plateau\(\.\.\.\)\. Received: Plateau"),
        ("Plateau(patience=n)", r"n is neither a literal nor a call"),
        ("Plateau(patience=1 + n)", r"1 \+ n is neither a literal nor a call"),
        ("Plateau(*[1])", r"\*\[1\] is neither a literal nor a call"),
    ],
)
def test_what_is_neither_a_literal_nor_a_call_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text, NAMES)


def test_integers_of_numpy_print_as_integers():
    assert pasteable((np.int64(3), np.uint8(4))) == "(3, 4)"
