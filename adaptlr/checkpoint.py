"""State and weights <-> disk: one checked file, written atomically, the one before it kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import types
import typing
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

__all__ = ["Array", "DamagedError", "Store", "plain", "read", "rebuild", "write"]

_MAGIC = b"adaptlr state\n"
_FORMAT = 2
_DIGEST_SIZE = hashlib.sha256().digest_size


class DamagedError(ValueError):
    """A file that is not a whole state file as it was written."""


@dataclass(frozen=True)
class Array:
    """One array as it stands in a file; this module needs no NumPy.

    Args:
        dtype: NumPy's name of the type.
        shape: The shape.
        data: The elements in C order, little-endian; any object with the buffer protocol.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Any


def write(path: Path, content: Any) -> None:
    """Writes `content`, JSON values with `Array`s among them, to a file and to the disk.

    The file is a magic line, the format's number and the header's length (8 bytes each), a JSON
    header, the arrays' bytes, and the SHA-256 of all that. Nothing in it is ever executed.

    Raises:
        OSError: If it cannot be written.
    """
    arrays: list[Array] = []
    tree = _take_out(content, arrays)
    table = [[a.dtype, list(a.shape), len(memoryview(a.data))] for a in arrays]
    header = json.dumps({"content": tree, "arrays": table}).encode()
    sizes = _FORMAT.to_bytes(8, "little") + len(header).to_bytes(8, "little")
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for part in (_MAGIC, sizes, header, *(array.data for array in arrays)):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Any:
    """Returns what `write` has written.

    Raises:
        DamagedError: If the file is of another kind, cut short or changed.
        ValueError: If it is of another format.
        OSError: If it cannot be read.
    """
    data = memoryview(path.read_bytes())
    begin = len(_MAGIC)
    if bytes(data[:begin]) != _MAGIC:
        raise DamagedError(f"{path} is not a state file of adaptlr")
    body, digest = data[:-_DIGEST_SIZE], data[-_DIGEST_SIZE:]
    if len(body) < begin + 16 or hashlib.sha256(body).digest() != bytes(digest):
        raise DamagedError(f"{path} is damaged: it was cut short or changed")
    version = int.from_bytes(body[begin : begin + 8], "little")
    if version != _FORMAT:
        raise ValueError(
            f"{path} has format {version} and this version of adaptlr reads {_FORMAT}: finish the "
            f"run with the version that began it, or remove the file to begin anew."
        )
    try:
        return _parse(body[begin + 8 :])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


class Store:
    """A directory with the latest state and the one before it.

    A state is written beside them, brought to the disk, and renamed, so that a process killed at
    any moment leaves a whole one.

    Args:
        directory: Where; created, with its parents, when something is saved.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        self.latest = self._directory / "latest.adaptlr"
        self._previous = self._directory / "previous.adaptlr"
        self._partial = self._directory / "partial.adaptlr"
        self._keep_latest = False  # a damaged one must not take the place of a good one

    def save(self, content: Any) -> None:
        """Makes `content` the latest state.

        Raises:
            OSError: If it cannot be written; the state before is then still there.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            write(self._partial, content)
            if self._keep_latest:
                os.replace(self.latest, self._previous)
                self._keep_latest = False
            os.replace(self._partial, self.latest)
        except OSError:
            with contextlib.suppress(OSError):  # a full disk needs the space
                self._partial.unlink(missing_ok=True)
            raise
        self._keep_latest = True
        self._sync()

    def load(self) -> Any:
        """Returns the latest whole state, or None if nothing was saved.

        Raises:
            DamagedError: If what was saved is damaged.
            ValueError: If it is of another format.
            OSError: If it cannot be read.
        """
        damaged = None
        for path in (self.latest, self._previous):
            try:
                content = read(path)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                damaged = damaged or error
                continue
            self._keep_latest = path == self.latest
            if damaged is not None:
                warnings.warn(f"{damaged}; the state before it is used", stacklevel=2)
            return content
        if damaged is not None:
            raise DamagedError(
                f"{damaged}, and there is no good one before it. Remove {self._directory} to "
                f"begin anew, or name another directory."
            )
        return None

    def remove(self) -> None:
        """Removes what was saved, and the directory if nothing else is in it.

        Raises:
            OSError: If it cannot be removed.
        """
        self._keep_latest = False
        for path in (self._partial, self._previous, self.latest):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def _sync(self) -> None:
        """Brings the renaming to the disk, where directories can be opened."""
        if not hasattr(os, "O_DIRECTORY"):
            return
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def plain(owner: object) -> dict[str, Any]:
    """Returns the attributes of an object that are numbers, strings, None or lists of these.

    Example:
        >>> from types import SimpleNamespace
        >>> plain(SimpleNamespace(step=3, rate=None, model=object()))
        {'step': 3, 'rate': None}
    """
    return {name: value for name, value in vars(owner).items() if _is_plain(value)}


def rebuild(template: Any, saved: Any) -> Any:
    """Makes dataclasses again of what `dataclasses.asdict` and JSON have made of them.

    Args:
        template: A value of the type wanted; its own values do not matter.
        saved: What was read.

    Raises:
        ValueError: If the fields are not those of the template.

    Example:
        >>> from adaptlr.monitor import MonitorState
        >>> rebuild(MonitorState(), {**vars(MonitorState(best=2.0))}).best
        2.0
    """
    if isinstance(saved, list):
        return tuple(rebuild(None, value) for value in saved)
    if not is_dataclass(template) or not isinstance(saved, dict):
        return saved
    kind = type(template) if not isinstance(template, type) else template
    names = {field.name for field in fields(kind) if field.init}
    if names != saved.keys():
        raise ValueError(
            f"{kind.__name__} has the fields {', '.join(sorted(names))}. "
            f"Received: {', '.join(sorted(saved))}"
        )
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in saved.items():
        inner = getattr(template, name, None)
        values[name] = rebuild(inner if is_dataclass(inner) else _kind(hints[name]), value)
    return kind(**values)


def _kind(hint: Any) -> Any:
    """The dataclass that a type hint allows, if there is one."""
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    choices = typing.get_args(hint) if optional else (hint,)
    return next((choice for choice in choices if is_dataclass(choice)), None)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _take_out(value: Any, arrays: list[Array]) -> Any:
    if isinstance(value, Array):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        return {key: _take_out(inner, arrays) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(inner, arrays) for inner in value]
    return value


def _put_in(value: Any, arrays: list[Array]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return arrays[value["array"]]
        return {key: _put_in(inner, arrays) for key, inner in value.items()}
    return [_put_in(inner, arrays) for inner in value] if isinstance(value, list) else value


def _parse(body: memoryview) -> Any:
    length = int.from_bytes(body[:8], "little")
    header = json.loads(bytes(body[8 : 8 + length]))
    arrays = list(_arrays(header["arrays"], body[8 + length :]))
    return _put_in(header["content"], arrays)


def _arrays(table: list[Any], data: memoryview) -> Iterator[Array]:
    for dtype, shape, size in table:
        if size > len(data):
            raise ValueError("an array is missing")
        yield Array(dtype, tuple(shape), data[:size])
        data = data[size:]
    if len(data):
        raise ValueError("more arrays than listed")
