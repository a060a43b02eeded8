"""Random histories over the pure core: the rate stays in bounds, the state stays JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from adaptlr._store import rebuild
from adaptlr.controllers import (
    Constant,
    Divergence,
    Feedback,
    Observation,
    Plateau,
    RangeFinder,
    Run,
)
from adaptlr.monitor import Monitor
from adaptlr.range_test import RangeTest

START = 0.1
# For each controller: three for ten that other tests draw, unless told.
EXAMPLES = int(os.environ.get("ADAPTLR_SEQUENCES", 3 * settings().max_examples // 10))

# The controller, and the bounds of the rate: the schedule is 1 where the scale is the rate itself.
CONTROLLERS = {
    "constant": (Constant(), 1.0, 1.0),
    "plateau": (Plateau(patience=1, min_lr=1e-4), 1e-4, START),
    "noisy plateau": (
        Plateau(Monitor(threshold="noise", min_delta=1.0, smoothing=0.5), patience=2, stop=True),
        0.0,
        START,
    ),
    "feedback": (Feedback(probe_steps=20), 0.0, 100.0),
    "finder": (RangeFinder(RangeTest(num_steps=12)), 1e-7, 10.0),
    "guarded constant": (Divergence(Constant(), recovery=4), 3.0**-5, 1.0),
    "guarded plateau": (
        Divergence(Plateau(patience=1, restore_best_weights=True), limit=None, stuck=None),
        0.0,
        START,
    ),
    "guarded feedback": (Divergence(Feedback(probe_steps=20), stuck=10, recovery=5), 0.0, 100.0),
}
BASE = {name: START if "plateau" in name else 1.0 for name in CONTROLLERS}


def reloaded(state):
    """A state that went through JSON."""
    return rebuild(state, json.loads(json.dumps(dataclasses.asdict(state), allow_nan=False)))


sizes = st.floats(min_value=1e-3, max_value=10.0)
values = st.none() | sizes | st.sampled_from([math.nan, math.inf, -math.inf, 1e30, 0.0, -1.0])


class Machine(RuleBasedStateMachine):
    """One run: control points in any order, some of them left out, some after a restart."""

    name = "constant"

    @initialize(
        steps=st.none() | st.integers(1, 50),
        epochs=st.none() | st.integers(1, 20),
        direction=st.sampled_from(["min", "max"]),
    )
    def begin(self, steps, epochs, direction):
        self.controller, self.lowest, self.highest = CONTROLLERS[self.name]
        self.run = Run(START, steps, epochs, direction=direction)
        self.epoch_steps = steps or 40
        self.step = 0
        self.state, self.decision = self.controller.update(
            self.controller.init(self.run), Observation(0, 0)
        )
        self.loaded = self.state

    @rule()
    def save_and_load(self):
        self.loaded = reloaded(self.loaded)

    def observe(self, loss, monitored, epoch_end):
        rate = BASE[self.name] * self.decision.scale
        seen = Observation(
            self.step, self.step // self.epoch_steps, epoch_end, rate, loss, monitored
        )
        self.state, self.decision = self.controller.update(self.state, seen)
        json.dumps(dataclasses.asdict(self.state), allow_nan=False)
        self.loaded, decision = self.controller.update(self.loaded, seen)
        assert (self.loaded, decision) == (self.state, self.decision)

    @rule(gap=st.integers(1, 60), loss=values, monitored=values, epoch_end=st.booleans())
    def anything(self, gap, loss, monitored, epoch_end):
        self.step += gap
        self.observe(loss, monitored, epoch_end)

    @rule(level=sizes, epochs=st.integers(1, 4))
    def epochs_that_go_well(self, level, epochs):
        for i in range(10 * epochs):
            self.step += max(1, self.epoch_steps // 10)
            end = i % 10 == 9
            self.observe(level / (1 + i), level / (1 + i) if end else None, end)

    @rule(count=st.integers(1, 8), bad=st.sampled_from([math.nan, math.inf, 1e38]))
    def a_stretch_that_goes_wrong(self, count, bad):
        for _ in range(count):
            self.step += 1
            self.observe(bad, None, False)

    @rule(level=sizes, count=st.integers(5, 40))
    def a_loss_that_does_not_move(self, level, count):
        for i in range(count):
            self.step += max(1, self.epoch_steps // 10)
            self.observe(level, level, i % 10 == 9)

    @rule(back=st.integers(1, 100))
    def going_on_from_an_earlier_step(self, back):
        """As after a restart from an older backup: steps come a second time."""
        self.step = max(0, self.step - back)
        self.observe(None, None, False)

    @invariant()
    def the_rate_is_inside_its_bounds(self):
        if not hasattr(self, "decision"):
            return
        rate = BASE[self.name] * self.decision.scale
        assert math.isfinite(rate)
        assert self.lowest * (1 - 1e-9) <= rate <= self.highest * (1 + 1e-9)
        asked = self.decision.next_step
        assert asked is None or asked > self.step
        assert bool(self.decision.reason) == (self.decision.rule != "hold")


@pytest.mark.parametrize("name", CONTROLLERS)
def test_any_history(name):
    machine = type("Machine", (Machine,), {"name": name}).TestCase
    machine.settings = settings(max_examples=EXAMPLES, stateful_step_count=20)
    machine("runTest").runTest()


def test_a_guard_gives_up_after_so_many_tries_however_the_run_goes_on():
    guard = Divergence(Constant(), max_restores=5)
    state, stops = guard.init(Run(1.0)), 0
    state, _ = guard.update(state, Observation(0, 0))
    for step in range(1, 7):
        state, decision = guard.update(state, Observation(step, 0, loss=math.nan))
        stops += "stop" in decision.effects
    assert stops == 1
