"""`adaptlr show RUN` and `adaptlr replay RUN CONTROLLER ...`: decision logs in a terminal."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import adaptlr
from adaptlr import controllers
from adaptlr._arguments import did_you_mean, parse
from adaptlr.monitor import Monitor
from adaptlr.range_test import RangeTest
from adaptlr.runs.recording import read
from adaptlr.runs.replay import parting, replay
from adaptlr.writers.base import MemoryWriter

_EXAMPLES = """
examples:
  adaptlr show tensorboard_logs/run
  adaptlr show history.csv --plot history.png
  adaptlr replay tensorboard_logs/run "Plateau(patience=3)" "Plateau(patience=6, factor=0.3)"
  adaptlr replay history.csv "Plateau(patience=3)" --learning-rate 0.001

Controllers that replay knows: {controllers}.
"""
_CONTROLLERS = {
    name: getattr(controllers, name)
    for name in controllers.__all__
    if name != "Controller" and hasattr(getattr(controllers, name), "update")
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; `arguments` are those of the process unless given."""
    parser = argparse.ArgumentParser(
        "adaptlr",
        description="Read the decision log of a run.",
        epilog=_EXAMPLES.format(controllers=", ".join(_CONTROLLERS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"adaptlr {adaptlr.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print what was decided, and why")
    again = commands.add_parser("replay", help="print what other controllers would have decided")
    for command in (show, again):
        command.add_argument(
            "run", help="a folder of event files, a .jsonl file, or a .csv file of CSVLogger"
        )
        command.add_argument("--plot", metavar="FILE", help="draw rates under losses")
    again.add_argument(
        "controllers", nargs="+", metavar="CONTROLLER", help='such as "Plateau(patience=3)"'
    )
    again.add_argument(
        "--learning-rate", type=float, help="rate the run began with, where it was not recorded"
    )
    options = parser.parse_args(arguments)
    try:
        (_show if options.command == "show" else _replay)(options)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"adaptlr: {_worded(error)}")


def _worded(error: Exception) -> str:
    """What an error says to a person: the operating system's have a number in front."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    path = os.fspath(error.filename)
    if isinstance(error, FileNotFoundError):
        return f"there is no such file or folder: {path}"
    return f"{path}: {(error.strerror or str(error)).lower()}"


def _show(options: argparse.Namespace) -> None:
    recorded = read(options.run)
    if recorded.fits > 1:
        print(
            f"{recorded.fits} runs were written here, one after another. Of steps that several "
            f"have, the last run's are shown; give each run a folder or file of its own.\n"
        )
    known = {name: x for name, x in sorted(recorded.run.items()) if x is not None}
    print(textwrap.fill(", ".join(f"{name} {_shown(x)}" for name, x in known.items()), _width()))
    if recorded.runs > 1:
        print(
            f"{recorded.runs} runs have begun in this log, and this is the last of them: give "
            f"each a log_dir, or a file, of its own to see the others"
        )
    _print_decisions(recorded)
    epochs = [(step, x) for step, x in recorded.scalars if any("epoch/" in tag for tag in x)]
    if epochs:
        step, last = epochs[-1]
        metrics = (f"{tag.removeprefix('epoch/')} {_shown(x)}" for tag, x in last.items())
        print(f"\nafter {len(epochs)} epochs, at step {step}: {', '.join(metrics)}")
    _plot(options, {"recorded": recorded})


def _replay(options: argparse.Namespace) -> None:
    recorded = read(options.run)
    if options.learning_rate is not None:
        recorded.run["learning_rate"] = options.learning_rate
    names = {**_CONTROLLERS, "Monitor": Monitor, "RangeTest": RangeTest}
    runs = {"recorded": recorded}
    for text in options.controllers:
        _require_known(text, names)
        runs[text] = replay(recorded, parse(text, names))
    for text, run in runs.items():
        print(f"\n{text}")
        _print_decisions(run)
    print()
    for text, run in list(runs.items())[1:]:
        step = parting(recorded, run)
        where = "everywhere" if step is None else f"until step {step}"
        print(f"{text} has the recorded rates {where}")
    _plot(options, runs)


def _require_known(text: str, names: dict[str, Any]) -> None:
    name = text.partition("(")[0].strip()
    if name.isidentifier() and name not in names:
        raise ValueError(
            f"there is no controller {name}{did_you_mean(name, _CONTROLLERS)}. "
            f"Controllers: {', '.join(_CONTROLLERS)}. Received: {text}"
        )


def _plot(options: argparse.Namespace, runs: dict[str, MemoryWriter]) -> None:
    if options.plot is not None:
        from adaptlr.runs.plotting import comparison

        comparison(runs, marked="recorded", path=options.plot)


def _print_decisions(run: MemoryWriter) -> None:
    if not run.decisions:
        print("no decisions")
        return
    rows = [("step", "epoch", "rate", "rule", "why")]
    for x in run.decisions:
        rows.append((str(x.step), str(x.epoch + 1), f"{x.learning_rate:.3g}", x.rule, x.reason))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        start = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        print(
            textwrap.fill(
                row[-1],
                _width(),
                initial_indent=f"{start}  ",
                subsequent_indent=" " * (len(start) + 2),
            )
        )


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _width() -> int:
    return max(60, shutil.get_terminal_size((100, 24)).columns)


if __name__ == "__main__":
    main()
