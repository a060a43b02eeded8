"""Reading batches without training on them, to begin in the middle of an epoch."""

from __future__ import annotations

from typing import Any

import keras

from adaptlr.bridge.fit import undo_at_next_build

__all__ = ["SkippedBatches"]


class SkippedBatches:
    """Takes the place of a model's training step until `end` is called.

    `fit` goes through its batches as ever, so that the data are read in their order, and each one
    is dropped. If `fit` is left meanwhile, the next one has its training step again.

    Args:
        model: A compiled model inside `fit`.
        logs: What other callbacks are told of each of these batches.
    """

    def __init__(self, model: Any, logs: dict[str, float]) -> None:
        self._model = model
        self._step = model.train_function
        self._batch: Any = None
        self._logs = logs
        model.train_function = getattr(self, f"_{keras.backend.backend()}")
        self._cancel = undo_at_next_build(model, self.end)

    def end(self) -> None:
        """Gives the model its training step back."""
        self._model.train_function = self._step
        self._cancel()
        if self._batch is not None:
            # On TensorFlow the first step makes the variables of the metrics.
            self._model._symbolic_build(data_batch=self._batch)

    def _read(self, iterator: Any) -> None:
        for _ in range(self._model.steps_per_execution or 1):
            self._batch = next(iterator)

    def _tensorflow(self, iterator: Any) -> dict[str, float]:
        self._read(iterator)
        return self._logs

    def _jax(self, state: Any, iterator: Any) -> tuple[dict[str, float], Any]:
        self._read(iterator)
        return self._logs, state

    def _torch(self, data: Any) -> dict[str, float]:
        self._batch = data[0]
        return self._logs
