"""Whether a metric is better when lower or when higher."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import keras

from adaptlr._arguments import did_you_mean
from adaptlr.monitor import Direction, Monitor, MonitorState, direction_by_name

__all__ = ["metric_direction", "redirected"]

_CERTAIN: dict[str, Direction] = {"loss": "min", "accuracy": "max"}


def metric_direction(model: Any, monitor: Monitor, *, seen: bool) -> Direction | None:
    """Returns the direction of a monitored metric.

    The monitor's own mode decides; else what the metric object in the model says of itself, as in
    Keras; else its name. A mode against what Keras says is warned of.

    Args:
        model: A compiled model.
        monitor: The monitor.
        seen: Whether the metric has a value already, so that nothing more will be known of it.

    Returns:
        None if it may be known later: on TensorFlow Keras builds the metrics in the first step.

    Raises:
        ValueError: If none of these tells.
    """
    name = monitor.name.removeprefix("val_")
    known = _CERTAIN.get(name) or _known(model, name)
    if monitor.mode != "auto":
        if known is not None and known != monitor.mode:
            warnings.warn(
                f"mode={monitor.mode!r} was given for monitor={monitor.name!r}, which Keras knows "
                f"to be better when {'lower' if known == 'min' else 'higher'}: every improvement "
                f"will be taken for a setback. Pass mode={known!r} or mode='auto'.",
                stacklevel=4,
            )
        return monitor.mode if known is not None or seen or _built(model) else None
    if known is not None:
        return known
    if not (seen or _built(model)):
        return None
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


def redirected(state: Any, direction: Direction) -> Any:
    """Returns a controller's state in which every monitor looks in a direction."""
    if isinstance(state, MonitorState):
        return replace(state, direction=direction)
    if not is_dataclass(state) or isinstance(state, type):
        return state
    parts = {field.name: getattr(state, field.name) for field in fields(state) if field.init}
    return replace(state, **{name: redirected(part, direction) for name, part in parts.items()})


def _known(model: Any, name: str) -> Direction | None:
    """What Keras says of a metric; those of one of several outputs end in their own name."""
    metrics = [*_flatten(model.metrics), *_given(model)]
    matching = [m for m in metrics if name == m.name or name.endswith(f"_{m.name}")]
    for metric in sorted(matching, key=lambda m: -len(m.name)):
        direction = getattr(metric, "_direction", None)
        if direction in ("up", "down"):
            return "max" if direction == "up" else "min"
        if metric.name == name:
            return None
    return None


def _built(model: Any) -> bool:
    compiled = getattr(model, "_compile_metrics", None)
    return compiled is None or bool(compiled.built)


def _given(model: Any) -> list[Any]:
    """The metric objects that `compile` was given."""
    compiled = getattr(model, "_compile_metrics", None)
    given = [getattr(compiled, f"_user_{kind}", None) for kind in ("metrics", "weighted_metrics")]
    return [m for m in keras.tree.flatten(given) if isinstance(m, keras.metrics.Metric)]


def _flatten(metrics: Any) -> Iterator[Any]:
    for metric in metrics:
        yield metric
        yield from getattr(metric, "metrics", ())
