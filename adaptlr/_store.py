"""State and weights <-> disk: one checked file, written atomically, the one before it kept."""

from __future__ import annotations

import contextlib
import io
import json
import os
import types
import typing
import warnings
import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 4
_MAGIC_BEFORE_3 = b"adaptlr state\n"


class DamagedError(ValueError):
    """A file that is not a whole state file as it was written."""


def write(path: Path, content: Any) -> None:
    """Writes `content`, JSON values with NumPy arrays among them, to a file and to the disk.

    The file is one that `numpy.load` reads: the arrays, and a header of JSON. Nothing in it is
    ever executed, and each member has a checksum.

    Raises:
        OSError: If it cannot be written.
    """
    arrays: list[Any] = []
    tree = _take_out(content, arrays)
    header = {"format": FORMAT, "types": [a.dtype.name for a in arrays], "content": tree}
    # Types that NumPy does not know by itself, such as bfloat16, come back as bytes without.
    stored = {
        str(n): a if a.dtype.isbuiltin == 1 else a.view(f"u{a.itemsize}")
        for n, a in enumerate(arrays)
    }
    stored["header"] = np.frombuffer(json.dumps(header).encode(), "uint8")
    with open(path, "wb") as file:
        # Not numpy.savez: before NumPy 2 it leaves the archive open when the disk is full, and
        # whoever collects it later prints an error of its own.
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in stored.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Any:
    """Returns what `write` has written.

    Raises:
        DamagedError: If the file is of another kind, cut short or changed.
        ValueError: If it is of another format.
        OSError: If it cannot be read.
    """
    data = path.read_bytes()
    version: Any = "2 or lower" if data.startswith(_MAGIC_BEFORE_3) else None
    try:
        if version is None:
            version, content = _parse(data)
    except Exception as error:  # whatever zipfile, NumPy or JSON find in foreign bytes
        raise DamagedError(
            f"{path} is damaged, or not a state file of adaptlr: {error or type(error).__name__}"
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"{path} has format {version} and this version of adaptlr reads {FORMAT}: finish the "
            f"run with the version that began it, or remove the file to begin anew."
        )
    return content


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
        inner, choices = getattr(template, name, None), _choices(hints[name])
        if len(choices) > 1 or not is_dataclass(inner):
            inner = _chosen(choices, value)
        values[name] = rebuild(inner, value)
    return kind(**values)


def _choices(hint: Any) -> list[Any]:
    """The dataclasses that a type hint allows."""
    several = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return [c for c in (typing.get_args(hint) if several else (hint,)) if is_dataclass(c)]


def _chosen(choices: list[Any], saved: Any) -> Any:
    """The one that was saved; several tell themselves apart by a field `kind`."""
    if len(choices) < 2 or not isinstance(saved, dict):
        return choices[0] if choices else None
    kind = saved.get("kind")
    found = [c for c in choices if any(f.name == "kind" and f.default == kind for f in fields(c))]
    if not found:
        names = ", ".join(c.__name__ for c in choices)
        raise ValueError(f"kind must be that of one of {names}. Received: kind={kind!r}")
    return found[0]


def _take_out(value: Any, arrays: list[Any]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        return {key: _take_out(inner, arrays) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(inner, arrays) for inner in value]
    return value


def _put_in(value: Any, arrays: list[Any]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return arrays[value["array"]]
        return {key: _put_in(inner, arrays) for key, inner in value.items()}
    return [_put_in(inner, arrays) for inner in value] if isinstance(value, list) else value


def _parse(data: bytes) -> tuple[Any, Any]:
    """Returns format and content."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        # NumPy reads as much of a member as its shape asks for, and at its end sees the checksum.
        if (bad := file.zip.testzip()) is not None:
            raise ValueError(f"the checksum of {bad} is wrong")
        header = json.loads(file["header"].tobytes())
        arrays = [file[str(n)].view(np.dtype(name)) for n, name in enumerate(header["types"])]
    return header["format"], _put_in(header["content"], arrays)
