"""Many variables at once: read, written, copied to the host, computed with in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np


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


def training_groups(model: Any, optimizers: Sequence[Any]) -> list[list[Any]]:
    """The model's own variables, then those of its and other optimizers: counters, rates, slots.

    Args:
        model: A built model.
        optimizers: Those that are driven.
    """
    own = getattr(model, "optimizer", None)
    every = optimizers if own is None else [own, *optimizers]
    return [model_variables(model), *(list(optimizer.variables) for optimizer in every)]


def training_variables(model: Any, optimizers: Sequence[Any]) -> list[Any]:
    """All of them, each once."""
    return unique([v for group in training_groups(model, optimizers) for v in group])


def unique(variables: Sequence[Any]) -> list[Any]:
    """Each variable once, where it comes first."""
    return list({id(variable): variable for variable in variables}.values())


def normalised(model: Any) -> bool:
    """Whether batch normalisation is trained for most of the layers that train a kernel.

    A base that a functional model calls with `training=False` keeps its statistics: there it is a
    linear map, and the scale of the weights before it counts.
    """
    every = model._flatten_layers(include_self=False)
    fixed = {id(x) for layer in every if _in_inference(layer) for x in layer._flatten_layers()}
    layers = [x for x in model._flatten_layers(include_self=False) if x.trainable]
    norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    kernels = sum(any(len(v.shape) > 1 for v in x._trainable_variables) for x in layers)
    return 0 < kernels <= 2 * sum(id(x) not in fixed for x in norms)


def _in_inference(layer: Any) -> bool:
    calls = [node.arguments.kwargs for node in getattr(layer, "_inbound_nodes", ())]
    return any(call.get("training") is False for call in calls)


def to_host(values: Sequence[Any]) -> list[Any]:
    """Copies tensors to NumPy arrays of their own, on a CPU as well."""
    return [np.array(keras.ops.convert_to_numpy(value)) for value in values]


def from_host(arrays: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Returns tensors of the variables' types."""
    return [
        keras.ops.convert_to_tensor(array, dtype=variable.dtype)
        for array, variable in zip(arrays, variables, strict=True)
    ]


def misfit(arrays: Sequence[Any], variables: Sequence[Any]) -> str | None:
    """Says in which point arrays do not fit the variables that they should be values of."""
    if len(arrays) != len(variables):
        return f"{len(arrays)} variables where this model and optimizer have {len(variables)}"
    for array, variable in zip(arrays, variables, strict=True):
        if array.shape != tuple(variable.shape):
            return f"shape {array.shape} where {variable.path} has {tuple(variable.shape)}"
        # PyTorch's bfloat16 is copied to the host as float32, which holds it exactly.
        if array.dtype.name not in (variable.dtype, "float32"):
            return f"type {array.dtype.name} where {variable.path} has {variable.dtype}"
    return None


def in_one_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of lists of arrays where the backend can.

    Without, each operation on each variable is a dispatch of its own, and an update of the average
    of a network with a hundred variables takes longer than its training step.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return cast(Callable[..., Any], jax.jit(function))
    if backend == "tensorflow":
        import tensorflow

        return cast(Callable[..., Any], tensorflow.function(function, autograph=False))
    return function


class Cells:
    """Arrays on the device that a function of them and of some variables brings up to date.

    On TensorFlow they are variables themselves, and the compiled function knows them and the
    others: an array that it takes or returns costs more there than the arithmetic. On JAX it takes
    them all, since it would hold what a variable has now for a constant.

    Args:
        function: (values of the variables, arrays, *rest) → new arrays.
        variables: Variables to read.
        arrays: The arrays to begin with.
    """

    def __init__(
        self, function: Callable[..., list[Any]], variables: Sequence[Any], arrays: Sequence[Any]
    ) -> None:
        self._variables = list(variables)
        self._in_graph = keras.backend.backend() == "tensorflow"
        if not self._in_graph:
            self._cells, self._compiled = list(arrays), in_one_call(function)
            return
        self._cells = [
            keras.Variable(
                array, trainable=False, dtype=keras.backend.standardize_dtype(array.dtype)
            )
            for array in arrays
        ]

        def update(*rest: Any) -> None:
            _assign(self._cells, function(self._read(), self.arrays, *rest))

        self._compiled = in_one_call(update)

    def _read(self) -> list[Any]:
        return [held(variable) for variable in self._variables]

    def update(self, *rest: Any) -> None:
        """Calls the function, and keeps what it returns as the arrays."""
        if self._in_graph:
            self._compiled(*rest)
        else:
            self._cells = self._compiled(self._read(), self._cells, *rest)

    @property
    def arrays(self) -> list[Any]:
        """The present arrays."""
        return [held(cell) for cell in self._cells] if self._in_graph else self._cells

    @arrays.setter
    def arrays(self, arrays: Sequence[Any]) -> None:
        if self._in_graph:
            write(self._cells, arrays)
        else:
            self._cells = list(arrays)


@in_one_call
def _copies(values: list[Any]) -> list[Any]:
    return [keras.ops.copy(keras.ops.stop_gradient(value)) for value in values]


def held(variable: Any) -> Any:
    """The tensor or array that a variable holds.

    On TensorFlow this takes half of the time of `read_value` and a quarter of that of Keras'
    conversion, which counts where there are some hundred variables.
    """
    value = variable.value
    return value.value() if hasattr(value, "read_value") else value


def read(variables: Sequence[Any]) -> list[Any]:
    """Copies values out on the device; on JAX the originals are donated to the next step."""
    return list(_copies([held(v) for v in variables]))


def write(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Copies values in; the copy keeps them as they are when a step changes the variable's.

    An interrupt in the middle would leave half of one state and half of another: the rest is
    written before it is let through.
    """
    # A TensorFlow variable never changes a tensor that somebody else holds.
    own = values if keras.backend.backend() == "tensorflow" else _copies(list(values))
    try:
        _assign(variables, own)
    except BaseException:
        _assign(variables, own)
        raise


def _assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    # On JAX a step that failed has left nothing in a variable: its value cannot be asked for.
    in_graph = keras.backend.backend() == "tensorflow"
    for variable, value in zip(variables, values, strict=True):
        inner: Any = variable.value if in_graph else None
        if hasattr(inner, "read_value"):
            inner.assign(value, read_value=False)  # Keras would read it back, which takes as long
        else:
            variable.assign(value)


def differ(before: Sequence[Any], now: Sequence[Any]) -> list[bool]:
    """Says of each array whether it holds other numbers than before; NaN is none."""
    if not now:
        return []
    return [bool(x) for x in keras.ops.convert_to_numpy(_changes(list(before), list(now)))]


@in_one_call
def _changes(before: list[Any], now: list[Any]) -> Any:
    pairs = zip(before, now, strict=True)
    return keras.ops.stack([keras.ops.any((a != b) & (b == b)) for a, b in pairs])


def finite_weights(model: Any, infinite: set[int] | frozenset[int] = frozenset()) -> bool:
    """Whether training has made no variable of the model NaN or infinite.

    Args:
        model: A built model.
        infinite: Ids of variables that were so before it, such as a mask.
    """
    floats = [
        held(v)
        for v in model_variables(model)
        if keras.backend.is_float_dtype(v.dtype) and id(v) not in infinite
    ]
    # One number for all of them waits for the device once.
    return not floats or bool(keras.ops.convert_to_numpy(_zero(floats)) == 0.0)


@in_one_call
def _zero(values: list[Any]) -> Any:
    """Zero if all values are finite, else NaN: zero times NaN or infinity is NaN."""
    zeros = [keras.ops.sum(keras.ops.stop_gradient(value) * 0) for value in values]
    return sum(keras.ops.cast(zero, "float32") for zero in zeros)
