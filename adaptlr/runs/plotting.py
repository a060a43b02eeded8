"""Figures; they need matplotlib, which the extra `plot` installs."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from adaptlr.range_test.figure import INK, PALE, new_figure, saved, tidy
from adaptlr.writers.base import MemoryWriter, Record

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5c6670")


Series = Sequence[tuple[int, float]]


def comparison(
    runs: Mapping[str, MemoryWriter | Sequence[MemoryWriter]],
    metric: str = "epoch/val_loss",
    marked: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draws rates under losses, of one run or of several.

    Several runs under one name, such as seeds, are drawn as their mean and, shaded, their range;
    where some have ended, the others go on as thin lines.

    Args:
        runs: Recorded runs by the name to show, from `adaptlr.recording.read` or the
            `MemoryWriter` of a live one. Of a single run the training loss is drawn, too.
        metric: What to draw above the rates, by its tag.
        marked: Name of the run that is drawn wide, with its decisions (of its first, of several);
            None marks a single run only.
        path: File to save the figure to, in a format by its suffix, or None.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is nothing to draw under a name, or no run of the name `marked`.

    Example:
        >>> run = MemoryWriter()
        >>> for step, loss in ((10, 1.0), (20, 0.5)):
        ...     run.write_scalars(step, {"epoch/val_loss": loss})
        ...     run.write_scalars(step, {"learning_rate": 0.1})
        >>> above, below = comparison({"first try": run}).axes
        >>> above.get_ylabel(), below.get_xlabel()
        ('val_loss', 'training step')
    """
    groups = _groups(runs, marked)
    figure = new_figure(9.0, 6.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    shown = [
        value for group in groups.values() for run in group for _, value in run.series(metric)
    ]
    extra = []
    if len(groups) == 1:
        ((marked, (only, *_)),) = groups.items()
        loss = only.series("loss")
        extra = above.plot(*_columns(loss), color=PALE, linewidth=0.8, label="training loss")
        # What a probe or a divergence did to it is off the scale.
        shown += sorted(value for _, value in loss)[: max(1, 9 * len(loss) // 10)]
    for i, (name, group) in enumerate(groups.items()):
        # Wide and beneath, so that it is seen under one that covers it.
        front = {"linewidth": 3.0, "zorder": 1.9} if name == marked else {"linewidth": 1.5}
        style = {"color": _COLOURS[i % len(_COLOURS)], **front}
        _draw(above, [run.series(metric) for run in group], style)
        rates = [run.series("learning_rate") for run in group]
        _draw(below, rates, style, drawstyle="steps-post", label=name)
    if marked is not None:
        _mark_decisions(above, below, groups[marked][0].decisions)
    _set_scale(above, shown)
    above.set_ylabel(metric.removeprefix("epoch/"))
    below.set(yscale="log", ylabel="learning rate", xlabel="training step")
    lines, _ = below.get_legend_handles_labels()  # a replayed run has rates alone
    above.legend(handles=[*lines, *extra], frameon=False, loc="upper right")
    tidy(above)
    tidy(below)
    return saved(figure, path)


def _groups(
    runs: Mapping[str, MemoryWriter | Sequence[MemoryWriter]], marked: str | None
) -> dict[str, list[MemoryWriter]]:
    groups = {name: _group(recorded) for name, recorded in runs.items()}
    if empty := [name for name, group in groups.items() if not group]:
        raise ValueError(
            f"comparison(runs=...) must hold a run or several under each name. "
            f"Received: runs={{{empty[0]!r}: []}}"
        )
    if marked is not None and marked not in groups:
        raise ValueError(
            f"comparison(marked=...) must be one of the names, {', '.join(map(repr, groups))}, or "
            f"None. Received: marked={marked!r}"
        )
    return groups


def _group(recorded: MemoryWriter | Sequence[MemoryWriter]) -> list[MemoryWriter]:
    return [recorded] if isinstance(recorded, MemoryWriter) else list(recorded)


def _columns(series: Series) -> tuple[list[int], list[float]]:
    return [step for step, _ in series], [value for _, value in series]


def _draw(axes: Any, group: Sequence[Series], style: dict[str, Any], **more: Any) -> None:
    group = [series for series in group if series]
    if len(group) < 2:
        for series in group:
            axes.plot(*_columns(series), **style, **more)
        return
    first, last = max(g[0][0] for g in group), min(g[-1][0] for g in group)
    steps = sorted({step for series in group for step, _ in series if first <= step <= last})
    values = [[_at(series, step) for series in group] for step in steps]
    axes.plot(steps, [sum(v) / len(v) for v in values], **style, **more)
    shape = "post" if "drawstyle" in more else None
    low, high = [min(v) for v in values], [max(v) for v in values]
    axes.fill_between(steps, low, high, step=shape, color=style["color"], alpha=0.18, linewidth=0)
    for series in group:
        rest = [point for point in series if point[0] >= last]
        axes.plot(*_columns(rest), **{**style, **more, "label": None, "linewidth": 0.8})


def _at(series: Series, step: int) -> float:
    """The last value up to a step."""
    return series[max(0, bisect_right(series, step, key=lambda point: point[0]) - 1)][1]


def _set_scale(axes: Any, values: Sequence[float]) -> None:
    values = [value for value in values if value - value == 0.0]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low > 0.0 and high > 10.0 * low:
        axes.set(yscale="log", ylim=(low / 1.3, high * 1.3))
    elif high > low:
        axes.set_ylim(low - 0.08 * (high - low), high + 0.15 * (high - low))


def _mark_decisions(above: Any, below: Any, decisions: Sequence[Record]) -> None:
    """A thin line through both panels for each, named above them, in two rows if crowded."""
    decisions = [decision for decision in decisions if decision.rule != "start"]
    left, right = below.get_xlim()
    ends = [left, left]  # of what is written in each row
    for decision in decisions:
        for axes in (above, below):
            axes.axvline(decision.step, color=INK, linewidth=0.8, alpha=0.35, zorder=1)
        half = 0.007 * (right - left) * len(decision.rule)
        row = 0 if ends[0] <= decision.step - half else 1
        if ends[row] <= decision.step - half:
            ends[row] = decision.step + half
            above.annotate(
                decision.rule,
                (decision.step, 1.01 + 0.05 * row),
                xycoords=("data", "axes fraction"),
                ha="center",
                fontsize=9,
                color=INK,
            )
