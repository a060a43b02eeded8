"""What a schedule is, the simplest one, and the shapes that schedules are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, Protocol

from adaptlr._arguments import NonNegativeFloat, Rule, check, refuse

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


AnySchedule = Annotated[Schedule, Rule("a callable from step to rate", callable, lambda x: x)]


class Formula:
    """What the schedules of this package share: they are checked when built, and called alike."""

    def __post_init__(self) -> None:
        check(self)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        return self.at(plain(step))

    def at(self, step: float) -> float:
        """Returns the rate at a step that is a number of Python's."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Formula):
    """The same rate at every step.

    Args:
        learning_rate: The rate, ≥ 0.

    Raises:
        ValueError, TypeError: If the rate is not such a number.

    Example:
        >>> Constant(0.1)(1000)
        0.1
    """

    learning_rate: NonNegativeFloat

    def at(self, step: float) -> float:
        return self.learning_rate

    @property
    def last_change(self) -> int:
        """The step from which on the rate stays what it is."""
        return 0


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


# Checks of several arguments at once; each alone is checked by its type.


def require_ordered(owner: object, low: str, high: str) -> None:
    """Refuses a lower bound above the upper one."""
    if getattr(owner, low) > getattr(owner, high):
        refuse(owner, low, f"at most {high}={getattr(owner, high)!r}", getattr(owner, low))


def accept_sequence(owner: object, name: str, hint: Any, *, in_order: bool = False) -> None:
    """Refuses what is no sequence of what a type says; stores a tuple."""
    values: Any = getattr(owner, name)
    rule: Rule = hint.__metadata__[0]
    if not isinstance(values, Iterable):
        refuse(owner, name, f"a sequence, each item of it {rule.words}", values, TypeError)
    values = tuple(values)
    if not all(map(rule.holds, values)):
        refuse(owner, name, f"a sequence, each item of it {rule.words}", values, ValueError)
    values = tuple(map(rule.stored, values))
    if in_order and list(values) != sorted(values):
        refuse(owner, name, "in order", values, ValueError)
    object.__setattr__(owner, name, values)


def require_one_more(owner: object, name: str, boundaries: str) -> None:
    """Refuses a sequence that is not one longer than its boundaries."""
    values, inner = getattr(owner, name), getattr(owner, boundaries)
    if len(values) != len(inner) + 1:
        refuse(owner, name, f"one longer than {boundaries}={inner!r}", values, ValueError)
