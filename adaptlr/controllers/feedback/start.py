"""Before the first step: the rate to begin with, and the warm-up to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from adaptlr.controllers.base import Decision, Observation
from adaptlr.controllers.feedback.hold import Hold
from adaptlr.controllers.feedback.progress import Gauge
from adaptlr.controllers.feedback.search import First, Known
from adaptlr.monitor import finite

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback, FeedbackState

__all__ = ["Warm"]


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
