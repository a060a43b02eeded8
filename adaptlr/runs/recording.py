"""Recorded runs, read back: JSON lines, event files, and what plain Keras writes."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from adaptlr.writers.base import LOG_RATE, MemoryWriter, Record

__all__ = ["read"]


def read(path: str | os.PathLike[str]) -> MemoryWriter:
    r"""Reads a run from disk into the writer that a live run would have filled.

    Of sessions that overlap, because a run was killed and resumed, or a callback was used again,
    the later ones count, as in TensorBoard. A record that was torn by a kill is left out. What
    Keras writes counts its steps in epochs; of Keras' event files the metrics of epochs are read.

    Args:
        path: A `.jsonl` file of `JSONLinesWriter`; a `.csv` file of `keras.callbacks.CSVLogger`;
            an event file; or a folder of event files: a `log_dir` of this package, or one of
            `keras.callbacks.TensorBoard` (with `train` and `validation` in it).

    Returns:
        The run, its `scalars`, `decisions` and description `run`.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is none of these, holds nothing of a run, or holds something else.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "history.csv")
        >>> _ = path.write_text("epoch,loss,val_loss\n0,1.5,1.6\n1,1.2,1.4\n")
        >>> read(path).series("epoch/val_loss")
        [(1, 1.6), (2, 1.4)]
    """
    path = Path(path)
    recorded = _read(path)
    if not (recorded.scalars or recorded.decisions or recorded.run):
        raise ValueError(
            f"read(path) found no records of a run: it has not begun, or the file is of something "
            f"else. Received: {path}"
        )
    return recorded


def _read(path: Path) -> MemoryWriter:
    if path.is_dir():
        return _from_folder(path)
    readers: dict[str, Callable[[Path], MemoryWriter]] = {
        ".jsonl": _from_json_lines,
        ".csv": _from_csv,
    }
    if ".tfevents." in path.name:
        return _from_events([path])
    if path.suffix not in readers and path.exists():
        raise ValueError(
            f"read(path) must be a .jsonl file, a .csv file, an event file (*.tfevents.*) or a "
            f"folder of event files. Received: {path}"
        )
    return readers.get(path.suffix, _from_json_lines)(path)


# --- what this package writes ------------------------------------------------------------------


class _Reading:
    """A run as it is read. A record at an earlier step than the last begins a later session."""

    def __init__(self) -> None:
        self.recorded = MemoryWriter()
        self._first = self._last = 0

    def begin(self, step: int) -> None:
        """Drops what an earlier session recorded beyond the step of the next record."""
        recorded = self.recorded
        if not (recorded.scalars or recorded.decisions):
            self._first = step
        elif step < self._last:
            recorded.drop_after(step if step > self._first else -1)
            self._first = min(step, self._first)
        self._last = step

    def take(self, record: Record) -> None:
        if record.rule == "start":
            self.recorded.runs += 1
        self.begin(record.step)
        self.recorded.write_decision(record)

    def take_scalars(self, step: int, scalars: dict[str, float]) -> None:
        self.begin(step)
        self.recorded.write_scalars(step, scalars)


def _from_json_lines(path: Path) -> MemoryWriter:
    reading = _Reading()
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # torn by a kill
            continue
        try:
            _take_entry(reading, entry)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(
                f"read(path) expects of each line an object of JSONLinesWriter: 'step', and one "
                f"of 'run', 'scalars' and 'decision'. Received: {line[:80]} in line {number} of "
                f"{path}"
            ) from error
    return reading.recorded


def _take_entry(reading: _Reading, entry: Any) -> None:
    """Takes what one line holds; the keys and types of another give the usual errors."""
    step = _whole(entry["step"])
    if "run" in entry:
        reading.recorded.write_run(step, _mapping(entry["run"]))
    elif "decision" in entry:
        record = Record.load(_mapping(entry["decision"]))
        rate, rule, reason = float(record.learning_rate), str(record.rule), str(record.reason)
        place = _whole(record.step), _whole(record.epoch)
        reading.take(Record(*place, rate, rule, reason, record.curve))
    else:
        scalars = _mapping(entry["scalars"])
        reading.take_scalars(step, {tag: float(x) for tag, x in scalars.items()})


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no integer")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return value


def _from_events(files: Iterable[Path]) -> MemoryWriter:
    reading = _Reading()
    for event in _events(files):
        scalars = {}
        for value in event.summary.value:
            if value.HasField("simple_value"):
                if value.tag == LOG_RATE:
                    continue
                scalars[value.tag] = value.simple_value
            elif value.tag == "decisions":
                for record in _decisions(b"".join(value.tensor.string_val[:1]).decode()):
                    if record not in reading.recorded.decisions[-9:]:  # the texts of a step grow
                        reading.take(record)
            elif value.tag == "_hparams_/session_start_info":
                reading.recorded.write_run(event.step, _hyperparameters(value))
        if scalars:
            reading.take_scalars(event.step, scalars)
    return reading.recorded


def _decisions(text: str) -> Iterator[Record]:
    """The decisions in a text of `TensorBoardWriter`."""
    pattern = r"\*\*(.+)\*\* at step (\d+) \(epoch (\d+)\), rate (\S+): (.*)"
    for rule, step, epoch, rate, reason in re.findall(pattern, text):
        yield Record(int(step), int(epoch) - 1, float(rate), rule, reason)


def _hyperparameters(value: Any) -> dict[str, Any]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    info = HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info
    named = {name: getattr(x, x.WhichOneof("kind")) for name, x in info.hparams.items()}
    # Every number comes back as a float.
    return {
        name: int(x) if isinstance(x, float) and x.is_integer() else x for name, x in named.items()
    }


# --- what plain Keras writes -------------------------------------------------------------------


def _from_csv(path: Path) -> MemoryWriter:
    epochs: dict[int, dict[str, float]] = {}
    last = -1
    for line, row in _rows(path):
        epoch = _epoch(row.pop("epoch"), line, path)
        if epoch <= last:  # it began anew
            epochs = {e: values for e, values in epochs.items() if e < epoch}
        epochs[epoch] = {name: x for name, text in row.items() if (x := _number(text)) is not None}
        last = epoch
    return _from_epochs(epochs)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a log with the numbers of their lines; a last one that a kill tore is left."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=";" if ";" in header else ",")
        try:
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise ValueError(f"this is no CSV file: {error}. Received: {path}") from error
    if rows and None in rows[-1][1].values():
        rows.pop()
    if not rows or "epoch" not in rows[0][1]:
        raise ValueError(f"a CSV log of Keras has a column 'epoch' and a row. Received: {path}")
    return rows


def _epoch(text: str, line: int, path: Path) -> int:
    epoch = _number(text)
    if epoch is None or not epoch.is_integer() or epoch < 0.0:
        raise ValueError(
            f"a CSV log of Keras has a whole number >= 0 in the column 'epoch'. "
            f"Received: epoch={text!r} in line {line} of {path}"
        )
    return int(epoch)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except (TypeError, ValueError):
        return None


def _from_folder(folder: Path) -> MemoryWriter:
    files = {
        name: sorted((folder / name).glob("*.tfevents.*")) for name in ("train", "validation")
    }
    own = sorted(folder.glob("*.tfevents.*"))
    if own:
        return _from_events(own)
    if not files["train"]:
        runs = sorted({str(file.parent) for file in folder.rglob("*.tfevents.*")})
        if runs:
            raise ValueError(
                f"the folder holds {len(runs)} run{'s' * (len(runs) > 1)}; name one of "
                f"{', '.join(runs)}. Received: {folder}"
            )
        raise ValueError(f"there are no event files in the folder. Received: {folder}")
    epochs: dict[int, dict[str, float]] = {}
    for prefix, name in (("", "train"), ("val_", "validation")):
        for event in _events(files[name]):
            for value in event.summary.value:
                if value.tag.startswith("epoch_") and value.HasField("tensor"):
                    tag = prefix + value.tag.removeprefix("epoch_")
                    epochs.setdefault(event.step, {})[tag] = _tensor(value)
    return _from_epochs(epochs)


def _tensor(value: Any) -> float:
    from tensorboard.util import tensor_util

    return float(tensor_util.make_ndarray(value.tensor))


def _from_epochs(epochs: dict[int, dict[str, float]]) -> MemoryWriter:
    """A run of one step an epoch, with the control points that a callback would have had."""
    recorded = MemoryWriter()
    if not epochs:
        return recorded
    about = {"steps_per_epoch": 1, "epochs": max(epochs) + 1, "first_step": min(epochs)}
    first = epochs[min(epochs)].get("learning_rate")
    rate = {} if first is None else {"learning_rate": first}
    recorded.write_run(0, {**about, **rate})
    recorded.write_scalars(min(epochs), rate)
    for epoch, values in sorted(epochs.items()):
        recorded.write_scalars(epoch + 1, {f"epoch/{name}": x for name, x in values.items()})
        shown = {name: x for name, x in values.items() if name in ("learning_rate", "loss")}
        recorded.write_scalars(epoch + 1, shown)
    return recorded


def _events(files: Iterable[Path]) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event

    # TensorBoard's own reader of records, without the TensorFlow that its loaders would import.
    from tensorboard.compat.tensorflow_stub.errors import DataLossError, OutOfRangeError
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    for file in files:
        reader = PyRecordReader_New(str(file))
        try:
            while True:
                reader.GetNext()
                yield Event.FromString(reader.record())
        except (OutOfRangeError, DataLossError):  # the end, or a record torn by a kill
            pass
        finally:
            reader.file_handle.close()
