"""The one owner of the rate, as Keras sees it: hooks in, a control loop behind."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import keras

from adaptlr.callbacks.backup import Backup, Identity
from adaptlr.callbacks.direction import metric_direction
from adaptlr.callbacks.loop import ControlLoop
from adaptlr.callbacks.plan import Plan
from adaptlr.controllers import Run
from adaptlr.monitor import Direction
from adaptlr.notation import pasteable
from adaptlr.training.carried_state import CarriedState, attach
from adaptlr.training.distributed import is_alone, is_chief, require_supported
from adaptlr.training.fit import on_exception, other_callbacks
from adaptlr.training.optimizer import OptimizerRate
from adaptlr.writers import MultiWriter, Record, TensorBoardWriter, Writer
from adaptlr.writers.base import require_writers

__all__ = ["LearningRateCallback"]

# Arguments that say where to log or what to measure on, and nothing about the training.
_NOT_COMPARED = ("validation_data", "log_dir", "writers", "verbose", "backup_dir", "backup_freq")
_FORGET = "Configure the callback as it was, or call adaptlr.training.carried_state.forget(model)."


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
        backup_dir: Directory to save the run in and to continue it from, or None.
        backup_freq: `"epoch"` saves after each epoch, a number n after each n steps.
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
        backup_dir: str | os.PathLike[str] | None = None,
        backup_freq: int | Literal["epoch"] = "epoch",
    ) -> None:
        super().__init__()
        self.decisions: list[Record] = []
        self._plan = plan
        names = inspect.signature(type(self)).parameters
        self._arguments = {name: arguments[name] for name in names}
        listed = require_writers(self, writers)
        self._writers = [*listed, *([] if log_dir is None else [TensorBoardWriter(log_dir)])]
        self._verbose = verbose
        self._loop: ControlLoop | None = None
        self._state: Any = None  # of the controller, after `fit`
        self._unguard: Callable[[], None] = _nothing
        self._backup = None if backup_dir is None else Backup(self, backup_dir, backup_freq)

    def __repr__(self) -> str:
        given = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            text, default = pasteable(self._arguments[name]), parameter.default
            if default is parameter.empty or text != pasteable(default):
                given.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(given)})"

    def set_model(self, model: Any) -> None:
        """Lets files of the model's weights carry the controller's state."""
        super().set_model(model)
        self._carried: CarriedState = attach(model)
        self._carried.source = self._carry

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
        self._identity = Identity(type(self).__name__, self._plan, self._present)
        if self._backup is not None:
            if not is_alone():
                raise ValueError(
                    f"{type(self).__name__}(backup_dir=...) saves the state of one process, and "
                    f"several train this model: save a checkpoint on rank 0, and leave it out."
                )
            self._backup.begin(self._identity, self.model, self.params["epochs"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begins at the first epoch, when other callbacks have restored what they restore."""
        if self._loop is None:
            self._loop = self._start(epoch)
            if self._plan.averaging:
                self._unguard = on_exception(self, self._loop.abandon)
        if self._backup is None or self._backup.begin_epoch(self.model):
            self._loop.begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Acts if the step is due for anything."""
        loop, backup = self._loop, self._backup
        if loop is None or (backup is not None and backup.skips(batch, lambda: self.model)):
            return
        due = loop.advance(batch)
        if backup is not None and backup.due(loop.step):
            backup.save(loop, self.model, self.decisions, self._writers, batch=batch)
        if due:
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
            if self._backup is not None:
                self._backup.end_epoch()
            self._loop.end_epoch({} if logs is None else logs)
            if self._backup is not None:
                self._backup.save(
                    self._loop, self.model, self.decisions, self._writers, batch=None
                )

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
        if self._backup is not None and self._backup.pending and not interrupted:
            # The process had been killed between its last epoch and here.
            self._loop = self._start(self._backup.epoch)
            self.model.optimizer.finalize_variable_values(self.model.trainable_weights)
        loop, self._loop = self._loop, None
        self._unguard()
        if loop is not None:
            loop.finish(interrupted=interrupted)
            self._state = loop.state
        if self._backup is not None and not interrupted:
            self._backup.end()

    def _start(self, epoch: int) -> ControlLoop:
        saved = None
        if self._backup is not None:
            saved = self._backup.restore(self.model, epoch, self._writers)
        if saved is None:
            saved = self._carried.take(epoch)
            if saved is not None:
                self._identity.require(saved, "the state loaded with the weights", _FORGET)
        if saved is not None:
            self.decisions += [Record.load(record) for record in saved["decisions"]]
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
            saved=saved,
        )

    def _carry(self) -> dict[str, Any] | None:
        """What weights that are saved now should carry; an experiment is not to be continued."""
        loop = self._loop
        if loop is None or loop.exploring:
            return None
        return self._identity.saved(loop, self.decisions)

    def _present(self, run: Run) -> Run:
        return replace(
            run,
            steps_per_epoch=self.params.get("steps"),
            epochs=self.params.get("epochs") if self._plan.known_horizon else None,
            direction=self._direction,
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
