"""Result lines: one JSON object each, flushed as it is made, so that a cut costs one at most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All result lines; one that was cut off while it was written is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line in one write, after what a killed run may have left of its last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_text().endswith("\n")
    with open(path, "a") as file:
        file.write("\n" * torn + json.dumps(line) + "\n")
