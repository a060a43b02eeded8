"""Open loop: the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, NoReturn, Protocol

from adaptlr._arguments import require_choice, require_integer, require_number

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclical",
    "CyclicalMomentum",
    "Exponential",
    "InverseSquareRoot",
    "InverseTime",
    "Joined",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "Scaled",
    "Schedule",
    "StepDecay",
    "Warmup",
    "WarmupStableDecay",
]


class Schedule(Protocol):
    """Any callable from step to rate: a class of this module, a function, a lambda.

    A step is one update of the weights, counted from 0. The classes of this module are frozen
    dataclasses: they compare by value, hash, and print as the call that builds them. They store
    rates as floats, and return for every step a finite float ≥ 0; past the end of a decay, its
    final value.

    Example:
        >>> def halved_each_epoch(step: float) -> float:
        ...     return 0.1 * 0.5 ** (step // 100)
        >>> Scaled(halved_each_epoch, factor=2)(200)
        0.05
    """

    def __call__(self, step: float, /) -> float:
        """Returns the rate at `step`, a number ≥ 0."""


# A rate lies between two others; a shape turns progress into the fraction of the way.


def _plain(step: float) -> float:
    # NumPy's unsigned integers wrap below 0, and its narrow ones above their largest.
    if type(step) is int or type(step) is float:
        return step
    return int(step) if isinstance(step, Integral) else float(step)


def _progress(step: float, steps: float) -> float:
    return min(step / steps, 1.0)


def _between(start: float, end: float, fraction: float) -> float:
    # Not start + (end - start) * fraction, which rounds a small end away.
    return start * (1.0 - fraction) + end * fraction


def _linear(progress: float) -> float:
    return progress


def _cosine(progress: float) -> float:
    return (1.0 - math.cos(math.pi * progress)) / 2.0


@dataclass(frozen=True)
class Constant:
    """The same rate at every step.

    Args:
        learning_rate: The rate, ≥ 0.

    Raises:
        ValueError, TypeError: If the rate is not such a number.

    Example:
        >>> Constant(0.1)(1000)
        0.1
    """

    learning_rate: float

    def __post_init__(self) -> None:
        _floats(self, "learning_rate", minimum=0)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        return self.learning_rate


@dataclass(frozen=True)
class StepDecay:
    """Multiplies the rate by `gamma` every `step_size` steps (StepLR in PyTorch).

    `rate = initial_learning_rate * gamma ** floor(step / step_size)`

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        step_size: Steps between two cuts, ≥ 1.
        gamma: Factor of a cut, in (0, 1].

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = StepDecay(0.5, step_size=10, gamma=0.1)
        >>> [round(schedule(step), 4) for step in (0, 9, 10, 20)]
        [0.5, 0.5, 0.05, 0.005]
    """

    initial_learning_rate: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _floats(self, "initial_learning_rate", above=0)
        _integers(self, "step_size", minimum=1)
        _floats(self, "gamma", above=0, maximum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        return self.initial_learning_rate * math.pow(self.gamma, step // self.step_size)


@dataclass(frozen=True)
class MultiStep:
    """Multiplies the rate by `gamma` at each milestone (MultiStepLR in PyTorch).

    `rate = initial_learning_rate * gamma ** (number of milestones <= step)`

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        milestones: Steps of the cuts, ≥ 1, strictly increasing.
        gamma: Factor of a cut, in (0, 1].

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        The cuts of He et al. (arXiv 1512.03385, section 4.2) on CIFAR-10:

        >>> schedule = MultiStep(0.1, milestones=(32_000, 48_000))
        >>> [round(schedule(step), 4) for step in (0, 31_999, 32_000, 48_000)]
        [0.1, 0.1, 0.01, 0.001]
    """

    initial_learning_rate: float
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _floats(self, "initial_learning_rate", above=0)
        _boundaries(self, "milestones")
        _floats(self, "gamma", above=0, maximum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        return self.initial_learning_rate * self.gamma ** bisect_right(self.milestones, step)


@dataclass(frozen=True)
class Piecewise:
    """One value up to and including each boundary (PiecewiseConstantDecay in Keras).

    `rate = values[number of boundaries < step]`: a boundary is the last step of its value, where
    a milestone of `MultiStep` is the first of the next.

    Args:
        boundaries: Steps, ≥ 1, strictly increasing.
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
        _boundaries(self, "boundaries")
        _sequence(self, "values", "finite numbers >= 0", _is_rate, float)
        _one_more(self, "values", "boundaries")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        return self.values[bisect_left(self.boundaries, step)]


@dataclass(frozen=True)
class Exponential:
    """Multiplies the rate by `decay_rate` over every `decay_steps` (ExponentialDecay in Keras).

    `rate = initial_learning_rate * decay_rate ** (step / decay_steps)`

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        decay_steps: Steps of one such decay, ≥ 1.
        decay_rate: Factor of one such decay, in (0, 1].
        staircase: Round `step / decay_steps` down, so that the rate falls in steps.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Exponential(0.1, decay_steps=100, decay_rate=0.25)
        >>> [round(schedule(step), 5) for step in (0, 50, 100, 200)]
        [0.1, 0.05, 0.025, 0.00625]
    """

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        _floats(self, "initial_learning_rate", above=0)
        _integers(self, "decay_steps", minimum=1)
        _floats(self, "decay_rate", above=0, maximum=1)
        _flag(self, "staircase")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        decays = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate * math.pow(self.decay_rate, decays)


@dataclass(frozen=True)
class InverseTime:
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

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        _floats(self, "initial_learning_rate", "decay_rate", above=0)
        _integers(self, "decay_steps", minimum=1)
        _flag(self, "staircase")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        decays = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate / (1.0 + self.decay_rate * decays)


@dataclass(frozen=True)
class Polynomial:
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

    initial_learning_rate: float
    decay_steps: int
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False

    def __post_init__(self) -> None:
        _floats(self, "initial_learning_rate", "end_learning_rate", minimum=0)
        _integers(self, "decay_steps", minimum=1)
        _floats(self, "power", above=0)
        _flag(self, "cycle")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        decays = max(1, math.ceil(step / self.decay_steps)) if self.cycle else 1
        left = 1.0 - _progress(step, decays * self.decay_steps)
        return _between(self.end_learning_rate, self.initial_learning_rate, left**self.power)


@dataclass(frozen=True)
class Linear:
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

    initial_learning_rate: float
    decay_steps: int
    end_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        _floats(self, "initial_learning_rate", "end_learning_rate", minimum=0)
        _integers(self, "decay_steps", minimum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        progress = _progress(step, self.decay_steps)
        return _between(self.initial_learning_rate, self.end_learning_rate, progress)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine down to `alpha * initial_learning_rate` (CosineDecay in Keras).

    `rate = initial_learning_rate * (alpha + (1 - alpha) * (1 + cos(pi * p)) / 2)`
    with `p = min(step / decay_steps, 1)`: equation 5 of SGDR (Loshchilov and Hutter,
    arXiv 1608.03983) without its restarts. Wrap it in `Warmup` for the warm-up that Keras has.

    Args:
        initial_learning_rate: Rate at step 0, > 0.
        decay_steps: Steps to the end, ≥ 1.
        alpha: Final rate as a fraction of the initial one, in [0, 1].

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Cosine(0.1, decay_steps=4)
        >>> [round(schedule(step), 4) for step in range(6)]
        [0.1, 0.0854, 0.05, 0.0146, 0.0, 0.0]
    """

    initial_learning_rate: float
    decay_steps: int
    alpha: float = 0.0

    def __post_init__(self) -> None:
        _floats(self, "initial_learning_rate", above=0)
        _integers(self, "decay_steps", minimum=1)
        _floats(self, "alpha", minimum=0, maximum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        end = self.alpha * self.initial_learning_rate
        fraction = _cosine(_progress(step, self.decay_steps))
        return _between(self.initial_learning_rate, end, fraction)


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
        m_mul: Factor of the height at each restart, in (0, 1].
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
        _floats(self, "initial_learning_rate", above=0)
        _integers(self, "first_decay_steps", minimum=1)
        _floats(self, "t_mul", minimum=1)
        _floats(self, "m_mul", above=0, maximum=1)
        _floats(self, "alpha", minimum=0, maximum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        restarts, progress = self._locate(step)
        end = self.alpha * self.initial_learning_rate
        fraction = math.pow(self.m_mul, restarts) * (1.0 - _cosine(progress))
        return _between(end, self.initial_learning_rate, fraction)

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
        return restarts, _progress(step - start, length)


@dataclass(frozen=True)
class Cyclical:
    """Triangles between two rates (CyclicLR in PyTorch).

    `rate = base_lr + (max_lr - base_lr) * height`, of section 3 of Smith, "Cyclical Learning
    Rates for Training Neural Networks", arXiv 1506.01186::

        cycle = floor(step / (2 * step_size))
        height = (1 - abs(step / step_size - 2 * cycle - 1)) * scale
        scale = 1, 2 ** -cycle or gamma ** step

    Args:
        base_lr: Rate at the foot of a triangle, ≥ 0.
        max_lr: Rate at the top of the first triangle, > 0, ≥ `base_lr`.
        step_size: Half a cycle in steps, ≥ 1; two to ten epochs in the paper.
        mode: `"triangular"` keeps the height, `"triangular2"` halves it at each cycle,
            `"exp_range"` multiplies it by `gamma` at each step.
        gamma: That factor, in (0, 1]; the other modes do not read it.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Cyclical(0.1, 0.5, step_size=2, mode="triangular2")
        >>> [round(schedule(step), 2) for step in range(9)]
        [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2, 0.1]
    """

    base_lr: float
    max_lr: float
    step_size: int
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        _floats(self, "base_lr", minimum=0)
        _floats(self, "max_lr", above=0)
        _ordered(self, "base_lr", "max_lr")
        _integers(self, "step_size", minimum=1)
        require_choice(self, "mode", ("triangular", "triangular2", "exp_range"))
        _floats(self, "gamma", above=0, maximum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        return _between(self.base_lr, self.max_lr, self.height(step))

    def height(self, step: float) -> float:
        """Returns how high the rate is, from 0 at `base_lr` to 1 at `max_lr`."""
        step = _plain(step)
        cycle, position = divmod(step / self.step_size, 2.0)
        return (1.0 - abs(position - 1.0)) * self._scale(step, cycle)

    def _scale(self, step: float, cycle: float) -> float:
        if self.mode == "triangular2":
            return math.pow(0.5, cycle)  # 1 / 2**cycle would overflow
        return math.pow(self.gamma, step) if self.mode == "exp_range" else 1.0


@dataclass(frozen=True)
class OneCycle:
    """One climb to `max_lr` and one descent far below the start (OneCycleLR in PyTorch).

    The climb ends at step `pct_start * total_steps - 1`, the descent at `total_steps - 1`. With
    `s(p)` the shape of the progress `p` through either, `p` or `(1 - cos(pi * p)) / 2`::

        initial = max_lr / div_factor
        final = initial / final_div_factor
        rate = initial + (max_lr - initial) * s(p), then max_lr + (final - max_lr) * s(p)

    The cycle is of Smith and Topin, "Super-Convergence", arXiv 1708.07120; this form of it, with
    two phases instead of a symmetric triangle and a tail, of fastai and PyTorch.

    Args:
        max_lr: Highest rate, > 0; a range test finds it.
        total_steps: Steps of the whole run, ≥ 1.
        pct_start: Fraction of them that climbs, in (0, 1).
        div_factor: `max_lr` as a multiple of the first rate, ≥ 1.
        final_div_factor: First rate as a multiple of the last one, ≥ 1.
        anneal: Shape of both phases, `"cos"` or `"linear"`.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = OneCycle(1.0, total_steps=10, div_factor=10, anneal="linear")
        >>> [round(schedule(step), 2) for step in range(10)]
        [0.1, 0.55, 1.0, 0.86, 0.71, 0.57, 0.43, 0.29, 0.14, 0.0]
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    anneal: Literal["cos", "linear"] = "cos"

    def __post_init__(self) -> None:
        _floats(self, "max_lr", above=0)
        _integers(self, "total_steps", minimum=1)
        _floats(self, "pct_start", above=0, below=1)
        _floats(self, "div_factor", "final_div_factor", minimum=1)
        require_choice(self, "anneal", ("cos", "linear"))

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        low = self.max_lr / self.div_factor
        if step >= self._peak:
            low /= self.final_div_factor
        return _between(low, self.max_lr, self.height(step))

    def height(self, step: float) -> float:
        """Returns how high the rate is, from 0 at the start to 1 at `max_lr` to 0 at the end."""
        step = _plain(step)
        shape = _cosine if self.anneal == "cos" else _linear
        peak, last = self._peak, self.total_steps - 1.0
        if step < peak:
            return shape(step / peak)
        return 1.0 - shape(min((step - peak) / (last - peak), 1.0))

    @property
    def _peak(self) -> float:
        # Below 0 if a run is too short to climb: it then begins on the way down.
        return self.pct_start * self.total_steps - 1.0


@dataclass(frozen=True)
class CyclicalMomentum:
    """Momentum that falls as the rate of a cycle rises (`cycle_momentum` in PyTorch).

    `momentum = max_momentum - (max_momentum - base_momentum) * cycle.height(step)`, after Smith,
    "A disciplined approach to neural network hyper-parameters", arXiv 1803.09820.

    Args:
        cycle: Schedule of the rate, a `Cyclical` or a `OneCycle`.
        base_momentum: Momentum at the highest rate, in [0, 1), ≤ `max_momentum`.
        max_momentum: Momentum at the lowest rate, in [0, 1).

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> momentum = CyclicalMomentum(Cyclical(0.1, 0.5, step_size=2))
        >>> [round(momentum(step), 2) for step in range(5)]
        [0.95, 0.9, 0.85, 0.9, 0.95]
    """

    cycle: Cyclical | OneCycle
    base_momentum: float = 0.85
    max_momentum: float = 0.95

    def __post_init__(self) -> None:
        if not isinstance(self.cycle, Cyclical | OneCycle):
            _refuse(self, "cycle", "a Cyclical or a OneCycle", TypeError)
        _floats(self, "base_momentum", "max_momentum", minimum=0, below=1)
        _ordered(self, "base_momentum", "max_momentum")

    def __call__(self, step: float) -> float:
        """Returns the momentum at `step`."""
        step = _plain(step)
        return _between(self.max_momentum, self.base_momentum, self.cycle.height(step))


@dataclass(frozen=True)
class WarmupStableDecay:
    """A climb, a long stay, a short decay: a run whose end can be decided on the way.

    `max_lr * p`, then `max_lr`, then `max_lr + (end_learning_rate - max_lr) * s(p)`, where `p` is
    the progress through a phase and `s(p)` is `sqrt(p)`, `(1 - cos(pi * p)) / 2` or `p`. Hägele
    et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
    arXiv 2405.18392.

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
        _floats(self, "max_lr", above=0)
        _integers(self, "warmup_steps", "stable_steps", minimum=0)
        _integers(self, "decay_steps", minimum=1)
        require_choice(self, "shape", ("1-sqrt", "cosine", "linear"))
        _floats(self, "end_learning_rate", minimum=0)
        _ordered(self, "end_learning_rate", "max_lr")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        if step < self.warmup_steps:
            return self.max_lr * (step / self.warmup_steps)
        shape = {"1-sqrt": math.sqrt, "cosine": _cosine, "linear": _linear}[self.shape]
        decayed = max(step - self.warmup_steps - self.stable_steps, 0)
        fraction = shape(_progress(decayed, self.decay_steps))
        return _between(self.max_lr, self.end_learning_rate, fraction)


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
        _floats(self, "max_lr", above=0)
        _integers(self, "warmup_steps", minimum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        if step < self.warmup_steps:
            return self.max_lr * (step / self.warmup_steps)
        return self.max_lr * math.sqrt(self.warmup_steps / step)


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
        >>> schedule = Warmup(Linear(0.1, decay_steps=2), warmup_steps=2, start=0.02)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.02, 0.06, 0.1, 0.05, 0.0, 0.0]
    """

    schedule: Schedule
    warmup_steps: int
    start: float = 0.0
    shape: Literal["linear", "exponential"] = "linear"

    def __post_init__(self) -> None:
        _callable(self, "schedule")
        _integers(self, "warmup_steps", minimum=0)
        _floats(self, "start", minimum=0)
        require_choice(self, "shape", ("linear", "exponential"))
        if self.shape == "exponential" and self.start == 0:
            _refuse(self, "start", "> 0 for an exponential climb")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        if step >= self.warmup_steps:
            return self.schedule(step - self.warmup_steps)
        target, progress = self.schedule(0), step / self.warmup_steps
        if self.shape == "exponential":
            return math.pow(self.start, 1.0 - progress) * math.pow(target, progress)
        return _between(self.start, target, progress)


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
        >>> schedule = Joined((Constant(0.1), Linear(0.1, decay_steps=2)), boundaries=(2,))
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.1, 0.1, 0.1, 0.05, 0.0, 0.0]
    """

    schedules: Sequence[Schedule]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        _sequence(self, "schedules", "callables from step to rate", callable)
        _boundaries(self, "boundaries")
        _one_more(self, "schedules", "boundaries")

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
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
        >>> Scaled(Constant(0.1), factor=0.5)(1000)
        0.05
    """

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        _callable(self, "schedule")
        _floats(self, "factor", above=0)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = _plain(step)
        return self.factor * self.schedule(step)


# Arguments are checked and stored in one form, so that equal schedules compare and print equal.


def _store(owner: object, name: str, value: Any) -> None:
    object.__setattr__(owner, name, value)


def _refuse(owner: object, name: str, rule: str, error: type[Exception] = ValueError) -> NoReturn:
    argument = f"{type(owner).__name__}({name}=...)"
    raise error(f"{argument} must be {rule}. Received: {name}={getattr(owner, name)!r}")


def _floats(owner: object, *names: str, **bounds: Any) -> None:
    for name in names:
        require_number(owner, name, **bounds)
        _store(owner, name, float(getattr(owner, name)))


def _integers(owner: object, *names: str, minimum: int) -> None:
    for name in names:
        require_integer(owner, name, minimum=minimum)
        _store(owner, name, int(getattr(owner, name)))


def _flag(owner: object, name: str) -> None:
    if not isinstance(getattr(owner, name), bool):
        _refuse(owner, name, "True or False", TypeError)


def _callable(owner: object, name: str) -> None:
    if not callable(getattr(owner, name)):
        _refuse(owner, name, "a callable from step to rate", TypeError)


def _ordered(owner: object, low: str, high: str) -> None:
    if getattr(owner, low) > getattr(owner, high):
        _refuse(owner, low, f"at most {high}={getattr(owner, high)!r}")


def _sequence(
    owner: object,
    name: str,
    rule: str,
    accepts: Callable[[Any], bool],
    stored: Callable[[Any], Any] = lambda item: item,
) -> None:
    if not isinstance(getattr(owner, name), Iterable):
        _refuse(owner, name, f"a sequence of {rule}", TypeError)
    _store(owner, name, tuple(getattr(owner, name)))
    if not all(map(accepts, getattr(owner, name))):
        _refuse(owner, name, f"a sequence of {rule}")
    _store(owner, name, tuple(map(stored, getattr(owner, name))))


def _boundaries(owner: object, name: str) -> None:
    _sequence(owner, name, "positive integers", _is_boundary, int)
    values = getattr(owner, name)
    if list(values) != sorted(set(values)):
        _refuse(owner, name, "strictly increasing")


def _one_more(owner: object, name: str, boundaries: str) -> None:
    if len(getattr(owner, name)) != len(getattr(owner, boundaries)) + 1:
        _refuse(owner, name, f"one longer than {boundaries}={getattr(owner, boundaries)!r}")


def _is_boundary(item: Any) -> bool:
    return isinstance(item, Integral) and not isinstance(item, bool) and int(item) > 0


def _is_rate(item: Any) -> bool:
    return isinstance(item, Real) and not isinstance(item, bool) and 0 <= float(item) < math.inf
