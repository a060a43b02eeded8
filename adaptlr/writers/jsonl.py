"""JSON lines: one object a line, for scripts and for replay."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from adaptlr.writers.base import Record, cut_file, require_linked


class JSONLinesWriter:
    r"""Appends scalars and decisions to a text file, one JSON object a line.

    Lines are `{"step": 3, "scalars": {...}}`, `{"step": 3, "decision": {...}}` and, once a run,
    `{"step": 1, "run": {...}}`. NaN and infinities, which JSON does not have, are written as
    strings. In a file with several runs each begins with the decision `"start"`; runs at the same
    time need a file each.

    Args:
        path: The file; created, with its parents, if missing, and appended to if not.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "run.jsonl")
        >>> writer = JSONLinesWriter(path)
        >>> writer.write_scalars(1, {"learning_rate": 0.01})
        >>> writer.close()
        >>> path.read_text()
        '{"step": 1, "scalars": {"learning_rate": 0.01}}\n'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: TextIO | None = None

    def write_run(self, step: int, description: Mapping[str, Any]) -> None:
        """Writes what is known of a run."""
        self._write({"step": step, "run": _json(dict(description))})

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes named values of one step."""
        self._write({"step": step, "scalars": _json(dict(scalars))})

    def write_decision(self, record: Record) -> None:
        """Writes one decision."""
        values = _json(asdict(record))
        if record.curve is None:
            del values["curve"]
        self._write({"step": record.step, "decision": values})

    def close(self) -> None:
        """Closes the file; a later write appends to it."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def position(self) -> dict[str, int]:
        """Returns how long the file is: what is written later, `rewind` takes back."""
        return {self._name: self._path.stat().st_size if self._path.exists() else 0}

    def rewind(self, position: dict[str, int]) -> None:
        """Drops what an interrupted process has written after a position, half a line too."""
        self.close()
        if self._name in position:
            cut_file(self._path, position[self._name])

    @property
    def _name(self) -> str:
        return str(self._path.absolute())  # a position in one file says nothing of another

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        require_linked(self._file, self._path)
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_json(x) for x in value]
    finite = not isinstance(value, float) or value - value == 0.0
    return value if finite else str(value)
