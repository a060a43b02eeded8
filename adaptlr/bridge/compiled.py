"""What stands in the training step, rates and momenta, or takes its place: skipped batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from adaptlr.bridge.fit import undo_at_next_build
from adaptlr.bridge.optimizer import momentum_name


class InGraph:
    """Puts tables of rates, and of momenta, into an optimizer's compiled step.

    A callback is asked once for several steps where `steps_per_execution` is above 1, a rate that
    is written costs a copy of the whole state on JAX, and a momentum is compiled in as a number. A
    table that the step itself indexes with the optimizer's step counter has none of these faults.

    Nothing is added to the optimizer's variables, so that what is saved meanwhile loads anywhere,
    with its slots; its configuration shows the numbers that it was compiled with. The compiled
    step is built anew here and when the tables are taken out. If `fit` is left by an exception,
    they are taken out when the next `fit` begins.

    Args:
        model: A compiled, built model.
        leaves: Its innermost optimizers.
        ratios: What each one's rate is to the tables'.
        step: The training step that comes next.
        rates: The rate of each step from now on; the last one holds beyond the end.
        momenta: The momentum (`beta_1`) of each step, or None to leave it alone.
    """

    def __init__(
        self,
        model: Any,
        leaves: Sequence[Any],
        ratios: Sequence[float],
        step: int,
        rates: Sequence[float],
        momenta: Sequence[float] | None,
    ) -> None:
        self._model, self._leaves, self._start = model, leaves, step
        self._rates = [
            _Lookup(np.asarray(rates, "float32") * np.float32(ratio), leaf, "rate_by_step")
            for leaf, ratio in zip(leaves, ratios, strict=True)
        ]
        self._momentum = None if momenta is None else CycledMomentum(model, leaves)
        self._momenta = [] if self._momentum is None else self._momentum.look_up(momenta or ())
        self.wake()
        type(model).make_train_function(model, force=True)
        self._cancel = undo_at_next_build(model, self.remove)

    def wake(self) -> None:
        """Lets the optimizer take its rate from the table, and show the coming step's."""
        for leaf, lookup in zip(self._leaves, self._rates, strict=True):
            leaf.__dict__["_get_current_learning_rate"] = lookup.now

    def look_back(self) -> None:
        """Lets it show the rate of the step before, until no step is compiled any more."""
        for leaf, lookup in zip(self._leaves, self._rates, strict=True):
            leaf.__dict__["_get_current_learning_rate"] = partial(lookup.now, -1)

    def rest(self) -> None:
        """Lets it show its variable, where an epoch has ended: that is the last step's rate."""
        for leaf in self._leaves:
            leaf.__dict__.pop("_get_current_learning_rate", None)

    def align(self, step: int) -> None:
        """Says which step comes next, if the optimizers have counted one that was not trained.

        On TensorFlow they do, where data end in a batch that is not there.
        """
        for lookup in (*self._rates, *self._momenta):
            lookup.align(step - self._start)

    def remove(self) -> None:
        """Takes the tables out; the next `fit` compiles its step without them."""
        self._cancel()
        self.rest()
        if self._momentum is not None:
            self._momentum.remove()
        self._model.train_function = None


class _Lookup(keras.Variable):  # type: ignore[misc]
    """A number that depends on a counter; a variable only for how optimizers convert numbers.

    Keras' optimizers ask `if momentum != 0` while the step is traced: a tensor cannot answer that.
    """

    def __init__(self, table: np.ndarray[Any, Any], leaf: Any, name: str) -> None:
        self._table, self._counter = table, leaf._iterations
        # A variable, so that it can be set where the step is compiled already.
        first = int(keras.ops.convert_to_numpy(self._counter))
        self._first = keras.Variable(first, dtype="int32", trainable=False)
        super().__init__(table[0], dtype="float32", trainable=False, name=name)

    def align(self, index: int) -> None:
        """Makes the entry at an index the next."""
        self._first.assign(keras.ops.cast(self._counter, "int32") - index)

    def now(self, later: int = 0) -> Any:
        index = keras.ops.subtract(keras.ops.cast(self._counter, "int32"), self._first) + later
        index = keras.ops.clip(index, 0, len(self._table) - 1)
        return keras.ops.take(keras.ops.convert_to_tensor(self._table), index)

    @property
    def value(self) -> Any:
        return self.now() if hasattr(self, "_value") else None

    def __ne__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return True

    __hash__ = keras.Variable.__hash__


class CycledMomentum:
    """Writes the momentum (`beta_1`) of optimizers, or lets the compiled step look it up.

    As with `InGraph`, what is saved meanwhile shows the momentum that was compiled, and if `fit`
    is left by an exception, the next one, with or without a callback, has it back.

    Args:
        model: A compiled model.
        leaves: Its innermost optimizers.

    Raises:
        ValueError: If an optimizer has no momentum.
    """

    def __init__(self, model: Any, leaves: Sequence[Any]) -> None:
        named = [(leaf, momentum_name(leaf)) for leaf in leaves]
        self._compiled = [(leaf, name, float(getattr(leaf, name))) for leaf, name in named]
        for leaf, name, value in self._compiled:
            vars(leaf)["get_config"] = partial(_showing, leaf.get_config, name, value)
        self._cancel = undo_at_next_build(model, self.remove)

    def write(self, momentum: float) -> None:
        """Sets the momentum of the next step."""
        for leaf, name, _ in self._compiled:
            vars(leaf)[name] = momentum

    def look_up(self, momenta: Sequence[float]) -> list[_Lookup]:
        """Puts a table of the momenta of all steps in the place of the number."""
        table = np.asarray(momenta, "float32")
        lookups = [_Lookup(table, leaf, name) for leaf, name, _ in self._compiled]
        for (leaf, name, _), lookup in zip(self._compiled, lookups, strict=True):
            vars(leaf)[name] = lookup  # as an attribute Keras would track it as a variable
        return lookups

    def remove(self) -> None:
        """Puts back what was compiled."""
        self._cancel()
        for leaf, name, value in self._compiled:
            vars(leaf)[name] = value
            vars(leaf).pop("get_config", None)


def _showing(get_config: Any, name: str, value: float) -> dict[str, Any]:
    return {**get_config(), name: value}


class SkippedBatches:
    """Takes the place of a model's training step until `end` is called.

    `fit` goes through its batches as ever, so that the data are read in their order, and each one
    is dropped. If `fit` is left meanwhile, the next one has its training step again.

    Args:
        model: A compiled model inside `fit`.
        logs: What other callbacks are told of each of these batches.
    """

    def __init__(self, model: Any, logs: dict[str, Any]) -> None:
        self._model = model
        self._step = model.train_function
        self._batch: Any = None
        self._logs = logs
        model.train_function = getattr(self, f"_{keras.backend.backend()}")
        self._cancel = undo_at_next_build(model, self.end)

    def end(self) -> None:
        """Gives the model its training step back."""
        self._model.train_function = self._step
        self._cancel()
        if self._batch is not None:
            # On TensorFlow the first step makes the variables of the metrics.
            self._model._symbolic_build(data_batch=self._batch)

    def _read(self, iterator: Any) -> None:
        for _ in range(self._model.steps_per_execution or 1):
            self._batch = next(iterator)

    def _tensorflow(self, iterator: Any) -> dict[str, Any]:
        self._read(iterator)
        return self._logs

    def _jax(self, state: Any, iterator: Any) -> tuple[dict[str, Any], Any]:
        self._read(iterator)
        return self._logs, state

    def _torch(self, data: Any) -> dict[str, Any]:
        self._batch = data[0]
        return self._logs
