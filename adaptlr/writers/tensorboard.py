"""TensorBoard event files without TensorFlow."""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptlr.writers.base import Record, require_linked

__all__ = ["TensorBoardWriter"]

_numbers = itertools.count()


class TensorBoardWriter:
    """Writes scalars and decisions for TensorBoard.

    Each call appends one whole record to the file before it returns, so a killed process loses at
    most the call it was in. TensorBoard's own asynchronous writer would lose up to two minutes.
    The framing is TensorBoard's; TensorFlow is never imported. The file is opened at the first
    write, and begins with a session mark, at which TensorBoard drops points that an earlier,
    interrupted session left at later steps. Runs at the same time need a directory each, which
    TensorBoard shows as one run; that another process writes into it is warned of.

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
        self._file: Any = None

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
        records, self._records = self._records, None
        if records is not None:
            records.close()

    def _write(self, step: int, **what: Any) -> None:
        # Imported where it is needed: `import adaptlr` must not wait for TensorBoard.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if self._records is None:
            self._open(Event(wall_time=time.time(), file_version="brain.Event:2"))
            start = SessionLog(status=SessionLog.START)
            self._append(Event(wall_time=time.time(), step=step, session_log=start))
        self._append(Event(wall_time=time.time(), step=step, **what))

    def _open(self, version: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._log_dir.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files named like this, in this order; process and counter tell two
        # writers of one second apart.
        name = f"events.out.tfevents.{time.time():.0f}.{os.getpid()}.{next(_numbers)}.adaptlr"
        _warn_of_another_run(self._log_dir)
        # Buffered, and flushed after each record: unbuffered, half of one may go in silence.
        self._file = open(self._log_dir / name, "xb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._append(version)

    def _append(self, event: Any) -> None:
        require_linked(self._file, self._log_dir)
        self._records.write(event.SerializeToString())
        self._records.flush()


def _warn_of_another_run(log_dir: Path) -> None:
    """Looks for event files of other processes that are alive: the name holds the process."""
    for path in log_dir.glob("events.out.tfevents.*.adaptlr"):
        process = int(path.name.split(".")[4])
        if process != os.getpid() and _alive(process):
            warnings.warn(
                f"another run (process {process}) writes into {log_dir} too, and TensorBoard will "
                f"show the two as one; give each run a log_dir of its own",
                stacklevel=2,
            )
            return


def _alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere the question would end the process
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
