"""`adaptlr show RUN` and `adaptlr replay RUN CONTROLLER ...`: decision logs in a terminal."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from adaptlr import controllers
from adaptlr._notation import parse
from adaptlr.monitor import Monitor
from adaptlr.range_test import RangeTest
from adaptlr.runs.recording import read
from adaptlr.runs.replay import parting, replay
from adaptlr.writers.base import MemoryWriter

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; `arguments` are those of the process unless given."""
    parser = argparse.ArgumentParser("adaptlr", description="Read the decision log of a run.")
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
        sys.exit(f"adaptlr: {error}")


def _show(options: argparse.Namespace) -> None:
    recorded = read(options.run)
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
    names = {name: x for name, x in vars(controllers).items() if hasattr(x, "update")}
    del names["Controller"]  # the protocol
    names |= {"Monitor": Monitor, "RangeTest": RangeTest}
    runs = {"recorded": recorded}
    for text in options.controllers:
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
