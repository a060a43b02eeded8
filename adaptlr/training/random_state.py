"""Random state outside of a model: PyTorch's generators, Python's and NumPy's."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np

from adaptlr.training.arrays import pack, to_numpy

__all__ = [
    "load_data_state",
    "load_random_state",
    "random_state",
    "save_data_state",
    "save_random_state",
    "set_random_state",
]


def random_state() -> Any:
    """Returns the state of the backend's own generators, or None where it has none.

    TensorFlow and JAX draw from seed-generator variables, which are part of the model.
    """
    if keras.backend.backend() != "torch":
        return None
    import torch

    return torch.get_rng_state(), torch.cuda.get_rng_state_all()


def set_random_state(state: Any) -> None:
    """Puts back what `random_state` returned."""
    if state is None:
        return
    import torch

    torch.set_rng_state(state[0])
    torch.cuda.set_rng_state_all(state[1])


def save_random_state(state: Any) -> Any:
    """Makes arrays for a file of what `random_state` returned."""
    if state is None:
        return None
    return [pack(generator.numpy()) for generator in (state[0], *state[1])]


def load_random_state(saved: Any) -> Any:
    """Returns what `save_random_state` was given."""
    if saved is None:
        return None
    import torch

    cpu, *devices = (torch.from_numpy(to_numpy(array).copy()) for array in saved)
    return cpu, devices


def save_data_state() -> Any:
    """Copies all generators that data may be shuffled by: Python's, NumPy's and the backend's."""
    state = np.random.get_state(legacy=False)
    key = pack(state["state"]["key"].copy())
    return {
        "python": random.getstate(),
        "numpy": {**state, "state": {**state["state"], "key": key}},
        "backend": save_random_state(random_state()),
    }


def load_data_state(saved: Any) -> None:
    """Puts back what `save_data_state` returned, after it was read from a file."""
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    inner = saved["numpy"]["state"]
    np.random.set_state(
        {**saved["numpy"], "state": {**inner, "key": to_numpy(inner["key"]).copy()}}
    )
    set_random_state(load_random_state(saved["backend"]))
