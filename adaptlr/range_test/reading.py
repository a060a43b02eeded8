"""What the losses of a range test show: rates by several rules, and how sure they are."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from adaptlr.monitor import finite
from adaptlr.range_test.ramp import RangeTest, Shape, mean


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
        validation_losses: Losses on validation data after each step, or nothing.
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


def read_rate(ramp: RangeTest, losses: Sequence[float]) -> Reading:
    """Reads a rate off the batch losses of a ramp, the first belonging to `min_lr`.

    The loss of a step is measured before its update, so the loss that a rate led to is the
    next one in the list.

    Example:
        >>> test = RangeTest(min_lr=1e-3, max_lr=10.0, num_steps=5)
        >>> round(read_rate(test, [2.3, 2.2, 1.0, 0.9, 9.0]).suggestion, 4)
        0.01
    """
    numbers = [loss for loss in losses if finite(loss)]
    if len(numbers) < 2:
        return Reading(None, None, None, "the loss was not finite from the start")
    smoothed = ramp.smooth(numbers)
    start = ramp.start(numbers)
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    if start - smoothed[lowest] <= ramp.noise(numbers):
        verdict = (
            f"the curve shows no minimum: the loss never fell below its start {start:.4g} by "
            f"more than its noise"
        )
        return Reading(None, None, None, verdict)
    midpoint = (start + smoothed[lowest]) / 2.0
    half = next((i for i in range(lowest, -1, -1) if smoothed[i] > midpoint), 0)
    low, high = ramp.rate_in_effect(half), ramp.rate_in_effect(lowest)
    verdict = (
        f"the loss fell from {start:.4g} to {smoothed[lowest]:.4g} at rate {high:.3g}, half "
        f"of that by {low:.3g}"
    )
    return Reading(high, low, math.sqrt(low * high), verdict)


def read_curve(
    ramp: RangeTest,
    losses: Sequence[float],
    diverged: bool = False,
    validation_losses: Sequence[float] = (),
) -> Curve:
    """Reads the batch losses of a ramp by every rule, and judges them.

    Args:
        ramp: What was tried.
        losses: Finite batch losses, the first measured before any step.
        diverged: Whether the ramp was ended by its loss.
        validation_losses: Losses on validation data, the first measured after the first step.
    """
    smoothed = ramp.smooth(losses)
    rates = [ramp.rate_in_effect(i) for i in range(len(smoothed))]
    reading = read_rate(ramp, losses)
    suggestions = dict(Curve().suggestions)
    verdict = _hopeless(ramp, losses, smoothed, diverged)
    if verdict is None:
        suggestions = {
            "centre": reading.suggestion,
            "valley": valley(rates, smoothed),
            "steepest": steepest(rates, smoothed),
            "minimum/10": minimum(rates, smoothed) / 10.0,
        }
        verdict = reading.verdict + _doubt(ramp, losses, smoothed, diverged)
    return Curve(
        tuple(rates),
        tuple(losses[1:]),
        tuple(smoothed),
        suggestions,
        verdict,
        tuple(validation_losses[: len(rates)]),
        ramp.shape,
    )


def _hopeless(
    ramp: RangeTest, losses: Sequence[float], smoothed: Sequence[float], diverged: bool
) -> str | None:
    """Why no rate can be read off, and what to do; None if one can."""
    if not losses:
        return "the loss was not finite before any step: check the data, the loss, the weights"
    reached = ramp.rate(max(0, len(losses) - 2))
    first, start = losses[0], ramp.start(losses)
    if (diverged and len(losses) <= ramp.flat) or start > ramp.divergence * first > 0.0:
        return (
            f"the loss diverged at the very start, from {first:.4g} by a rate of "
            f"{reached:.3g}: lower min_lr, or check the data and the loss"
        )
    if len(losses) < 2:
        return "the training ended before the ramp had begun: give it more steps"
    noise = ramp.noise(losses)
    # Four standard errors. In 100 steps of pure noise the lowest mean is two below the start
    # in 37 % of the cases, three in 9 %, four in 2 %.
    if start - min(smoothed) > 2.0 * noise:
        return None
    if mean(losses[:3]) - min(smoothed) > 2.0 * noise:
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
    if _missing(ramp, losses):
        return (
            f"the curve shows no minimum up to a rate of {reached:.3g}, where the training "
            f"ended, {_missing(ramp, losses)} steps too early: give it more data or epochs"
        )
    return _never_fell(reached, start, noise, rises=smoothed[-1] - start > 2.0 * noise)


def _never_fell(reached: float, start: float, noise: float, *, rises: bool) -> str:
    higher = "" if rises else "raise max_lr, or "  # which would bring nothing
    return (
        f"the curve shows no minimum: up to a rate of {reached:.3g} the loss never fell below "
        f"its start {start:.4g} by more than its noise ({noise:.2g}): {higher}take more steps "
        f"(num_steps) or larger batches, or the model cannot learn these data"
    )


def _doubt(
    ramp: RangeTest, losses: Sequence[float], smoothed: Sequence[float], diverged: bool
) -> str:
    """What speaks against a rate that was read off, and what to do about it."""
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    at_the_end = not diverged and len(smoothed) - 1 - lowest <= ramp.half_width
    fall, noise = ramp.start(losses) - smoothed[lowest], ramp.noise(losses)
    times = fall / noise if noise > 0.0 else math.inf
    if at_the_end and _missing(ramp, losses):
        return (
            f"; the training ended {_missing(ramp, losses)} steps before the ramp, so the "
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


def _missing(ramp: RangeTest, losses: Sequence[float]) -> int:
    return ramp.num_steps + 1 - len(losses)


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
