"""What counts as training gone wrong, read off losses, metric and weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from adaptlr.controllers.base import Observation
from adaptlr.monitor import finite

__all__ = ["Signs", "progressed", "watch_level", "watch_movement"]

_LEVEL = 0.9  # share of the starting loss above which a run has learnt next to nothing
_FLAT = 0.01  # span of a flat stretch of losses, as a share of the loss
_STUCK_TRIES = 2  # a cut that has not helped twice is not the cure
_BATCHES = 10  # of a probe, whose losses make the one to start from: single ones differ widely


@dataclass(frozen=True)
class Signs:
    """What was seen so far, as far as it tells good from bad."""

    measured: bool = False  # the monitored metric was a number once
    start: float | None = None  # the first training loss, or the mean of the first in a probe
    seen: int = 0  # losses in it
    best: float | None = None  # the lowest one
    low: float | None = None  # bounds of the present flat stretch of losses
    high: float | None = None
    flat: int = 0  # control points in it, of those that are not closer than usual
    flat_step: int = 0  # step of the last one counted
    spacing: int = 1  # steps between control points, as a rule
    tries: int = 0  # restores because the loss did not move

    def stuck(self, points: int | None) -> bool:
        """Whether the loss, once lower, has stayed at its starting level for so long."""
        if points is None or self.tries >= _STUCK_TRIES or self.flat < points:
            return False
        level = _LEVEL * (self.start or 0.0)
        if self.low is None or self.best is None:
            return False
        return self.low >= level > 0.0 and self.best < level

    def symptom(
        self, observation: Observation, limit: float | None, points: int | None
    ) -> str | None:
        """Says what is wrong, or None if nothing is.

        Args:
            observation: What was seen now, taken in by `watch_movement` already.
            limit: How many times the first training loss is an explosion, or None for never.
            points: Control points without movement that are too many, or None for never.
        """
        loss, monitored = observation.loss, observation.monitored
        if loss is not None and not finite(loss):
            return f"the training loss became {loss}"
        if not observation.sound:
            return "the weights hold NaN or infinities"
        if monitored is not None and not finite(monitored) and self.measured:
            return f"the monitored metric became {monitored}"
        if loss is None or self.start is None or self.best is None:
            return None
        # Where losses are negative, the fall since the start is the better measure of size.
        size = max(abs(self.start), self.start - self.best)
        if limit is not None and loss > limit * size > 0.0:
            return (
                f"the training loss {loss:.4g} is more than {limit:g} × its start {self.start:.4g}"
            )
        if self.stuck(points):
            return (
                f"the training loss has stayed at {loss:.4g} for {self.flat} control points and "
                f"its start was {self.start:.4g}"
            )
        return None


def watch_level(signs: Signs, loss: float | None, *, probing: bool) -> Signs:
    """Takes in where the losses began and how low they came."""
    if loss is None or not finite(loss):
        return signs
    start, seen = signs.start, signs.seen
    if start is None or (probing and seen < _BATCHES):
        start, seen = ((start or 0.0) * seen + loss) / (seen + 1), seen + 1
    best = loss if signs.best is None else min(loss, signs.best)
    return replace(signs, start=start, seen=seen, best=best)


def watch_movement(signs: Signs, observation: Observation) -> Signs:
    """Takes in whether the loss moves."""
    loss, step = observation.loss, observation.step
    if loss is None or not finite(loss):
        return signs
    if signs.flat > 0 and signs.low is not None and signs.high is not None:
        low, high = min(loss, signs.low), max(loss, signs.high)
        if high - low <= _FLAT * abs(high):
            signs = replace(signs, low=low, high=high)
            # A ramp has a control point each step, and a loss need not move from step to step.
            if step - signs.flat_step < signs.spacing:
                return signs
            return replace(signs, flat=signs.flat + 1, flat_step=step)
    return replace(signs, low=loss, high=loss, flat=1, flat_step=step)


def progressed(signs: Signs, loss: float | None) -> bool:
    """Whether a loss keeps three quarters of the fall that was seen."""
    if loss is None or signs.start is None or signs.best is None:
        return False
    return loss - signs.best <= 0.25 * (signs.start - signs.best)
