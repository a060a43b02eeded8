"""Rates that jump from one value to the next, or are said epoch by epoch."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

from adaptlr._arguments import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    accept,
    check,
    refuse,
)
from adaptlr.schedules.base import Formula, accept_sequence, grown, require_one_more


@dataclass(frozen=True)
class StepDecay(Formula):
    """Multiplies the rate by `gamma` every `step_size` steps (StepLR in PyTorch).

    `rate = initial_learning_rate * gamma ** floor(step / step_size)`

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        step_size: Steps between two cuts, ≥ 1.
        gamma: Factor of a cut, > 0; above 1 the rate grows.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = StepDecay(0.5, step_size=10, gamma=0.1)
        >>> [round(schedule(step), 4) for step in (0, 9, 10, 20)]
        [0.5, 0.5, 0.05, 0.005]
    """

    initial_learning_rate: PositiveFloat
    step_size: PositiveInt
    gamma: PositiveFloat = 0.1

    def at(self, step: float) -> float:
        return grown(self.initial_learning_rate, self.gamma, step // self.step_size)


@dataclass(frozen=True)
class MultiStep(Formula):
    """Multiplies the rate by `gamma` at each milestone (MultiStepLR in PyTorch).

    `rate = initial_learning_rate * gamma ** (number of milestones <= step)`

    Args:
        initial_learning_rate: Rate before the first cut, > 0.
        milestones: Steps of the cuts, ≥ 0, in order; one that is there twice cuts twice.
        gamma: Factor of a cut, > 0, or one factor for each milestone.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        The cuts of He et al. (arXiv 1512.03385, section 4.2) on CIFAR-10:

        >>> schedule = MultiStep(0.1, milestones=(32_000, 48_000))
        >>> [round(schedule(step), 4) for step in (0, 31_999, 32_000, 48_000)]
        [0.1, 0.1, 0.01, 0.001]
    """

    initial_learning_rate: PositiveFloat
    milestones: Sequence[int]
    gamma: float | Sequence[float] = 0.1

    def __post_init__(self) -> None:
        check(self)
        accept_sequence(self, "milestones", NonNegativeInt, in_order=True)
        if isinstance(self.gamma, Real | str) or self.gamma is None:
            accept(self, "gamma", PositiveFloat)
            return
        accept_sequence(self, "gamma", PositiveFloat)
        if isinstance(self.gamma, Sequence) and len(self.gamma) != len(self.milestones):
            rule = f"as long as milestones={self.milestones!r}"
            refuse(self, "gamma", rule, self.gamma, ValueError)

    def at(self, step: float) -> float:
        cuts = bisect_right(self.milestones, step)
        if isinstance(self.gamma, Sequence):
            return grown(self.initial_learning_rate, math.prod(self.gamma[:cuts]), 1)
        return grown(self.initial_learning_rate, self.gamma, cuts)

    @property
    def last_change(self) -> int:
        """The step from which on the rate stays what it is."""
        return self.milestones[-1] if self.milestones else 0


@dataclass(frozen=True)
class Piecewise(Formula):
    """One value up to and including each boundary (PiecewiseConstantDecay in Keras).

    `rate = values[number of boundaries < step]`: a boundary is the last step of its value, where
    a milestone of `MultiStep` is the first of the next.

    Args:
        boundaries: Steps, ≥ 0, in order; of two that are equal the value between is not reached.
        values: Rates, ≥ 0, one more than boundaries.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Piecewise(boundaries=(10, 20), values=(0.1, 0.5, 0.05))
        >>> [schedule(step) for step in (0, 10, 11, 20, 21)]
        [0.1, 0.1, 0.5, 0.5, 0.05]
    """

    boundaries: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        accept_sequence(self, "boundaries", NonNegativeInt, in_order=True)
        accept_sequence(self, "values", NonNegativeFloat)
        require_one_more(self, "values", "boundaries")

    def at(self, step: float) -> float:
        return self.values[bisect_left(self.boundaries, step)]

    @property
    def last_change(self) -> int:
        """The step from which on the rate stays what it is."""
        return self.boundaries[-1] + 1 if self.boundaries else 0


@dataclass(frozen=True)
class ByEpoch(Formula):
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
    initial_learning_rate: NonNegativeFloat
    steps_per_epoch: PositiveInt

    def __post_init__(self) -> None:
        check(self)
        if not callable(self.function):
            rule = "a callable from epoch and rate to rate"
            refuse(self, "function", rule, self.function)

    def at(self, step: float) -> float:
        epoch = int(step // self.steps_per_epoch)
        rates = self._rates
        while len(rates) <= epoch:
            before = rates[-1] if rates else self.initial_learning_rate
            rates.append(float(self.function(len(rates), before)))
        return rates[epoch]

    @cached_property
    def _rates(self) -> list[float]:
        return []
