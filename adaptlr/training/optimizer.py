"""The rate of any Keras optimizer: plain, loss-scaled, or one per group of variables."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

__all__ = ["OptimizerRate"]


class OptimizerRate:
    """Reads and writes an optimizer's rate; with several, keeps their ratios.

    `keras.optimizers.LossScaleOptimizer` has a rate of its own that nothing reads, and
    `MultiOptimizer` has none: the rates that count are those of the innermost optimizers. The rate
    that is read and written here is the largest of them; the others follow in proportion.

    On JAX the variables hold no values inside an epoch unless the model's state was synced, so a
    caller reaches the model through `Callback.model` before it reads or writes.

    Args:
        model: A compiled, built model. Its optimizer is built here if it is not yet, which on
            TensorFlow is left to the first step.

    Raises:
        ValueError: If a rate is not a variable (a schedule object, a callable) or not positive.
    """

    def __init__(self, model: Any) -> None:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._leaves = _innermost(model.optimizer)
        for leaf in self._leaves:
            _require_variable_rate(leaf)
        rates = [_value(leaf) for leaf in self._leaves]
        largest = max(rates)
        if not (np.isfinite(largest) and largest > 0.0):
            raise ValueError(
                f"the optimizer's learning rate must be a finite number > 0, so that it can be "
                f"scaled; compile with a positive one. Received: learning_rate={largest}"
            )
        self._ratios = [rate / largest for rate in rates]
        self._written: list[float] | None = None

    def read(self) -> float:
        """Returns the largest rate."""
        return max(_value(leaf) for leaf in self._leaves)

    def read_all(self) -> dict[str, float]:
        """Returns each rate under the name that Keras logs it by."""
        if len(self._leaves) == 1:
            return {"learning_rate": _value(self._leaves[0])}
        return {f"learning_rate_{leaf.name}": _value(leaf) for leaf in self._leaves}

    def write(self, rate: float) -> None:
        """Sets the largest rate, and the others in proportion."""
        for leaf, ratio in zip(self._leaves, self._ratios, strict=True):
            leaf.learning_rate.assign(rate * ratio)
        self._written = [float(np.float32(rate * ratio)) for ratio in self._ratios]

    def changed_by_others(self) -> tuple[float, float] | None:
        """Returns (written, found) if a rate is not the one last written here, else None."""
        for leaf, written in zip(self._leaves, self._written or (), strict=False):
            found = _value(leaf)
            if found != float(np.asarray(written, leaf.learning_rate.dtype)):
                return written, found
        return None

    def variables(self) -> set[int]:
        """Returns the ids of the rate variables, which no snapshot brings back."""
        return {id(leaf.learning_rate) for leaf in self._leaves}


def _innermost(optimizer: Any) -> list[Any]:
    if hasattr(optimizer, "optimizers"):
        return [leaf for inner in optimizer.optimizers for leaf in _innermost(inner)]
    if hasattr(optimizer, "inner_optimizer"):
        return _innermost(optimizer.inner_optimizer)
    return [optimizer]


def _require_variable_rate(optimizer: Any) -> None:
    try:
        if isinstance(optimizer.learning_rate, keras.Variable):
            return
        kind = type(getattr(optimizer, "_learning_rate", optimizer.learning_rate)).__name__
    except AttributeError:
        raise ValueError(
            f"{type(optimizer).__name__} has no learning_rate that could be adjusted; compile the "
            f"model with a Keras optimizer. Received: optimizer={optimizer!r}"
        ) from None
    raise ValueError(
        f"the optimizer was compiled with a schedule ({kind}) as its learning rate, which no "
        f"callback can change. Compile with a number, for instance "
        f"{type(optimizer).__name__}(learning_rate=0.01), and pass the schedule to "
        f"adaptlr.ScheduleLR(schedule)."
    )


def _value(optimizer: Any) -> float:
    # Under a distribution strategy float(variable) fails; convert_to_numpy reads every kind.
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
