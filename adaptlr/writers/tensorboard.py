"""TensorBoard event files without TensorFlow."""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptlr.range_test import Curve
from adaptlr.writers.base import LOG_RATE, RATE_FOUND, Record, cut_file, require_linked

_numbers = itertools.count()

# The charts of the custom layout, beside each other; a tag is a regular expression.
_CHARTS = {
    "learning rate": ("^learning_rate$",),
    "log10 of the learning rate": ("^learning_rate_log10$",),
    "training loss (raw weights)": ("^loss$",),
    "validation loss (AutoLR: of averaged weights)": ("^epoch/val_loss$",),
    "monitored metric": ("^monitored$",),
    "AutoLR: averaged and raw weights": ("^noise/(averaged|raw)$",),
    "AutoLR: noise gap, their difference": ("^noise/gap$",),
    "phase: 1 probe, 2 warm-up, 3 trial, 4 hold, 5 cool-down, 6 done": ("^phase$",),
}


class TensorBoardWriter:
    """Writes scalars and decisions for TensorBoard.

    Each call appends one whole record to the file before it returns, so a killed process loses at
    most the call it was in. TensorBoard's own asynchronous writer would lose up to two minutes.
    The framing is TensorBoard's; TensorFlow is never imported. The file is opened at the first
    write, and begins with a session mark, at which TensorBoard drops points that an earlier,
    interrupted session left at later steps. Each run needs a directory of its own, which
    TensorBoard shows as one run: where another process writes into it, or a run that came to its
    end has, there is a warning.

    Beside scalars there are decisions as text, the curve of a range test as an image (if
    matplotlib is installed), the run's description in the HParams tab, and a layout for the
    Custom Scalars tab that shows rate and loss side by side.

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
        self._name, self._started = "", False  # of the open file
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._records: Any = None
        self._earlier: list[Path] = []  # event files that were there before
        self._file: Any = None
        self._sizes: dict[str, int] = {}  # of this run's files, but for the open one
        self._described = False
        self._texts: tuple[int, list[str]] = (-1, [])
        self._curve: Curve | None = None
        self._held: tuple[int, float | None] = (0, None)  # step and rate, as last written
        self._marked: float | None = None  # in the picture

    # Imports stand where they are needed: `import adaptlr` must not wait for TensorBoard.

    def write_run(self, step: int, description: Mapping[str, Any]) -> None:
        """Writes hyperparameters; the tab compares runs by the last value of each scalar."""
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo

        info = SessionStartInfo(start_time_secs=time.time())
        for name, x in description.items():
            if isinstance(x, bool):
                info.hparams[name].bool_value = x
            elif isinstance(x, int | float):
                info.hparams[name].number_value = x
            elif x is not None:
                info.hparams[name].string_value = str(x)
        self._described = True
        self._write_session(step, "_hparams_/session_start_info", session_start_info=info)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes named values of one step into one event, and the logarithm of the rate."""
        rate = scalars.get("learning_rate", 0.0)
        shown = {**scalars, **({LOG_RATE: math.log10(rate)} if rate > 0.0 else {})}
        self._write(step, *({"tag": tag, "simple_value": x} for tag, x in shown.items()))
        if RATE_FOUND in scalars:
            self._held = step, scalars[RATE_FOUND]

    def write_decision(self, record: Record) -> None:
        """Writes one decision as text, and its curve as an image."""
        from tensorboard.plugins.text import metadata
        from tensorboard.util import tensor_util

        text = (
            f"**{record.rule}** at step {record.step} (epoch {record.epoch + 1}), "
            f"rate {record.learning_rate:.6g}: {record.reason}"
        )
        # Of several texts at one step TensorBoard shows the last, so that one says all.
        step, earlier = self._texts
        self._texts = record.step, [*(earlier if step == record.step else ()), text]
        value = {
            "tag": "decisions",
            "metadata": metadata.create_summary_metadata("decisions", "Every move, and why."),
            "tensor": tensor_util.make_tensor_proto(["\n\n".join(self._texts[1])]),
        }
        self._write(record.step, value)
        if record.curve is not None:
            self._curve = record.curve
            self._draw(record.step)

    def _draw(self, step: int) -> None:
        if self._curve is not None:
            self._marked = self._held[1]
            picture = _picture(self._curve, self._marked)
            self._write(step, *([] if picture is None else [picture]))

    def close(self) -> None:
        """Closes the file, with a last picture of the range test; a later write begins anew."""
        if self._records is None:
            return
        try:
            if self._described:
                self._write_end()
            if self._held[1] != self._marked:
                self._draw(self._held[0])
        finally:
            records = self._records
            self._begin_anew()  # a closed file cannot be copied, and its callback may be
            records.close()

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
        self._sizes, self._described = dict(position), bool(position)

    def _write_end(self) -> None:
        from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

        info = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time())
        self._write_session(0, "_hparams_/session_end_info", session_end_info=info)

    def _write_session(self, step: int, tag: str, **info: Any) -> None:
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        about = metadata.create_summary_metadata(HParamsPluginData(**info))
        self._write(step, {"tag": tag, "metadata": about, "tensor": metadata.NULL_TENSOR})

    def _write(self, step: int, *values: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        if self._records is None:
            self._open()
        if not self._started:
            self._started = True
            if step == 0 and not self._sizes:
                _warn_of_a_finished_run(self._log_dir, self._earlier)
            # TensorBoard drops points from the mark's step on. Those of the step at which a run
            # goes on, such as the metrics of an epoch that ended there, were written before it.
            later = step + 1 if step else 0
            self._append(step=later, session_log=SessionLog(status=SessionLog.START))
        self._append(step=step, summary=_summary(*values))

    def _open(self) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._log_dir.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files named like this, in this order; process and counter tell two
        # writers of one second apart.
        self._name = name = (
            f"events.out.tfevents.{time.time():.0f}.{os.getpid()}.{next(_numbers):06d}.adaptlr"
        )
        self._earlier = sorted(self._log_dir.glob("events.out.tfevents.*.adaptlr"))
        _warn_of_another_run(self._log_dir, self._earlier)
        # Buffered, and flushed after each record: unbuffered, half of one may go in silence.
        self._file = open(self._log_dir / name, "xb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._append(file_version="brain.Event:2")
        if not self._sizes:  # else it stands in the file that this one continues
            self._append(summary=_summary(_layout()))
        self._started = False

    def _append(self, **what: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        require_linked(self._file, self._log_dir)
        self._records.write(Event(wall_time=time.time(), **what).SerializeToString())
        self._records.flush()


def _summary(*values: Mapping[str, Any]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(**value) for value in values])


def _layout() -> dict[str, Any]:
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata
    from tensorboard.util import tensor_util

    charts = [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        for title, tags in _CHARTS.items()
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="adaptlr", chart=charts)])
    return {
        "tag": metadata.CONFIG_SUMMARY_TAG,
        "metadata": metadata.create_summary_metadata(),
        "tensor": tensor_util.make_tensor_proto(layout.SerializeToString(), dtype="string"),
    }


def _picture(curve: Curve, held: float | None) -> dict[str, Any] | None:
    from tensorboard.compat.proto.summary_pb2 import Summary

    from adaptlr.range_test.figure import finder_curve, png

    try:
        figure = finder_curve(curve, held=held)
    except ImportError:  # matplotlib is an extra
        return None
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    image = Summary.Image(width=width, height=height, encoded_image_string=png(figure))
    return {"tag": "range_test", "image": image}


def _warn_of_another_run(log_dir: Path, earlier: list[Path]) -> None:
    """Looks for event files of other processes that are alive: the name holds the process."""
    for path in earlier:
        process = _process(path.name)
        if process is not None and process != os.getpid() and _alive(process):
            warnings.warn(
                f"another run (process {process}) writes into {log_dir} too, and TensorBoard will "
                f"show the two as one; give each run a log_dir of its own",
                stacklevel=2,
            )
            return


def _warn_of_a_finished_run(log_dir: Path, earlier: list[Path]) -> None:
    """Looks at the last event file of an earlier run; a run that ended has marked its end."""
    if earlier and b"session_end_info" in earlier[-1].read_bytes():
        warnings.warn(
            f"{log_dir} holds a run that came to its end, and another one begins there at step 0: "
            f"TensorBoard will show the two as one, without what the first has at later steps. "
            f"Give each run a log_dir of its own, such as log_dir=f'logs/{{trial}}'; in a search "
            f"of hyperparameters make the callback where the trial is known",
            stacklevel=2,
        )


def _process(name: str) -> int | None:
    """The process in the name of an event file of ours; a stranger's may have anything there."""
    part = name.split(".")[4]
    return int(part) if part.isdecimal() else None


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
