"""Argument checks whose errors name the argument, the rule and the value received."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["refuse", "require_choice", "require_integer", "require_number"]


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
    """Refuses an attribute that is not a finite number inside the bounds given."""
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


def require_integer(owner: object, name: str, *, minimum: int, optional: bool = False) -> None:
    """Refuses an attribute that is not an integer of at least `minimum`."""
    value = getattr(owner, name)
    if optional and value is None:
        return
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
        refuse(owner, name, f"an integer >= {minimum}", value)


def require_choice(owner: object, name: str, choices: Sequence[str]) -> None:
    """Refuses an attribute that is not one of the words given."""
    value = getattr(owner, name)
    if value not in choices:
        refuse(owner, name, "one of " + ", ".join(map(repr, choices)), value)


def _number(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def refuse(owner: object, name: str, rule: str, value: Any) -> NoReturn:
    """Raises the error that names argument, rule and value: TypeError for what is no number."""
    message = f"{type(owner).__name__}({name}=...) must be {rule}. Received: {name}={value!r}"
    known = isinstance(value, numbers.Real | str) and not isinstance(value, bool)
    raise (ValueError if known else TypeError)(message)
