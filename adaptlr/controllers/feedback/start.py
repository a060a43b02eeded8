"""Before the search: a customary rate, or that of a ramp which is undone, and the warm-up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from adaptlr.controllers.base import Decision
from adaptlr.controllers.feedback.hold import Hold
from adaptlr.controllers.feedback.progress import Gauge, Turn
from adaptlr.controllers.feedback.search import First, Known
from adaptlr.monitor import finite
from adaptlr.range_test import RampState, RangeTest, read_curve, read_rate

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.progress import Reply


@dataclass(frozen=True)
class Start:
    """Nothing was done yet."""

    own_rate: float  # of the optimizer
    kind: Literal["start"] = "start"

    def update(self, turn: Turn) -> Reply:
        """Begins to warm up to what is customary, or if that is not known, the ramp."""
        limits, settings, step = turn.limits, turn.settings, turn.seen.step
        if limits.customary:
            rate = settings.begin * limits.customary
            reason = (
                f"{limits.customary:.3g} is what this class of optimizer is usually trained with: "
                f"{_warm_up(rate, limits.warm_steps)}; the optimizer's own rate is not used"
            )
            scale = rate / (limits.warm_steps + 1)
            decision = Decision(scale, "begin", reason, step + 1, measure=limits.measurable)
            return turn.go(Warm(rate, step), decision, "snapshot", "restart average")
        rate, steps = self.own_rate, limits.probe_steps
        if steps == 0:
            reason = (
                f"nothing is known of this class of optimizer, and there are too few steps for a "
                f"probe: its own rate {rate:.3g} is held"
            )
            decision = Decision(rate, "unprobed", reason)
            return turn.go(Hold(rate, since=step), decision, "restart average")
        lowest = settings.min_lr
        reason = (
            f"nothing is known of this class of optimizer: exponential ramp from {lowest:.3g} to "
            f"{settings.max_lr:.3g} over {steps} steps, to be undone; the optimizer's own rate is "
            f"not used"
        )
        decision = Decision(lowest, "probe", reason, step + 1, rate_is="experiment")
        return turn.go(Probe(rate), decision, "snapshot")


@dataclass(frozen=True)
class Probe:
    """The ramp is under way."""

    own_rate: float
    ramp: RampState = field(default_factory=RampState)
    kind: Literal["probe"] = "probe"

    def update(self, turn: Turn) -> Reply:
        """Tries the next rate of the ramp; after the last, reads a rate off their losses."""
        test, seen = _ramp(turn), turn.seen
        ramp = test.take(self.ramp, seen.loss, epoch_end=seen.epoch_end)
        if ramp.ended == "unseen":
            return self._unseen(turn)
        if ramp.ended:
            return _settle(turn, ramp, test.next_rate(self.ramp))
        rate = test.next_rate(ramp)
        decision = Decision(rate, next_step=seen.step + 1, rate_is="experiment")
        return turn.go(replace(self, ramp=ramp), decision)

    def _unseen(self, turn: Turn) -> Reply:
        rate = self.own_rate
        reason = (
            f"the model reports no metric named 'loss': there is no curve to read a rate off, and "
            f"the optimizer's own rate {rate:.3g} is held"
        )
        decision = Decision(rate, "unprobed", reason)
        return turn.go(Hold(rate, turn.seen.step), decision, "restore", "restart average")


def _settle(turn: Turn, ramp: RampState, tried: float) -> Reply:
    settings, limits, losses, step = turn.settings, turn.limits, ramp.losses, turn.seen.step
    reading = read_rate(_ramp(turn), losses)
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
        f"; the weights are those of before the ramp ({step - limits.first_step} steps); "
        f"{_warm_up(rate, limits.warm_steps)}"
    )
    curve = read_curve(_ramp(turn), losses)
    suggestions = {**curve.suggestions, "centre": reading.suggestion}
    curve = replace(curve, suggestions=suggestions, verdict=reason)
    scale, measure = rate / (limits.warm_steps + 1), limits.measurable
    decision = Decision(scale, "settle", reason, step + 1, measure=measure, curve=curve)
    limits = replace(limits, customary=rate / settings.begin, usual=settings.usual)
    return turn.go(Warm(rate, step), decision, "restore", "restart average", limits=limits)


def _ramp(turn: Turn) -> RangeTest:
    settings, limits = turn.settings, turn.limits
    steps = max(2, limits.probe_steps)
    return RangeTest(settings.min_lr, settings.max_lr, steps, momentum=limits.momentum)


@dataclass(frozen=True)
class Warm:
    """The rate rises linearly from zero."""

    rate: float  # where to
    begin: int  # step
    start: float | None = None  # the first loss
    kind: Literal["warm"] = "warm"

    def update(self, turn: Turn) -> Reply:
        """Raises the rate; at its end comes the first segment of the search."""
        limits, seen, step = turn.limits, turn.seen, turn.seen.step
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
            decision = Decision(scale, next_step=step + wait, measure=start is None)
            return turn.go(replace(self, start=start), decision)
        if start is None:
            reason = (
                f"the model reports no metric named 'loss', and there are no validation data: "
                f"nothing tells rates apart, and the customary {self.rate:.3g} is held"
            )
            return turn.go(Hold(self.rate, since=step), Decision(self.rate, "unseen", reason))
        gauge = Gauge(step, step + limits.segment, step)
        phase = First(self.rate, gauge, Known(start), mark=start)
        steps = limits.warm_steps
        plural = "" if steps == 1 else "s"
        reason = f"warmed up to {self.rate:.3g} in {steps} step{plural}"
        return phase.begun(turn, "warm", reason if steps else f"{self.rate:.3g} without warm-up")


def _warm_up(rate: float, steps: int) -> str:
    if not steps:
        return f"begins at {rate:.3g}"
    return f"warm-up to {rate:.3g} over {steps} step{'' if steps == 1 else 's'}"
