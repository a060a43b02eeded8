"""Checks whose errors name argument, rule and value; objects as the text that builds them."""

from __future__ import annotations

import ast
import difflib
import math
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from numbers import Integral, Real
from typing import Any, NoReturn


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
    bounds = {"above": above, "of at least": minimum, "below": below, "at most": maximum}
    inside = (
        is_number(value)
        and (minimum is None or value >= minimum)
        and (above is None or value > above)
        and (maximum is None or value <= maximum)
        and (below is None or value < below)
    )
    if not inside:
        named = " and ".join(f"{k} {x:g}" for k, x in bounds.items() if x is not None)
        refuse(owner, name, f"a number {named}".rstrip() + " or None" * optional, value)
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
        refuse(owner, name, f"an integer of at least {minimum}" + " or None" * optional, value)
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


def require_path(owner: object, name: str, value: Any) -> None:
    """Refuses a value that is neither the path of a directory nor None."""
    if not (value is None or (isinstance(value, str | os.PathLike) and os.fspath(value))):
        refuse(owner, name, "a path or None", value)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, also one of NumPy's."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Asks for the known name that is most like one that is not, or for nothing.

    What follows `val_` is compared by itself, or any two names that begin so would be alike.

    Example:
        >>> did_you_mean("val_acuracy", ["loss", "accuracy", "val_loss", "val_accuracy"])
        " (did you mean 'val_accuracy'?)"
        >>> did_you_mean("val_score", ["loss", "val_loss"])
        ''
    """
    prefix = "val_" if name.startswith("val_") else ""
    bare = name.removeprefix(prefix)
    same = [x.removeprefix(prefix) for x in known if x.startswith("val_") == bool(prefix)]
    lower = {x.lower(): x for x in same}
    close = [x for x in lower if len(bare) > 1 and x.startswith(bare.lower())]
    close += difflib.get_close_matches(bare.lower(), lower, n=1, cutoff=0.65)
    return f" (did you mean {prefix + lower[close[0]]!r}?)" if close else ""


@contextmanager
def speaking_for(owner: object, **names: str) -> Iterator[None]:
    """Lets errors of parts that are built inside name the argument that the user wrote.

    Args:
        owner: The object that the user builds, named by its class.
        **names: Its arguments by what a part calls them, where that differs.

    Example:
        >>> class Callback: ...
        >>> with speaking_for(Callback(), rate="max_lr"):
        ...     refuse("Part", "rate", "a number above 0", -1)
        Traceback (most recent call last):
        ...
        ValueError: Callback(max_lr=...) must be a number above 0. Received: max_lr=-1
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        refused = getattr(error, "refused", None)
        if refused is not None:
            name, rule, value = refused
            error.args = (_message(owner, names.get(name, name), rule, value),)
        raise


def refuse(
    owner: object, name: str, rule: str, value: Any, kind: type[Exception] | None = None
) -> NoReturn:
    """Raises the error that names argument, rule and value.

    The owner is an object, named by its class, or the name of a function. Unless a kind is given,
    what is neither a number nor text is a TypeError.
    """
    known = isinstance(value, numbers.Real | str) and not isinstance(value, bool)
    error = (kind or (ValueError if known else TypeError))(_message(owner, name, rule, value))
    error.refused = name, rule, value  # type: ignore[attr-defined]
    raise error


def _message(owner: object, name: str, rule: str, value: Any) -> str:
    called = owner if isinstance(owner, str) else type(owner).__name__
    return f"{called}({name}=...) must be {rule}. Received: {name}={value!r}"


def pasteable(value: Any) -> str:
    """Returns Python text for a value; `...` stands for what no text builds, such as arrays.

    Example:
        >>> from adaptlr.schedules import Constant
        >>> pasteable(("val_loss", Constant(0.1), len))
        "('val_loss', Constant(learning_rate=0.1), ...)"
    """
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, Integral):
        return repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))  # NumPy's own would need NumPy to be pasted
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if isinstance(value, tuple):
        return f"({', '.join(map(pasteable, value))}{',' * (len(value) == 1)})"
    text = repr(value)
    return text if is_dataclass(value) and "<" not in text else "..."


def parse(text: str, names: Mapping[str, Any]) -> Any:
    """Builds what a text describes: calls of the given names with literal arguments, nested.

    Args:
        text: For instance `"Plateau(patience=3, monitor=Monitor('loss'))"`.
        names: What may be called, by name. Nothing else is looked up or run.

    Raises:
        ValueError: If the text is anything else.

    Example:
        >>> from adaptlr import schedules
        >>> parse("Warmup(Constant(0.1), warmup_steps=10)", vars(schedules))(5)
        0.05
    """

    def build(node: ast.expr) -> Any:
        if not isinstance(node, ast.Call):
            if isinstance(node, ast.Tuple | ast.List):
                return tuple(build(item) for item in node.elts)
            return _literal(node, names, text)
        if not isinstance(node.func, ast.Name) or node.func.id not in names:
            raise ValueError(
                f"{ast.unparse(node.func)} is not one of {', '.join(sorted(names))}. "
                f"Received: {text}"
            )
        keywords = {str(keyword.arg): build(keyword.value) for keyword in node.keywords}
        return names[node.func.id](*map(build, node.args), **keywords)

    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        raise ValueError(f"this is not a call like Name(argument=1). Received: {text}") from None
    return build(tree.body)


def _literal(node: ast.expr, names: Mapping[str, Any], text: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (TypeError, ValueError):
        part = ast.unparse(node)
        mend = f"write {part}(...)" if part in names else "write numbers, strings, None or calls"
        raise ValueError(
            f"{part} is neither a literal nor a call: {mend}. Received: {text}"
        ) from None
