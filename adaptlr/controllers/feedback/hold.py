"""A rate that is held on trial, and the cool-down after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from adaptlr.controllers.base import Decision, Effect
from adaptlr.controllers.feedback.progress import Turn

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.progress import Reply


@dataclass(frozen=True)
class Hold:
    """The rate stays."""

    rate: float
    since: int  # step
    start: float = 0.0  # the first loss, if one was ever seen
    snapshot_loss: float | None = None  # of the weights to go back to, if it is known
    ceiling: float | None = None  # a rate that has spoilt the weights when it was held
    looks: int = 0  # searches after the first
    wasted: int = 0  # steps that they have undone
    cuts: int = 0
    kind: Literal["hold"] = "hold"

    def update(self, turn: Turn) -> Reply:
        """Cools near the end of the run, and cuts at a plateau."""
        step, limits = turn.seen.step, turn.limits
        last = limits.last_step
        if last is not None and last - step <= turn.settings.cool_share * limits.total(step):
            reason = f"the last {last - step} steps of the run have begun"
            turn, reason, back = _unspoilt(turn, reason)
            return cool(turn, self.rate, last - step, reason, *back)
        if turn.state.progress.wait >= self._patience(turn):
            return self._stalled(turn)
        return turn.state, Decision(self.rate)

    def _patience(self, turn: Turn) -> int:
        """Epochs without improvement that are too many: those of short epochs say less."""
        limits, patience = turn.limits, turn.settings.patience
        if limits.last_step is None or not limits.epoch_steps:
            return patience
        epochs = turn.settings.patience_share * limits.total(0) / limits.epoch_steps
        return max(patience, round(epochs))

    def _stalled(self, turn: Turn) -> Reply:
        settings, limits = turn.settings, turn.limits
        reason = turn.state.progress.stalled(settings.monitor.name, settings.least_gain)
        turn, reason, back = _unspoilt(turn, reason)
        progress = turn.state.progress
        if self.cuts < settings.cuts:
            rate = self.rate / settings.cut
            decision = Decision(rate, "cut", f"{reason}: a lower {rate:.3g} is held")
            phase = replace(self, rate=rate, cuts=self.cuts + 1)
            return turn.go(phase, decision, *back, progress=replace(progress, wait=0))
        step = turn.seen.step
        steps = max(1, int(settings.cool_share * (step - limits.first_step)))
        if limits.epoch_steps:  # whole epochs, so that the last weights are measured
            steps = -(-steps // limits.epoch_steps) * limits.epoch_steps
        steps = steps if limits.last_step is None else min(steps, limits.last_step - step)
        return cool(turn, self.rate, steps, f"{reason}; lower rates were tried", *back)

    def look_is_due(self, turn: Turn) -> bool:
        """Whether the rate was held for so long that a higher one may have become better."""
        settings, limits, step = turn.settings, turn.limits, turn.seen.step
        if turn.state.progress.wait >= self._patience(turn):
            return False
        if self.cuts or self.looks >= len(settings.look_at) or not limits.customary:
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

    def update(self, turn: Turn) -> Reply:
        """Lowers the rate; asks for the end where an epoch ends after the last step."""
        step = turn.seen.step
        if step < self.end:
            scale = self.rate * (self.end - step) / (self.end - self.begin)
            decision = Decision(scale, next_step=self.next_step(step))
            return turn.go(replace(self, scale=scale), decision)
        if self.told or not turn.seen.epoch_end:
            return turn.state, Decision(self.scale)
        decision = Decision(self.scale, "stop", "cooled down", effects=("stop",))
        return turn.go(replace(self, told=True), decision)

    def next_step(self, step: int) -> int:
        """Step of the next change: fifty make the line."""
        return step + max(1, (self.end - self.begin) // 50)


def _unspoilt(turn: Turn, reason: str) -> tuple[Turn, str, tuple[Effect, ...]]:
    """Goes back from weights that a rate has spoilt: a lower one does better with earlier ones."""
    settings, progress = turn.settings, turn.state.progress
    if not (turn.seen.restorable and progress.worse(settings.worse)):
        return turn, reason, ()
    turn = replace(turn, state=replace(turn.state, progress=progress.gone_back()))
    reason += (
        f"; {settings.monitor.name} has become much worse, so that the last snapshot comes back"
    )
    return turn, reason, ("restore",)


def cool(turn: Turn, rate: float, steps: int, reason: str, *effects: Effect) -> Reply:
    """Begins the cool-down, unless no step is left for it."""
    if steps <= 0:
        return turn.state, Decision(rate)
    step = turn.seen.step
    phase = Cool(rate, step, step + steps, scale=rate)
    reason += f": linear decay to zero over {steps} steps"
    return turn.go(phase, Decision(rate, "cool", reason, phase.next_step(step)), *effects)
