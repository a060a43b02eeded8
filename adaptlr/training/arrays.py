"""Variables and tensors <-> arrays in the host's memory, and for a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from adaptlr.checkpoint import Array

__all__ = [
    "assign",
    "from_arrays",
    "from_host",
    "misfit",
    "pack",
    "to_arrays",
    "to_host",
    "to_numpy",
]


def pack(value: Any) -> Array:
    """Returns a NumPy array in the form in which it is written."""
    value = np.asarray(value, order="C")
    if sys.byteorder == "big":
        value = value.byteswap()
    return Array(value.dtype.name, value.shape, value.reshape(-1).view(np.uint8).data)


def to_numpy(array: Array) -> Any:
    """Returns the NumPy array that `pack` was given."""
    value = np.frombuffer(array.data, np.dtype(array.dtype)).reshape(array.shape)
    return value.byteswap() if sys.byteorder == "big" else value


def to_host(values: Sequence[Any]) -> list[Any]:
    """Copies tensors to NumPy arrays of their own, on a CPU as well."""
    return [np.array(keras.ops.convert_to_numpy(value)) for value in values]


def from_host(arrays: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Returns tensors of the variables' types."""
    return [
        keras.ops.convert_to_tensor(array, dtype=variable.dtype)
        for array, variable in zip(arrays, variables, strict=True)
    ]


def to_arrays(values: Sequence[Any]) -> list[Array]:
    """Copies variables and tensors to the host."""
    return [pack(keras.ops.convert_to_numpy(value)) for value in values]


def from_arrays(arrays: Sequence[Array], variables: Sequence[Any]) -> list[Any]:
    """Returns tensors of the variables' types."""
    return from_host([to_numpy(array) for array in arrays], variables)


def assign(variables: Sequence[Any], arrays: Sequence[Array]) -> None:
    """Gives variables the values of arrays."""
    for variable, value in zip(variables, from_arrays(arrays, variables), strict=True):
        variable.assign(value)


def misfit(arrays: Sequence[Array], variables: Sequence[Any]) -> str | None:
    """Says in which point arrays do not fit the variables that they should be values of."""
    if len(arrays) != len(variables):
        return f"{len(arrays)} variables where this model and optimizer have {len(variables)}"
    for array, variable in zip(arrays, variables, strict=True):
        if array.shape != tuple(variable.shape):
            return f"shape {array.shape} where {variable.path} has {tuple(variable.shape)}"
        # PyTorch's bfloat16 is copied to the host as float32, which holds it exactly.
        if array.dtype not in (variable.dtype, "float32"):
            return f"type {array.dtype} where {variable.path} has {variable.dtype}"
    return None
