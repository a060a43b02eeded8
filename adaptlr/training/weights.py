"""Copies of a model's variables: snapshots to go back to, and a running average to look ahead."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import keras
import numpy as np

from adaptlr.checkpoint import plain
from adaptlr.training.arrays import from_arrays, from_host, to_arrays, to_host, to_numpy
from adaptlr.training.random_state import (
    load_random_state,
    random_state,
    save_random_state,
    set_random_state,
)
from adaptlr.training.variables import Cells, held, in_one_call, read, write

__all__ = [
    "RunningAverage",
    "Snapshot",
    "Snapshots",
    "finite_weights",
    "model_variables",
    "training_variables",
]


def model_variables(model: Any) -> list[Any]:
    """The variables of the model itself: weights, statistics, seed generators.

    Raises:
        ValueError: If the model has none yet.
    """
    if not model.built:  # TensorFlow builds such a model in its first step
        raise ValueError(
            f"{type(model).__name__} {model.name!r} has no weights yet that could be averaged or "
            f"brought back. Begin it with keras.Input(shape), or call model.build before fit."
        )
    return [*model.trainable_variables, *model.non_trainable_variables]


def training_variables(model: Any) -> list[Any]:
    """The model's own variables, then the optimizer's: slots, counters, rates."""
    return [*model_variables(model), *model.optimizer.variables]


def finite_weights(model: Any) -> bool:
    """Whether no variable of the model is NaN or infinite."""
    floats = [held(v) for v in model_variables(model) if keras.backend.is_float_dtype(v.dtype)]
    # One number for all of them waits for the device once.
    return not floats or bool(keras.ops.convert_to_numpy(_zero(floats)) == 0.0)


class Snapshot:
    """The training state at one moment: weights, optimizer slots and counters, random state.

    It is kept in the host's memory: it is seldom written, hardly ever read, and would take two or
    three times as much of a GPU's memory as the weights do.

    Args:
        model: A compiled model whose optimizer is built.
        leave: Ids of variables that a restore must not touch (the rates).
    """

    def __init__(self, model: Any, leave: set[int]) -> None:
        self._variables = [v for v in training_variables(model) if id(v) not in leave]
        self._values = to_host([held(v) for v in self._variables])
        self._random_state = random_state()

    @property
    def finite(self) -> bool:
        """Whether nothing in it is NaN or infinite; on the host that costs the device nothing."""
        return all(
            bool(np.isfinite(value).all())
            for variable, value in zip(self._variables, self._values, strict=True)
            if keras.backend.is_float_dtype(variable.dtype)
        )

    def restore(self) -> None:
        """Puts every variable back; the snapshot stays good for another time."""
        write(self._variables, from_host(self._values, self._variables))
        set_random_state(self._random_state)

    def save(self) -> dict[str, Any]:
        """Returns it as arrays for a file."""
        random = save_random_state(self._random_state)
        return {"values": to_arrays(self._values), "random": random}

    def load(self, saved: dict[str, Any]) -> None:
        """Becomes the snapshot that `save` has saved."""
        self._values = [to_numpy(array) for array in saved["values"]]
        self._random_state = load_random_state(saved["random"])


class Snapshots:
    """The last snapshot without NaN, or the first, and the one before: what to go back to.

    Args:
        leave: Ids of variables that a restore must not touch (the rates).
    """

    def __init__(self, leave: set[int]) -> None:
        self._leave = leave
        self._last: Snapshot | None = None
        self._earlier: Snapshot | None = None

    def __bool__(self) -> bool:
        return self._last is not None

    def keep(self, model: Any) -> None:
        """Takes one of the present state, unless that is spoilt and there is a good one."""
        # A loss is that of the step before: the last step may have made NaN of the weights unseen.
        snapshot = Snapshot(model, self._leave)
        if self._last is None or snapshot.finite:
            self._earlier, self._last = self._last, snapshot

    def restore(self, *, earlier: bool = False) -> bool:
        """Goes back to the last, or if there is one to the one before; False without any."""
        if earlier and self._earlier is not None:
            self._last = self._earlier
        if self._last is None:
            return False
        self._last.restore()
        return True

    def save(self) -> dict[str, Any]:
        """Returns both as arrays for a file."""
        both = {"last": self._last, "earlier": self._earlier}
        return {name: None if one is None else one.save() for name, one in both.items()}

    def load(self, saved: dict[str, Any], model: Any) -> None:
        """Becomes the snapshots that `save` has saved, of a model alike."""
        self._last = self._loaded(saved["last"], model)
        self._earlier = self._loaded(saved["earlier"], model)

    def _loaded(self, saved: dict[str, Any] | None, model: Any) -> Snapshot | None:
        if saved is None:
            return None
        snapshot = Snapshot(model, self._leave)
        snapshot.load(saved)
        return snapshot


class RunningAverage:
    """Average of all floating-point variables of a model, over a window that grows with training.

    `avg += (1 - β) (w - avg)` with `β = (1 - n/t) ** (gamma + 1)`, t steps after the start and n
    after the update before: a power-function average whose width is a fixed share of the steps so
    far, about a seventeenth for gamma = 16 (Karras et al., arXiv 2312.02696, section 3.2),
    whatever the spacing of the updates.

    Batch normalisation keeps exponential averages itself, which with Keras' momentum of 0.99 still
    hold a third of their initial values after a hundred steps, and would make any early validation
    worthless. What enters here is the mean batch statistic since the last update, for n steps
    `(m[t] - μⁿ m[t-n]) / (1 - μⁿ)`, so that the statistics are as recent as the weights.

    Args:
        model: A built model.
        step: Training steps done so far.
        gamma: Exponent, > 0; larger forgets faster.
    """

    def __init__(self, model: Any, step: int, gamma: float = 16.0) -> None:
        self._variables = [
            v for v in model_variables(model) if keras.backend.is_float_dtype(v.dtype)
        ]
        momenta, variances = _batch_statistics(model)
        self._known = [v for v in self._variables if id(v) in momenta]
        self._momenta = [momenta[id(v)] for v in self._known]
        places = {id(v): place for place, v in enumerate(self._known)}
        least = [0.0 if id(v) in variances else -math.inf for v in self._known]
        # The averages, then what each statistic of batch norm was at the last update.
        self._cells = Cells(
            partial(_advance, [places.get(id(v)) for v in self._variables], least),
            self._variables,
            read([*self._variables, *self._known]),
        )
        self._gamma = gamma
        self._start = self._step = step
        self._raw: list[Any] | None = None
        self._best: list[Any] | None = None

    @property
    def _values(self) -> list[Any]:
        return self._cells.arrays[: len(self._variables)]

    def restart(self, step: int) -> None:
        """Forgets everything before the present weights; the best average is kept."""
        self._cells.arrays = read([*self._variables, *self._known])
        self._start = self._step = step

    def update(self, step: int) -> None:
        """Takes in the weights that `step` steps of training have led to."""
        if step == self._step:
            return
        before, now = self._step - self._start, step - self._start
        weight = 1.0 - (before / now) ** (self._gamma + 1.0)
        shares = [m ** (step - self._step) for m in self._momenta]
        numbers = keras.ops.convert_to_tensor([weight, *shares], "float32")
        self._cells.update(numbers)
        self._step = step

    @property
    def age(self) -> int:
        """Steps that have gone into it."""
        return self._step - self._start

    @property
    def swapped(self) -> bool:
        """Whether the model holds the average at present."""
        return self._raw is not None

    def swap_in(self) -> None:
        """Puts the average into the model; the raw weights wait in the host's memory."""
        if self._raw is None:
            self._raw = to_host([held(v) for v in self._variables])
            write(self._variables, self._values)

    def swap_out(self) -> None:
        """Puts the raw weights back."""
        if self._raw is not None:
            write(self._variables, from_host(self._raw, self._variables))
            self._raw = None

    def keep_best(self) -> None:
        """Remembers the present average as the best so far, in the host's memory."""
        self._best = to_host(self._values)

    def finish(self) -> None:
        """Leaves the best average in the model, or the present one if none was called best."""
        best = None if self._best is None else from_host(self._best, self._variables)
        write(self._variables, self._values if best is None else best)
        self._raw = None

    def save(self) -> dict[str, Any]:
        """Returns it as numbers and arrays for a file; the model must hold the raw weights."""
        return {
            "numbers": plain(self),
            "values": to_arrays(self._values),
            "statistics": to_arrays(self._cells.arrays[len(self._variables) :]),
            "best": None if self._best is None else to_arrays(self._best),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Becomes the average that `save` has saved."""
        vars(self).update(saved["numbers"])
        self._cells.arrays = [
            *from_arrays(saved["values"], self._variables),
            *from_arrays(saved["statistics"], self._known),
        ]
        if saved["best"] is not None:
            self._best = [to_numpy(array) for array in saved["best"]]


@in_one_call
def _zero(values: list[Any]) -> Any:
    """Zero if all values are finite, else NaN: zero times NaN or infinity is NaN."""
    zeros = [keras.ops.sum(keras.ops.stop_gradient(value) * 0) for value in values]
    return sum(keras.ops.cast(zero, "float32") for zero in zeros)


def _advance(
    places: list[int | None],
    least: list[float],
    present: list[Any],
    arrays: list[Any],
    numbers: Any,
) -> list[Any]:
    """One update of a running average: the new averages, then the new statistics.

    Args:
        places: For each variable its place among the statistics of batch norm, if it is one.
        least: The least value of each statistic.
        present: What each variable holds.
        arrays: The average of each variable so far, then what each statistic held at the last
            update.
        numbers: Weight of the present values, then for each statistic the share of its present
            value that is older than the last update.
    """
    averages, statistics = arrays[: len(places)], arrays[len(places) :]
    values, now = [], list(statistics)
    for new, average, place in zip(present, averages, places, strict=True):
        new = keras.ops.stop_gradient(new)
        recent = new
        if place is not None:
            now[place] = keras.ops.copy(new)
            recent = _recent(new, statistics[place], numbers[1 + place], least[place])
        values.append(average + keras.ops.cast(numbers[0], average.dtype) * (recent - average))
    return [*values, *now]


def _recent(now: Any, then: Any, older: Any, least: float) -> Any:
    """Mean batch statistic since `then`, of which `now` still holds the share `older`.

    A narrow type would lose the difference of the two, so that is taken in float32.
    """
    dtype = keras.backend.standardize_dtype(now.dtype)
    narrow = dtype in ("float16", "bfloat16")
    if narrow:
        now, then = keras.ops.cast(now, "float32"), keras.ops.cast(then, "float32")
    older = keras.ops.cast(older, now.dtype)
    recent = keras.ops.maximum((now - older * then) / (1.0 - older), least)
    return keras.ops.cast(recent, dtype) if narrow else recent


def _batch_statistics(model: Any) -> tuple[dict[int, float], set[int]]:
    """Momentum of each batch-norm statistic by the id of its variable; ids of the variances."""
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization) and 0.0 < layer.momentum < 1.0
    ]
    momenta = {
        id(variable): float(layer.momentum)
        for layer in layers
        for variable in (layer.moving_mean, layer.moving_variance)
    }
    return momenta, {id(layer.moving_variance) for layer in layers}
