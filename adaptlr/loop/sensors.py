"""Everything that becomes an observation: training loss, monitored metric, sound weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import keras

from adaptlr._arguments import did_you_mean
from adaptlr.bridge.average import RunningAverage
from adaptlr.bridge.evaluation import (
    TrainingLoss,
    evaluate,
    few,
    sample,
    size,
    wants_whole_batches,
)
from adaptlr.bridge.fit import batch_size_of, validated_epochs, validation_of
from adaptlr.loop.plan import Plan
from adaptlr.monitor import Direction, Monitor, MonitorState, direction_by_name

# A look between epoch ends takes one in a hundred of the samples that are trained, and at least so
# many: some fifteen looks, each at a third of what training on as many samples costs.
_LEAST, _SHARE, _LONG = 128, 100, 10_000
# All are measured before the first step, if they are no more than one in twenty, or so few.
_UNTRAINED, _FEW = 20, 512


class Sensors:
    """Reads what a controller is told, with the averaged weights where it is given them.

    Args:
        plan: Where monitor and validation data come from.
        owner: Name of the callback, for messages.
        model: A compiled model, inside `fit`.
        total_steps: Steps of the run, or None if that is not known.

    Attributes:
        loss: The training loss.
        warned: Whether a missing metric was told of.

    Raises:
        ValueError: If the model cannot be evaluated on the data; one batch is tried, so that data
            of the wrong shape do not cost an epoch.
    """

    def __init__(self, plan: Plan, owner: str, model: Any, total_steps: int | None = None) -> None:
        self._plan = plan
        self._monitor = plan.controller.monitor
        self._data, self._batch_size, self._steps = plan.validation_data, None, None
        self._of_fit = self._data is None and plan.averaging
        if self._of_fit:
            self._data, self._batch_size, self._steps = validation_of(model)
            if isinstance(self._data, tuple | list) and self._batch_size is None:
                self._steps = None  # of which Keras makes as many batches of all samples
        self._trained = (total_steps or _LONG) * batch_size_of(model)
        # Few samples cost as much in small batches, which need not be those of `fit`.
        self._whole = (self._batch_size or 32) if wants_whole_batches(model) else 1
        self._sample = sample(self._data, max(_LEAST, self._trained // _SHARE), self._whole)
        self._owner = owner
        self._model = model
        self.loss = TrainingLoss(model)
        self.warned = False
        self._names = self._try_out()

    @property
    def read_once(self) -> bool:
        """Whether `fit` has validation data, and they can be read only once."""
        return self._of_fit and self._data is None and validated_epochs(self._model) is not None

    @property
    def measurable(self) -> bool:
        """Whether the monitored metric can be measured at any step."""
        return self._monitor is not None and self._monitor.name in self._names

    def _try_out(self) -> set[str]:
        if self._data is None:
            return set()
        try:
            return set(evaluate(self._model, self._data, 1, self._batch_size))
        except Exception as error:
            raise ValueError(
                f"{self._asked()}{_lacking_labels(self._data)}. It says: {error}"
            ) from error

    def _asked(self) -> str:
        needed = "data that model.evaluate takes, at least one batch of them"
        if not self._of_fit:
            return f"{self._owner}(validation_data=...) must be {needed}"
        return f"{self._owner} measures on the validation data of fit, which must be {needed}"

    def require_metric(self) -> None:
        """Refuses a monitor that validation does not give, where nothing else can.

        Raises:
            ValueError: Lists the metrics that there are.
        """
        name = None if self._monitor is None else self._monitor.name
        if name is None or name in self._names or not (self._names and name.startswith("val_")):
            return
        guess = did_you_mean(name, self._names) or (
            f"; a metric must be named in compile(metrics=[...]), or put into the logs by a "
            f"callback that is listed before {self._owner}"
        )
        raise ValueError(
            f"{self._owner}(monitor={name!r}): validation gives no such metric{guess}. "
            f"Metrics: {', '.join(sorted(self._names))}"
        )

    @property
    def validated_instead(self) -> str | None:
        """The name on validation data of a metric that is monitored on those of training."""
        name = None if self._monitor is None else f"val_{self._monitor.name}"
        return name if name in self._names else None

    def missing_from(self, logs: dict[str, Any], *, last: bool) -> bool:
        """Whether `logs` lack the monitored metric, and it is to be measured instead.

        Args:
            logs: Metrics of an epoch.
            last: Whether the training ends here. `fit` was told how often to validate, but which
                weights are left must not depend on whether it did so now.
        """
        if self._of_fit and not last:
            return False
        return self.measurable and self._monitor is not None and self._monitor.name not in logs

    def evaluate(self) -> dict[str, float]:
        """Evaluates the present weights on all of the validation data."""
        return evaluate(self._model, self._data, self._steps, self._batch_size)

    def untrained(self) -> dict[str, float]:
        """Measures, if that is cheap, what fine-tuning begins with: it may be the best of all.

        That is told by the loss, on the data of the epochs: an accuracy may be high by a guess.
        """
        samples = size(self._data)
        if samples is None or samples > max(_FEW, self._trained // _UNTRAINED):
            return {}
        elsewhere = not self._of_fit and validated_epochs(self._model) is not None
        if elsewhere or self._monitor is None or self._monitor.name != "val_loss":
            return {}
        return evaluate(self._model, self._data, self._steps, self._batch_size)

    def look(self, epoch: int) -> tuple[float | None, float | None]:
        """Measures the monitored metric and the loss on a sample of the validation data."""
        data, steps = self._sample
        logs = evaluate(self._model, data, steps, self._batch_size)
        return self.monitored(logs, epoch), number(logs.get("val_loss"))

    def training_metrics(self) -> dict[str, float]:
        """Returns the training metrics of the epoch so far, but for what was undone."""
        found = {name: number(x) for name, x in self._model.get_metrics_result().items()}
        return {name: value for name, value in found.items() if value is not None}

    def noise(self, average: RunningAverage, trained: int) -> dict[str, float | None]:
        """Measures averaged and raw weights on the same few batches.

        Args:
            average: The averaged weights, which are in the model; afterwards the raw ones are.
            trained: Steps of the epoch, of whose time this takes some 2 %.
        """
        if self._monitor is None:
            return {}
        size = self._batch_size if self._whole > 1 else None
        found, batches = [], max(1, min(few(self._data, size), trained // 30))
        for raw in (False, True):
            if raw:
                average.swap_out()
            logs = evaluate(self._model, self._data, batches, size)
            found.append(number(logs.get(self._monitor.name)))
        averaged, raw_value = found
        gap = None if averaged is None or raw_value is None else abs(raw_value - averaged)
        return {"noise/averaged": averaged, "noise/raw": raw_value, "noise/gap": gap}

    def monitored(self, logs: dict[str, Any], epoch: int) -> float | None:
        """Picks the metric; warns once if it is not there."""
        if self._monitor is None:
            return None
        name = self._monitor.name
        value = number(logs.get(name))
        # `fit` validates as often as it was told, so that what it has not is still to come.
        if value is None and not self.warned and not (self._of_fit and self.measurable):
            validated = validated_epochs(self._model) if _unvalidated(name, logs) else None
            if validated and epoch + 1 not in validated:
                return None  # as was asked for by validation_freq
            self.warned = True
            hint = _hint(name, logs, validated, self._owner)
            why = _why_missing(name, logs, epoch, hint, self._without_metric())
            warnings.warn(f"{self._owner}(monitor={name!r}): {why}", stacklevel=4)
        return value

    def _without_metric(self) -> str:
        if not self._plan.averaging:
            return "the rate is held"
        return (
            "the training loss decides about the rate, over-fitting goes unseen, and the last "
            "averaged weights count as the best"
        )


def _lacking_labels(data: Any) -> str:
    """Says that there are none, where that can be seen: an array alone, or a pair without."""
    pair = isinstance(data, tuple | list)
    lacking = (len(data) == 1 or data[1] is None) if pair and data else hasattr(data, "__array__")
    return "; the labels are missing, pass validation_data=(x, y)" if lacking else ""


def number(value: Any) -> float | None:
    """Returns a metric as a float: a number, or a 0-d array of any library; None for the rest."""
    if isinstance(value, str | bytes) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _unvalidated(name: str, logs: Mapping[str, Any]) -> bool:
    """Whether a metric is missing with all that validation gives."""
    return name.startswith("val_") and not any(key.startswith("val_") for key in logs)


def _hint(name: str, logs: Mapping[str, Any], validated: list[int] | None, owner: str) -> str:
    if not _unvalidated(name, logs):
        guess = did_you_mean(name, logs).strip(" ()")
        if guess:
            return guess
        return f"a callback that puts it there must be listed before {owner}"
    if validated is None:
        return "nothing was validated in this epoch: pass validation_data to fit"
    if not validated:
        return "none of the epochs of fit is validated: lower validation_freq"
    return "nothing was validated in this epoch: the validation data hold no batch"


def _why_missing(name: str, logs: Mapping[str, Any], epoch: int, hint: str, meanwhile: str) -> str:
    """Says why there is no number named `name` in the logs of an epoch, and what happens."""
    if name in logs:
        return (
            f"at the end of epoch {epoch + 1} this metric is no number; monitor one that is. "
            f"Received: {name}={str(logs[name])[:60]} ({type(logs[name]).__name__})"
        )
    return (
        f"there is no such metric at the end of epoch {epoch + 1} ({hint}); until there is, "
        f"{meanwhile}. Metrics: {', '.join(sorted(logs))}"
    )


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
