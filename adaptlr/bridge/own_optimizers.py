"""Optimizers that a training step has of its own: checked, built, and begun anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from adaptlr._arguments import refuse
from adaptlr.bridge.optimizer import innermost


def require_optimizers(owner: object, value: Any) -> tuple[Any, ...] | None:
    """Returns the optimizers that a callback was given to drive.

    Raises:
        TypeError: If they are not that, or one is given twice.
    """
    if value is None:
        return None
    given = value if isinstance(value, list | tuple) else []
    if not given or not all(isinstance(x, keras.optimizers.Optimizer) for x in given):
        rule = "a list of Keras optimizers, such as [model.d_optimizer, model.g_optimizer]"
        refuse(owner, "optimizers", f"{rule}, or None", value, TypeError)
    leaves = [id(leaf) for optimizer in given for leaf in innermost(optimizer)]
    if len(set(leaves)) < len(leaves):
        refuse(owner, "optimizers", "a list in which no optimizer stands twice", value)
    return tuple(given)


def require_in_step(owner: str, model: Any, optimizers: Sequence[Any]) -> None:
    """Refuses optimizers of which the compiled training step of JAX knows nothing.

    Raises:
        ValueError: Says how they can be made known to it.
    """
    compiles = model.compiled and model.jit_compile and not model.run_eagerly
    if keras.backend.backend() != "jax" or not compiles:
        return
    inside = {id(variable) for variable in model.optimizer.variables}
    outside = [x for x in optimizers if any(id(v) not in inside for v in x.variables)]
    if outside:
        raise ValueError(
            f"{owner}(optimizers=...) must be parts of model.optimizer on JAX, whose compiled "
            f"training step takes all else for constants: compile with one "
            f"keras.optimizers.MultiOptimizer of them, or with run_eagerly=True. "
            f"Received: {', '.join(type(x).__name__ for x in outside)}"
        )


def built_for(optimizers: Sequence[Any], model: Any) -> list[list[int]]:
    """Returns which variables of a model each optimizer trains, by their places; for `build`."""
    places = {id(variable): place for place, variable in enumerate(model.variables)}
    trained = [getattr(optimizer, "_trainable_variables", []) for optimizer in optimizers]
    return [[places[id(v)] for v in own if id(v) in places] for own in trained]


def build(optimizers: Sequence[Any], model: Any, trained: Sequence[Sequence[int]]) -> None:
    """Builds optimizers as those were of which `built_for` has told."""
    for optimizer, places in zip(optimizers, trained, strict=False):
        if places and not optimizer.built:
            optimizer.build([model.variables[place] for place in places])


def begin_anew(optimizers: Sequence[Any], known: set[int]) -> None:
    """Gives variables that optimizers have made since then the values that they begin with.

    Args:
        optimizers: Optimizers; those of a training step are built by its first call.
        known: Ids of the variables that stay as they are.
    """
    for leaf in (leaf for optimizer in optimizers for leaf in innermost(optimizer)):
        if all(id(variable) in known for variable in leaf.variables):
            continue
        twin = type(leaf).from_config(leaf.get_config())
        twin.build(leaf._trainable_variables)
        for variable, new in zip(leaf.variables, twin.variables, strict=True):
            if id(variable) not in known:
                variable.assign(new)
