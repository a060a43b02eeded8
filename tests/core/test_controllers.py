"""The pure core as traces: no Keras, no model."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptlr.controllers import (
    Constant,
    Divergence,
    Feedback,
    Observation,
    Plateau,
    Run,
)
from adaptlr.monitor import Monitor

nan = math.nan


def epochs(controller, values, base=1.0, **run):
    """Feeds one monitored value an epoch; returns the decisions."""
    state, decisions, rate = controller.init(Run(learning_rate=base, **run)), [], base
    for epoch, value in enumerate(values):
        seen = Observation(epoch + 1, epoch, True, learning_rate=rate, monitored=value)
        state, decision = controller.update(state, seen)
        rate = base * decision.scale
        decisions.append(decision)
    return decisions


def scales(controller, values, **run):
    return [decision.scale for decision in epochs(controller, values, **run)]


def test_constant_never_moves():
    assert scales(Constant(), [1, nan, math.inf]) == [1, 1, 1]


class TestPlateau:
    def test_cuts_after_patience(self):
        assert scales(Plateau(patience=2, factor=0.5), [1, 1, 1, 1, 1]) == [1, 1, 0.5, 0.5, 0.25]

    def test_an_improvement_starts_the_wait_anew(self):
        assert scales(Plateau(patience=2, factor=0.5), [1, 1, 0.9, 0.9, 0.9]) == [1, 1, 1, 1, 0.5]

    def test_cooldown_counts_epochs_after_the_cut(self):
        cooled = Plateau(patience=1, factor=0.5, cooldown=2)
        assert scales(cooled, [1, 1, 1, 1, 1]) == [1, 0.5, 0.5, 0.25, 0.25]

    def test_stops_cutting_at_min_lr(self):
        bounded = Plateau(patience=1, factor=0.1, min_lr=0.03)
        decisions = epochs(bounded, [1, 1, 1, 1])
        assert [d.scale for d in decisions] == pytest.approx([1, 0.1, 0.03, 0.03])
        assert [d.rule for d in decisions] == ["hold", "plateau", "plateau", "hold"]

    def test_says_why(self):
        reason = epochs(Plateau(patience=2, factor=0.5), [1, 1, 1])[-1].reason
        assert reason == "val_loss has not improved on its best (1) for 2 epochs: rate × 0.5"

    def test_restores_the_best_epoch_at_a_cut(self):
        decisions = epochs(Plateau(patience=1, restore_best_weights=True), [1, 0.9, 1, 1])
        assert [("snapshot" in d.effects) for d in decisions] == [True, True, False, False]
        assert [d.restores for d in decisions] == [False, False, True, True]

    def test_warmup_epochs_are_not_counted(self):
        warm = Plateau(patience=1, factor=0.5, warmup_steps=3)
        assert scales(warm, [1, 1, 1, 1, 1]) == [1, 1, 1, 0.5, 0.25]

    def test_nan_is_no_improvement_and_never_the_best(self):
        assert scales(Plateau(patience=2, factor=0.5), [nan, 1, nan, nan]) == [1, 1, 1, 0.5]

    def test_epochs_without_a_value_and_points_inside_an_epoch_are_held(self):
        controller = Plateau(patience=1)
        state = controller.init(Run(1.0))
        for seen in (Observation(1, 0, True), Observation(1, 0, False, monitored=1.0)):
            assert controller.update(state, seen)[0] == state

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"factor": 1.0},
                r"Plateau\(factor=...\) must be a number above 0 and below 1\. Received: fac",
            ),
            ({"factor": 0.0}, "factor"),
            ({"factor": nan}, "Received: factor=nan"),
            ({"patience": -1}, "patience"),
            ({"patience": 2.5}, r"an integer of at least 0\. Received: patience=2\.5"),
            ({"cooldown": -1}, "cooldown"),
            ({"min_lr": -1e-3}, "min_lr"),
            ({"warmup_steps": -1}, "warmup_steps"),
        ],
    )
    def test_bad_arguments_are_refused_by_name(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Plateau(**arguments)


observations = st.builds(
    dict,
    loss=st.none() | st.floats(),
    monitored=st.none() | st.floats(),
    epoch_end=st.booleans(),
    skip=st.integers(1, 60),
)


@settings(max_examples=2 * settings().max_examples)
@given(
    st.lists(observations, max_size=60),
    st.sampled_from(
        [
            Plateau(patience=1),
            Divergence(Plateau(patience=1, restore_best_weights=True)),
            Feedback(),
            Divergence(Feedback(Monitor(threshold="noise"))),
        ]
    ),
)
def test_whatever_is_observed_the_scale_stays_finite_and_the_state_stays_json(seen, controller):
    state = controller.init(Run(0.1, steps_per_epoch=40, epochs=12))
    state, decision = controller.update(state, Observation(0, 0))
    step = 0
    for values in seen:
        step += values["skip"]
        observation = Observation(
            step,
            step // 40,
            values["epoch_end"],
            0.1 * decision.scale,
            values["loss"],
            values["monitored"],
        )
        state, decision = controller.update(state, observation)
        assert math.isfinite(decision.scale)
        assert 0.0 <= decision.scale <= 10.0
        json.dumps(dataclasses.asdict(state), allow_nan=False)
