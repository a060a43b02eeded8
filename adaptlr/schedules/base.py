"""What a schedule is, and the shapes that schedules are made of."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, Protocol

_LARGEST = 3.4028234663852886e38  # in float32, in which rates are applied


class Schedule(Protocol):
    """Any callable from step to rate: one of `adaptlr.schedules`, a function, a lambda.

    A step is one update of the weights, counted from 0. Those of this package are frozen
    dataclasses: they compare by value, hash, and print as the call that builds them. They store
    rates as floats, and return for every step a finite float ≥ 0; past the end of a decay, its
    final value. Those whose rate comes to rest say where: `last_change` is the step from which on
    it stays what it is. Elsewhere, and where it is not known, it is None or not there.

    Example:
        >>> from adaptlr.schedules import Scaled
        >>> def halved_each_epoch(step: float) -> float:
        ...     return 0.1 * 0.5 ** (step // 100)
        >>> Scaled(halved_each_epoch, factor=2)(200)
        0.05
    """

    def __call__(self, step: float, /) -> float:
        """Returns the rate at `step`, a number ≥ 0."""


def last_change(schedule: Any) -> int | None:
    """Returns the step from which on a schedule's rate stays what it is, or None if unknown."""
    step = getattr(schedule, "last_change", None)
    return step if isinstance(step, int) else None


# A rate lies between two others; a shape turns progress into the fraction of the way.


def plain(step: float) -> float:
    """Returns a step as a number of Python's."""
    # NumPy's unsigned integers wrap below 0, and its narrow ones above their largest.
    if type(step) is int or type(step) is float:
        return step
    return int(step) if isinstance(step, Integral) else float(step)


def portion(step: float, steps: float) -> float:
    """Returns how much of some steps is done, at most 1."""
    return min(step / steps, 1.0)


def between(start: float, end: float, fraction: float) -> float:
    """Returns what lies at a fraction of the way."""
    # Not start + (end - start) * fraction, which rounds a small end away.
    return start * (1.0 - fraction) + end * fraction


def line(progress: float) -> float:
    """The shape that goes straight."""
    return progress


def grown(rate: float, factor: float, times: float) -> float:
    """Returns `rate * factor ** times`; beyond float32 its largest number."""
    try:
        return min(rate * math.pow(factor, times), _LARGEST)
    except OverflowError:
        return _LARGEST


def half_cosine(progress: float) -> float:
    """The shape that starts and lands flat."""
    return (1.0 - math.cos(math.pi * progress)) / 2.0
