"""Several processes training one model: who writes, and what all of them decide by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def is_chief() -> bool:
    """Whether this process writes the logs: rank 0, and any process that trains alone."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return bool(jax.process_index() == 0)
    group = _torch_group()
    return group is None or bool(group.get_rank() == 0)


def is_alone() -> bool:
    """Whether this process trains the model by itself."""
    if keras.backend.backend() == "jax":
        import jax

        return bool(jax.process_count() == 1)
    group = _torch_group()
    return group is None or bool(group.get_world_size() == 1)


def agreed(numbers: Sequence[float | None]) -> list[float | None]:
    """Returns the mean over all processes of each number, so that all decide alike.

    On PyTorch every process measures its own share of the data. On JAX and TensorFlow, Keras'
    metrics are those of all shares already. `None` stands for "not measured" and is left out.
    """
    group = _torch_group()
    if group is None:
        return list(numbers)
    everywhere: list[Any] = [None] * group.get_world_size()
    group.all_gather_object(everywhere, list(numbers))
    return [
        _mean([x for x in column if x is not None]) for column in zip(*everywhere, strict=True)
    ]


def require_supported(model: Any) -> None:
    """Refuses what Keras itself cannot train.

    Raises:
        RuntimeError: If the model was made under `tf.distribute.MultiWorkerMirroredStrategy` with
            more than one worker.
    """
    extended = getattr(getattr(model, "distribute_strategy", None), "extended", None)
    if getattr(extended, "_num_workers", 1) > 1:
        raise RuntimeError(
            "Keras 3 cannot fit a model under tf.distribute.MultiWorkerMirroredStrategy "
            "(https://github.com/keras-team/keras/issues/20585); train on the devices of one "
            "machine with tf.distribute.MirroredStrategy, or on several machines with JAX."
        )


def _torch_group() -> Any:
    """`torch.distributed` if this process is one of several, else None."""
    if keras.backend.backend() != "torch":
        return None
    from torch import distributed

    return distributed if distributed.is_available() and distributed.is_initialized() else None


def _mean(numbers: list[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
