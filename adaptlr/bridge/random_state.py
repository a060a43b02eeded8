"""Random state outside of a model: PyTorch's generators, Python's and NumPy's."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np

__all__ = ["data_state", "random_state", "set_data_state", "set_random_state"]


def random_state() -> list[Any] | None:
    """Returns the state of the backend's own generators as arrays, or None where it has none.

    TensorFlow and JAX draw from seed-generator variables, which are part of the model.
    """
    if keras.backend.backend() != "torch":
        return None
    import torch

    return [state.numpy() for state in (torch.get_rng_state(), *torch.cuda.get_rng_state_all())]


def set_random_state(state: list[Any] | None) -> None:
    """Puts back what `random_state` returned."""
    if state is None:
        return
    import torch

    cpu, *devices = (torch.from_numpy(array.copy()) for array in state)
    torch.set_rng_state(cpu)
    torch.cuda.set_rng_state_all(devices)


def data_state() -> dict[str, Any]:
    """Copies all generators that data may be shuffled by: Python's, NumPy's and the backend's."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "backend": random_state(),
    }


def set_data_state(saved: dict[str, Any]) -> None:
    """Puts back what `data_state` returned, also after it was read from a file."""
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(saved["numpy"])
    set_random_state(saved["backend"])
