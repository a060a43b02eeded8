"""The page that the tables stand in, and how they get there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(r)} |" for r in [head, ["---"] * len(head), *rows])


def fill(page: str, texts: dict[str, str]) -> str:
    """Puts each text between its markers."""

    def section(match: re.Match[str]) -> str:
        name = match[1]
        text = texts.get(name, "(not run yet)")
        return f"<!-- {name} -->\n\n{text}\n\n<!-- /{name} -->"

    return re.sub(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->", section, page, flags=re.DOTALL)
