"""Where rates, metrics and decisions are written: three methods, and a writer made of writers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["MemoryWriter", "MultiWriter", "Record", "Writer", "cut_file"]


@dataclass(frozen=True)
class Record:
    """One decision as it is logged.

    Args:
        step: Training steps done when it was taken.
        epoch: Index of the epoch, from 0.
        learning_rate: The rate from this step on.
        rule: Name of the rule that fired.
        reason: Why, in one sentence.
    """

    step: int
    epoch: int
    learning_rate: float
    rule: str
    reason: str


class Writer(Protocol):
    """Takes what a callback logs. What a method has written survives a kill of the process.

    A writer may also have `position()`, which returns where it stands as JSON, and `rewind`, which
    drops what was written after such a position. A run that is continued from a backup is then
    logged without gaps and without anything twice.
    """

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes named values of one step."""

    def write_decision(self, record: Record) -> None:
        """Writes one decision."""

    def close(self) -> None:
        """Ends the run; a later write begins a new one."""


class MemoryWriter:
    """Keeps everything in lists: the shipped stand-in for tests and notebooks.

    Example:
        >>> writer = MemoryWriter()
        >>> writer.write_scalars(3, {"learning_rate": 0.1})
        >>> writer.scalars
        [(3, {'learning_rate': 0.1})]
    """

    def __init__(self) -> None:
        self.scalars: list[tuple[int, dict[str, float]]] = []
        self.decisions: list[Record] = []

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends to `scalars`."""
        self.scalars.append((step, dict(scalars)))

    def write_decision(self, record: Record) -> None:
        """Appends to `decisions`."""
        self.decisions.append(record)

    def close(self) -> None:
        """Does nothing: the lists stay."""


class MultiWriter:
    """Writes to several writers; one that fails is named once and dropped, the others go on.

    Training is worth more than its log, so an `OSError` (a full disk, a vanished directory) is a
    warning here and never an exception.

    Args:
        writers: The writers, in the order in which they are written to.
    """

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = list(writers)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes to each."""
        for writer in list(self._writers):
            try:
                writer.write_scalars(step, scalars)
            except OSError as error:
                self._drop(writer, error)

    def write_decision(self, record: Record) -> None:
        """Writes to each."""
        for writer in list(self._writers):
            try:
                writer.write_decision(record)
            except OSError as error:
                self._drop(writer, error)

    def close(self) -> None:
        """Closes each."""
        for writer in list(self._writers):
            try:
                writer.close()
            except OSError as error:
                self._drop(writer, error)

    def _drop(self, writer: Writer, error: OSError) -> None:
        self._writers.remove(writer)
        warnings.warn(
            f"{type(writer).__name__} cannot write and is switched off for the rest of this "
            f"training, which goes on: {error}",
            stacklevel=4,
        )


def cut_file(path: Path, size: int) -> None:
    """Cuts a file to a size, if it is there and longer."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)
