"""TensorBoard event files without TensorFlow."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptlr.writers.base import Record, cut_file

__all__ = ["TensorBoardWriter"]

_numbers = itertools.count()


class TensorBoardWriter:
    """Writes scalars and decisions for TensorBoard.

    Each call appends one whole record to the file before it returns, so a killed process loses at
    most the call it was in. TensorBoard's own asynchronous writer would lose up to two minutes.
    The framing is TensorBoard's; TensorFlow is never imported. The file is opened at the first
    write, and begins with a session mark, at which TensorBoard drops points that an earlier,
    interrupted session left at later steps.

    Args:
        log_dir: Directory of the run; created, with its parents, if missing.

    Example:
        >>> import tempfile
        >>> writer = TensorBoardWriter(tempfile.mkdtemp())
        >>> writer.write_scalars(1, {"learning_rate": 0.01})
        >>> writer.close()
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._log_dir = Path(log_dir)
        self._records: Any = None
        self._sizes: dict[str, int] = {}  # of this run's files, but for the open one
        self._name, self._started = "", False  # of the open one

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes named values of one step into one event."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(
            step,
            summary=Summary(
                value=[Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
            ),
        )

    def write_decision(self, record: Record) -> None:
        """Writes one decision as text."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text import metadata
        from tensorboard.util import tensor_util

        text = (
            f"**{record.rule}** at step {record.step} (epoch {record.epoch + 1}), "
            f"rate {record.learning_rate:.6g}: {record.reason}"
        )
        value = Summary.Value(
            tag="decisions",
            metadata=metadata.create_summary_metadata("decisions", "Every move and its reason."),
            tensor=tensor_util.make_tensor_proto([text]),
        )
        self._write(record.step, summary=Summary(value=[value]))

    def close(self) -> None:
        """Closes the file; a later write begins a new one."""
        if self._records is not None:
            self._records.close()
            self._records = None
        self._sizes = {}

    def position(self) -> dict[str, int]:
        """Returns the sizes of the run's files: what is written later, `rewind` takes back."""
        if self._records is None:
            self._open()
        return {**self._sizes, self._name: (self._log_dir / self._name).stat().st_size}

    def rewind(self, position: dict[str, int]) -> None:
        """Drops what an interrupted process has written after a position; goes on in a new file.

        A new one, because a TensorBoard that looks on does not expect a file to become shorter.
        """
        self.close()
        for name, size in position.items():
            cut_file(self._log_dir / name, size)
        self._sizes = dict(position)

    def _write(self, step: int, **what: Any) -> None:
        # Imported where it is needed: `import adaptlr` must not wait for TensorBoard.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if self._records is None:
            self._open()
        if not self._started:
            self._started = True
            start = SessionLog(status=SessionLog.START)
            self._append(Event(wall_time=time.time(), step=step, session_log=start))
        self._append(Event(wall_time=time.time(), step=step, **what))

    def _open(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._log_dir.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files named like this, in this order; process and counter tell two
        # writers of one second apart.
        self._name = name = (
            f"events.out.tfevents.{time.time():.0f}.{os.getpid()}.{next(_numbers)}.adaptlr"
        )
        self._records = RecordWriter(open(self._log_dir / name, "xb", buffering=0))  # noqa: SIM115
        self._started = False
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _append(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
