"""A range test as a figure; figures need matplotlib, which the extra `plot` installs."""

from __future__ import annotations

import io
import os
import textwrap
from functools import partial
from typing import Any

from adaptlr.range_test.reading import Curve

INK, PALE, _GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
# Colours of Okabe and Ito, which most colour-blind readers can tell apart; the shapes help too.
_MARKS = {
    "centre": ("#d55e00", "o"),
    "valley": ("#0072b2", "s"),
    "steepest": ("#009e73", "^"),
    "minimum/10": ("#cc79a7", "D"),
}


def finder_curve(
    curve: Curve,
    path: str | os.PathLike[str] | None = None,
    held: float | None = None,
) -> Any:
    """Draws the losses of a range test over their rates, with what was read off them.

    Args:
        curve: What the ramp showed.
        path: File to save the figure to, in a format by its suffix (`.png`, `.svg`, `.pdf`), or
            None.
        held: A rate to mark beside the suggestions, that which was trained with, or None.

    Returns:
        The `matplotlib.figure.Figure`. It belongs to no window, so nothing needs to be closed, and
        shows itself in a notebook.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> from adaptlr.range_test import RangeTest, read_curve
        >>> curve = read_curve(RangeTest(0.001, 1.0, num_steps=4), [2.0, 2.0, 1.0, 0.5, 3.0])
        >>> finder_curve(curve).axes[0].get_xscale()
        'log'
    """
    figure = new_figure(8.0, 5.0)
    axes = figure.add_subplot()
    rates = curve.learning_rates
    axes.plot(rates, curve.losses, ".", color=PALE, markersize=4, label="batch loss")
    axes.plot(rates, curve.smoothed, color=INK, linewidth=2, label="smoothed")
    if curve.validation_losses:
        validation = curve.validation_losses
        style = {"color": "#e69f00", "label": "validation loss"}
        axes.plot(rates[: len(validation)], validation, "--", **style)
    _mark_suggestions(axes, curve)
    if held is not None:
        axes.axvline(
            held, color=INK, linewidth=1.5, linestyle=(0, (4, 2)), label=f"held: {held:.2g}"
        )
    axes.set(xlabel="learning rate", ylabel="loss")
    axes.set_xscale("log" if curve.shape == "exponential" else "linear")
    if curve.smoothed:
        # Losses that explode at the end would flatten all that is of interest.
        bottom = min(*curve.losses, *curve.smoothed, *curve.validation_losses)
        top = max(curve.smoothed[: 1 + len(rates) // 2])
        room = max(top - bottom, 1e-6 * abs(top), 1e-12)
        axes.set_ylim(bottom - 0.08 * room, top + 0.35 * room)
    tidy(axes)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    figure.supxlabel(textwrap.fill(curve.verdict, 115), fontsize=9, color=INK, style="italic")
    return saved(figure, path)


def _mark_suggestions(axes: Any, curve: Curve) -> None:
    for name, rate in curve.suggestions.items():
        if rate is None:
            continue
        colour, shape = _MARKS[name]
        nearest = min(
            range(len(curve.learning_rates)), key=lambda i: abs(curve.learning_rates[i] - rate)
        )
        loss = curve.smoothed[nearest]
        ours = name == "centre"
        label = f"{name}: {rate:.2g}" + (" (suggestion)" if ours else "")
        axes.axvline(rate, color=colour, linewidth=0.8, alpha=0.5)
        # The largest lies below, so that two at one place are both seen.
        style = {"markersize": 12 if ours else 7, "zorder": 3 if ours else 4}
        axes.plot(rate, loss, shape, color=colour, markeredgecolor="white", label=label, **style)


def new_figure(width: float, height: float) -> Any:
    """An empty figure that belongs to no window, its size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "adaptlr[plot]"') from error
    figure: Any = Figure(figsize=(width, height), dpi=150, layout="constrained")
    # Of a figure without a window a notebook shows its text only, unless it has this.
    figure._repr_png_ = partial(png, figure)
    return figure


def png(figure: Any) -> bytes:
    """Returns a figure as the bytes of a PNG file, 100 dots an inch."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def tidy(axes: Any) -> None:
    """Takes away what holds no information."""
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def saved(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    """Returns the figure, saved to a path if there is one."""
    if path is not None:
        figure.savefig(path)
    return figure
