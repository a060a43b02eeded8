"""Schedules made of others."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adaptlr._arguments import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    accept,
    check,
    refuse,
)
from adaptlr.schedules.base import (
    AnySchedule,
    Formula,
    Schedule,
    accept_sequence,
    between,
    half_cosine,
    last_change,
    require_one_more,
    require_ordered,
)


@dataclass(frozen=True)
class Warmup(Formula):
    """Climbs from `start` to the first rate of a schedule, then follows it from its own step 0.

    With `target = schedule(0)` and `p = step / warmup_steps`, the climb is
    `start + (target - start) * s(p)`, where `s(p)` is `p`, `(1 - cos(pi * p)) / 2` or
    `1 - sqrt(1 - p)`, or it is `start ** (1 - p) * target ** p`; from step `warmup_steps` on,
    `rate = schedule(step - warmup_steps)`. Goyal et al., "Accurate, Large Minibatch SGD",
    arXiv 1706.02677, section 2.2. In Keras `Warmup(Cosine(target, n), k, start)` is
    `CosineDecay(start, n, warmup_target=target, warmup_steps=k)`.

    Args:
        schedule: What follows, any callable from step to rate.
        warmup_steps: Steps of the climb, ≥ 0; 0 leaves the schedule as it is.
        start: Rate at step 0, ≥ 0; > 0 for an exponential climb.
        shape: Shape of the climb: `"linear"`, `"cosine"`, `"1-sqrt"` or `"exponential"`.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> from adaptlr.schedules import Linear
        >>> schedule = Warmup(Linear(0.1, decay_steps=2), warmup_steps=2, start=0.02)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.02, 0.06, 0.1, 0.05, 0.0, 0.0]
    """

    schedule: AnySchedule
    warmup_steps: NonNegativeInt
    start: NonNegativeFloat = 0.0
    shape: Literal["linear", "cosine", "1-sqrt", "exponential"] = "linear"

    def __post_init__(self) -> None:
        check(self)
        if self.shape == "exponential" and self.start == 0:
            refuse(self, "start", "a number above 0 for an exponential climb", self.start)

    def at(self, step: float) -> float:
        if step >= self.warmup_steps:
            return self.schedule(step - self.warmup_steps)
        target, progress = self.schedule(0), step / self.warmup_steps
        if self.shape == "exponential":
            return math.pow(self.start, 1.0 - progress) * math.pow(target, progress)
        if self.shape == "cosine":
            progress = half_cosine(progress)
        elif self.shape == "1-sqrt":
            progress = 1.0 - math.sqrt(1.0 - progress)
        return between(self.start, target, progress)

    @property
    def last_change(self) -> int | None:
        """The step from which on the rate stays what it is, or None if that is not known."""
        rest = last_change(self.schedule)
        return None if rest is None else self.warmup_steps + rest


@dataclass(frozen=True)
class Joined(Formula):
    """One schedule after another, each from its own step 0 (`join_schedules` in optax).

    `rate = schedules[i](step - start)`, where `i` boundaries are ≤ `step` and `start` is the last
    of them.

    Args:
        schedules: Callables from step to rate, one more than boundaries.
        boundaries: First step of each schedule but the first, ≥ 0, in order; of two that are
            equal the schedule between is not reached.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> from adaptlr.schedules import Constant, Linear
        >>> schedule = Joined((Constant(0.1), Linear(0.1, decay_steps=2)), boundaries=(2,))
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.1, 0.1, 0.1, 0.05, 0.0, 0.0]
    """

    schedules: Sequence[Schedule]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        accept_sequence(self, "schedules", AnySchedule)
        accept_sequence(self, "boundaries", NonNegativeInt, in_order=True)
        require_one_more(self, "schedules", "boundaries")

    def at(self, step: float) -> float:
        index = bisect_right(self.boundaries, step)
        start = self.boundaries[index - 1] if index else 0
        return self.schedules[index](step - start)

    @property
    def last_change(self) -> int | None:
        """The step from which on the rate stays what it is, or None if that is not known."""
        rest = last_change(self.schedules[-1])
        return None if rest is None else (0, *self.boundaries)[-1] + rest


@dataclass(frozen=True)
class Scaled(Formula):
    """A schedule times a factor, or times another schedule (ChainedScheduler in PyTorch).

    `rate = factor * schedule(step)` or `factor(step) * schedule(step)`

    Args:
        schedule: Any callable from step to rate.
        factor: Factor of its rate, > 0, or any callable from step to factor.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> from adaptlr.schedules import Constant, StepDecay, Warmup
        >>> Scaled(Constant(0.1), factor=0.5)(1000)
        0.05
        >>> climb = Warmup(Constant(1.0), warmup_steps=4)
        >>> schedule = Scaled(StepDecay(0.8, step_size=2, gamma=0.5), factor=climb)
        >>> [round(schedule(step), 3) for step in range(7)]
        [0.0, 0.2, 0.2, 0.3, 0.2, 0.2, 0.1]
    """

    schedule: AnySchedule
    factor: float | Schedule

    def __post_init__(self) -> None:
        check(self)
        if not callable(self.factor):
            accept(self, "factor", PositiveFloat)

    def at(self, step: float) -> float:
        factor = self.factor(step) if callable(self.factor) else self.factor
        return factor * self.schedule(step)

    @property
    def last_change(self) -> int | None:
        """The step from which on the rate stays what it is, or None if that is not known."""
        parts = [self.schedule, self.factor] if callable(self.factor) else [self.schedule]
        ends = [end for end in map(last_change, parts) if end is not None]
        return max(ends) if len(ends) == len(parts) else None


@dataclass(frozen=True)
class Clipped(Formula):
    """A schedule between two bounds (`end_value` of `exponential_decay` in optax).

    `rate = min(max(schedule(step), minimum), maximum)`

    Args:
        schedule: Any callable from step to rate.
        minimum: Lowest rate, ≥ 0.
        maximum: Highest rate, ≥ `minimum`, or None.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> from adaptlr.schedules import Exponential
        >>> schedule = Clipped(Exponential(0.8, decay_steps=1, decay_rate=0.5), minimum=0.25)
        >>> [round(schedule(step), 2) for step in range(5)]
        [0.8, 0.4, 0.25, 0.25, 0.25]
    """

    schedule: AnySchedule
    minimum: NonNegativeFloat = 0.0
    maximum: NonNegativeFloat | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.maximum is not None:
            require_ordered(self, "minimum", "maximum")

    def at(self, step: float) -> float:
        rate = max(self.schedule(step), self.minimum)
        return rate if self.maximum is None else min(rate, self.maximum)

    @property
    def last_change(self) -> int | None:
        """The step from which on the rate stays what it is, or None if that is not known."""
        return last_change(self.schedule)
