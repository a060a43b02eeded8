"""`AutoLR`: no rate to choose."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from adaptlr._arguments import refuse, speaking_for
from adaptlr.callbacks.base import LearningRateCallback, arguments_of
from adaptlr.controllers import Divergence, Feedback
from adaptlr.loop.plan import Plan, whatever_the_run
from adaptlr.monitor import Mode, Monitor
from adaptlr.schedules import Constant
from adaptlr.writers import Writer


class AutoLR(LearningRateCallback):
    """Finds the rate, holds it, cools it down, and says why.

    Whatever rate the optimizer was compiled with, it begins with what the class of optimizer is
    usually trained with, and raises the rate as long as that is better from the same weights;
    raises that are not are undone. The rate is held while the *averaged* weights improve. A
    plateau cuts it to a third. The last quarter of the epochs cools it to zero, or the last
    half if little is left to gain there, or a plateau that lower rates do not end. NaN, Inf
    and explosions go back to the last good weights and a third of the rate. During `fit` the
    validation metrics are those of the averaged weights, and afterwards the model holds the
    best of them; or those that it had before, if none are better and the validation data are
    small enough to be measured first (see `docs/autolr.md`).

    Args:
        validation_data: Data to measure in the middle of epochs, and after epochs that `fit` does
            not validate itself: arrays `(x, y)`, a `tf.data.Dataset`, a `keras.utils.PyDataset` or
            a PyTorch `DataLoader`. None takes those that `fit` was given (`validation_data` or
            `validation_split`); without any, rates are compared by the training loss.
        monitor: Metric to watch, by its name in `logs`.
        mode: `"min"`, `"max"`, or `"auto"` for the direction the metric is known by.
        horizon: `"auto"` takes the epochs given to `fit` as the plan; None takes them as a bound,
            and a plateau ends the training.
        log_dir: Directory for TensorBoard event files, or None.
        backup_dir: Directory in which the run is saved while it trains. After an interruption the
            same call of `fit` continues it from there. None saves nothing.
        backup_freq: `"epoch"` saves after each epoch, a number n after each n steps.
        verbose: 1 prints each decision.
        optimizers: Optimizers to drive in place of `model.optimizer`, where a `train_step` has its
            own, as in a GAN. Rates are those of the first; the others keep their ratios to it.
        writers: More places to log to, see `adaptlr.writers`.

    Attributes:
        decisions: Every decision of the last `fit`, with `step`, `epoch`, `learning_rate`, `rule`
            and `reason`.
        learning_rate: The rate it held last, before the cool-down, or None before that.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> import adaptlr
        >>> callback = adaptlr.AutoLR(log_dir="tensorboard_logs/run")
    """

    def __init__(
        self,
        validation_data: Any = None,
        monitor: str = "val_loss",
        mode: Mode = "auto",
        horizon: Literal["auto"] | None = "auto",
        log_dir: str | os.PathLike[str] | None = None,
        backup_dir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        *,
        backup_freq: int | Literal["epoch"] = "epoch",
        optimizers: Sequence[Any] | None = None,
        writers: Sequence[Writer] = (),
    ) -> None:
        given = arguments_of(AutoLR, locals())
        if horizon not in ("auto", None):
            rule = "'auto' (the epochs given to fit) or None (a plateau ends the training)"
            refuse(self, "horizon", rule, horizon)
        if isinstance(validation_data, str | int | float):  # first of what other callbacks take
            rule = "data such as (x, y); a metric is monitor=..., and no rate is needed"
            refuse(self, "validation_data", rule, validation_data)
        with speaking_for(self, name="monitor"):
            self._feedback = Feedback(Monitor(monitor, mode, min_delta=0.5, threshold="noise"))
        plan = Plan(
            Divergence(self._feedback),
            schedule=whatever_the_run(Constant(1.0)),  # the scale is the rate itself
            averaging=True,
            validation_data=validation_data,
            known_horizon=horizon == "auto",
        )
        super().__init__(plan, given)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Checks the optimizer and the monitor before the first batch."""
        super().on_train_begin(logs)
        names = [metric.name for metric in self.model.metrics]
        if self._rate.given and "loss" not in names:
            raise ValueError(
                f"AutoLR(optimizers=...) compares rates by the metric 'loss', and this model has "
                f"none: update a keras.metrics.Mean(name='loss') in train_step, and list it in "
                f"its property `metrics`. Received: metrics={names}"
            )

    @property
    def learning_rate(self) -> float | None:
        """The rate it held last in the last `fit`, or None before that."""
        return self._found(self._present_state)

    def _found(self, state: Any) -> float | None:
        held = None if state is None else self._feedback.held(state.inner)
        return None if held is None else float(held * state.cut)
