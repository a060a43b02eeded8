"""The probe: a ramp of rates over the first steps, undone afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from adaptlr.controllers.base import Decision, Observation
from adaptlr.controllers.feedback.hold import Hold
from adaptlr.controllers.feedback.trial import Warm
from adaptlr.range_test import Curve, RampState, RangeTest, read_curve, read_rate

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback, FeedbackState

__all__ = ["Probe", "Start"]


@dataclass(frozen=True)
class Start:
    """Nothing was done yet."""

    own_rate: float  # of the optimizer
    kind: Literal["start"] = "start"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Begins the ramp, or where there is no room for one, holds the rate there is."""
        rate, steps = self.own_rate, state.limits.probe_steps
        if steps == 0:
            reason = f"too few steps for a probe: the optimizer's own rate {rate:.3g} is held"
            decision = Decision(rate, "unprobed", reason, effects=("restart average",))
            return replace(state, phase=Hold(rate)), decision
        reason = (
            f"exponential ramp from {settings.min_lr:.3g} to {settings.max_lr:.3g} over "
            f"{steps} steps, to be undone; the optimizer's own rate is not used"
        )
        return replace(state, phase=Probe(rate)), Decision(
            settings.min_lr,
            "probe",
            reason,
            seen.step + 1,
            effects=("snapshot",),
            rate_is="experiment",
        )


@dataclass(frozen=True)
class Probe:
    """The ramp is under way."""

    own_rate: float
    ramp: RampState = field(default_factory=RampState)
    kind: Literal["probe"] = "probe"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Tries the next rate of the ramp; after the last, reads a rate off their losses."""
        test = _ramp(settings, state)
        tried = test.next_rate(self.ramp)
        ramp = test.take(self.ramp, seen.loss, epoch_end=seen.epoch_end)
        if ramp.ended == "unseen":
            return self._unseen(state)
        if ramp.ended:
            return _settle(settings, state, seen, ramp, tried)
        state = replace(state, phase=replace(self, ramp=ramp))
        rate = test.next_rate(ramp)
        return state, Decision(rate, next_step=seen.step + 1, rate_is="experiment")

    def _unseen(self, state: FeedbackState) -> tuple[FeedbackState, Decision]:
        rate = self.own_rate
        reason = (
            f"the model reports no metric named 'loss': there is no curve to read a rate off, and "
            f"the optimizer's own rate {rate:.3g} is held"
        )
        decision = Decision(rate, "unprobed", reason, effects=("restore", "restart average"))
        return replace(state, phase=Hold(rate)), decision


def _settle(
    settings: Feedback, state: FeedbackState, seen: Observation, ramp: RampState, tried: float
) -> tuple[FeedbackState, Decision]:
    limits, losses = state.limits, ramp.losses
    reading = read_rate(_ramp(settings, state), losses)
    rate = reading.suggestion
    if rate is None:
        rate = settings.min_lr * 1e3
        short = len(losses) + (ramp.ended == "not finite") <= limits.probe_steps
        ended = f", until it rose by a rate of {tried:.3g}" if short else ""
        reason = f"{reading.verdict}{ended}; a cautious {rate:.3g} is tried"
    else:
        reason = f"{reading.verdict}: their geometric mean is {rate:.3g}"
        # A short run without trials has no time to make up for a rate that is too low.
        long = limits.probe_steps == settings.probe_steps
        if settings.caution > 1.0 and (limits.trial_steps or long):
            rate /= settings.caution
            reason += f", {rate:.3g} is safer"
    steps = seen.step - limits.first_step
    reason += f"; the weights are those of before the ramp ({steps} steps)"
    if limits.warm_steps:
        reason += f", the rate warms up over {limits.warm_steps} steps"
    curve = _shown(settings, state, losses, reading.suggestion, reason)
    state, decision = Warm(rate, begin=seen.step).update(settings, state, seen)
    decision = replace(decision, rule="settle", reason=reason, curve=curve)
    return state, decision.also("restore", "restart average")


def _shown(
    settings: Feedback,
    state: FeedbackState,
    losses: tuple[float, ...],
    rate: float | None,
    verdict: str,
) -> Curve:
    """The curve of the probe, with what was made of it."""
    curve = read_curve(_ramp(settings, state), losses)
    return replace(curve, suggestions={**curve.suggestions, "centre": rate}, verdict=verdict)


def _ramp(settings: Feedback, state: FeedbackState) -> RangeTest:
    limits = state.limits
    steps = max(2, limits.probe_steps)
    return RangeTest(settings.min_lr, settings.max_lr, steps, momentum=limits.momentum)
