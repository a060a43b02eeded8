"""Groups of layers, each with a share of one learning rate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import keras

from adaptlr._arguments import (
    AtLeastOne,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    accepted,
    checked,
    number,
    refuse,
)

__all__ = ["geometric_shares", "group_optimizer", "set_shares"]

_Share = Annotated[float, number(minimum=0, maximum=1)]


def geometric_shares(
    count: PositiveInt, ratio: AtLeastOne = 2.6, frozen: NonNegativeInt = 0
) -> list[float]:
    """Returns shares of a rate that fall geometrically from the output to the input.

    `share(i) = ratio ** (i - (count - 1))` for group i, counted from the input: the group next to
    the output has the whole rate, each one below it the rate of the one above divided by `ratio`.
    These are the discriminative rates of ULMFiT (Howard & Ruder, arXiv 1801.06146, section 3.2),
    whose authors found 2.6 to work well for fine-tuning a language model. With `frozen` falling
    from fit to fit it is their gradual unfreezing (section 3.3).

    Args:
        count: Number of groups, ≥ 1.
        ratio: Rate of a group over that of the one below it, ≥ 1.
        frozen: Groups, counted from the input, whose share is 0; at least 0, below `count`.

    Raises:
        ValueError: If an argument is outside its range.
        TypeError: If an argument is not a number.

    Example:
        >>> geometric_shares(3, ratio=2.0)
        [0.25, 0.5, 1.0]
        >>> geometric_shares(3, ratio=2.0, frozen=2)
        [0.0, 0.0, 1.0]
    """
    count, ratio, frozen = checked(geometric_shares, locals())
    if frozen >= count:
        rule = f"below count={count}, so that something is trained"
        refuse("geometric_shares", "frozen", rule, frozen)
    return [0.0 if i < frozen else ratio ** (i - count + 1) for i in range(count)]


def group_optimizer(optimizer: Any, layers: Any, shares: Sequence[float]) -> Any:
    """Returns a `keras.optimizers.MultiOptimizer` for groups of layers at shares of a rate.

    Each group has a copy of `optimizer` with its own slots and `share * rate`. Every callback of
    this package reads and writes the rate of the share 1 and keeps the ratios. The groups are
    told apart by the paths of their variables, so the optimizer is saved and loaded with the
    model. The exception: Keras shortens paths when it loads a Sequential model or a layer with
    layers inside, and where groups share a name after that (two `Bidirectional(LSTM(8,
    name="rnn"))`, or a `Dense` with the name of one inside another layer), loading fails, or with
    an optimizer that has no slots puts them into one group; load with `compile=False` and compile
    anew.

    A group with the share 0 is frozen, and `set_shares` sets it free between two fits: nothing has
    to be compiled anew and its slots exist. Its gradients are computed all the same, and
    statistics of batch normalisation go on moving. `layer.trainable = False` saves that work and
    holds the statistics, but then Keras wants a new optimizer when it is lifted.

    Args:
        optimizer: The optimizer to copy; its rate, a number > 0, is that of the share 1.
        layers: A built model, whose layers are divided, in their order, into as many groups of
            (nearly) equal numbers of layers as there are shares. Models inside it are taken apart,
            other layers are not. Or the groups themselves, from the input to the output, each a
            list of built layers; what is in none of them then trains with the last. (The path of
            such a layer's variables must not be the end of one in a group: a `Dense` named
            `"query"` beside attention has to be listed.)
        shares: Share of each group, from the input to the output, in [0, 1]; the largest is 1.

    Raises:
        ValueError: If a share is outside its range, a model or layer is not built, there are more
            shares than layers with weights to train (frozen ones count), variables of two groups
            have the same path, or the optimizer's rate is a schedule or not above 0.
        TypeError: If the optimizer is not one that can be copied, or the layers are neither a
            model nor lists of layers.
        NotImplementedError: On Keras 3.12, which has no `OptimizerMap`.

    Example:
        >>> import keras
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), *(keras.layers.Dense(4) for _ in range(3))]
        ... )
        >>> shares = geometric_shares(3, ratio=2.0, frozen=1)
        >>> optimizer = group_optimizer(keras.optimizers.Adam(0.1), model, shares)
        >>> model.compile(optimizer, "mse")
        >>> [round(float(group.learning_rate), 4) for group in optimizer.optimizers]
        [0.0, 0.05, 0.1]
    """
    if not hasattr(keras.optimizers, "OptimizerMap"):
        raise NotImplementedError(
            f"group_optimizer needs keras.optimizers.OptimizerMap, which Keras "
            f"{keras.__version__} does not have; install a later release (Python 3.11 or newer)."
        )
    shares = _checked_shares("group_optimizer", shares)
    config = _prototype_config(optimizer)
    patterns = _patterns(_grouped(layers, len(shares)))
    copies = [
        type(optimizer).from_config(
            {
                **config,
                "name": f"{optimizer.name}_group_{i}",
                "learning_rate": config["learning_rate"] * share,
            }
        )
        for i, share in enumerate(shares)
    ]
    # One pattern an optimizer: the same optimizer under two keys would come back from a file as
    # two, and so would the default one if it also had a key.
    pairs = zip(patterns[:-1], copies[:-1], strict=True)
    groups = keras.optimizers.OptimizerMap(copies[-1], dict(pairs))
    return keras.optimizers.MultiOptimizer(groups)


def set_shares(
    optimizer: Any, shares: Sequence[float], learning_rate: float | None = None
) -> None:
    """Gives the groups of a `group_optimizer` other shares, between two fits.

    Args:
        optimizer: The optimizer of a model: `model.optimizer`.
        shares: Share of each group, from the input to the output, in [0, 1]; the largest is 1.
        learning_rate: Rate of the share 1, > 0; None keeps the largest rate there is.

    Raises:
        ValueError: If a share is outside its range, if there are more or fewer shares than groups,
            or if no rate is given and all there are are 0.
        TypeError: If the optimizer has no groups.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(4) for _ in "ab")])
        >>> sgd = keras.optimizers.SGD(0.1)
        >>> model.compile(group_optimizer(sgd, model, [0.0, 1.0]), "mse")
        >>> set_shares(model.optimizer, [0.5, 1.0])
        >>> [round(float(group.learning_rate), 4) for group in model.optimizer.optimizers]
        [0.05, 0.1]
    """
    shares = _checked_shares("set_shares", shares)
    while hasattr(optimizer, "inner_optimizer"):  # of a loss scale
        optimizer = optimizer.inner_optimizer
    leaves = getattr(optimizer, "optimizers", None)
    if leaves is None:
        raise TypeError(
            f"set_shares(optimizer=...) must be a MultiOptimizer, such as group_optimizer "
            f"returns. Received: optimizer={optimizer!r}"
        )
    if len(leaves) != len(shares):
        rule = f"one number a group, of which there are {len(leaves)}"
        refuse("set_shares", "shares", rule, shares, ValueError)
    if learning_rate is None:
        rates = [float(keras.ops.convert_to_numpy(leaf.learning_rate)) for leaf in leaves]
        learning_rate = max(rates)
    learning_rate = accepted("set_shares", "learning_rate", PositiveFloat, learning_rate)
    for leaf, share in zip(leaves, shares, strict=True):
        leaf.learning_rate = learning_rate * share


def _grouped(layers: Any, count: int) -> list[list[Any]]:
    """Returns the layers of each group, from the input to the output."""
    if not isinstance(layers, keras.Model):
        groups = _given_groups(layers)
        if len(groups) != count:
            raise ValueError(
                f"group_optimizer(layers=..., shares=...) must have a share for each group. "
                f"Received: {len(groups)} groups and {count} shares"
            )
        return groups
    if not layers.built:
        raise ValueError(
            f"group_optimizer(layers=...) must be a built model: give it a keras.Input, or call "
            f"it once. Received: layers={layers!r}"
        )
    units = [unit for unit in _units(layers) if _variables(unit)]
    if len(units) < count:
        raise ValueError(
            f"group_optimizer(shares=...) must not have more shares than the model has layers "
            f"with weights to train. Received: {count} shares and {len(units)} layers"
        )
    ends = [len(units) * (i + 1) // count for i in range(count)]
    return [units[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _given_groups(layers: Any) -> list[list[Any]]:
    """Returns the groups that a caller has made, if they are such."""
    groups: list[Any] = list(layers) if isinstance(layers, list | tuple) else [None]
    if not all(isinstance(group, list | tuple) for group in groups) or not all(
        isinstance(layer, keras.Layer) for group in groups for layer in group
    ):
        raise TypeError(
            f"group_optimizer(layers=...) must be a built model, or a list of groups, each a list "
            f"of layers: [model.layers[:2], model.layers[2:]]. Received: layers={layers!r}"
        )
    for layer in (layer for group in groups for layer in group):
        if not layer.built:
            raise ValueError(
                f"group_optimizer(layers=...) must hold built layers: give the model a "
                f"keras.Input, or call it once. Received: {layer!r}"
            )
    return [list(group) for group in groups]


def _units(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _units(layer)
        else:
            yield layer


def _variables(layer: Any) -> list[Any]:
    """What a layer trains unless it is frozen; `trainable_variables` would leave that out."""
    return [v for part in layer._flatten_layers() for v in part._trainable_variables]


def _patterns(groups: Sequence[Sequence[Any]]) -> list[str]:
    """One regular expression a group, of the paths of its variables."""
    paths = [{v.path for layer in group for v in _variables(layer)} for group in groups]
    _require_disjoint(paths)
    tails = [set().union(*map(_tails, group)) for group in paths]
    counts = Counter(tail for group in tails for tail in group)
    # A whole path counts for its group also where it is the end of another group's.
    kept = [
        group | {tail for tail in ends if counts[tail] == 1}
        for group, ends in zip(paths, tails, strict=True)
    ]
    return ["|".join(re.escape(tail) for tail in sorted(group)) for group in kept]


def _tails(path: str) -> set[str]:
    """A variable's path, and what is left of it when a model is loaded.

    A layer that is built from its saved configuration and not by a call, such as those of a
    Sequential model, comes back without the names of the layers and models around it.
    """
    parts = path.split("/")
    return {path, *("/".join(parts[start:]) for start in range(len(parts) - 1))}


def _require_disjoint(paths: Sequence[set[str]]) -> None:
    counts = Counter(path for group in paths for path in group)
    for path, count in counts.items():
        if count > 1:
            raise ValueError(
                f"group_optimizer(layers=...) must tell groups apart by the paths of variables. "
                f"Received: {path!r} in two groups; list a layer once, and name layers differently"
            )


def _prototype_config(optimizer: Any) -> dict[str, Any]:
    if (
        not isinstance(optimizer, keras.optimizers.Optimizer)
        or hasattr(optimizer, "inner_optimizer")
        or hasattr(optimizer, "optimizers")
    ):
        raise TypeError(
            f"group_optimizer(optimizer=...) must be a plain Keras optimizer, such as "
            f"keras.optimizers.Adam(1e-3); a LossScaleOptimizer goes around the result. Received: "
            f"optimizer={optimizer!r}"
        )
    config: dict[str, Any] = optimizer.get_config()
    if not isinstance(config["learning_rate"], int | float):
        raise ValueError(
            "group_optimizer(optimizer=...) must have a number as its learning rate; pass a "
            f"schedule to adaptlr.ScheduleLR. Received: learning_rate={config['learning_rate']!r}"
        )
    if not config["learning_rate"] > 0.0:
        raise ValueError(
            f"group_optimizer(optimizer=...) must have a learning rate above 0, of which each "
            f"group gets its share. Received: learning_rate={config['learning_rate']!r}"
        )
    return config


def _checked_shares(function: str, shares: Sequence[float]) -> list[float]:
    found = [accepted(function, f"shares[{i}]", _Share, x) for i, x in enumerate(shares)]
    if max(found, default=0.0) != 1.0:
        refuse(function, "shares", "numbers of which the largest is 1", list(shares), ValueError)
    return found
