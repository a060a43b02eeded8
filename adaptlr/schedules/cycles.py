"""Rates that go up and down, and the momentum that goes the other way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from adaptlr._checks import require_choice
from adaptlr.schedules.arguments import floats, integers, ordered, refuse_argument
from adaptlr.schedules.base import between, half_cosine, line, plain

__all__ = ["Cyclical", "CyclicalMomentum", "OneCycle"]


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
        floats(self, "base_lr", minimum=0)
        floats(self, "max_lr", above=0)
        ordered(self, "base_lr", "max_lr")
        integers(self, "step_size", minimum=1)
        require_choice(self, "mode", ("triangular", "triangular2", "exp_range"))
        floats(self, "gamma", above=0, maximum=1)

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = plain(step)
        return between(self.base_lr, self.max_lr, self.height(step))

    def height(self, step: float) -> float:
        """Returns how high the rate is, from 0 at `base_lr` to 1 at `max_lr`."""
        step = plain(step)
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
        floats(self, "max_lr", above=0)
        integers(self, "total_steps", minimum=1)
        floats(self, "pct_start", above=0, below=1)
        floats(self, "div_factor", "final_div_factor", minimum=1)
        require_choice(self, "anneal", ("cos", "linear"))

    def __call__(self, step: float) -> float:
        """Returns the rate at `step`."""
        step = plain(step)
        low = self.max_lr / self.div_factor
        if step >= self._peak:
            low /= self.final_div_factor
        return between(low, self.max_lr, self.height(step))

    def height(self, step: float) -> float:
        """Returns how high the rate is, from 0 at the start to 1 at `max_lr` to 0 at the end."""
        step = plain(step)
        shape = half_cosine if self.anneal == "cos" else line
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
            refuse_argument(self, "cycle", "a Cyclical or a OneCycle", TypeError)
        floats(self, "base_momentum", "max_momentum", minimum=0, below=1)
        ordered(self, "base_momentum", "max_momentum")

    def __call__(self, step: float) -> float:
        """Returns the momentum at `step`."""
        step = plain(step)
        return between(self.max_momentum, self.base_momentum, self.cycle.height(step))
