"""Before the search: a customary rate, or that of a ramp which is undone, and the warm-up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from adaptlr.controllers.base import Decision, Observation
from adaptlr.controllers.feedback.hold import Hold
from adaptlr.controllers.feedback.progress import Gauge
from adaptlr.controllers.feedback.search import First, Known
from adaptlr.monitor import finite
from adaptlr.range_test import Curve, RampState, RangeTest, read_curve, read_rate

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback, FeedbackState


@dataclass(frozen=True)
class Start:
    """Nothing was done yet."""

    own_rate: float  # of the optimizer
    kind: Literal["start"] = "start"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Begins to warm up to what is customary, or if that is not known, the ramp."""
        limits = state.limits
        if limits.customary:
            rate = settings.begin * limits.customary
            reason = (
                f"{limits.customary:.3g} is what this class of optimizer is usually trained with: "
                f"warm-up to {rate:.3g} over {limits.warm_steps} steps; the optimizer's own rate "
                f"is not used"
            )
            scale = rate / (limits.warm_steps + 1)
            decision = Decision(scale, "begin", reason, seen.step + 1, measure=limits.measurable)
            return replace(state, phase=Warm(rate, seen.step)), decision.also(
                "snapshot", "restart average"
            )
        rate, steps = self.own_rate, limits.probe_steps
        if steps == 0:
            reason = (
                f"nothing is known of this class of optimizer, and there are too few steps for a "
                f"probe: its own rate {rate:.3g} is held"
            )
            decision = Decision(rate, "unprobed", reason, effects=("restart average",))
            return replace(state, phase=Hold(rate, since=seen.step)), decision
        reason = (
            f"nothing is known of this class of optimizer: exponential ramp from "
            f"{settings.min_lr:.3g} to {settings.max_lr:.3g} over {steps} steps, to be undone; "
            f"the optimizer's own rate is not used"
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
            return self._unseen(state, seen.step)
        if ramp.ended:
            return _settle(settings, state, seen, ramp, tried)
        state = replace(state, phase=replace(self, ramp=ramp))
        rate = test.next_rate(ramp)
        return state, Decision(rate, next_step=seen.step + 1, rate_is="experiment")

    def _unseen(self, state: FeedbackState, step: int) -> tuple[FeedbackState, Decision]:
        rate = self.own_rate
        reason = (
            f"the model reports no metric named 'loss': there is no curve to read a rate off, and "
            f"the optimizer's own rate {rate:.3g} is held"
        )
        decision = Decision(rate, "unprobed", reason, effects=("restore", "restart average"))
        return replace(state, phase=Hold(rate, since=step)), decision


def _settle(
    settings: Feedback, state: FeedbackState, seen: Observation, ramp: RampState, tried: float
) -> tuple[FeedbackState, Decision]:
    limits, losses = state.limits, ramp.losses
    reading = read_rate(_ramp(settings, state), losses)
    found = reading.suggestion
    if found is None:
        found = settings.min_lr * 1e3
        short = len(losses) + (ramp.ended == "not finite") <= limits.probe_steps
        ended = f", until it rose by a rate of {tried:.3g}" if short else ""
        reason = f"{reading.verdict}{ended}; a cautious {found:.3g} is tried"
    else:
        reason = f"{reading.verdict}: their geometric mean is {found:.3g}"
    # A ramp shows what is fast for a few steps: with Adam it is ten times what is customary.
    rate = found / settings.caution
    reason += (
        f"; the weights are those of before the ramp ({seen.step - limits.first_step} steps), the "
        f"rate warms up to {rate:.3g} over {limits.warm_steps} steps"
    )
    curve = _shown(settings, state, losses, reading.suggestion, reason)
    limits = replace(limits, customary=rate / settings.begin)
    warm = Warm(rate, begin=seen.step)
    scale = rate / (limits.warm_steps + 1)
    decision = Decision(
        scale, "settle", reason, seen.step + 1, measure=limits.measurable, curve=curve
    )
    decision = decision.also("restore", "restart average")
    return replace(state, limits=limits, phase=warm), decision


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


@dataclass(frozen=True)
class Warm:
    """The rate rises linearly from zero."""

    rate: float  # where to
    begin: int  # step
    start: float | None = None  # the first loss
    kind: Literal["warm"] = "warm"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Raises the rate; at its end comes the first segment of the search."""
        limits, step = state.limits, seen.step
        left = min(self.begin + limits.warm_steps - step, limits.warm_steps)
        start = self.start if self.start is not None else seen.validation_loss
        # Nothing is measured where an epoch ends; epochs of one step end everywhere.
        if start is None and (not limits.measurable or (seen.epoch_end and left < 0)):
            start = seen.loss
        if start is not None and not finite(start):
            start = None
        if left > 0 or (start is None and seen.epoch_end and left == 0):
            scale = self.rate * (1.0 - left / (limits.warm_steps + 1))
            wait = 1 if start is None else max(1, min(left, limits.warm_steps // 50))
            state = replace(state, phase=replace(self, start=start))
            return state, Decision(scale, next_step=step + wait, measure=start is None)
        if start is None:
            reason = (
                f"the model reports no metric named 'loss', and there are no validation data: "
                f"nothing tells rates apart, and the customary {self.rate:.3g} is held"
            )
            return replace(state, phase=Hold(self.rate, since=seen.step)), Decision(
                self.rate, "unseen", reason
            )
        gauge = Gauge(seen.step, seen.step + limits.segment, seen.step)
        phase = First(self.rate, gauge, start, Known(start))
        reason = f"warmed up to {self.rate:.3g} in {limits.warm_steps} steps"
        decision = Decision(
            self.rate, "warm", reason, gauge.half, measure=gauge.half >= gauge.until
        )
        return replace(state, phase=phase), decision
