"""Whether a metric is better when lower or when higher."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import keras

from adaptlr._arguments import did_you_mean
from adaptlr.monitor import Direction, Monitor, direction_by_name

__all__ = ["metric_direction"]

_CERTAIN: dict[str, Direction] = {"loss": "min", "accuracy": "max"}


def metric_direction(model: Any, monitor: Monitor) -> Direction:
    """Returns the direction of a monitored metric.

    The monitor's own mode decides; else what the metric object in the model says of itself, as in
    Keras; else its name. A mode against what Keras says is warned of.

    Raises:
        ValueError: If none of these tells.
    """
    name = monitor.name.removeprefix("val_")
    # Not every backend has built the metrics when training begins.
    known = _CERTAIN.get(name) or _known(model, name)
    if monitor.mode != "auto":
        if known is not None and known != monitor.mode:
            warnings.warn(
                f"mode={monitor.mode!r} was given for monitor={monitor.name!r}, which Keras knows "
                f"to be better when {'lower' if known == 'min' else 'higher'}: every improvement "
                f"will be taken for a setback. Pass mode={known!r} or mode='auto'.",
                stacklevel=4,
            )
        return monitor.mode
    if known is not None:
        return known
    try:
        return direction_by_name(monitor.name)
    except ValueError as error:
        hint = did_you_mean(monitor.name, _names(model))
        raise ValueError(f"{error}{hint}") from None


def _names(model: Any) -> list[str]:
    """Names of metrics that the logs of a `fit` will have, as far as they are known before it."""
    names = ["loss", *(metric.name for metric in _flatten(model.metrics))]
    # Where metrics are not built yet, what `compile` was given names them.
    with suppress(Exception):  # not everything that can be compiled with can be written down
        config = model.get_compile_config()
        for given in keras.tree.flatten([config["metrics"], config["weighted_metrics"]]):
            names += [given] if isinstance(given, str) else []
    return [*names, *(f"val_{name}" for name in names)]


def _known(model: Any, name: str) -> Direction | None:
    for metric in _flatten(model.metrics):
        direction = getattr(metric, "_direction", None)
        if metric.name == name and direction in ("up", "down"):
            return "max" if direction == "up" else "min"
    return None


def _flatten(metrics: Any) -> Iterator[Any]:
    for metric in metrics:
        yield metric
        yield from getattr(metric, "metrics", ())
