"""Warm-up to the rate of the probe, and trials of higher ones while they pay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from adaptlr.controllers.base import Decision, Effect, Observation
from adaptlr.controllers.feedback.hold import Hold
from adaptlr.monitor import finite

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback, FeedbackState

__all__ = ["Trial", "Warm", "edge"]


@dataclass(frozen=True)
class Warm:
    """The rate rises linearly from zero."""

    rate: float  # where to
    begin: int  # step
    kind: Literal["warm"] = "warm"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Raises the rate; at its end comes the first trial, or nothing more."""
        steps, trials = state.limits.warm_steps, state.limits.trial_steps > 0
        left = min(self.begin + steps - seen.step, steps)
        if left > 0:
            scale = self.rate * (1.0 - left / (steps + 1))
            wait = min(left, max(1, steps // 50))
            measure = wait == left and trials
            return replace(state, phase=self), Decision(
                scale, next_step=seen.step + wait, measure=measure
            )
        reason = f"warmed up to {self.rate:.3g} in {steps} steps"
        if not trials:
            return replace(state, phase=Hold(self.rate)), Decision(self.rate, "warm", reason)
        trial = Trial(self.rate, until=seen.step)
        if seen.monitored is None or seen.epoch_end:
            return replace(state, phase=trial), Decision(
                self.rate, "warm", reason, seen.step + 1, measure=True
            )
        return replace(trial, mark=seen.monitored).raised(settings, state, seen.step, reason)


@dataclass(frozen=True)
class Trial:
    """A rate is being tried."""

    rate: float
    until: int  # step
    mark: float | None = None  # the metric when the trial began
    gain: float | None = None  # what the last raise that paid brought
    trying: bool = False  # a raise, which may be undone
    kind: Literal["trial"] = "trial"

    def update(
        self, settings: Feedback, state: FeedbackState, seen: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Raises the rate again where the last raise has paid, and undoes it where not."""
        value, name = seen.monitored, settings.monitor.name
        # Validation data of `fit` need not be those that are measured between epoch ends.
        if seen.epoch_end or seen.step < self.until:
            until = max(self.until, seen.step + 1)
            return state, Decision(self.rate, next_step=until, measure=True)
        if value is None:  # it was asked for
            rate = self.rate / settings.trial_factor if self.trying else self.rate
            reason = f"{name} cannot be measured on held-out data: {rate:.3g} is held"
            return _held(state, rate), Decision(rate, "keep", reason)
        found = f"{name} of the averaged weights is {value:.6g}"
        if self.mark is None:
            return replace(self, mark=value).raised(settings, state, seen.step, found)
        found += f" after {self.mark:.6g}"
        lower = state.progress.monitor.direction == "min"
        gain = self.mark - value if lower else value - self.mark
        if gain > 0.0:
            paid = replace(self, mark=value, gain=gain)
            return paid.raised(settings, state, seen.step, f"{found}: {self.rate:.3g} pays")
        return self._undo(settings, state, -gain, found)

    def raised(
        self, settings: Feedback, state: FeedbackState, step: int, reason: str
    ) -> tuple[FeedbackState, Decision]:
        """Tries the next higher rate, or holds one below this if that is beyond the bounds."""
        rate, steps = self.rate * settings.trial_factor, state.limits.trial_steps
        if rate > settings.max_lr:
            rate = self.rate / settings.margin
            reason = f"{reason}, and is as high as trials go: {rate:.3g} is held"
            return _held(state, rate), Decision(rate, "keep", reason)
        phase = replace(self, rate=rate, trying=True, until=step + steps)
        reason += f"; {rate:.3g} is tried for {steps} steps"
        return replace(state, phase=phase), Decision(
            rate, "raise", reason, phase.until, effects=("snapshot",), measure=True
        )

    def _undo(
        self, settings: Feedback, state: FeedbackState, loss: float, found: str
    ) -> tuple[FeedbackState, Decision]:
        top = self.rate / settings.trial_factor
        limit = edge(top, settings.trial_factor, self.gain, loss)
        rate, paid = limit / settings.margin, self.gain is not None
        undone = state.limits.trial_steps * (1 + paid)
        reason = f"{found}: a raise brings nothing at {limit:.3g}, {rate:.3g} is held"
        reason += f"; the last {undone} steps are undone"
        back: Effect = "restore earlier" if paid else "restore"
        decision = Decision(rate, "undo", reason, effects=(back, "restart average"))
        return _held(state, rate), decision


def _held(state: FeedbackState, rate: float) -> FeedbackState:
    # Epochs that ended in trials say nothing of the rate that is held now.
    return replace(state, phase=Hold(rate), progress=replace(state.progress, wait=0))


def edge(rate: float, factor: float, gain: float | None, loss: float) -> float:
    """The rate at which raising stops to pay, interpolated.

    A raise to `rate` brought `gain`, the next one, to `rate * factor`, lost `loss`: a straight
    line between the two, over the logarithm of the rate, crosses zero at the edge.

    Args:
        rate: The highest rate that paid, > 0.
        factor: What a raise multiplies the rate by, > 1.
        gain: Improvement of the metric in the last trial that paid, > 0; None if none did, which
            counts as a gain of the size of the loss.
        loss: Change for the worse in the trial that did not, ≥ 0; not finite if it diverged.

    Example:
        >>> round(edge(0.1, 2.0, gain=0.03, loss=0.01), 4)
        0.1682
        >>> edge(0.1, 2.0, gain=0.03, loss=float("inf"))
        0.1
    """
    if not finite(loss):
        return rate
    share = 0.5 if gain is None else gain / (gain + loss)
    return float(rate * factor**share)
