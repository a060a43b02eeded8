"""A rate that is held on trial, and the cool-down after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from adaptlr.controllers.base import Decision, Observation

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback, FeedbackState


@dataclass(frozen=True)
class Hold:
    """The rate stays."""

    rate: float
    since: int  # step
    looks: int = 0  # searches after the first
    wasted: int = 0  # steps that they have undone
    cuts: int = 0
    kind: Literal["hold"] = "hold"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Cools near the end of the run, and cuts at a plateau."""
        step, limits = seen.step, state.limits
        last = limits.last_step
        if last is not None and last - step <= settings.cool_share * limits.total(step):
            reason = f"the last {last - step} steps of the horizon have begun"
            return self._cool(state, step, last - step, reason)
        if state.progress.wait >= self._patience(settings, state):
            return self._stalled(settings, state, step)
        return state, Decision(self.rate)

    def _patience(self, settings: Feedback, state: FeedbackState) -> int:
        """Epochs without improvement that are too many: those of short epochs say less."""
        limits = state.limits
        if limits.last_step is None or not limits.epoch_steps:
            return settings.patience
        epochs = settings.patience_share * limits.total(0) / limits.epoch_steps
        return max(settings.patience, round(epochs))

    def _stalled(
        self, settings: Feedback, state: FeedbackState, step: int
    ) -> tuple[FeedbackState, Decision]:
        limits, progress = state.limits, state.progress
        reason = progress.stalled(settings.monitor.name, settings.least_gain)
        if self.cuts < settings.cuts:
            rate = self.rate / settings.cut
            phase = replace(self, rate=rate, cuts=self.cuts + 1)
            state = replace(state, phase=phase, progress=replace(progress, wait=0))
            return state, Decision(rate, "cut", f"{reason}: a lower {rate:.3g} is held")
        steps = max(1, int(settings.cool_share * (step - limits.first_step)))
        if limits.epoch_steps:  # whole epochs, so that the last weights are measured
            steps = -(-steps // limits.epoch_steps) * limits.epoch_steps
        steps = steps if limits.last_step is None else min(steps, limits.last_step - step)
        return self._cool(state, step, steps, f"{reason}, at lower rates neither")

    def _cool(
        self, state: FeedbackState, step: int, steps: int, reason: str
    ) -> tuple[FeedbackState, Decision]:
        if steps <= 0:  # nothing is left
            return state, Decision(self.rate)
        phase = Cool(self.rate, step, step + steps, scale=self.rate)
        reason += f": linear decay to zero over {steps} steps"
        decision = Decision(self.rate, "cool", reason, phase.next_step(step))
        return replace(state, phase=phase), decision

    def look_is_due(self, settings: Feedback, state: FeedbackState, step: int) -> bool:
        """Whether the rate was held for so long that a higher one may have become better."""
        limits = state.limits
        if state.progress.wait >= self._patience(settings, state):
            return False
        if self.cuts or self.looks >= len(settings.look_at) or not limits.customary:
            return False
        if self.wasted > settings.waste_share * limits.total(step):
            return False
        if limits.last_step is None:  # after as long a time as everything before
            return step - self.since >= max(self.since - limits.first_step, limits.segment)
        return settings.look_at[self.looks] <= limits.share(step) <= settings.search_share


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
