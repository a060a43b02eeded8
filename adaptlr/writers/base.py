"""Where rates, metrics and decisions are written: four methods, and a writer made of writers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from adaptlr._arguments import refuse
from adaptlr.range_test import Curve

# The rate that a callback has found, so far; and the logarithm of the rate, for TensorBoard alone,
# whose charts begin with a linear axis.
RATE_FOUND = "end/rate_found"
LOG_RATE = "learning_rate_log10"

# The scalar `phase` of a controller that goes through phases.
PHASES = {
    "start": 0,
    "probe": 1,
    "ramp": 1,
    "warm": 2,
    "trial": 3,
    "hold": 4,
    "cool": 5,
    "stopped": 6,
    "done": 6,
}


@dataclass(frozen=True)
class Record:
    """One decision as it is logged.

    Args:
        step: Training steps done when it was taken.
        epoch: Index of the epoch, from 0.
        learning_rate: The rate from this step on.
        rule: Name of the rule that fired.
        reason: Why, in one sentence.
        curve: The range test that it was read off, if it was.
    """

    step: int
    epoch: int
    learning_rate: float
    rule: str
    reason: str
    curve: Curve | None = field(default=None, repr=False)

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Record:
        """Rebuilds a record from what `dataclasses.asdict`, and JSON after it, made of one."""
        curve = values.get("curve")
        if curve is not None:
            series: dict[str, Any] = {
                k: tuple(map(float, x)) if isinstance(x, list | tuple) else x
                for k, x in curve.items()
            }
            curve = Curve(**series)
        return cls(**{**values, "curve": curve})


def require_linked(file: Any, path: str | os.PathLike[str]) -> None:
    """Refuses to write into an open file that was deleted, where all of it would be lost.

    Raises:
        FileNotFoundError: If the file has no name any more.
    """
    if os.fstat(file.fileno()).st_nlink == 0:
        raise FileNotFoundError(f"the log was deleted during training: {os.fspath(path)}")


@dataclass(frozen=True)
class Session:
    """What one `fit` has written.

    Args:
        first: Index of its first scalars among all.
        epoch: Index of its first epoch, or None if it does not say.
        run: Its description.
        scalars: Its scalars, as (step, values).
    """

    first: int = 0
    epoch: int | None = None
    run: dict[str, Any] = field(default_factory=dict)
    scalars: tuple[tuple[int, dict[str, float]], ...] = ()


class Writer(Protocol):
    """Takes what a callback logs. What a method has written survives a kill of the process.

    A writer may also have `position()`, which returns where it stands as JSON, and `rewind`, which
    drops what was written after such a position. A run that is continued from a backup is then
    logged without gaps and without anything twice.
    """

    def write_run(self, step: int, description: Mapping[str, Any]) -> None:
        """Writes what is known of a run, by name: arguments, optimizer, batch size, horizon."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes named values of one step."""

    def write_decision(self, record: Record) -> None:
        """Writes one decision."""

    def close(self) -> None:
        """Ends the run; a later write begins a new one."""


class MemoryWriter:
    """Keeps everything in lists: the shipped stand-in for tests and notebooks.

    Attributes:
        run: The description.
        scalars: What was written at which step.
        decisions: Every decision.
        fits: How many times a `fit` began to write here, also if nothing of it is left.

    Example:
        >>> writer = MemoryWriter()
        >>> writer.write_scalars(3, {"learning_rate": 0.1})
        >>> writer.scalars
        [(3, {'learning_rate': 0.1})]
    """

    def __init__(self) -> None:
        self.run: dict[str, Any] = {}
        self.runs = 0  # begun in the log that this was read from; what overlaps is left out
        self.scalars: list[tuple[int, dict[str, float]]] = []
        self.decisions: list[Record] = []
        self.fits = 0
        self._begun: list[Session] = []  # without scalars yet: those from `first` on

    def write_run(self, step: int, description: Mapping[str, Any]) -> None:
        """Replaces `run`."""
        self.run = dict(description)
        *earlier, last = self._begun or [Session()]
        self._begun = [*earlier, replace(last, run=self.run)]

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends to `scalars`."""
        self.scalars.append((step, dict(scalars)))

    def write_decision(self, record: Record) -> None:
        """Appends to `decisions`."""
        self.decisions.append(record)
        if record.rule == "start":  # what a callback writes first of all
            self.fits += 1
            self._begun.append(Session(len(self.scalars), record.epoch))

    def series(self, tag: str) -> list[tuple[int, float]]:
        """Returns what was logged under a tag, as (step, value)."""
        return [(step, values[tag]) for step, values in self.scalars if tag in values]

    def sessions(self) -> list[Session]:
        """Returns what each `fit` has written, where several wrote here one after another.

        Of those that overlap the later ones count. One that ended before it described itself
        counts with the one before, or as the beginning of the first that did.
        """
        begun = [session for session in self._begun if session.run]
        if not begun:
            return [Session(run=self.run, scalars=tuple(self.scalars))]
        begun[-1] = replace(begun[-1], run=self.run)
        begun[0] = replace(begun[0], first=0)
        found: list[Session] = []
        ends = [*(session.first for session in begun[1:]), len(self.scalars)]
        for session, end in zip(begun, ends, strict=True):
            scalars = tuple(self.scalars[session.first : end])
            found = _before(found, scalars[0][0]) if scalars else found
            found.append(replace(session, scalars=scalars))
        return found

    def drop_after(self, step: int) -> None:
        """Drops what was written at later steps, if the steps have risen up to now."""
        while self.scalars and self.scalars[-1][0] > step:
            self.scalars.pop()
        while self.decisions and self.decisions[-1].step > step:
            self.decisions.pop()
        while self._begun and self._begun[-1].first >= len(self.scalars):
            self._begun.pop()

    def close(self) -> None:
        """Does nothing: the lists stay."""


def _before(sessions: Sequence[Session], step: int) -> list[Session]:
    """What is left of sessions if a later one begins at a step."""
    return [
        replace(session, scalars=tuple(entry for entry in session.scalars if entry[0] <= step))
        for session in sessions
        if session.scalars and session.scalars[0][0] < step
    ]


class MultiWriter:
    """Writes to several writers; one that fails is named once and dropped, the others go on.

    Training is worth more than its log, so a failure (a full disk, a vanished directory, a fault
    in a writer of the user's) is a warning here and never an exception. Nothing is kept for a
    writer that was dropped.

    Args:
        writers: The writers, in the order in which they are written to.
    """

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = list(writers)

    def write_run(self, step: int, description: Mapping[str, Any]) -> None:
        """Writes to each."""
        self._each(lambda writer: writer.write_run(step, description))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes to each."""
        self._each(lambda writer: writer.write_scalars(step, scalars))

    def write_decision(self, record: Record) -> None:
        """Writes to each."""
        self._each(lambda writer: writer.write_decision(record))

    def close(self) -> None:
        """Closes each."""
        self._each(lambda writer: writer.close())

    def _each(self, write: Callable[[Writer], None]) -> None:
        for writer in list(self._writers):
            try:
                write(writer)
            except Exception as error:
                self._drop(writer, error)

    def _drop(self, writer: Writer, error: Exception) -> None:
        self._writers.remove(writer)
        with suppress(Exception):  # so that the next session begins a new file
            writer.close()
        warnings.warn(
            f"{type(writer).__name__} cannot write and is switched off for the rest of this "
            f"training, which goes on: {error}",
            stacklevel=5,
        )


def require_writers(owner: object, writers: Any) -> list[Writer]:
    """Returns a list of writers, and refuses what is none, such as a writer without the list."""
    methods = ("write_run", "write_scalars", "write_decision", "close")
    listed: list[Any] = list(writers) if isinstance(writers, Iterable) else [None]
    for writer in listed:
        whole = all(callable(getattr(writer, method, None)) for method in methods)
        if isinstance(writer, type) or not whole:
            rule = f"a list of writers, such as [MemoryWriter()], each with {', '.join(methods)}"
            refuse(owner, "writers", rule, writers)
    return listed


def cut_file(path: Path, size: int) -> None:
    """Cuts a file to a size, if it is there and longer."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)
