"""Rates and momenta inside the training step: looked up by it, or written between its calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from adaptlr.bridge.fit import undo_at_next_build
from adaptlr.bridge.optimizer import momentum_name


def compiles_steps() -> bool:
    """Whether the backend compiles the training step, and with it what is a Python number."""
    return bool(keras.backend.backend() != "torch")


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
        self._model = model
        self._leaves = leaves
        self._start = step
        self._lookups: list[_Lookup] = []
        self._rates: list[_Lookup] = []  # those of them that are rates
        for leaf, ratio in zip(leaves, ratios, strict=True):
            counter = leaf._iterations
            table = np.asarray(rates, "float32") * np.float32(ratio)
            lookup = _Lookup(table, counter, "learning_rate_by_step")
            self._rates.append(lookup)
            if momenta is not None:
                name = momentum_name(leaf)
                momentum = _Lookup(np.asarray(momenta, "float32"), counter, name)
                _put_momentum(leaf, name, momentum)
                self._lookups.append(momentum)
            self._lookups.append(lookup)
        self.wake()
        type(model).make_train_function(model, force=True)
        self._cancel = undo_at_next_build(model, self.remove)

    def wake(self) -> None:
        """Lets the optimizer take its rate from the table, and show the coming step's."""
        for leaf, lookup in zip(self._leaves, self._rates, strict=True):
            leaf.__dict__["_get_current_learning_rate"] = lookup.now

    def rest(self) -> None:
        """Lets it show its variable, where an epoch has ended: that is the last step's rate."""
        for leaf in self._leaves:
            leaf.__dict__.pop("_get_current_learning_rate", None)

    def align(self, step: int) -> None:
        """Says which step comes next, if the optimizers have counted one that was not trained.

        On TensorFlow they do, where data end in a batch that is not there.
        """
        for lookup in self._lookups:
            lookup.align(step - self._start)

    def remove(self) -> None:
        """Takes the tables out; the next `fit` compiles its step without them."""
        self._cancel()
        for leaf in self._leaves:
            for name in ("_get_current_learning_rate", "get_config", "_adaptlr_momentum"):
                value = leaf.__dict__.pop(name, None)
                if name == "_adaptlr_momentum" and value is not None:
                    leaf.__dict__[value[0]] = value[1]
        self._model.train_function = None


def _put_momentum(leaf: Any, name: str, lookup: _Lookup) -> None:
    # Through __dict__: as an attribute Keras would track it as one of the optimizer's variables.
    compiled_with, get_config = float(getattr(leaf, name)), leaf.get_config
    leaf.__dict__["_adaptlr_momentum"] = (name, compiled_with)
    leaf.__dict__[name] = lookup
    leaf.__dict__["get_config"] = lambda: {**get_config(), name: compiled_with}


class _Lookup(keras.Variable):  # type: ignore[misc]
    """A number that depends on a counter; a variable only for how optimizers convert numbers.

    Keras' optimizers ask `if momentum != 0` while the step is traced: a tensor cannot answer that.
    """

    def __init__(self, table: np.ndarray[Any, Any], counter: Any, name: str) -> None:
        self._table, self._counter = table, counter
        # A variable, so that it can be set where the step is compiled already.
        first = int(keras.ops.convert_to_numpy(counter))
        self._first = keras.Variable(first, dtype="int32", trainable=False)
        super().__init__(table[0], dtype="float32", trainable=False, name=name)

    def align(self, index: int) -> None:
        """Makes the entry at an index the next."""
        self._first.assign(keras.ops.cast(self._counter, "int32") - index)

    def now(self) -> Any:
        index = keras.ops.subtract(keras.ops.cast(self._counter, "int32"), self._first)
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
    """Writes the momentum (`beta_1`) of optimizers, where the step is not compiled.

    As with `InGraph`, what is saved meanwhile shows the momentum that was compiled, and if `fit`
    is left by an exception, the next one, with or without a callback, has it back.

    Args:
        model: A compiled model.
        leaves: Its innermost optimizers.

    Raises:
        ValueError: If an optimizer has no momentum.
    """

    def __init__(self, model: Any, leaves: Sequence[Any]) -> None:
        self._compiled = []
        for leaf in leaves:
            name = momentum_name(leaf)
            self._compiled.append((leaf, name, float(getattr(leaf, name))))
        for leaf, name, value in self._compiled:
            leaf.__dict__["get_config"] = _showing(leaf.get_config, name, value)
        self._cancel = undo_at_next_build(model, self.remove)

    def write(self, momentum: float) -> None:
        """Sets the momentum of the next step."""
        for leaf, name, _ in self._compiled:
            setattr(leaf, name, momentum)

    def remove(self) -> None:
        """Puts back what was compiled."""
        self._cancel()
        for leaf, name, value in self._compiled:
            setattr(leaf, name, value)
            leaf.__dict__.pop("get_config", None)


def _showing(get_config: Any, name: str, value: float) -> Any:
    return lambda: {**get_config(), name: value}
