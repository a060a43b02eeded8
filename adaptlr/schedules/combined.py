"""Schedules made of others."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adaptlr._checks import require_choice
from adaptlr.schedules.arguments import (
    floats,
    integers,
    one_more,
    refuse_argument,
    schedule_argument,
    sequence,
    step_sequence,
)
from adaptlr.schedules.base import Schedule, between, plain

__all__ = ["Joined", "Scaled", "Warmup"]


@dataclass(frozen=True)
class Warmup:
    """Climbs from `start` to the first rate of a schedule, then follows it from its own step 0.

    With `target = schedule(0)` and `p = step / warmup_steps`, the climb is
    `start + (target - start) * p` or `start ** (1 - p) * target ** p`; from step `warmup_steps`
    on, `rate = schedule(step - warmup_steps)`. Goyal et al., "Accurate, Large Minibatch SGD",
    arXiv 1706.02677, section 2.2. In Keras `Warmup(Cosine(target, n), k, start)` is
    `CosineDecay(start, n, warmup_target=target, warmup_steps=k)`.

    Args:
        schedule: What follows, any callable from step to rate.
        warmup_steps: Steps of the climb, ≥ 0; 0 leaves the schedule as it is.
        start: Rate at step 0, ≥ 0; > 0 for an exponential climb.
        shape: Shape of the climb, `"linear"` or `"exponential"`.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> from adaptlr.schedules import Linear
        >>> schedule = Warmup(Linear(0.1, decay_steps=2), warmup_steps=2, start=0.02)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.02, 0.06, 0.1, 0.05, 0.0, 0.0]
    """

    schedule: Schedule
    warmup_steps: int
    start: float = 0.0
    shape: Literal["linear", "exponential"] = "linear"

    def __post_init__(self) -> None:
        schedule_argument(self, "schedule")
        integers(self, "warmup_steps", minimum=0)
        floats(self, "start", minimum=0)
        require_choice(self, "shape", ("linear", "exponential"))
        if self.shape == "exponential" and self.start == 0:
            refuse_argument(self, "start", "> 0 for an exponential climb")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = plain(step)
        if step >= self.warmup_steps:
            return self.schedule(step - self.warmup_steps)
        target, progress = self.schedule(0), step / self.warmup_steps
        if self.shape == "exponential":
            return math.pow(self.start, 1.0 - progress) * math.pow(target, progress)
        return between(self.start, target, progress)


@dataclass(frozen=True)
class Joined:
    """One schedule after another, each from its own step 0 (`join_schedules` in optax).

    `rate = schedules[i](step - start)`, where `i` boundaries are ≤ `step` and `start` is the last
    of them.

    Args:
        schedules: Callables from step to rate, one more than boundaries.
        boundaries: First step of each schedule but the first, ≥ 1, strictly increasing.

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
        sequence(self, "schedules", "callables from step to rate", callable)
        step_sequence(self, "boundaries")
        one_more(self, "schedules", "boundaries")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = plain(step)
        index = bisect_right(self.boundaries, step)
        start = self.boundaries[index - 1] if index else 0
        return self.schedules[index](step - start)


@dataclass(frozen=True)
class Scaled:
    """A schedule times a factor: `rate = factor * schedule(step)`.

    Args:
        schedule: Any callable from step to rate.
        factor: Factor of its rate, > 0.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> from adaptlr.schedules import Constant
        >>> Scaled(Constant(0.1), factor=0.5)(1000)
        0.05
    """

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        schedule_argument(self, "schedule")
        floats(self, "factor", above=0)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = plain(step)
        return self.factor * self.schedule(step)
