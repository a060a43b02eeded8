"""Argument checks whose errors name the argument, the rule and the value received."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = [
    "is_integer",
    "refuse",
    "require_choice",
    "require_flag",
    "require_integer",
    "require_name",
    "require_number",
]


def require_number(
    owner: object,
    name: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    optional: bool = False,
) -> None:
    """Refuses an attribute that is not a finite number inside the bounds given.

    A number of NumPy's is stored as Python's own, which JSON and printing know.
    """
    value = getattr(owner, name)
    if optional and value is None:
        return
    bounds = [
        (f">= {minimum}", minimum is None or (_number(value) and value >= minimum)),
        (f"> {above}", above is None or (_number(value) and value > above)),
        (f"<= {maximum}", maximum is None or (_number(value) and value <= maximum)),
        (f"< {below}", below is None or (_number(value) and value < below)),
    ]
    if not _number(value) or not all(held for _, held in bounds):
        given = (minimum, above, maximum, below)
        named = [text for (text, _), bound in zip(bounds, given, strict=True) if bound is not None]
        refuse(owner, name, " and ".join(["a finite number", *named]), value)
    if type(value) not in (int, float):
        object.__setattr__(owner, name, float(value))


def require_integer(owner: object, name: str, *, minimum: int, optional: bool = False) -> None:
    """Refuses an attribute that is not an integer of at least `minimum`; stores Python's own.

    Integers written as floats count: papers, and scripts after them, have `step_size=2000.0`.
    """
    value = getattr(owner, name)
    if optional and value is None:
        return
    if not is_integer(value) or value < minimum:
        refuse(owner, name, f"an integer >= {minimum}", value)
    if type(value) is not int:
        object.__setattr__(owner, name, int(value))


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, also one of NumPy's or one written as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return isinstance(value, numbers.Integral) or float(value).is_integer()


def require_choice(owner: object, name: str, choices: Sequence[str]) -> None:
    """Refuses an attribute that is not one of the words given."""
    value = getattr(owner, name)
    if value not in choices:
        refuse(owner, name, "one of " + ", ".join(map(repr, choices)), value)


def require_flag(owner: object, name: str) -> None:
    """Refuses an attribute that is neither True nor False: any text would count as True."""
    value = getattr(owner, name)
    if not isinstance(value, bool):
        refuse(owner, name, "True or False", value)


def require_name(owner: object, name: str) -> None:
    """Refuses an attribute that is not a string with something in it."""
    value = getattr(owner, name)
    if not isinstance(value, str) or not value:
        refuse(owner, name, "a non-empty string", value)


def _number(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def refuse(owner: object, name: str, rule: str, value: Any) -> NoReturn:
    """Raises the error that names argument, rule and value: TypeError for what is no number.

    The owner is an object, named by its class, or the name of a function.
    """
    called = owner if isinstance(owner, str) else type(owner).__name__
    message = f"{called}({name}=...) must be {rule}. Received: {name}={value!r}"
    known = isinstance(value, numbers.Real | str) and not isinstance(value, bool)
    raise (ValueError if known else TypeError)(message)
