"""An optimizer whose rate is driven, and that trains nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import keras

from adaptlr.bridge.optimizer import OptimizerRate

__all__ = ["warn_if_idle"]


def warn_if_idle(owner: str, model: Any, rate: OptimizerRate, start: tuple[float, ...]) -> None:
    """Warns if the steps that were trained left the optimizers' counters where they were.

    So it is where a `train_step` has optimizers of its own, as that of a GAN, and where an
    optimizer hands its work to another one under an attribute that Keras does not know.

    Args:
        owner: Name of the callback.
        model: The model, after steps that `fit` has trained.
        rate: What the callback drives.
        start: What `rate.progress()` was before them.
    """
    inside = [pair for leaf in rate.leaves for pair in _optimizers(leaf, "")]
    working = [name for name, inner in inside if _count(inner)]
    idle = rate.idle_since(start)
    if not (idle or working):
        return
    driven = [getattr(model, "optimizer", None), *rate.optimizers]
    own = [name for name, x in _optimizers(model, "model.") if all(x is not y for y in driven)]
    hidden = [f"model.optimizer{name}" for name in working]
    kinds = ", ".join(type(leaf).__name__ for leaf in idle or rate.leaves)
    what = "has not trained anything" if idle else "hands its steps to another optimizer"
    found = f" Others of this model: {', '.join([*own, *hidden])}." if own or hidden else ""
    warnings.warn(
        f"{owner} drives the learning rate of {kinds}, which {what} in this epoch: the rate has "
        f"no effect.{found} Compile the model with the optimizer that trains, or name those that "
        f"do: {owner}(optimizers=[...]); in a wrapper of your own call it self.inner_optimizer.",
        stacklevel=6,
    )


def _optimizers(owner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Optimizers among the attributes of an object, with what leads to them."""
    known = ("_optimizer", "inner_optimizer")
    for name, value in vars(owner).items():
        if isinstance(value, keras.optimizers.Optimizer) and name not in known:
            yield (f"{prefix}{name}" if prefix else f".{name}"), value


def _count(optimizer: Any) -> int:
    return int(keras.ops.convert_to_numpy(optimizer._iterations))
