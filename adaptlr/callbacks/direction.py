"""Whether a metric is better when lower or when higher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adaptlr.monitor import Direction, Monitor, direction_by_name

__all__ = ["metric_direction"]


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
    return direction_by_name(monitor.name)


def _flatten(metrics: Any) -> Iterator[Any]:
    for metric in metrics:
        yield metric
        yield from getattr(metric, "metrics", ())
