"""`CyclicalLR` and `OneCycleLR`: the rate goes up and down, momentum down and up."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from adaptlr._arguments import is_integer, is_number, refuse, speaking_for
from adaptlr.callbacks.base import LearningRateCallback, arguments_of
from adaptlr.controllers import Constant, Run
from adaptlr.controllers.guard import guarded
from adaptlr.loop.loop import Loop
from adaptlr.loop.plan import Plan, whatever_the_run
from adaptlr.schedules import Constant as Hold
from adaptlr.schedules import (
    CosineRestarts,
    Cyclical,
    CyclicalMomentum,
    Joined,
    OneCycle,
    Schedule,
)
from adaptlr.writers import Writer


class CyclicalLR(LearningRateCallback):
    """Cyclical rates (Smith, arXiv 1506.01186), exact at every step.

    NaN and infinite losses go back to the last good weights and a third of the rate (see
    `adaptlr.controllers.Divergence`).

    Args:
        base_lr: Lower bound of the rate, ≥ 0.
        max_lr: Upper bound, > `base_lr`.
        step_size: Steps of a climb, half a cycle, ≥ 1. Smith advises 2 to 10 epochs' worth.
        mode: `"triangular"`; `"triangular2"`, which halves the amplitude after each cycle;
            `"exp_range"`, which shrinks it by `gamma` every step; `"cosine"`, a fall along half
            a cosine from `max_lr` to `base_lr` in `2 * step_size` steps, then a warm restart
            (Loshchilov & Hutter, arXiv 1608.03983); or any callable from the step to the factor
            of the amplitude.
        gamma: Factor of `"exp_range"`, in (0, 1].
        momentum: Bounds `(high, low)` of the momentum (`beta_1` of Adam and its kin), cycled
            inversely to the rate as PyTorch does, or None to leave it alone.
        step_size_down: Steps of a descent, ≥ 1, or None for as many as of a climb.
        start_at_top: Whether the first climb is left out; the first cycle is its descent alone.
        log_dir: Directory for TensorBoard event files, or None.
        backup_dir: Directory in which the run is saved while it trains. After an interruption the
            same call of `fit` continues it from there. None saves nothing.
        backup_freq: `"epoch"` saves after each epoch, a number n after each n steps.
        optimizers: Optimizers to drive in place of `model.optimizer`, where a `train_step` has its
            own, as in a GAN. Rates are those of the first; the others keep their ratios to it.
        writers: More places to log to, see `adaptlr.writers`.
        verbose: 1 prints each decision.

    Raises:
        ValueError: If an argument is outside its range; at the start of training, if momentum is
            to be cycled and the optimizer has none.

    Example:
        >>> import adaptlr
        >>> callback = adaptlr.CyclicalLR(base_lr=1e-4, max_lr=1e-2, step_size=2000)
    """

    def __init__(
        self,
        base_lr: float,
        max_lr: float,
        step_size: int,
        mode: Literal["triangular", "triangular2", "exp_range", "cosine"]
        | Schedule = "triangular",
        gamma: float = 1.0,
        *,
        momentum: tuple[float, float] | None = None,
        step_size_down: int | None = None,
        start_at_top: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        backup_dir: str | os.PathLike[str] | None = None,
        backup_freq: int | Literal["epoch"] = "epoch",
        optimizers: Sequence[Any] | None = None,
        writers: Sequence[Writer] = (),
        verbose: int = 0,
    ) -> None:
        given = arguments_of(CyclicalLR, locals())
        modes = ("triangular", "triangular2", "exp_range", "cosine")
        if not callable(mode) and mode not in modes:
            rule = f"one of {', '.join(map(repr, modes))}, or a callable from step to factor"
            refuse(self, "mode", rule, mode)
        if is_number(base_lr) and is_number(max_lr) and not max_lr > base_lr:
            refuse(self, "max_lr", f"a number above base_lr={base_lr!r}", max_lr)
        # The triangle stands for the cosine where bounds and period are checked.
        shape = "triangular" if mode == "cosine" else mode
        with speaking_for(self):
            cycle = Cyclical(
                base_lr, max_lr, step_size, shape, gamma, step_size_down, start_at_top
            )
        schedule: Schedule = cycle
        if mode == "cosine":
            schedule = self._restarts(cycle, momentum=momentum, step_size_down=step_size_down)
        momenta = _inverse(self, momentum, whatever_the_run(cycle))
        super().__init__(Plan(guarded(Constant()), whatever_the_run(schedule), momenta), given)

    def _restarts(self, cycle: Cyclical, **has_none: Any) -> CosineRestarts:
        for name, value in has_none.items():
            if value is not None:
                refuse(self, name, "None with mode='cosine'", value)
        top, period = cycle.max_lr, 2 * cycle.step_size
        return CosineRestarts(top, period, t_mul=1.0, alpha=cycle.base_lr / top)


class OneCycleLR(LearningRateCallback):
    """One cycle over the whole run (Smith & Topin, arXiv 1708.07120), exact at every step.

    The rate rises along half a cosine from `max_lr / div_factor` to `max_lr` during `pct_start` of
    the steps and falls to `max_lr / div_factor / final_div_factor`, while the momentum falls and
    rises; the numbers are those of PyTorch's `OneCycleLR`. NaN and infinite losses go back to the
    last good weights and a third of the rate (see `adaptlr.controllers.Divergence`).

    Args:
        max_lr: Highest rate, > 0.
        total_steps: Steps in the cycle, ≥ 2, from step 0, which with `initial_epoch` lies before
            this `fit`. None takes those of `fit`: of all its epochs, if the optimizer has been
            trained and goes on, else of those from `initial_epoch` on.
        pct_start: Share of the steps in which the rate rises, in (0, 1).
        div_factor: Highest over first rate, ≥ 1.
        final_div_factor: First over last rate, ≥ 1.
        momentum: Bounds `(high, low)` of the momentum (`beta_1` of Adam and its kin), or None to
            leave it alone.
        three_phase: Whether the rate comes back to where it began, in as many steps as it rose,
            before it falls to the end; `pct_start` is then at most 0.5.
        log_dir: Directory for TensorBoard event files, or None.
        backup_dir: Directory in which the run is saved while it trains. After an interruption the
            same call of `fit` continues it from there. None saves nothing.
        backup_freq: `"epoch"` saves after each epoch, a number n after each n steps.
        optimizers: Optimizers to drive in place of `model.optimizer`, where a `train_step` has its
            own, as in a GAN. Rates are those of the first; the others keep their ratios to it.
        writers: More places to log to, see `adaptlr.writers`.
        verbose: 1 prints each decision.

    Raises:
        ValueError: If an argument is outside its range; at the start of training, if momentum is
            to be cycled and the optimizer has none, or if the number of steps is neither given nor
            known.

    Example:
        >>> import adaptlr
        >>> callback = adaptlr.OneCycleLR(max_lr=0.1)
    """

    def __init__(
        self,
        max_lr: float,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        momentum: tuple[float, float] | None = (0.95, 0.85),
        *,
        three_phase: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        backup_dir: str | os.PathLike[str] | None = None,
        backup_freq: int | Literal["epoch"] = "epoch",
        optimizers: Sequence[Any] | None = None,
        writers: Sequence[Writer] = (),
        verbose: int = 0,
    ) -> None:
        given = arguments_of(OneCycleLR, locals())
        if is_integer(total_steps) and total_steps == 1:
            rule = "an integer of at least 2, or None for those of fit"
            refuse(self, "total_steps", rule, total_steps)
        steps = 2 if total_steps is None else total_steps
        with speaking_for(self):
            template = OneCycle(
                max_lr, steps, pct_start, div_factor, final_div_factor, three_phase=three_phase
            )
        cycle = partial(_over_the_run, template, total_steps)
        momenta = _inverse(self, momentum, cycle)
        rates: Callable[[Run], Schedule] = cycle
        if total_steps is None:
            rates = partial(_placed, cycle)
            momenta = None if momenta is None else partial(_placed, momenta)
        super().__init__(Plan(guarded(Constant()), rates, momenta), given)

    def _start(self, epoch: int) -> Loop:
        loop = super()._start(epoch)
        if self._arguments["total_steps"] is None and loop.enters_late:
            warnings.warn(
                f"OneCycleLR(total_steps=None): the cycle spans all {self.params['epochs']} "
                f"epochs of fit, and this fit enters it at epoch {epoch + 1} with nothing "
                f"restored. Where each fit trains a part of the epochs, pass the steps of all of "
                f"them: OneCycleLR(..., total_steps=epochs * steps_per_epoch).",
                stacklevel=4,
            )
        return loop


def _over_the_run(template: OneCycle, total_steps: int | None, run: Run) -> OneCycle:
    if total_steps is not None:
        return template
    if run.last_step is None or run.total_steps is None:
        raise ValueError(
            "OneCycleLR(total_steps=None) takes the number of steps from fit, and the data does "
            "not say. Pass total_steps, or steps_per_epoch to fit."
        )
    if run.new and run.first_step:  # initial_epoch numbers the epochs, and continues nothing
        return replace(template, total_steps=max(2, run.total_steps))
    return replace(template, total_steps=max(2, run.last_step))


def _placed(shape: Callable[[Run], Schedule], run: Run) -> Schedule:
    """Lets a cycle over the steps of `fit` begin where that does, if nothing is continued."""
    schedule = shape(run)
    if not (run.new and run.first_step):
        return schedule
    return Joined((Hold(schedule(0)), schedule), (run.first_step,))


def _inverse(
    owner: object, momentum: tuple[float, float] | None, cycle: Callable[[Run], Any]
) -> Callable[[Run], Schedule] | None:
    if momentum is None:
        return None
    try:
        high, low = momentum
        ordered = 0.0 < low <= high < 1.0
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        rule = "a pair (high, low) of numbers above 0 and below 1, or None"
        refuse(owner, "momentum", rule, momentum)
    return partial(_momentum, cycle, low, high)


def _momentum(cycle: Callable[[Run], Any], low: float, high: float, run: Run) -> Schedule:
    return CyclicalMomentum(cycle(run), base_momentum=low, max_momentum=high)
