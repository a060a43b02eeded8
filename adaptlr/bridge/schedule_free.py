"""Optimizers that train at one point and are judged at another: schedule-free ones.

They keep a sequence z that gradients move, its average x, and train at y = β x + (1 - β) z, which
is what the model holds (Defazio et al., arXiv 2405.15682). x is the one to validate and to keep.
Keras' own version stores z and nothing else: x = (y - (1 - β) z) / β at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import keras

from adaptlr.bridge.carried_state import attach
from adaptlr.bridge.variables import held, in_one_call, write

_KIND = getattr(keras.optimizers, "ScheduleFreeAdamW", None)  # of Keras 3.14 and later

# The id of a variable that is trained → its z, and the share β that x has in it.
Points = Mapping[int, tuple[Any, float]]


def is_schedule_free(optimizer: Any) -> bool:
    """Whether an optimizer averages by itself, and the average can be told."""
    return _KIND is not None and isinstance(optimizer, _KIND) and float(optimizer.beta_1) > 0.0


def points(leaves: Iterable[Any]) -> Points:
    """Returns z and β of every variable that schedule-free ones among built optimizers train."""
    return {
        id(variable): (z, 1.0 if _trains_the_average() else float(leaf.beta_1))
        for leaf in leaves
        if is_schedule_free(leaf) and leaf.built
        for variable, z in zip(leaf._trainable_variables, leaf._momentums, strict=True)
        if z is not None
    }


@cache
def _trains_the_average() -> bool:
    """Whether Keras trains at x itself, whatever β is; its backends differ (Keras 3.15).

    A step recovers x from y and the z before it. Where a variable's value is no copy, on
    TensorFlow and PyTorch, that z is the new one by then, and y becomes the mean of all z.
    """
    weight = keras.Variable([0.0], dtype="float32")
    optimizer: Any = _KIND(0.5, beta_1=0.5)  # type: ignore[misc]
    optimizer.build([weight])
    for _ in range(2):
        optimizer.apply([keras.ops.ones((1,), "float32")], [weight])
    # z is -0.5 and -1; y their mean, or in the middle of that mean and the second.
    return bool(keras.ops.convert_to_numpy(weight.value)[0] > -0.8)


def averages(variables: Sequence[Any], trained_at: Sequence[Any], known: Points) -> list[Any]:
    """Returns x of variables that a schedule-free optimizer trains.

    Args:
        variables: The variables.
        trained_at: y of each.
        known: What `points` has returned.
    """
    return _mixed(trained_at, [known[id(v)] for v in variables], lambda share: 1.0 / share)


def train_again(model: Any, leaves: Iterable[Any]) -> None:
    """Puts y into a model that was left, or saved, with x in it."""
    carried = attach(model)
    if not carried.averaged:
        return
    carried.averaged = False
    known = points(leaves)
    variables = [v for v in model.trainable_variables if id(v) in known]
    present = [held(v) for v in variables]
    write(variables, _mixed(present, [known[id(v)] for v in variables], lambda share: share))


def _mixed(values: Sequence[Any], known: Sequence[tuple[Any, float]], share: Any) -> list[Any]:
    if all(weight == 1.0 for _, weight in known):
        return list(values)
    shares = keras.ops.convert_to_tensor([share(weight) for _, weight in known], "float32")
    return list(_mix(list(values), [held(z) for z, _ in known], shares))


@in_one_call
def _mix(values: list[Any], others: list[Any], shares: Any) -> list[Any]:
    """Returns `other + share (value - other)` of each; a narrow type would lose the difference."""
    mixed = []
    for place, (value, other) in enumerate(zip(values, others, strict=True)):
        wide = keras.backend.result_type(value.dtype, "float32")
        a, b, share = (keras.ops.cast(x, wide) for x in (value, other, shares[place]))
        mixed.append(keras.ops.stop_gradient(keras.ops.cast(b + share * (a - b), value.dtype)))
    return mixed
