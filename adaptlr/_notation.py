"""Objects as the text of the call that builds them, and back."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from numbers import Integral, Real
from typing import Any

__all__ = ["parse", "pasteable"]


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
