"""Rates that are said epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from adaptlr.schedules.arguments import floats, integers, refuse_argument
from adaptlr.schedules.base import plain

__all__ = ["ByEpoch"]


@dataclass(frozen=True)
class ByEpoch:
    """Each epoch's rate from the one before (LearningRateScheduler in Keras).

    `rate = function(epoch, rate of the epoch before)`, where epoch 0 follows on
    `initial_learning_rate`. The function is called once for each epoch, in order and in advance,
    so it must not depend on what happens in the training.

    Args:
        function: From epoch and rate to rate.
        initial_learning_rate: Rate that epoch 0 is told, ≥ 0.
        steps_per_epoch: Steps of an epoch, ≥ 1.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> def warm_then_decay(epoch: int, rate: float) -> float:
        ...     return rate if epoch < 2 else rate * 0.5
        >>> schedule = ByEpoch(warm_then_decay, 0.8, steps_per_epoch=2)
        >>> [schedule(step) for step in range(8)]
        [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    """

    function: Callable[[int, float], float]
    initial_learning_rate: float
    steps_per_epoch: int

    def __post_init__(self) -> None:
        if not callable(self.function):
            refuse_argument(self, "function", "a callable from epoch and rate to rate", TypeError)
        floats(self, "initial_learning_rate", minimum=0)
        integers(self, "steps_per_epoch", minimum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        epoch = int(plain(step) // self.steps_per_epoch)
        rates = self._rates
        while len(rates) <= epoch:
            before = rates[-1] if rates else self.initial_learning_rate
            rates.append(float(self.function(len(rates), before)))
        return rates[epoch]

    @cached_property
    def _rates(self) -> list[float]:
        return []
