"""The running average of a model's weights, and the swapping of it with the raw ones."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any

import keras

from adaptlr.bridge.carried_state import attach
from adaptlr.bridge.schedule_free import Points, averages
from adaptlr.bridge.variables import (
    Cells,
    differ,
    from_host,
    held,
    model_variables,
    read,
    to_host,
    write,
)

_GAMMA = 16.0  # larger forgets faster


class RunningAverage:
    """Average of what is trained in a model, over a window that grows with training.

    `avg += (1 - β) (w - avg)` with `β = (1 - n/t) ** (gamma + 1)`, t steps after the start and n
    after the update before: a power-function average whose width is a fixed share of the steps so
    far, about a seventeenth for gamma = 16 (Karras et al., arXiv 2312.02696, section 3.2),
    whatever the spacing of the updates.

    Batch normalisation keeps exponential averages itself, which with Keras' momentum of 0.99 still
    hold a third of their initial values after a hundred steps, and would make any early validation
    worthless. What enters here is the mean batch statistic since the last update, for n steps
    `(m[t] - μⁿ m[t-n]) / (1 - μⁿ)`, so that the statistics are as recent as the weights.

    What a schedule-free optimizer trains is not averaged a second time: its own average counts.

    Other variables, such as a constant mask or a weight that a callback anneals, are not averaged.
    They stay what they are, and belong to the best weights with the value of then.

    Args:
        model: A built model.
        step: Training steps done so far.
        known: What schedule-free optimizers train (see `schedule_free.points`).
        whole: Whether all weights are averaged; else only the statistics of batch normalisation
            are, beside what schedule-free optimizers average.
    """

    def __init__(
        self, model: Any, step: int, known: Points | None = None, *, whole: bool = True
    ) -> None:
        self._model, self._points = model, known or {}
        momenta, variances = _batch_statistics(model)
        trained = {id(v) for v in model.trainable_variables} if whole else set()
        floats = [v for v in model_variables(model) if keras.backend.is_float_dtype(v.dtype)]
        self._averaged = [
            v for v in floats if id(v) not in self._points and id(v) in trained | momenta.keys()
        ]
        averaged = {id(v) for v in self._averaged}
        self._variables = [v for v in floats if id(v) in averaged or id(v) in self._points]
        swapped = {id(v) for v in self._variables}
        self._others = [v for v in floats if whole and id(v) not in swapped]
        self._known = [v for v in self._averaged if id(v) in momenta]
        self._momenta = [momenta[id(v)] for v in self._known]
        places = {id(v): place for place, v in enumerate(self._known)}
        least = [0.0 if id(v) in variances else -math.inf for v in self._known]
        # The averages, then what each statistic of batch norm was at the last update.
        self._cells = Cells(
            partial(_advance, [places.get(id(v)) for v in self._averaged], least),
            self._averaged,
            read([*self._averaged, *self._known]),
        )
        self._start = self._step = step
        self._raw: list[Any] | None = None
        self._shown: list[Any] | None = None  # in its place, if not the average
        self._best: list[Any] | None = None
        self._untrained: list[Any] | None = None

    @property
    def _values(self) -> list[Any]:
        own = self._cells.arrays[: len(self._averaged)]  # behind them stand statistics
        if not self._points:
            return own
        raw = [held(v) for v in self._variables] if self._raw is None else self._raw
        pairs = zip(self._variables, raw, strict=True)
        free, trained_at = zip(*((v, x) for v, x in pairs if id(v) in self._points), strict=True)
        recovered = averages(free, from_host(trained_at, free), self._points)
        values = dict(zip(map(id, self._averaged), own, strict=True))
        values.update(zip(map(id, free), recovered, strict=True))
        return [values[id(v)] for v in self._variables]

    def learn(self, known: Points) -> None:
        """Takes to what the optimizer averages, where that is built in the first step only."""
        self._points = known

    def due_after(self, step: int, epoch_steps: int | None) -> int:
        """The step of the next update: a young average has a short window, and needs more.

        Args:
            step: Training steps done.
            epoch_steps: Steps in an epoch, or None if unknown.
        """
        if not self._averaged:
            return sys.maxsize
        longest = max(1, min(16, epoch_steps // 8)) if epoch_steps else 16
        return step + max(1, min(longest, self.age // 32))

    @property
    def recovers(self) -> bool:
        """Whether some of it is the average of a schedule-free optimizer."""
        return bool(self._points)

    def restart(self, step: int) -> None:
        """Forgets everything before the present weights; the best average is kept."""
        self._cells.arrays = read([*self._averaged, *self._known])
        self._start = self._step = step

    def mark(self) -> tuple[int, list[Any]]:
        """Returns the present average as its age and arrays, in the host's memory."""
        return self.age, to_host(self._cells.arrays)

    def go_back(self, mark: tuple[int, list[Any]] | None, step: int) -> None:
        """Makes the average what `mark` has returned; starts anew without."""
        if mark is None:
            self.restart(step)
            return
        age, arrays = mark
        self._cells.arrays = from_host(arrays, [*self._averaged, *self._known])
        self._start, self._step = step - age, step

    def update(self, step: int) -> None:
        """Takes in the weights that `step` steps of training have led to."""
        if step == self._step or not self._averaged:
            return
        before, now = self._step - self._start, step - self._start
        weight = 1.0 - (before / now) ** (_GAMMA + 1.0)
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

    def swap_in(self, values: list[Any] | None = None) -> None:
        """Puts the average into the model; the raw weights wait in the host's memory.

        Args:
            values: What `validated` has returned, to be put there instead.
        """
        if self._raw is None:
            self._raw = to_host([held(v) for v in self._variables])
            self._shown = values
            write(self._variables, self._in_place)
            self._mark_model(averaged=True)

    def validated(self) -> list[Any]:
        """Returns the present average, in the host's memory."""
        return to_host(self._values)

    @property
    def _in_place(self) -> list[Any]:
        """What the model holds while the raw weights wait."""
        return self._values if self._shown is None else from_host(self._shown, self._variables)

    def _set_by_others(self) -> list[bool]:
        return differ(self._in_place, [held(v) for v in self._variables])

    def swap_out(self, *, interrupted: bool = False) -> None:
        """Puts the raw weights back, but for those that somebody else has set meanwhile.

        A callback that prunes weights, or sets them otherwise, where an epoch ends or begins,
        means those that are trained: they and the average become what it has set.

        Args:
            interrupted: Whether an exception ends `fit`: a step that failed may have left nothing
                in the variables that could be compared.
        """
        if self._raw is None:
            return
        raw, arrays = from_host(self._raw, self._variables), self._cells.arrays
        changed = [] if interrupted else self._set_by_others()
        if any(changed):
            present = read(self._variables)
            raw = [b if new else a for new, a, b in zip(changed, raw, present, strict=True)]
            set_to = {
                id(v): b
                for new, v, b in zip(changed, self._variables, present, strict=True)
                if new
            }
            every = [*self._averaged, *self._known]
            self._cells.arrays = [set_to.get(id(v), a) for v, a in zip(every, arrays, strict=True)]
        write(self._variables, raw)
        self._raw = self._shown = None
        self._mark_model(averaged=False)

    def keep_best(self) -> None:
        """Remembers the present average as the best so far, in the host's memory."""
        self._best, self._untrained = self._all_values(), None

    def keep_untrained(self) -> None:
        """Remembers the weights of before the first step, until others are the best."""
        self._untrained = self._all_values()

    def _all_values(self) -> list[Any]:
        return to_host([*self._values, *(held(v) for v in self._others)])

    def leave_untrained(self) -> bool:
        """Makes them the best so far; False if there are none."""
        if self._untrained is None:
            return False
        self._best = self._untrained
        return True

    def finish(self, *, overwritten: bool = True) -> None:
        """Leaves the best average in the model, or the present one if none was called best.

        Args:
            overwritten: False leaves what is there, if that is the present average or what another
                callback has put in its place, such as the best of an early stop.
        """
        if self._best is not None:
            every = [*self._variables, *self._others]
            write(every, from_host(self._best, every))
        elif overwritten or not self.swapped:
            write(self._variables, self._values)
        self._raw = self._shown = None
        self._mark_model(averaged=True)

    def _mark_model(self, *, averaged: bool) -> None:
        """So that what is saved now, and the next `fit`, know which weights these are."""
        if self._points:
            attach(self._model).averaged = averaged

    def save(self) -> dict[str, Any]:
        """Returns it as numbers and arrays for a file; the model must hold the raw weights."""
        return {
            "start": self._start,
            "step": self._step,
            "arrays": to_host(self._cells.arrays),
            "best": self._best,
            "untrained": self._untrained,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Becomes the average that `save` has saved."""
        self._start, self._step = saved["start"], saved["step"]
        self._best, self._untrained = saved["best"], saved["untrained"]
        self._cells.arrays = from_host(saved["arrays"], [*self._averaged, *self._known])


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
