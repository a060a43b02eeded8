"""The learning-rate range test: an exponential ramp, and how a rate is read off its losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptlr._checks import require_integer, require_number

__all__ = ["RangeTest", "Reading"]


@dataclass(frozen=True)
class Reading:
    """Rates read off a range test's curve; `None` where the curve does not show one.

    Args:
        minimum: Rate at the lowest smoothed loss.
        half: Going down from `minimum`, the first rate whose smoothed loss is still above the
            midpoint between the start and the lowest loss.
        suggestion: Geometric mean of the two: the rate to train with.
        verdict: What the curve shows, or why no rate can be read off it.
    """

    minimum: float | None
    half: float | None
    suggestion: float | None
    verdict: str


@dataclass(frozen=True)
class RangeTest:
    """An exponential ramp of the rate from `min_lr` to `max_lr` (Smith, arXiv 1506.01186, 3.3).

    `rate(i) = min_lr * (max_lr / min_lr) ** (i / (num_steps - 1))`

    Args:
        min_lr: First rate, > 0.
        max_lr: Last rate, > `min_lr`.
        num_steps: Steps in the ramp, ≥ 2.
        divergence: The ramp ends when the loss exceeds its start by this factor, > 1.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> test = RangeTest(min_lr=1e-3, max_lr=10.0, num_steps=5)
        >>> [round(test.rate(i), 4) for i in range(5)]
        [0.001, 0.01, 0.1, 1.0, 10.0]
        >>> round(test.read([2.3, 2.2, 1.0, 0.9, 9.0]).suggestion, 4)
        0.01
    """

    min_lr: float = 1e-6
    max_lr: float = 10.0
    num_steps: int = 100
    divergence: float = 1.5

    def __post_init__(self) -> None:
        require_number(self, "min_lr", above=0.0)
        require_number(self, "max_lr", above=self.min_lr)
        require_integer(self, "num_steps", minimum=2)
        require_number(self, "divergence", above=1.0)

    def rate(self, index: int) -> float:
        """The rate of step `index` of the ramp."""
        return self.min_lr * math.pow(self.max_lr / self.min_lr, index / (self.num_steps - 1))

    def diverged(self, losses: Sequence[float]) -> bool:
        """Whether the ramp should end: the loss left the finite numbers, or its start behind."""
        if not losses or not math.isfinite(losses[-1]):
            return bool(losses)
        recent = losses[-1 - self._half_width :]
        return _mean(recent) > self.divergence * self._start(losses) > 0.0

    def read(self, losses: Sequence[float]) -> Reading:
        """Reads a rate off the batch losses of a ramp, the first belonging to `min_lr`.

        The loss of a step is measured before its update, so the loss that a rate led to is the
        next one in the list. Losses are averaged over a third of a decade to either side: a
        trailing average would shift the curve to the right, and a single lucky batch at the end
        of a diverging ramp must not pass for its minimum.
        """
        finite = [loss for loss in losses if math.isfinite(loss)]
        if len(finite) < 2:
            return Reading(None, None, None, "the loss was not finite from the start")
        width = self._half_width
        smoothed = [
            _mean(finite[max(1, i - width) : i + width + 1]) for i in range(1, len(finite))
        ]
        start = self._start(finite)
        lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
        if start - smoothed[lowest] <= self._noise(finite):
            verdict = (
                f"the curve shows no minimum: the loss never fell below its start {start:.4g} by "
                f"more than its noise"
            )
            return Reading(None, None, None, verdict)
        midpoint = (start + smoothed[lowest]) / 2.0
        half = next((i for i in range(lowest, -1, -1) if smoothed[i] > midpoint), 0)
        low, high = self.rate(half), self.rate(lowest)
        verdict = (
            f"the loss fell from {start:.4g} to {smoothed[lowest]:.4g} at rate {high:.3g}, half "
            f"of that by {low:.3g}"
        )
        return Reading(high, low, math.sqrt(low * high), verdict)

    @property
    def _decade(self) -> int:
        return max(1, round((self.num_steps - 1) / math.log10(self.max_lr / self.min_lr)))

    @property
    def _half_width(self) -> int:
        return self._decade // 3

    def _start(self, losses: Sequence[float]) -> float:
        # The first decade of rates hardly moves the weights: its mean is the loss to start with.
        return _mean(losses[: self._decade])

    def _noise(self, losses: Sequence[float]) -> float:
        """Two standard errors of the difference between the start and a smoothed loss."""
        first, width = losses[: self._decade], 2 * self._half_width + 1
        start = _mean(first)
        variance = _mean([(loss - start) ** 2 for loss in first])
        error = math.sqrt(variance * (1.0 / len(first) + 1.0 / width))
        return max(2.0 * error, 1e-3 * abs(start))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
