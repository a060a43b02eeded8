"""The rates that a learning-rate range test tries, and when it gives up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from adaptlr._arguments import AboveOne, BelowOne, PositiveFloat, accept, check, integer, number
from adaptlr.monitor import finite

Shape = Literal["exponential", "linear"]


@dataclass(frozen=True)
class RampState:
    """How far a ramp has come.

    Attributes:
        losses: Finite batch losses, the first measured before any step.
        ended: Why it ended; empty as long as it has not. `"unseen"`: no loss is reported.
    """

    losses: tuple[float, ...] = ()
    ended: Literal["", "complete", "diverged", "not finite", "unseen"] = ""


@dataclass(frozen=True)
class RangeTest:
    """A ramp of the rate from `min_lr` to `max_lr` (Smith, arXiv 1506.01186, section 3.3).

    Step i of n has the rate `min_lr * (max_lr / min_lr) ** (i / (n - 1))` in an exponential ramp,
    and `min_lr + (max_lr - min_lr) * i / (n - 1)` in a linear one.

    Args:
        min_lr: First rate, > 0.
        max_lr: Last rate, > `min_lr`.
        num_steps: Steps in the ramp, ≥ 2.
        divergence: The ramp ends when the loss exceeds its start by this factor, > 1, and by five
            standard errors: single batches of a few samples differ by as much. Measured
            against the start and not against the lowest loss: near zero any noise is a multiple.
        shape: `"exponential"` or `"linear"`.
        momentum: Of an optimizer whose velocity `v = momentum * v - rate * gradient` holds the
            rates of steps before (SGD, RMSprop), in [0, 1). In a ramp these are lower, and the
            step is as large as one at a lower constant rate: at `rate_in_effect`, which is what is
            read off. With 0.9 in a ramp of 50 steps over seven decades that is a third.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> test = RangeTest(min_lr=1e-3, max_lr=10.0, num_steps=5)
        >>> [round(test.rate(i), 4) for i in range(5)]
        [0.001, 0.01, 0.1, 1.0, 10.0]
    """

    min_lr: PositiveFloat = 1e-6
    max_lr: float = 10.0
    num_steps: Annotated[int, integer(2)] = 100
    divergence: AboveOne = 1.5
    shape: Shape = "exponential"
    momentum: BelowOne = 0.0

    def __post_init__(self) -> None:
        check(self)
        accept(self, "max_lr", Annotated[float, number(above=self.min_lr)])

    def rate(self, index: int) -> float:
        """The rate of step `index` of the ramp."""
        if self.shape == "linear":
            share = index / (self.num_steps - 1)
            return (1.0 - share) * self.min_lr + share * self.max_lr
        return self.min_lr * math.pow(self.max_lr / self.min_lr, index / (self.num_steps - 1))

    def rate_in_effect(self, index: int) -> float:
        """The constant rate whose steps would be as large as step `index` of the ramp."""
        effect = 0.0
        for i in range(index + 1):
            effect = self.momentum * effect + (1.0 - self.momentum) * self.rate(i)
        return effect

    def diverged(self, losses: Sequence[float]) -> bool:
        """Whether the ramp should end: the loss left the finite numbers, or its start behind."""
        if not losses or not finite(losses[-1]):
            return bool(losses)
        recent, before = losses[-1 - self.half_width :], losses[: -1 - self.half_width]
        start, steps = self.start(losses), min(len(losses), self.flat)
        # From step to step, so that a fall is no noise; recent losses may be an explosion.
        changes = [(b - a) ** 2 for a, b in itertools.pairwise(before)]
        error = math.sqrt(mean(changes or [0.0]) / 2.0 * (1.0 / len(recent) + 1.0 / steps))
        return mean(recent) > max(self.divergence * start, start + 5.0 * error) and start > 0.0

    def take(self, state: RampState, loss: float | None, *, epoch_end: bool) -> RampState:
        """Takes in the loss of a step; of one more than there are rates, as the last has its own.

        The loss of a step is measured before its update, so the loss that a rate led to is the
        next one.
        """
        if loss is None:
            # At an epoch's end the last loss may have been seen already; elsewhere there is none.
            return state if epoch_end else replace(state, ended="unseen")
        if not finite(loss):
            return replace(state, ended="not finite")
        losses = (*state.losses, loss)
        if self.diverged(losses):
            return RampState(losses, "diverged")
        return RampState(losses, "complete" if len(losses) > self.num_steps else "")

    def next_rate(self, state: RampState) -> float:
        """The rate of the step after the losses seen; the last one holds beyond the end."""
        return self.rate(min(len(state.losses), self.num_steps - 1))

    def smooth(self, losses: Sequence[float]) -> list[float]:
        """The losses that the rates led to, averaged over a third of a decade to either side.

        A trailing average would shift the curve to the right, and a single lucky batch at the end
        of a diverging ramp must not pass for its minimum. (In a linear ramp a window takes as many
        steps as in an exponential one over eight decades.)
        """
        width = self.half_width
        return [mean(losses[max(1, i - width) : i + width + 1]) for i in range(1, len(losses))]

    @property
    def flat(self) -> int:
        """Steps in the first decade of rates."""
        if self.shape == "linear":
            steps = 9.0 * self.min_lr / (self.max_lr - self.min_lr) * (self.num_steps - 1)
            return 1 + min(self.num_steps, int(steps))
        return max(1, round((self.num_steps - 1) / math.log10(self.max_lr / self.min_lr)))

    @property
    def half_width(self) -> int:
        """Steps to either side that a smoothed loss takes in."""
        return (self.num_steps - 1) // 24 if self.shape == "linear" else self.flat // 3

    def start(self, losses: Sequence[float]) -> float:
        """The loss to start with."""
        # The first decade of rates hardly moves the weights: its mean is the loss to start with.
        return mean(losses[: self.flat])

    def noise(self, losses: Sequence[float]) -> float:
        """Two standard errors of the difference between the start and a smoothed loss."""
        first, width = losses[: self.flat], 2 * self.half_width + 1
        start = mean(first)
        if self.shape == "linear":
            # The first decade may be a single step. A trend cancels in second differences.
            some = losses[: max(3, self.num_steps // 10)]
            variance = mean(
                [
                    (a - 2.0 * b + c) ** 2 / 6.0
                    for a, b, c in zip(some, some[1:], some[2:], strict=False)
                ]
                or [0.0]
            )
        else:
            variance = mean([(loss - start) ** 2 for loss in first])
        error = math.sqrt(variance * (1.0 / len(first) + 1.0 / width))
        return max(2.0 * error, 1e-3 * abs(start), 1e-12)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return math.fsum(values) / len(values)
