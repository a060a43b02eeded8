"""The learning-rate range test: a ramp of rates, and how a rate is read off its losses."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from adaptlr._checks import require_choice, require_integer, require_number
from adaptlr.monitor import finite

__all__ = ["Curve", "RangeTest", "Reading", "Shape", "minimum", "steepest", "valley"]

Shape = Literal["exponential", "linear"]


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
class Curve:
    """All that a ramp showed: what a finder answers and a plot draws.

    Args:
        learning_rates: Rates of the ramp, as far as it came; under momentum, those in effect (see
            `RangeTest`).
        losses: Batch losses; entry i is the loss after the step with rate i, that is, the loss of
            the next batch.
        smoothed: The same, averaged over a third of a decade to either side.
        suggestions: Rates by four rules: `"centre"` (of minimum and half, see `Reading`),
            `"valley"`, `"steepest"` and `"minimum/10"`. All None if the curve shows none.
        verdict: What the curve shows, how sure that is, and what to do if it is not.
        validation_losses: Losses on held-out data after each step, or nothing.
        shape: That of the ramp.
    """

    learning_rates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    smoothed: tuple[float, ...] = ()
    suggestions: dict[str, float | None] = field(
        default_factory=lambda: dict.fromkeys(("centre", "valley", "steepest", "minimum/10"))
    )
    verdict: str = "no ramp was run yet"
    validation_losses: tuple[float, ...] = ()
    shape: Shape = "exponential"


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
        >>> round(test.read([2.3, 2.2, 1.0, 0.9, 9.0]).suggestion, 4)
        0.01
    """

    min_lr: float = 1e-6
    max_lr: float = 10.0
    num_steps: int = 100
    divergence: float = 1.5
    shape: Shape = "exponential"
    momentum: float = 0.0

    def __post_init__(self) -> None:
        require_number(self, "min_lr", above=0.0)
        require_number(self, "max_lr", above=self.min_lr)
        require_integer(self, "num_steps", minimum=2)
        require_number(self, "divergence", above=1.0)
        require_choice(self, "shape", ("exponential", "linear"))
        require_number(self, "momentum", minimum=0.0, below=1.0)

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
        recent, before = losses[-1 - self._half_width :], losses[: -1 - self._half_width]
        start, steps = self._start(losses), min(len(losses), self._flat)
        # From step to step, so that a fall is no noise; recent losses may be an explosion.
        changes = [(b - a) ** 2 for a, b in itertools.pairwise(before)]
        error = math.sqrt(_mean(changes or [0.0]) / 2.0 * (1.0 / len(recent) + 1.0 / steps))
        return _mean(recent) > max(self.divergence * start, start + 5.0 * error) and start > 0.0

    def read(self, losses: Sequence[float]) -> Reading:
        """Reads a rate off the batch losses of a ramp, the first belonging to `min_lr`.

        The loss of a step is measured before its update, so the loss that a rate led to is the
        next one in the list.
        """
        numbers = [loss for loss in losses if finite(loss)]
        if len(numbers) < 2:
            return Reading(None, None, None, "the loss was not finite from the start")
        smoothed = self.smooth(numbers)
        start = self._start(numbers)
        lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
        if start - smoothed[lowest] <= self._noise(numbers):
            verdict = (
                f"the curve shows no minimum: the loss never fell below its start {start:.4g} by "
                f"more than its noise"
            )
            return Reading(None, None, None, verdict)
        midpoint = (start + smoothed[lowest]) / 2.0
        half = next((i for i in range(lowest, -1, -1) if smoothed[i] > midpoint), 0)
        low, high = self.rate_in_effect(half), self.rate_in_effect(lowest)
        verdict = (
            f"the loss fell from {start:.4g} to {smoothed[lowest]:.4g} at rate {high:.3g}, half "
            f"of that by {low:.3g}"
        )
        return Reading(high, low, math.sqrt(low * high), verdict)

    def smooth(self, losses: Sequence[float]) -> list[float]:
        """The losses that the rates led to, averaged over a third of a decade to either side.

        A trailing average would shift the curve to the right, and a single lucky batch at the end
        of a diverging ramp must not pass for its minimum. (In a linear ramp a window takes as many
        steps as in an exponential one over eight decades.)
        """
        width = self._half_width
        return [_mean(losses[max(1, i - width) : i + width + 1]) for i in range(1, len(losses))]

    def curve(
        self,
        losses: Sequence[float],
        diverged: bool = False,
        validation_losses: Sequence[float] = (),
    ) -> Curve:
        """Reads the batch losses of a ramp by every rule, and judges them.

        Args:
            losses: Finite batch losses, the first measured before any step.
            diverged: Whether the ramp was ended by its loss.
            validation_losses: Losses on held-out data, the first measured after the first step.
        """
        smoothed = self.smooth(losses)
        rates = [self.rate_in_effect(i) for i in range(len(smoothed))]
        reading = self.read(losses)
        suggestions = dict(Curve().suggestions)
        verdict = self._hopeless(losses, smoothed, diverged)
        if verdict is None:
            suggestions = {
                "centre": reading.suggestion,
                "valley": valley(rates, smoothed),
                "steepest": steepest(rates, smoothed),
                "minimum/10": minimum(rates, smoothed) / 10.0,
            }
            verdict = reading.verdict + self._doubt(losses, smoothed, diverged)
        return Curve(
            tuple(rates),
            tuple(losses[1:]),
            tuple(smoothed),
            suggestions,
            verdict,
            tuple(validation_losses[: len(rates)]),
            self.shape,
        )

    def _hopeless(
        self, losses: Sequence[float], smoothed: Sequence[float], diverged: bool
    ) -> str | None:
        """Why no rate can be read off, and what to do; None if one can."""
        if not losses:
            return "the loss was not finite before any step: check the data, the loss, the weights"
        reached = self.rate(max(0, len(losses) - 2))
        first, start = losses[0], self._start(losses)
        if (diverged and len(losses) <= self._flat) or start > self.divergence * first > 0.0:
            return (
                f"the loss diverged at the very start, from {first:.4g} by a rate of "
                f"{reached:.3g}: lower min_lr, or check the data and the loss"
            )
        if len(losses) < 2:
            return "the training ended before the ramp had begun: give it more steps"
        noise = self._noise(losses)
        # Four standard errors. In 100 steps of pure noise the lowest mean is two below the start
        # in 37 % of the cases, three in 9 %, four in 2 %.
        if start - min(smoothed) > 2.0 * noise:
            return None
        if _mean(losses[:3]) - min(smoothed) > 2.0 * noise:
            return (
                "the loss fell at once, within the first decade of rates, so that there is no "
                "start to compare with: lower min_lr"
            )
        if diverged:
            return (
                f"the curve shows no minimum: the loss stayed within its noise ({noise:.2g}) of "
                f"its start {start:.4g} until it diverged by a rate of {reached:.3g}: more steps "
                f"(num_steps) or larger batches would show more"
            )
        if self._missing(losses):
            return (
                f"the curve shows no minimum up to a rate of {reached:.3g}, where the training "
                f"ended, {self._missing(losses)} steps too early: give it more data or epochs"
            )
        return (
            f"the curve shows no minimum: up to a rate of {reached:.3g} the loss never fell below "
            f"its start {start:.4g} by more than its noise ({noise:.2g}): raise max_lr, or take "
            f"more steps (num_steps) or larger batches, or the model cannot learn these data"
        )

    def _doubt(self, losses: Sequence[float], smoothed: Sequence[float], diverged: bool) -> str:
        """What speaks against a rate that was read off, and what to do about it."""
        lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
        at_the_end = not diverged and len(smoothed) - 1 - lowest <= self._half_width
        fall, noise = self._start(losses) - smoothed[lowest], self._noise(losses)
        times = fall / noise if noise > 0.0 else math.inf
        if at_the_end and self._missing(losses):
            return (
                f"; the training ended {self._missing(losses)} steps before the ramp, so the "
                f"suggestion may be too low: give it more data or epochs"
            )
        if at_the_end:
            return (
                "; the ramp ended while the loss was still falling, so the suggestion may be too "
                "low: raise max_lr"
            )
        if times < 4.0:
            return (
                f"; the fall is only {times:.1f} times the noise, so the suggestion is "
                f"vague: take more steps (num_steps) or larger batches"
            )
        return f"; the fall is {times:.0f} times the noise"

    def _missing(self, losses: Sequence[float]) -> int:
        return self.num_steps + 1 - len(losses)

    @property
    def _flat(self) -> int:
        """Steps in the first decade of rates."""
        if self.shape == "linear":
            steps = 9.0 * self.min_lr / (self.max_lr - self.min_lr) * (self.num_steps - 1)
            return 1 + min(self.num_steps, int(steps))
        return max(1, round((self.num_steps - 1) / math.log10(self.max_lr / self.min_lr)))

    @property
    def _half_width(self) -> int:
        return (self.num_steps - 1) // 24 if self.shape == "linear" else self._flat // 3

    def _start(self, losses: Sequence[float]) -> float:
        # The first decade of rates hardly moves the weights: its mean is the loss to start with.
        return _mean(losses[: self._flat])

    def _noise(self, losses: Sequence[float]) -> float:
        """Two standard errors of the difference between the start and a smoothed loss."""
        first, width = losses[: self._flat], 2 * self._half_width + 1
        start = _mean(first)
        if self.shape == "linear":
            # The first decade may be a single step. A trend cancels in second differences.
            some = losses[: max(3, self.num_steps // 10)]
            variance = _mean(
                [
                    (a - 2.0 * b + c) ** 2 / 6.0
                    for a, b, c in zip(some, some[1:], some[2:], strict=False)
                ]
                or [0.0]
            )
        else:
            variance = _mean([(loss - start) ** 2 for loss in first])
        error = math.sqrt(variance * (1.0 / len(first) + 1.0 / width))
        return max(2.0 * error, 1e-3 * abs(start), 1e-12)


def minimum(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate of the lowest loss; a tenth of it is a rate to train with.

    Args:
        rates: Rates, rising.
        losses: The (smoothed) loss that each led to; not empty.

    Example:
        >>> minimum([0.001, 0.01, 0.1, 1.0], [2.0, 1.0, 0.5, 3.0])
        0.1
    """
    return rates[min(range(len(losses)), key=losses.__getitem__)]


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate from which the loss falls fastest per decade of the rate, up to its minimum.

    What comes after the minimum does not count: a diverging loss often falls back steeply.

    Args:
        rates: Rates, rising.
        losses: The (smoothed) loss that each led to; not empty.

    Example:
        >>> steepest([0.001, 0.01, 0.1, 1.0], [2.0, 1.0, 0.5, 3.0])
        0.001
    """
    slopes = [
        (losses[i + 1] - losses[i]) / math.log(rates[i + 1] / rates[i])
        for i in range(min(range(len(losses)), key=losses.__getitem__))
    ]
    return rates[min(range(len(slopes)), key=slopes.__getitem__, default=0)]


def valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate half-way down the longest valley, as in fastai's `lr_find`.

    The valley is the longest strictly falling subsequence of the losses (the first one to reach
    its length). The rate stands in the middle of the second third of as many steps before its
    end: the number of points in the valley counts, not where it began.

    Args:
        rates: Rates, rising.
        losses: The (smoothed) loss that each led to; not empty.

    Example:
        >>> valley([1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0], [9.0, 8.0, 7.0, 5.0, 4.0, 2.0, 9.0])
        0.01
    """
    # ends[k] is the highest loss in which a falling subsequence of k + 1 losses can end, negated
    # so that it rises.
    ends: list[float] = []
    bottom = 0
    for i, loss in enumerate(losses):
        length = bisect_left(ends, -loss)
        if length == len(ends):
            bottom = i
        ends[length : length + 1] = [-loss]
    return rates[max(0, bottom - len(ends) + len(ends) // 3 + len(ends) // 6)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
