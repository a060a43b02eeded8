"""`PlateauLR`: cut the rate when a metric has stopped improving."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from adaptlr._arguments import speaking_for
from adaptlr.callbacks.base import LearningRateCallback, arguments_of
from adaptlr.controllers import Plateau, Run
from adaptlr.controllers.guard import guarded
from adaptlr.loop.plan import Plan
from adaptlr.monitor import Mode, Monitor, Threshold
from adaptlr.schedules import Constant, Schedule, Warmup
from adaptlr.writers import Writer


class PlateauLR(LearningRateCallback):
    """Multiplies the rate by `factor` after `patience` epochs without improvement.

    The arguments of `keras.callbacks.ReduceLROnPlateau` mean what they mean there and give the
    same rates. Several optimizers keep the ratios of their rates. NaN and infinite losses go back
    to the last good weights and a third of the rate (see `adaptlr.controllers.Divergence`).

    Args:
        monitor: Metric to watch, by its name in `logs`. Epochs in which it is not there are not
            counted, such as those that `validation_freq` leaves out.
        factor: What a cut multiplies the rate by, in (0, 1).
        patience: Epochs without improvement before a cut, ≥ 0.
        verbose: 1 prints each decision.
        mode: `"min"`, `"max"`, or `"auto"` for the direction the metric is known by.
        min_delta: Smallest change that counts as an improvement, ≥ 0, in the unit that `threshold`
            names.
        cooldown: Epochs from a cut to the first that counts again, ≥ 0: as in Keras, a cooldown of
            n leaves n - 1 epochs uncounted, and 0 and 1 leave none.
        min_lr: Lower bound of the rate, ≥ 0.
        warmup_steps: Steps over which the rate first rises linearly from zero to the optimizer's
            rate; epochs that end in it are not counted.
        restore_best_weights: Go back to the best epoch's weights and optimizer slots at a cut, and
            where `stop` ends the training.
        threshold: Unit of `min_delta`: `"absolute"`, that of the metric, as in Keras;
            `"relative"`, the size of the best value, as PyTorch's `"rel"`; `"noise"`, standard
            deviations of the metric's own noise from epoch to epoch, of which 0.5 to 1 is a fair
            `min_delta`.
        smoothing: Weight in [0, 1) of the past in a moving average of the metric; the averaged
            values are judged. 0 judges each value as it is.
        stop: End the training at a plateau that a cut cannot help: when nothing has improved since
            the last cut, or when the rate is already at `min_lr`.
        log_dir: Directory for TensorBoard event files, or None.
        backup_dir: Directory in which the run is saved while it trains. After an interruption the
            same call of `fit` continues it from there. None saves nothing.
        backup_freq: `"epoch"` saves after each epoch, a number n after each n steps.
        optimizers: Optimizers to drive in place of `model.optimizer`, where a `train_step` has its
            own, as in a GAN. Rates are those of the first; the others keep their ratios to it.
        writers: More places to log to, see `adaptlr.writers`.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> import adaptlr
        >>> callback = adaptlr.PlateauLR(monitor="val_loss", factor=0.5, patience=3)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: Mode = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        warmup_steps: int = 0,
        restore_best_weights: bool = False,
        *,
        threshold: Threshold = "absolute",
        smoothing: float = 0.0,
        stop: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        backup_dir: str | os.PathLike[str] | None = None,
        backup_freq: int | Literal["epoch"] = "epoch",
        optimizers: Sequence[Any] | None = None,
        writers: Sequence[Writer] = (),
    ) -> None:
        given = arguments_of(PlateauLR, locals())
        with speaking_for(self, name="monitor"):
            controller = Plateau(
                monitor=Monitor(monitor, mode, min_delta, threshold, smoothing),
                factor=factor,
                patience=patience,
                cooldown=cooldown,
                min_lr=min_lr,
                warmup_steps=warmup_steps,
                restore_best_weights=restore_best_weights,
                stop=stop,
            )
        schedule = partial(_warming_up, warmup_steps)
        super().__init__(Plan(guarded(controller), schedule, known_horizon=False), given)


def _warming_up(warmup_steps: int, run: Run) -> Schedule:
    rate = Constant(run.learning_rate)
    return Warmup(rate, warmup_steps) if warmup_steps else rate
