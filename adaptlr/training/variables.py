"""Many variables at once: read, written, and computed with in one call of the backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import keras

__all__ = ["Cells", "held", "in_one_call", "read", "write"]


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
    for variable, value in zip(variables, values, strict=True):
        inner = variable.value
        if hasattr(inner, "read_value"):
            inner.assign(value, read_value=False)  # Keras would read it back, which takes as long
        else:
            variable.assign(value)
