"""Random state outside of a model: PyTorch's generators, which its dropout draws from."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["random_state", "set_random_state"]


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
