"""Curves from a first rate to a last one, also after a climb."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from adaptlr._arguments import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, check
from adaptlr.schedules.base import (
    Formula,
    between,
    grown,
    half_cosine,
    line,
    portion,
    require_ordered,
)


@dataclass(frozen=True)
class Exponential(Formula):
    """Multiplies the rate by `decay_rate` over every `decay_steps` (ExponentialDecay in Keras).

    `rate = initial_learning_rate * decay_rate ** (step / decay_steps)`

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        decay_steps: Steps of one such decay, ≥ 1.
        decay_rate: Factor of one such decay, > 0; above 1 the rate grows.
        staircase: Round `step / decay_steps` down, so that the rate falls in steps.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Exponential(0.1, decay_steps=100, decay_rate=0.25)
        >>> [round(schedule(step), 5) for step in (0, 50, 100, 200)]
        [0.1, 0.05, 0.025, 0.00625]
    """

    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    decay_rate: PositiveFloat
    staircase: bool = False

    def at(self, step: float) -> float:
        decays = step // self.decay_steps if self.staircase else step / self.decay_steps
        return grown(self.initial_learning_rate, self.decay_rate, decays)


@dataclass(frozen=True)
class InverseTime(Formula):
    """Divides the rate by a line that rises with the step (InverseTimeDecay in Keras).

    `rate = initial_learning_rate / (1 + decay_rate * step / decay_steps)`

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        decay_steps: Steps in which the divisor grows by `decay_rate`, ≥ 1.
        decay_rate: That growth, > 0.
        staircase: Round `step / decay_steps` down, so that the rate falls in steps.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = InverseTime(0.1, decay_steps=100, decay_rate=1.0)
        >>> [round(schedule(step), 4) for step in (0, 100, 300, 900)]
        [0.1, 0.05, 0.025, 0.01]
    """

    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    decay_rate: PositiveFloat
    staircase: bool = False

    def at(self, step: float) -> float:
        decays = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate / (1.0 + self.decay_rate * decays)


@dataclass(frozen=True)
class Polynomial(Formula):
    """Goes to `end_learning_rate` along a power of what is left (PolynomialDecay in Keras).

    `rate = end + (initial - end) * (1 - p) ** power` with `p = min(step / decay_steps, 1)`

    Args:
        initial_learning_rate: Rate at step 0, ≥ 0.
        decay_steps: Steps to the end, ≥ 1.
        end_learning_rate: Rate from then on, ≥ 0.
        power: Exponent, > 0: 1 is a line, 2 falls fast and lands flat.
        cycle: Past the end, make `decay_steps` the first multiple that is not behind.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Polynomial(0.1, decay_steps=4, end_learning_rate=0, power=2)
        >>> [round(schedule(step), 5) for step in range(6)]
        [0.1, 0.05625, 0.025, 0.00625, 0.0, 0.0]
    """

    initial_learning_rate: NonNegativeFloat
    decay_steps: PositiveInt
    end_learning_rate: NonNegativeFloat = 0.0001
    power: PositiveFloat = 1.0
    cycle: bool = False

    def at(self, step: float) -> float:
        decays = max(1, math.ceil(step / self.decay_steps)) if self.cycle else 1
        left = 1.0 - portion(step, decays * self.decay_steps)
        return between(self.end_learning_rate, self.initial_learning_rate, left**self.power)

    @property
    def last_change(self) -> int | None:
        """The step from which on the rate stays what it is, or None if it cycles."""
        return None if self.cycle else self.decay_steps


@dataclass(frozen=True)
class Linear(Formula):
    """Goes to `end_learning_rate` in a straight line, up or down (LinearLR in PyTorch).

    `rate = initial + (end - initial) * p` with `p = min(step / decay_steps, 1)`

    Args:
        initial_learning_rate: Rate at step 0, ≥ 0.
        decay_steps: Steps to the end, ≥ 1.
        end_learning_rate: Rate from then on, ≥ 0.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Linear(0.1, decay_steps=4)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.1, 0.075, 0.05, 0.025, 0.0, 0.0]
    """

    initial_learning_rate: NonNegativeFloat
    decay_steps: PositiveInt
    end_learning_rate: NonNegativeFloat = 0.0

    def at(self, step: float) -> float:
        progress = portion(step, self.decay_steps)
        return between(self.initial_learning_rate, self.end_learning_rate, progress)

    @property
    def last_change(self) -> int:
        """The step from which on the rate stays what it is."""
        return self.decay_steps


@dataclass(frozen=True)
class Cosine(Formula):
    """Half a cosine to `alpha * initial_learning_rate`, down or up (CosineDecay in Keras).

    `rate = initial_learning_rate * (alpha + (1 - alpha) * (1 + cos(pi * p)) / 2)`
    with `p = min(step / decay_steps, 1)`: equation 5 of SGDR (Loshchilov and Hutter,
    arXiv 1608.03983) without its restarts. Wrap it in `Warmup` for the warm-up that Keras has.

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        decay_steps: Steps to the end, ≥ 1.
        alpha: Final rate as a multiple of the initial one, ≥ 0; above 1 the rate rises.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Cosine(0.1, decay_steps=4)
        >>> [round(schedule(step), 4) for step in range(6)]
        [0.1, 0.0854, 0.05, 0.0146, 0.0, 0.0]
    """

    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    alpha: NonNegativeFloat = 0.0

    def at(self, step: float) -> float:
        end = self.alpha * self.initial_learning_rate
        fraction = half_cosine(portion(step, self.decay_steps))
        return between(self.initial_learning_rate, end, fraction)

    @property
    def last_change(self) -> int:
        """The step from which on the rate stays what it is."""
        return self.decay_steps


@dataclass(frozen=True)
class WarmupStableDecay(Formula):
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

    max_lr: PositiveFloat
    warmup_steps: NonNegativeInt
    stable_steps: NonNegativeInt
    decay_steps: PositiveInt
    shape: Literal["1-sqrt", "cosine", "linear"] = "1-sqrt"
    end_learning_rate: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        check(self)
        require_ordered(self, "end_learning_rate", "max_lr")

    def at(self, step: float) -> float:
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
class InverseSquareRoot(Formula):
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

    max_lr: PositiveFloat
    warmup_steps: PositiveInt

    def at(self, step: float) -> float:
        if step < self.warmup_steps:
            return self.max_lr * (step / self.warmup_steps)
        return self.max_lr * math.sqrt(self.warmup_steps / step)
