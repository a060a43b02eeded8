"""Whether a metric is better when lower or when higher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adaptlr.monitor import Direction, Monitor

__all__ = ["metric_direction"]

_HIGHER = ("acc", "auc", "precision", "recall", "f1", "iou", "dice", "r2", "psnr", "ssim")
_LOWER = ("loss", "error", "crossentropy", "perplexity", "hinge", "divergence", "mse", "mae")


def metric_direction(model: Any, monitor: Monitor) -> Direction:
    """Returns the direction of a monitored metric.

    The monitor's own mode decides; else what the metric object in the model says of itself, as in
    Keras; else its name.

    Raises:
        ValueError: If none of these tells.
    """
    if monitor.mode != "auto":
        return monitor.mode
    name = monitor.name.removeprefix("val_")
    for metric in _flatten(model.metrics):
        direction = getattr(metric, "_direction", None)
        if metric.name == name and direction in ("up", "down"):
            return "max" if direction == "up" else "min"
    if any(word in name.lower() for word in _LOWER):
        return "min"
    if any(word in name.lower() for word in _HIGHER):
        return "max"
    raise ValueError(
        f"it cannot be told whether {monitor.name!r} is better when lower or when higher. Pass "
        f"mode='min' or mode='max'. Received: monitor={monitor.name!r}, mode='auto'"
    )


def _flatten(metrics: Any) -> Iterator[Any]:
    for metric in metrics:
        yield metric
        yield from getattr(metric, "metrics", ())
