"""A climb, and what follows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from adaptlr._arguments import require_choice
from adaptlr.schedules.arguments import floats, integers, ordered
from adaptlr.schedules.base import between, half_cosine, line, plain, portion

__all__ = ["InverseSquareRoot", "WarmupStableDecay"]


@dataclass(frozen=True)
class WarmupStableDecay:
    """A climb, a long stay, a short decay: a run whose end can be decided on the way.

    `max_lr * p`, then `max_lr`, then `max_lr + (end_learning_rate - max_lr) * s(p)`, where `p` is
    the progress through a phase and `s(p)` is `sqrt(p)`, `(1 - cos(pi * p)) / 2` or `p`. Hägele
    et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
    arXiv 2405.18392. For a climb of another shape, or one that does not begin at 0, wrap it with
    `warmup_steps=0` in `Warmup`.

    Args:
        max_lr: Rate of the stay, > 0.
        warmup_steps: Steps of the climb from 0, ≥ 0.
        stable_steps: Steps of the stay, ≥ 0.
        decay_steps: Steps of the decay, ≥ 1; 10 to 20 % of the run in the paper.
        shape: Shape of the decay: `"1-sqrt"`, the best in the paper, `"cosine"` or `"linear"`.
        end_learning_rate: Rate after the decay, ≥ 0, ≤ `max_lr`.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = WarmupStableDecay(0.1, warmup_steps=2, stable_steps=2, decay_steps=4)
        >>> [round(schedule(step), 3) for step in range(9)]
        [0.0, 0.05, 0.1, 0.1, 0.1, 0.05, 0.029, 0.013, 0.0]
    """

    max_lr: float
    warmup_steps: int
    stable_steps: int
    decay_steps: int
    shape: Literal["1-sqrt", "cosine", "linear"] = "1-sqrt"
    end_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        floats(self, "max_lr", above=0)
        integers(self, "warmup_steps", "stable_steps", minimum=0)
        integers(self, "decay_steps", minimum=1)
        require_choice(self, "shape", ("1-sqrt", "cosine", "linear"))
        floats(self, "end_learning_rate", minimum=0)
        ordered(self, "end_learning_rate", "max_lr")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = plain(step)
        if step < self.warmup_steps:
            return self.max_lr * (step / self.warmup_steps)
        shape = {"1-sqrt": math.sqrt, "cosine": half_cosine, "linear": line}[self.shape]
        decayed = max(step - self.warmup_steps - self.stable_steps, 0)
        fraction = shape(portion(decayed, self.decay_steps))
        return between(self.max_lr, self.end_learning_rate, fraction)

    @property
    def last_change(self) -> int:
        """The step from which on the rate stays what it is."""
        return self.warmup_steps + self.stable_steps + self.decay_steps


@dataclass(frozen=True)
class InverseSquareRoot:
    """A climb, then a fall with the square root of the step: the schedule of the Transformer.

    `rate = max_lr * min(step / warmup_steps, sqrt(warmup_steps / step))`: equation 3 of Vaswani
    et al., arXiv 1706.03762, which has `max_lr = (model_size * warmup_steps) ** -0.5`.

    Args:
        max_lr: Rate at step `warmup_steps`, > 0.
        warmup_steps: Steps of the climb from 0, ≥ 1.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = InverseSquareRoot(0.1, warmup_steps=100)
        >>> [round(schedule(step), 3) for step in (0, 50, 100, 400, 10_000)]
        [0.0, 0.05, 0.1, 0.05, 0.01]
    """

    max_lr: float
    warmup_steps: int

    def __post_init__(self) -> None:
        floats(self, "max_lr", above=0)
        integers(self, "warmup_steps", minimum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = plain(step)
        if step < self.warmup_steps:
            return self.max_lr * (step / self.warmup_steps)
        return self.max_lr * math.sqrt(self.warmup_steps / step)
