"""Arguments of schedules: checked, and stored in one form, so that equal schedules print equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NoReturn

from adaptlr._arguments import is_integer, refuse, require_integer, require_number


def store(owner: object, name: str, value: Any) -> None:
    """Sets an attribute of a frozen object."""
    object.__setattr__(owner, name, value)


def refuse_argument(
    owner: object, name: str, rule: str, error: type[Exception] = ValueError
) -> NoReturn:
    """Raises the error that names an argument, its rule and what was received."""
    refuse(owner, name, rule, getattr(owner, name), error)


def floats(owner: object, *names: str, **bounds: Any) -> None:
    """Refuses numbers outside their bounds; stores floats."""
    for name in names:
        require_number(owner, name, **bounds)
        store(owner, name, float(getattr(owner, name)))


def integers(owner: object, *names: str, minimum: int) -> None:
    """Refuses what is no integer of at least `minimum`; stores integers."""
    for name in names:
        require_integer(owner, name, minimum=minimum)
        store(owner, name, int(getattr(owner, name)))


def flag(owner: object, name: str) -> None:
    """Refuses what is neither True nor False."""
    if not isinstance(getattr(owner, name), bool):
        refuse_argument(owner, name, "True or False", TypeError)


def schedule_argument(owner: object, name: str) -> None:
    """Refuses what cannot be asked for the rate of a step."""
    if not callable(getattr(owner, name)):
        refuse_argument(owner, name, "a callable from step to rate", TypeError)


def ordered(owner: object, low: str, high: str) -> None:
    """Refuses a lower bound above the upper one."""
    if getattr(owner, low) > getattr(owner, high):
        refuse_argument(owner, low, f"at most {high}={getattr(owner, high)!r}")


def sequence(
    owner: object,
    name: str,
    rule: str,
    accepts: Callable[[Any], bool],
    stored: Callable[[Any], Any] = lambda item: item,
) -> None:
    """Refuses what is no sequence of accepted items; stores a tuple."""
    if not isinstance(getattr(owner, name), Iterable):
        refuse_argument(owner, name, f"a sequence of {rule}", TypeError)
    store(owner, name, tuple(getattr(owner, name)))
    if not all(map(accepts, getattr(owner, name))):
        refuse_argument(owner, name, f"a sequence of {rule}")
    store(owner, name, tuple(map(stored, getattr(owner, name))))


def step_sequence(owner: object, name: str) -> None:
    """Refuses what is no sequence of steps in order."""
    sequence(owner, name, "integers >= 0", is_boundary, int)
    values = getattr(owner, name)
    if list(values) != sorted(values):
        refuse_argument(owner, name, "in order")


def one_more(owner: object, name: str, boundaries: str) -> None:
    """Refuses a sequence that is not one longer than its boundaries."""
    if len(getattr(owner, name)) != len(getattr(owner, boundaries)) + 1:
        refuse_argument(
            owner, name, f"one longer than {boundaries}={getattr(owner, boundaries)!r}"
        )


def is_boundary(item: Any) -> bool:
    """Whether a step can be a boundary."""
    return is_integer(item) and int(item) >= 0


def is_factor(item: Any) -> bool:
    """Whether a number can be a factor of a rate."""
    return is_rate(item) and item > 0


def is_rate(item: Any) -> bool:
    """Whether a number can be a rate."""
    return isinstance(item, Real) and not isinstance(item, bool) and 0 <= float(item) < math.inf
