"""Rates that go up and down or begin again, and the momentum that goes the other way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from adaptlr._arguments import (
    AtLeastOne,
    BelowOne,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    accept,
    check,
    number,
    refuse,
)
from adaptlr.schedules.base import (
    Formula,
    Schedule,
    between,
    grown,
    half_cosine,
    plain,
    portion,
    require_ordered,
)


@dataclass(frozen=True)
class Cyclical(Formula):
    """Triangles between two rates (CyclicLR in PyTorch).

    `rate = base_lr + (max_lr - base_lr) * height`, of section 3 of Smith, "Cyclical Learning
    Rates for Training Neural Networks", arXiv 1506.01186::

        cycle, position = divmod(step, step_size + step_size_down)
        climb = position / step_size
        descent = (step_size + step_size_down - position) / step_size_down
        height = min(climb, descent) * scale
        scale = 1, 2 ** -cycle, gamma ** step or mode(step)

    Args:
        base_lr: Rate at the foot of a triangle, ≥ 0.
        max_lr: Rate at the top of the first triangle, > 0, ≥ `base_lr`.
        step_size: Steps of a climb, ≥ 1: half a cycle, two to ten epochs in the paper.
        mode: `"triangular"` keeps the height, `"triangular2"` halves it at each cycle,
            `"exp_range"` multiplies it by `gamma` at each step, and any callable from step to
            factor (`Exponential(1.0, 1, 0.999)`, a function) by what it returns.
        gamma: That factor, in (0, 1]; the other modes do not read it.
        step_size_down: Steps of a descent, ≥ 1, or None for as many as of a climb.
        start_at_top: Whether the first climb is left out.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = Cyclical(0.1, 0.5, step_size=2, mode="triangular2")
        >>> [round(schedule(step), 2) for step in range(9)]
        [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2, 0.1]
    """

    base_lr: NonNegativeFloat
    max_lr: PositiveFloat
    step_size: PositiveInt
    mode: Literal["triangular", "triangular2", "exp_range"] | Schedule = "triangular"
    gamma: Annotated[float, number(above=0, maximum=1)] = 1.0
    step_size_down: PositiveInt | None = None
    start_at_top: bool = False

    def __post_init__(self) -> None:
        check(self)
        require_ordered(self, "base_lr", "max_lr")
        if not callable(self.mode):
            accept(self, "mode", Literal["triangular", "triangular2", "exp_range"])

    def at(self, step: float) -> float:
        return between(self.base_lr, self.max_lr, self.height(step))

    def height(self, step: float) -> float:
        """Returns how high the rate is, from 0 at `base_lr` to 1 at `max_lr`."""
        step = plain(step)
        cycle, position = divmod(step + self.step_size * self.start_at_top, self.period)
        climb = position / self.step_size
        descent = (self.period - position) / (self.period - self.step_size)
        return min(climb, descent) * self._scale(step, cycle)

    @property
    def period(self) -> int:
        """Steps of a cycle."""
        down = self.step_size if self.step_size_down is None else self.step_size_down
        return self.step_size + down

    def _scale(self, step: float, cycle: float) -> float:
        if callable(self.mode):
            return float(self.mode(step))
        if self.mode == "triangular2":
            return math.pow(0.5, cycle)  # 1 / 2**cycle would overflow
        return math.pow(self.gamma, step) if self.mode == "exp_range" else 1.0


@dataclass(frozen=True)
class OneCycle(Formula):
    """One climb to `max_lr` and one descent far below the start (OneCycleLR in PyTorch).

    The climb ends at step `pct_start * total_steps - 1`, the descent at `total_steps - 1`. With
    `s(p)` the shape of the progress `p` through either, `p` or `(1 - cos(pi * p)) / 2`::

        initial = max_lr / div_factor
        final = initial / final_div_factor
        rate = initial + (max_lr - initial) * s(p), then max_lr + (final - max_lr) * s(p)

    The cycle is of Smith and Topin, "Super-Convergence", arXiv 1708.07120; this form of it, with
    two phases instead of a symmetric triangle and a tail, of fastai and PyTorch. `three_phase` is
    the form of the paper: a descent to `initial` as long as the climb, then one to `final`.

    Args:
        max_lr: Highest rate, > 0; a range test finds it.
        total_steps: Steps of the whole run, ≥ 1.
        pct_start: Fraction of them that climbs, in (0, 1); with three phases in (0, 0.5].
        div_factor: `max_lr` as a multiple of the first rate, ≥ 1.
        final_div_factor: First rate as a multiple of the last one, ≥ 1.
        anneal: Shape of the phases, `"cos"` or `"linear"`.
        three_phase: Whether to come back to the first rate before the last descent.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> schedule = OneCycle(1.0, total_steps=10, div_factor=10, anneal="linear")
        >>> [round(schedule(step), 2) for step in range(10)]
        [0.1, 0.55, 1.0, 0.86, 0.71, 0.57, 0.43, 0.29, 0.14, 0.0]
    """

    max_lr: PositiveFloat
    total_steps: PositiveInt
    pct_start: Fraction = 0.3
    div_factor: AtLeastOne = 25.0
    final_div_factor: AtLeastOne = 1e4
    anneal: Literal["cos", "linear"] = "cos"
    three_phase: bool = False

    def __post_init__(self) -> None:
        check(self)
        if self.three_phase and self.pct_start > 0.5:
            refuse(self, "pct_start", "at most 0.5 with three_phase=True", self.pct_start)

    def at(self, step: float) -> float:
        initial = self.max_lr / self.div_factor
        final = initial / self.final_div_factor
        foot = self._foot
        if self.three_phase and step >= foot:
            progress = portion(step - foot, self.last_change - foot)
            return between(initial, final, self._shape(progress))
        falls = step >= self._peak and not self.three_phase
        return between(final if falls else initial, self.max_lr, self.height(step))

    def height(self, step: float) -> float:
        """Returns how high the rate is, from 0 at the start to 1 at `max_lr` to 0 at the end."""
        step = plain(step)
        peak, foot = self._peak, self._foot
        if step >= foot:
            return 0.0
        if step < peak:
            return self._shape(step / peak)
        return 1.0 - self._shape((step - peak) / (foot - peak))

    @property
    def last_change(self) -> int:
        """The step from which on the rate stays what it is."""
        return self.total_steps - 1

    def _shape(self, progress: float) -> float:
        return half_cosine(progress) if self.anneal == "cos" else progress

    @property
    def _foot(self) -> float:
        """Where the descent from the peak ends."""
        return 2.0 * self._peak if self.three_phase else float(self.last_change)

    @property
    def _peak(self) -> float:
        # Below 0 if a run is too short to climb: it then begins on the way down.
        return self.pct_start * self.total_steps - 1.0


@dataclass(frozen=True)
class CyclicalMomentum(Formula):
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
    base_momentum: BelowOne = 0.85
    max_momentum: BelowOne = 0.95

    def __post_init__(self) -> None:
        check(self)
        if not isinstance(self.cycle, Cyclical | OneCycle):
            refuse(self, "cycle", "a Cyclical or a OneCycle", self.cycle)
        require_ordered(self, "base_momentum", "max_momentum")

    def at(self, step: float) -> float:
        height = min(max(self.cycle.height(step), 0.0), 1.0)  # a mode may be any function
        return between(self.max_momentum, self.base_momentum, height)


@dataclass(frozen=True)
class CosineRestarts(Formula):
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

    initial_learning_rate: PositiveFloat
    first_decay_steps: PositiveInt
    t_mul: AtLeastOne = 2.0
    m_mul: PositiveFloat = 1.0
    alpha: Annotated[float, number(minimum=0, maximum=1)] = 0.0

    def at(self, step: float) -> float:
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
