"""The one owner of the rate, as Keras sees it: hooks in, a control loop behind."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from adaptlr.callbacks.direction import metric_direction
from adaptlr.callbacks.loop import ControlLoop, Plan
from adaptlr.monitor import Direction
from adaptlr.notation import pasteable
from adaptlr.training.distributed import is_chief, require_supported
from adaptlr.training.fit import on_exception, other_callbacks
from adaptlr.training.optimizer import OptimizerRate
from adaptlr.writers import MultiWriter, Record, TensorBoardWriter, Writer

__all__ = ["LearningRateCallback"]

# Arguments that say where to log or what to measure on, and nothing about the training.
_NOT_COMPARED = ("validation_data", "log_dir", "writers", "verbose", "backup_dir", "backup_freq")


class LearningRateCallback(keras.callbacks.Callback):
    """Sets `rate = schedule(step) * scale`, where a controller decides the scale.

    This class is not used directly; the public callbacks are ways to construct it. All that is
    bound to one `fit` lives in a `ControlLoop`, made anew each time, so a callback can be used
    again.

    Rates are set in `on_train_batch_begin`, which Keras calls in order and on the main thread even
    where a callback is passed bare instead of in a list. The hook at the end of batches only
    counts and is declared safe for threads, so that Keras goes on reading metrics off the main
    thread on JAX and PyTorch.

    Args:
        plan: The open loop, the closed loop, and what surrounds them.
        arguments: At least the arguments that the public callback was constructed with, by name.
        log_dir: Directory for TensorBoard event files, or None.
        writers: More places to log to.
        verbose: 1 prints each decision, 0 none.
    """

    async_safe = True

    def __init__(
        self,
        plan: Plan,
        arguments: Mapping[str, Any],
        *,
        log_dir: str | os.PathLike[str] | None,
        writers: Sequence[Writer],
        verbose: int,
    ) -> None:
        super().__init__()
        self.decisions: list[Record] = []
        self._plan = plan
        names = inspect.signature(type(self)).parameters
        self._arguments = {name: arguments[name] for name in names}
        self._writers = [*writers, *([] if log_dir is None else [TensorBoardWriter(log_dir)])]
        self._verbose = verbose
        self._loop: ControlLoop | None = None
        self._state: Any = None  # of the controller, after `fit`
        self._unguard: Callable[[], None] = _nothing

    def __repr__(self) -> str:
        given = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            text, default = pasteable(self._arguments[name]), parameter.default
            if default is parameter.empty or text != pasteable(default):
                given.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(given)})"

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Checks the optimizer and the monitor before the first batch."""
        self.decisions = []
        self._unguard()  # if an exception ended the last fit
        self._loop = self._state = None
        require_supported(self.model)
        self._rate = OptimizerRate(self.model)
        monitor = self._plan.controller.monitor
        self._direction: Direction = (
            "min" if monitor is None else metric_direction(self.model, monitor)
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begins at the first epoch, when other callbacks have restored what they restore."""
        if self._loop is None:
            self._loop = self._start(epoch)
            if self._plan.averaging:
                self._unguard = on_exception(self, self._loop.abandon)
        self._loop.begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Acts if the step is due for anything."""
        loop = self._loop
        if loop is not None and loop.advance(batch):
            loop.act()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts, for data that do not say how many batches they hold."""
        if self._loop is not None:
            self._loop.ended(batch)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Lets `fit` validate the averaged weights, if they are averaged."""
        if self._loop is not None:
            self._loop.begin_validation()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Closes the epoch with a control point that has seen the monitored metric."""
        if self._loop is not None:
            self._loop.end_epoch({} if logs is None else logs)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Leaves the best averaged weights in the model, if any, and closes the log."""
        self._end(interrupted=False)

    def use_best_weights(self) -> None:
        """Puts the best weights so far into the model, after a `fit` that an exception ended.

        Keras then calls no callback any more: the model is left as it was after some step. The
        best weights are those with the best monitored metric, for `AutoLR` averaged ones, for
        `PlateauLR(restore_best_weights=True)` with optimizer slots; elsewhere those of the last
        time that all was well. After a `fit` that came to its end, nothing is done.

        Example:
            >>> import adaptlr
            >>> callback = adaptlr.AutoLR()
            >>> def train(model, x, y):
            ...     try:
            ...         model.fit(x, y, callbacks=[callback])
            ...     except KeyboardInterrupt:
            ...         callback.use_best_weights()
        """
        self._end(interrupted=True)

    def _end(self, *, interrupted: bool) -> None:
        loop, self._loop = self._loop, None
        self._unguard()
        if loop is not None:
            loop.finish(interrupted=interrupted)
            self._state = loop.state

    def _start(self, epoch: int) -> ControlLoop:
        return ControlLoop(
            self._plan,
            owner=type(self).__name__,
            synced_model=lambda: self.model,
            rate=self._rate,
            direction=self._direction,
            epoch=epoch,
            epochs=self.params.get("epochs"),
            epoch_steps=self.params.get("steps"),
            hyperparameters=self._hyperparameters(),
            writer=MultiWriter(self._writers if is_chief() else []),
            announce=self._announce,
            others=lambda: other_callbacks(self),
        )

    def _hyperparameters(self) -> dict[str, Any]:
        monitor = self._plan.controller.monitor
        return {
            "callback": type(self).__name__,
            **{n: _plain(x) for n, x in self._arguments.items() if n not in _NOT_COMPARED},
            "monitor": None if monitor is None else monitor.name,
            "optimizer": ", ".join(type(leaf).__name__ for leaf in self._rate.leaves),
        }

    def _announce(self, record: Record) -> None:
        self.decisions.append(record)
        if self._verbose and is_chief():
            print(
                f"\nEpoch {record.epoch + 1}, step {record.step}: learning rate "
                f"{record.learning_rate:.4g}: {record.rule}: {record.reason}",
                flush=True,
            )


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | type(None)) else pasteable(value)


def _nothing() -> None:
    pass
