"""Measuring inside `fit` without disturbing it: the training loss, and validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from adaptlr.bridge.snapshots import random_state, set_random_state

_FEW = 10
_TEXT = ("string", "object")


@dataclass(frozen=True)
class Sums:
    """Sum and count of the losses at the last read."""

    total: float = 0.0
    count: float = 0.0


class TrainingLoss:
    """Mean training loss since it was last read.

    The per-batch `logs` of Keras are running means since the epoch's start. The tracker behind
    them holds a sum and a count, whose differences between two reads give the un-averaged loss.

    Args:
        model: A compiled model. Without a metric named "loss" every read gives None.
    """

    def __init__(self, model: Any) -> None:
        named = (m for m in model.metrics if m.name == "loss")
        self._tracker = next((m for m in named if hasattr(m, "total")), None)
        self.state = Sums()

    def read(self) -> float | None:
        """Returns the mean since the last read, or None if nothing was trained since."""
        if self._tracker is None:
            return None
        total = float(keras.ops.convert_to_numpy(self._tracker.total))
        count = float(keras.ops.convert_to_numpy(self._tracker.count))
        before = self.state
        # Keras has reset the metrics: for a new epoch, or in `train_on_batch`, for each batch.
        if count < before.count or (count == before.count and total != before.total):
            before = Sums()
        self.state = Sums(total, count)
        if not math.isfinite(total):  # an infinity would stay in the sum, and hide what comes
            self._tracker.reset_state()
            self.state = Sums()
        samples = count - before.count
        if samples <= 0.0:
            return None
        return (total - before.total) / samples

    @property
    def samples(self) -> float:
        """Samples trained since the epoch began, when last read."""
        return self.state.count

    def reset(self) -> None:
        """Starts from zero, after the model's metrics were reset."""
        self.state = Sums()


def evaluate(
    model: Any, data: Any, steps: int | None = None, batch_size: int | None = None
) -> dict[str, Any]:
    """Returns the metrics of the present weights on `data`, named as Keras names them.

    Training metrics, PyTorch's training mode and its random state are as before afterwards.

    Args:
        model: A compiled model, inside `fit`.
        data: What `validation_data` of `fit` takes: a tuple of arrays `(x, y)` or
            `(x, y, sample_weight)`, a `tf.data.Dataset`, a `keras.utils.PyDataset`, or a PyTorch
            `DataLoader`.
        steps: Batches to evaluate, or None for all.
        batch_size: Samples in a batch of arrays; None leaves it to Keras.
    """
    x, y, sample_weight = data, None, None
    if isinstance(data, tuple | list):
        x, y, sample_weight = (*data, None, None)[:3]
        # Told steps alone, Keras divides all of the data by them: a batch too large for a GPU.
        batch_size = batch_size or 32
    with _undisturbed(model):
        logs = model.evaluate(
            x,
            y,
            batch_size=batch_size,
            sample_weight=sample_weight,
            steps=steps,
            verbose=0,
            return_dict=True,
        )
    return {f"val_{name}": value for name, value in logs.items()}


def wants_whole_batches(model: Any) -> bool:
    """Whether batches must be as large as `fit` makes them: other sizes are an error, or no state.

    Layers that keep their state from batch to batch have one of that size, an input may name it,
    and on JAX a batch is dealt out to the devices.
    """
    named = [x for x in keras.tree.flatten(getattr(model, "inputs", None)) if x is not None]
    return (
        any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
        or any(len(x.shape) > 0 and x.shape[0] is not None for x in named)
        or keras.distribution.distribution() is not None
    )


def endless(data: Any) -> bool:
    """Whether the data say that they never end; TensorFlow says it by -1 batches."""
    cardinality = getattr(data, "cardinality", None)
    if callable(cardinality):
        return int(cardinality()) == -1
    with suppress(NotImplementedError, AttributeError):  # one that cannot say it
        return isinstance(data, keras.utils.PyDataset) and data.num_batches is None
    return False


def few(data: Any, batch_size: int | None = None) -> int:
    """A number of batches, at most ten, that `evaluate` finds in `data`."""
    if isinstance(data, tuple | list):
        return min(_FEW, math.ceil(_length(data) / (batch_size or 32)))
    try:
        return max(1, min(_FEW, len(data)))
    except TypeError:  # a dataset of unknown length, which holds one at least
        return 1


def size(data: Any) -> int | None:
    """How many samples the data hold, about; None if they do not say."""
    if isinstance(data, tuple | list):
        return _length(data)
    try:
        return len(data) * (getattr(data, "batch_size", None) or 32)
    except TypeError:
        return None


def _length(data: Any) -> int:
    first = keras.tree.flatten(data[0])[0]
    return int(first.shape[0]) if getattr(first, "shape", None) else len(first)


def sample(data: Any, samples: int, whole: int = 1) -> tuple[Any, int | None]:
    """A part of the data, always the same one, and how many batches of it to evaluate.

    Args:
        data: What `evaluate` takes, or None.
        samples: How many samples, about, ≥ 1. Of what comes in batches the first ones are taken,
            and of arrays whose rows cannot be picked, such as sparse ones or text.
        whole: What their number must be a multiple of.

    Returns:
        What to evaluate, and the number of batches, None for all.
    """
    total = size(data)
    if total is None:  # no data, or a dataset of unknown length
        return data, None if data is None else few(data)
    if not isinstance(data, tuple | list):
        batch = getattr(data, "batch_size", None) or 32
        return data, max(1, min(len(data), math.ceil(samples / batch)))
    samples = math.ceil(samples / whole) * whole
    if total <= samples:
        return data, None
    if not all(map(_has_rows, keras.tree.flatten(tuple(data)))):
        return data, math.ceil(samples / (whole if whole > 1 else 32))
    chosen = np.sort(np.random.default_rng(0).permutation(total)[:samples])
    return keras.tree.map_structure(lambda part: _rows(part, chosen), tuple(data)), None


def _has_rows(part: Any) -> bool:
    """Whether rows of it can be picked, and `evaluate` takes them."""
    if part is None or hasattr(part, "iloc"):
        return True
    kind = getattr(part, "dtype", None)
    return hasattr(part, "__array__") and str(getattr(kind, "name", kind)) not in _TEXT


def _rows(part: Any, chosen: Any) -> Any:
    if hasattr(part, "iloc"):  # of pandas, of which Keras makes arrays of another rank
        return part.iloc[chosen]
    return None if part is None else keras.ops.convert_to_numpy(part)[chosen]


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    variables = [*model.metrics_variables, *_carried(model)]
    values = [keras.ops.copy(keras.ops.stop_gradient(v)) for v in variables]
    state, training = random_state(), getattr(model, "training", None)
    put_back = _jax_values(model)
    try:
        yield
    except BaseException:
        put_back()
        raise
    finally:
        set_random_state(state)
        if keras.backend.backend() == "torch":
            model.train(training)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        # TensorFlow builds metrics when they are first needed: these have counted nothing else.
        known = {id(variable) for variable in variables}
        for variable in model.metrics_variables:
            if id(variable) not in known:
                variable.assign(keras.ops.zeros_like(variable))
    if getattr(model, "_jax_state", False) is None:
        # Data of unknown length end in a step that takes the values out of the variables, finds
        # no batch, and leaves `fit` to put them back from here, where evaluation left nothing.
        groups = ("trainable_variables", "non_trainable_variables", "metrics_variables")
        held = {name: [v.value for v in getattr(model, name)] for name in groups}
        model._jax_state = {
            **held,
            "optimizer_variables": [v.value for v in model.optimizer.variables],
        }


def _carried(model: Any) -> list[Any]:
    """What layers carry on from batch to batch; Keras counts it among no variables of theirs."""
    layers = [x for x in model._flatten_layers() if getattr(x, "stateful", False)]
    found = [v for x in layers for v in keras.tree.flatten(getattr(x, "states", None))]
    return [v for v in found if isinstance(v, keras.Variable)]


def _jax_values(model: Any) -> Callable[[], None]:
    """On JAX an evaluation that fails in its first batch has taken all values out of the model."""
    if keras.backend.backend() != "jax":
        return lambda: None
    present, values = getattr(model, "_jax_state", None), [(v, v.value) for v in model.variables]

    def put_back() -> None:
        if getattr(model, "_jax_state", None) is present:  # no batch came to its end
            for variable, value in values:
                variable.assign(value)
            model._jax_state_synced = True

    return put_back
