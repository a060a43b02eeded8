"""The learning-rate range test: an exponential ramp, and how a rate is read off its losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptlr._checks import require_integer, require_number

__all__ = ["RangeTest", "Reading", "smooth"]


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
        divergence: The ramp ends when the smoothed loss exceeds its start by this factor, > 1.
        smoothing: Weight of the past in the average of the batch losses, in [0, 1).

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
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        require_number(self, "min_lr", above=0.0)
        require_number(self, "max_lr", above=self.min_lr)
        require_integer(self, "num_steps", minimum=2)
        require_number(self, "divergence", above=1.0)
        require_number(self, "smoothing", minimum=0.0, below=1.0)

    def rate(self, index: int) -> float:
        """The rate of step `index` of the ramp."""
        return self.min_lr * math.pow(self.max_lr / self.min_lr, index / (self.num_steps - 1))

    def diverged(self, losses: Sequence[float]) -> bool:
        """Whether the ramp should end: the loss left the finite numbers, or its start behind."""
        if not math.isfinite(losses[-1]):
            return True
        smoothed = smooth(losses, self.smoothing)
        return smoothed[-1] > self.divergence * smoothed[0]

    def read(self, losses: Sequence[float]) -> Reading:
        """Reads a rate off the batch losses of a ramp, the first belonging to `min_lr`.

        The loss of a step is measured before its update, so the loss that a rate led to is the
        next one in the list.
        """
        finite = [loss for loss in losses if math.isfinite(loss)]
        smoothed = smooth(finite, self.smoothing)[1:]
        if not smoothed:
            return Reading(None, None, None, "the loss was not finite from the start")
        start = finite[0]
        lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
        if smoothed[lowest] >= start:
            return Reading(
                None,
                None,
                None,
                f"the curve shows no minimum: the loss never fell below {start:.4g}",
            )
        midpoint = (start + smoothed[lowest]) / 2.0
        half = next((i for i in range(lowest, -1, -1) if smoothed[i] > midpoint), 0)
        low, high = self.rate(half), self.rate(lowest)
        verdict = (
            f"the loss fell from {start:.4g} to {smoothed[lowest]:.4g} at rate {high:.3g}, half "
            f"of that by {low:.3g}"
        )
        return Reading(high, low, math.sqrt(low * high), verdict)


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, corrected for its start: `a[t] = Σ wᵗ⁻ⁱ vᵢ / Σ wᵗ⁻ⁱ`."""
    averages, total, norm = [], 0.0, 0.0
    for value in values:
        total = weight * total + value
        norm = weight * norm + 1.0
        averages.append(total / norm)
    return averages
