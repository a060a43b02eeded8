"""What a schedule is, and the shapes that schedules are made of."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Protocol

__all__ = ["Schedule", "between", "half_cosine", "line", "plain", "portion"]


class Schedule(Protocol):
    """Any callable from step to rate: one of `adaptlr.schedules`, a function, a lambda.

    A step is one update of the weights, counted from 0. Those of this package are frozen
    dataclasses: they compare by value, hash, and print as the call that builds them. They store
    rates as floats, and return for every step a finite float ≥ 0; past the end of a decay, its
    final value.

    Example:
        >>> from adaptlr.schedules import Scaled
        >>> def halved_each_epoch(step: float) -> float:
        ...     return 0.1 * 0.5 ** (step // 100)
        >>> Scaled(halved_each_epoch, factor=2)(200)
        0.05
    """

    def __call__(self, step: float, /) -> float:
        """Returns the rate at `step`, a number ≥ 0."""


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


def half_cosine(progress: float) -> float:
    """The shape that starts and lands flat."""
    return (1.0 - math.cos(math.pi * progress)) / 2.0
