"""A rate that is held while it helps, and the cool-down after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from adaptlr.controllers.base import Decision, Observation

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback, FeedbackState

__all__ = ["Cool", "Hold"]


@dataclass(frozen=True)
class Hold:
    """The rate stays."""

    rate: float
    kind: Literal["hold"] = "hold"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Begins to cool where the end of the run is near, or nothing improves any more."""
        step, (steps, reason) = seen.step, self._due(settings, state, seen)
        if steps <= 0:  # nothing is due, or nothing is left
            return state, Decision(self.rate)
        phase = Cool(self.rate, step, step + steps, scale=self.rate)
        reason += f": linear decay to zero over {steps} steps"
        decision = Decision(self.rate, "cool", reason, phase.next_step(step))
        return replace(state, phase=phase), decision

    def _due(self, settings: Feedback, state: FeedbackState, seen: Observation) -> tuple[int, str]:
        """Steps of a cool-down that begins now, 0 for none, and why."""
        step, limits, progress = seen.step, state.limits, state.progress
        last, trained = limits.last_step, seen.step - limits.first_step
        if last is not None and last - step <= settings.cool_share * (last - limits.first_step):
            return last - step, f"the last {last - step} steps of the horizon have begun"
        if progress.wait < settings.patience:
            return 0, ""
        steps = max(1, int(settings.cool_share * trained))
        if limits.epoch_steps:  # whole epochs, so that the last weights are measured
            steps = -(-steps // limits.epoch_steps) * limits.epoch_steps
        steps = steps if last is None else min(steps, last - step)
        return steps, progress.stalled(settings.monitor.name, settings.least_gain)


@dataclass(frozen=True)
class Cool:
    """The rate falls linearly to zero; then the training stops."""

    rate: float  # where from
    begin: int  # step
    end: int
    scale: float
    told: bool = False  # the end was asked for
    kind: Literal["cool"] = "cool"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Lowers the rate; asks for the end where an epoch ends after the last step."""
        if seen.step < self.end:
            scale = self.rate * (self.end - seen.step) / (self.end - self.begin)
            state = replace(state, phase=replace(self, scale=scale))
            return state, Decision(scale, next_step=self.next_step(seen.step))
        if self.told or not seen.epoch_end:
            return state, Decision(self.scale)
        best = state.progress.monitor.record
        measured = "" if best is None else f"; best {settings.monitor.name} {best:.6g}"
        reason = f"cooled down{measured}"
        state = replace(state, phase=replace(self, told=True))
        return state, Decision(self.scale, "stop", reason, effects=("stop",))

    def next_step(self, step: int) -> int:
        """Step of the next change: fifty make the line."""
        return step + max(1, (self.end - self.begin) // 50)
