"""Decays that begin again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adaptlr.schedules.arguments import floats, integers
from adaptlr.schedules.base import grown, half_cosine, plain, portion

__all__ = ["CosineRestarts"]


@dataclass(frozen=True)
class CosineRestarts:
    """Cosine decays, each longer and lower than the last (CosineDecayRestarts in Keras).

    `rate = initial_learning_rate * (alpha + (1 - alpha) * m_mul**i * (1 + cos(pi * p)) / 2)`
    at the fraction `p` of decay `i = 0, 1, 2…`, which lasts `first_decay_steps * t_mul**i` steps:
    equation 5 of SGDR (Loshchilov and Hutter, arXiv 1608.03983).

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        first_decay_steps: Steps to the first restart, ≥ 1.
        t_mul: Factor of the length at each restart, ≥ 1.
        m_mul: Factor of the height at each restart, > 0.
        alpha: Lowest rate as a fraction of the initial one, in [0, 1].

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = CosineRestarts(0.1, first_decay_steps=2, m_mul=0.5)
        >>> [round(schedule(step), 4) for step in range(7)]
        [0.1, 0.05, 0.05, 0.0427, 0.025, 0.0073, 0.025]
    """

    initial_learning_rate: float
    first_decay_steps: int
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0

    def __post_init__(self) -> None:
        floats(self, "initial_learning_rate", above=0)
        integers(self, "first_decay_steps", minimum=1)
        floats(self, "t_mul", minimum=1)
        floats(self, "m_mul", above=0)
        floats(self, "alpha", minimum=0, maximum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = plain(step)
        restarts, progress = self._locate(step)
        end = self.alpha * self.initial_learning_rate
        height = (self.initial_learning_rate - end) * (1.0 - half_cosine(progress))
        return end + grown(height, self.m_mul, restarts)

    def _locate(self, step: float) -> tuple[float, float]:
        """Returns the restarts so far and the progress since the last one."""
        length, growth = float(self.first_decay_steps), self.t_mul - 1.0
        if growth == 0.0:
            restarts, position = divmod(step, length)
            return restarts, position / length
        # A logarithm finds the decay at once, but may round across a restart: take the decay
        # before, and walk.
        restarts = math.floor(math.log1p(step / length * growth) / math.log1p(growth)) - 1
        restarts = max(restarts, 0)
        length *= self.t_mul**restarts
        if growth > 1e-6:
            start = (length - self.first_decay_steps) / growth
        else:  # nothing is left of that difference
            start = self.first_decay_steps * math.expm1(restarts * math.log1p(growth)) / growth
        while step - start >= length:  # a sum would round a length that is hardly longer away
            restarts, start, length = restarts + 1, start + length, length * self.t_mul
        return restarts, portion(step - start, length)
