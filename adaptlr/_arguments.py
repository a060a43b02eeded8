"""Checks whose errors name argument, rule and value; objects as the text that builds them."""

from __future__ import annotations

import ast
import difflib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Rule:
    """What a value must be: stands in its type, as `Annotated[float, Rule(...)]`.

    Args:
        words: What follows "must be" in the error.
        holds: Whether a value is that.
        stored: What is kept of one that is: numbers of NumPy's as Python's own, which JSON and
            printing know.
    """

    words: str
    holds: Callable[[Any], bool]
    stored: Callable[[Any], Any]


def number(
    *,
    minimum: float = -math.inf,
    above: float = -math.inf,
    maximum: float = math.inf,
    below: float = math.inf,
) -> Rule:
    """The rule for a finite number inside the bounds given."""
    bounds = {"above": above, "of at least": minimum, "below": below, "at most": maximum}
    named = " and ".join(f"{k} {x:g}" for k, x in bounds.items() if math.isfinite(x))

    def holds(x: Any) -> bool:
        return is_number(x) and minimum <= x <= maximum and above < x < below

    return Rule(f"a number {named}", holds, float)


def integer(minimum: int) -> Rule:
    """The rule for an integer of at least `minimum`.

    Integers written as floats count: papers, and scripts after them, have `step_size=2000.0`.
    """
    words = f"an integer of at least {minimum}"
    return Rule(words, lambda x: is_integer(x) and bool(x >= minimum), int)


PositiveFloat = Annotated[float, number(above=0)]
NonNegativeFloat = Annotated[float, number(minimum=0)]
AtLeastOne = Annotated[float, number(minimum=1)]
AboveOne = Annotated[float, number(above=1)]
Fraction = Annotated[float, number(above=0, below=1)]
BelowOne = Annotated[float, number(minimum=0, below=1)]
PositiveInt = Annotated[int, integer(1)]
NonNegativeInt = Annotated[int, integer(0)]


def check(owner: Any) -> None:
    """Refuses fields of a dataclass that are not what their types say (see `accepted`)."""
    # What a subclass adds, whose types may not be known here, is its own affair.
    ours = next(kind for kind in type(owner).__mro__ if kind.__module__.startswith("adaptlr."))
    for field in fields(ours):
        if field.init:
            accept(owner, field.name, _hints(ours)[field.name])


def accept(owner: object, name: str, hint: Any) -> None:
    """Refuses an attribute that is not what a type says; stores numbers as Python's own."""
    object.__setattr__(owner, name, accepted(owner, name, hint, getattr(owner, name)))


def checked(function: Callable[..., Any], values: Mapping[str, Any]) -> list[Any]:
    """Returns the arguments of a function, or refuses what is not as the function's types say.

    Args:
        function: The one whose arguments they are.
        values: `locals()` at its begin.
    """
    called, hints = function.__name__, _hints(function)
    return [accepted(called, name, hints[name], value) for name, value in values.items()]


@cache
def _hints(typed: Any) -> dict[str, Any]:
    return get_type_hints(typed, include_extras=True)


def accepted(owner: object, name: str, hint: Any, value: Any) -> Any:
    """Returns a value as its type has it, or refuses it.

    The types that say what a value must be are `bool`, `str` for a text with something in it,
    `Literal`, those annotated with a rule, and any of these or None. Of others nothing is said.
    """
    union = get_origin(hint) in (Union, UnionType)
    kinds = [kind for kind in (get_args(hint) if union else (hint,)) if kind is not NoneType]
    optional = union and NoneType in get_args(hint)
    if len(kinds) > 1 or (optional and value is None):
        return value
    (kind,), rule = kinds, None
    if get_origin(kind) is Literal:
        words = "one of " + ", ".join(map(repr, get_args(kind)))
        rule = Rule(words, get_args(kind).__contains__, str)
    elif get_origin(kind) is Annotated:
        rule = next((x for x in kind.__metadata__ if isinstance(x, Rule)), None)
    elif kind in (bool, str):
        words = "True or False" if kind is bool else "a non-empty string"
        rule = Rule(words, lambda x: isinstance(x, kind) and x != "", kind)
    if rule is None:
        return value
    if not rule.holds(value):
        refuse(owner, name, rule.words + " or None" * optional, value)
    return rule.stored(value)


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, also one of NumPy's or one written as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) or float(value).is_integer()


def require_path(owner: object, name: str, value: Any) -> None:
    """Refuses a value that is neither the path of a directory nor None."""
    if not (value is None or (isinstance(value, str | os.PathLike) and os.fspath(value))):
        refuse(owner, name, "a path or None", value)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, also one of NumPy's."""
    if not isinstance(value, Real) or isinstance(value, bool):
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
    known = isinstance(value, Real | str) and not isinstance(value, bool)
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
