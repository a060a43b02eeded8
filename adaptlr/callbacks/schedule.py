"""`ScheduleLR`: any schedule, and any controller on top of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from adaptlr._arguments import refuse
from adaptlr.bridge.keras_schedule import from_text, tabulated
from adaptlr.callbacks.base import LearningRateCallback, arguments_of
from adaptlr.controllers import Constant, Controller, Run
from adaptlr.controllers.base import require_controller
from adaptlr.controllers.guard import guarded
from adaptlr.loop.plan import Plan
from adaptlr.writers import Writer


class ScheduleLR(LearningRateCallback):
    """Sets `rate = schedule(step)`, times what a controller decides.

    Open and closed loop meet here because two callbacks that write the rate would overwrite each
    other. NaN and infinite losses go back to the last good weights and a third of the rate; pass a
    `adaptlr.controllers.Divergence` of your own to guard against more.

    Args:
        schedule: The rate as a function of the training step, from 0: one of
            `adaptlr.schedules` or its text, such as `"Cosine(0.1, 1000)"` from a configuration
            file, a `keras.optimizers.schedules` object, or any callable.
        controller: A controller whose scale multiplies the rate, for instance
            `adaptlr.controllers.Plateau()`; None leaves the schedule alone.
        log_dir: Directory for TensorBoard event files, or None.
        backup_dir: Directory in which the run is saved while it trains. After an interruption the
            same call of `fit` continues it from there. None saves nothing.
        backup_freq: `"epoch"` saves after each epoch, a number n after each n steps.
        optimizers: Optimizers to drive in place of `model.optimizer`, where a `train_step` has its
            own, as in a GAN. Rates are those of the first; the others keep their ratios to it.
        writers: More places to log to, see `adaptlr.writers`.
        verbose: 1 prints each decision.

    Raises:
        TypeError: If the schedule cannot be called, or the controller is none (a ValueError for
            numbers); at the start of training, if the schedule returns no number.
        ValueError: If a text describes no schedule; during training, if a rate is negative, NaN
            or infinite.

    Example:
        >>> import adaptlr
        >>> from adaptlr.controllers import Plateau
        >>> from adaptlr.schedules import Constant, Warmup
        >>> schedule = Warmup(Constant(0.01), warmup_steps=500)
        >>> callback = adaptlr.ScheduleLR(schedule, Plateau(patience=3))
    """

    def __init__(
        self,
        schedule: Callable[[int], float] | str,
        controller: Controller | None = None,
        *,
        log_dir: str | os.PathLike[str] | None = None,
        backup_dir: str | os.PathLike[str] | None = None,
        backup_freq: int | Literal["epoch"] = "epoch",
        optimizers: Sequence[Any] | None = None,
        writers: Sequence[Writer] = (),
        verbose: int = 0,
    ) -> None:
        given = arguments_of(ScheduleLR, locals())
        if isinstance(schedule, str):
            schedule = from_text(self, schedule)
        if not callable(schedule):
            rule = "a function of the step; for a constant rate use adaptlr.schedules.Constant"
            refuse(self, "schedule", rule, schedule)
        if controller is not None:
            require_controller(self, "controller", controller)
        closed = guarded(Constant() if controller is None else controller)
        super().__init__(Plan(closed, partial(_checked, tabulated(schedule))), given)


def _checked(rate: Callable[[int], float], run: Run) -> Callable[[int], float]:
    # Not at construction: a schedule of Keras would start the backend there, before the devices
    # are set up.
    _require_rate(rate(run.first_step), run.first_step)
    return rate


def _require_rate(rate: Any, step: int) -> None:
    try:
        float(rate)
    except (TypeError, ValueError):
        raise TypeError(
            f"ScheduleLR(schedule=...) must return a number at every step. "
            f"Received: {rate!r} at step {step}"
        ) from None
