"""The one owner of the rate, as Keras sees it: hooks in, a loop behind."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from types import MethodType
from typing import Any

import keras

from adaptlr._arguments import is_integer, pasteable, refuse, require_path
from adaptlr.bridge.carried_state import CarriedState, attach
from adaptlr.bridge.evaluation import endless
from adaptlr.bridge.fit import (
    averages_in_model,
    is_alone,
    is_chief,
    metrics_may_come,
    on_exception,
    other_callbacks,
    other_names,
    require_keras_3,
    require_supported,
)
from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.bridge.own_optimizers import require_in_step, require_optimizers
from adaptlr.bridge.schedule_free import train_again
from adaptlr.controllers import Run
from adaptlr.loop.backup import Backup, Identity
from adaptlr.loop.log import Log
from adaptlr.loop.loop import Loop
from adaptlr.loop.plan import Fit, Plan
from adaptlr.loop.sensors import metric_direction
from adaptlr.monitor import Direction, judged
from adaptlr.writers import MultiWriter, Record, TensorBoardWriter
from adaptlr.writers.base import require_writers

# Arguments that say where to log or what to measure on, and nothing about the training.
_NOT_COMPARED = (
    *("validation_data", "log_dir", "writers", "verbose", "backup_dir", "backup_freq"),
    "optimizers",  # which are named by their classes
)
_FORGET = "Configure the callback as it was, or call adaptlr.bridge.carried_state.forget(model)."
_REMOVE = (
    "Configure the callback and fit as they were, or remove what was loaded inside fit to begin "
    "anew: the backup_dir of keras.callbacks.BackupAndRestore."
)
# Attributes that are bound to one fit or one model, and no part of a copy.
_BOUND = (
    *("_model", "params", "_loop", "_unguard", "_backup", "_carried", "_rate", "_identity"),
    "_optimizers",
)


class _of_an_instance:  # noqa: N801
    """Names the mend where the class itself is listed, on which Keras calls this method first."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __get__(self, instance: Any, owner: type) -> Callable[..., Any]:
        if instance is not None:
            return MethodType(self._method, instance)

        @wraps(self._method)
        def method(*arguments: Any) -> Any:
            if not (arguments and isinstance(arguments[0], LearningRateCallback)):
                raise TypeError(
                    f"fit(callbacks=...) must list instances, not classes: write "
                    f"{owner.__name__}(...) instead of {owner.__name__}. "
                    f"Received: callbacks=[{owner.__name__}]"
                )
            return self._method(*arguments)

        return method


class LearningRateCallback(keras.callbacks.Callback):
    """Sets `rate = schedule(step) * scale`, where a controller decides the scale.

    This class is not used directly; the public callbacks are ways to construct it. All that is
    bound to one `fit` lives in a `Loop`, made anew each time, so a callback can be used again. A
    copy, or what was pickled, has the configuration and the decisions, and is bound to no model.

    Rates are set in `on_train_batch_begin`, which Keras calls in order and on the main thread even
    where a callback is passed bare instead of in a list. The hook at the end of batches only
    counts and is declared safe for threads, so that Keras goes on reading metrics off the main
    thread on JAX and PyTorch.

    Each hook that has something to do reaches the model through `self.model`, which on JAX brings
    the variables up to date, and the loop behind it need not know of that.

    Args:
        plan: The open loop, the closed loop, and what surrounds them.
        arguments: What the public callback was given, by name (see `arguments_of`).
    """

    async_safe = True

    def __init__(self, plan: Plan, arguments: Mapping[str, tuple[Any, Any]]) -> None:
        super().__init__()
        self.decisions: list[Record] = []
        self._plan = plan
        self._arguments = {name: value for name, (value, _) in arguments.items()}
        self._defaults = {name: default for name, (_, default) in arguments.items()}
        for name in ("log_dir", "backup_dir"):
            require_path(self, name, self._arguments.get(name))
        self._require_frequency(self._arguments.get("backup_freq", "epoch"))
        self._require_data(self._arguments.get("validation_data"))
        self._optimizers = require_optimizers(self, self._arguments.get("optimizers"))
        if self._optimizers is not None:
            self._arguments["optimizers"] = ...  # all that can be said of them without a model
        listed = require_writers(self, self._arguments.get("writers", ()))
        log_dir = self._arguments.get("log_dir")
        self._writers = [*listed, *([] if log_dir is None else [TensorBoardWriter(log_dir)])]
        self._verbose = self._arguments.get("verbose", 0)
        if self._verbose not in (0, 1, 2) or isinstance(self._verbose, float):
            refuse(self, "verbose", "0 or 1", self._verbose)
        self._state: Any = None  # of the controller, after `fit`
        self._unbind()

    def _require_frequency(self, value: Any) -> None:
        if value != "epoch" and not (is_integer(value) and value > 0):
            refuse(self, "backup_freq", "'epoch' or a number of steps of at least 1", value)

    def _require_data(self, value: Any) -> None:
        if isinstance(value, Iterator):
            rule = (
                "data that can be read again and again, which an iterator cannot: arrays (x, y), "
                "a tf.data.Dataset, a keras.utils.PyDataset or a DataLoader"
            )
            refuse(self, "validation_data", rule, value)
        if endless(value):
            rule = "data that end: leave out repeat(), or take(n) batches of them"
            refuse(self, "validation_data", rule, value)

    def _unbind(self) -> None:
        self._model: Any = None
        self.params: Any = {}  # of a callback that is driven by hand
        self._loop: Loop | None = None
        self._begun = self._in_epoch = False  # training, and an epoch of it
        self._unguard: Callable[[], None] = _nothing
        directory = self._arguments.get("backup_dir")
        self._backup: Backup | None = None
        if directory is not None:
            self._backup = Backup(self, directory, self._arguments["backup_freq"])

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in _BOUND}
        return {**state, "_state": self._present_state}  # also of a fit that was interrupted

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._optimizers = None
        self._unbind()

    def __deepcopy__(self, memo: dict[int, Any]) -> LearningRateCallback:
        data = self._plan.validation_data
        memo[id(data)] = data  # a dataset cannot be copied, and need not be
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        twin._optimizers = self._optimizers  # which stay with the model that they train
        return twin

    def __repr__(self) -> str:
        given = []
        for name, default in self._defaults.items():
            text = pasteable(self._arguments[name])
            if default is inspect.Parameter.empty or text != pasteable(default):
                given.append(f"{name}={text}")
        call = f"{type(self).__name__}({', '.join(given)})"
        return f"<{call}: {', '.join(self._summary())}>" if self.decisions else call

    def _summary(self) -> list[str]:
        """What it did in the last `fit`, in a few words each."""
        state, monitor = self._present_state, self._plan.controller.monitor
        found, seen, count = self._found(state), judged(state), len(self.decisions)
        words = [] if found is None else [f"{self._calls_it} {found:.3g}"]
        if monitor is not None and seen is not None and seen.record is not None:
            words.append(f"best {monitor.name} {seen.record:.4g}")
        return [*words, f"{count} decision{'s' * (count != 1)}"]

    @property
    def _present_state(self) -> Any:
        return self._state if self._loop is None else self._loop.state

    _calls_it = "rate held"

    def _found(self, state: Any) -> float | None:
        """The rate that a state of the controller has found; only some callbacks look for one."""
        return None

    # --- hooks of Keras ---------------------------------------------------------------------

    @_of_an_instance
    def set_model(self, model: Any) -> None:
        """Lets files of the model's weights carry the controller's state."""
        require_keras_3(type(self).__name__, model)
        super().set_model(model)
        self._carried: CarriedState = attach(model)
        self._carried.source = self._carry
        self._mend = _FORGET if self._carried.loaded else _REMOVE

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Takes what is known of the `fit`; of a loop of one's own there may be nothing."""
        super().set_params(params or {})

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Checks the optimizer and the monitor before the first batch."""
        if self._model is None:
            raise self._missing("set_model", "on_train_begin")
        self._require_something_to_drive()
        self.decisions = []
        self._unguard()  # if an exception ended the last fit
        self._loop = self._state = None
        self._begun = self._in_epoch = False
        require_supported(self.model)
        self._require_alone()
        self._rate = OptimizerRate(self.model, self._optimizers)
        monitor = self._plan.controller.monitor
        self._direction: Direction | None = (
            "min" if monitor is None else metric_direction(self.model, monitor, seen=False)
        )
        self._identity = Identity(type(self).__name__, self._plan, self._present)
        if self._backup is not None:
            if not is_alone():
                raise ValueError(
                    f"{type(self).__name__}(backup_dir=...) saves the state of one process, and "
                    f"several train this model: save a checkpoint on rank 0, and leave it out."
                )
            if "epochs" not in self.params:
                raise ValueError(
                    f"{type(self).__name__}(backup_dir=...) continues a fit, and this callback is "
                    f"driven by hand: leave it out, and save model and optimizer yourself."
                )
            self._backup.begin(self._identity, self.model, self._rate, self.params["epochs"])
        self._begun = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begins at the first epoch, when other callbacks have restored what they restore."""
        self._begin_epoch(epoch, "on_epoch_begin")

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Acts if the step is due for anything."""
        if not self._in_epoch:
            self._begin_epoch(None, "on_train_batch_begin")
        loop, backup = self._loop, self._backup
        if loop is None or (backup is not None and backup.skips(batch, lambda: self.model)):
            return
        due = loop.advance(batch)
        if backup is not None and backup.due(loop.step):
            backup.save(loop, self.model, self.decisions, self._writers, batch=batch)
        if due:
            self._sync()
            loop.act()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts, for data that do not say how many batches they hold."""
        if self._loop is not None:
            self._loop.ended(batch)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Lets `fit` validate the averaged weights, if they are averaged."""
        if self._loop is not None:
            self._sync()
            self._loop.begin_validation()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Closes the epoch with a control point that has seen the monitored metric."""
        if not self._in_epoch:
            self._begin_epoch(epoch, "on_epoch_end")
        model, loop, backup = self.model, self._loop, self._backup
        if loop is None:
            return
        self._in_epoch = False
        if backup is not None:
            backup.end_epoch()
        loop.end_epoch({} if logs is None else logs)
        if backup is not None:
            backup.save(loop, model, self.decisions, self._writers, batch=None)

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

    # --- begin and end ----------------------------------------------------------------------

    def _end(self, *, interrupted: bool) -> None:
        model, backup = self.model, self._backup
        if backup is not None and backup.pending and not interrupted:
            # The process had been killed between its last epoch and here.
            self._loop = self._start(backup.epoch)
            if model.optimizer is not None:
                model.optimizer.finalize_variable_values(model.trainable_weights)
        loop, self._loop = self._loop, None
        self._begun = self._in_epoch = False
        self._unguard()
        if loop is not None:
            loop.finish(interrupted=interrupted)
            self._state = loop.state
        if backup is not None and not interrupted:
            backup.end()

    def _begin_epoch(self, epoch: int | None, hook: str) -> None:
        """Begins an epoch; of several hooks of which it is the first, if driven by hand.

        Args:
            epoch: Its index, or None for the one after the last.
            hook: The hook that was called.

        Raises:
            RuntimeError: If a hook is missing without which nothing can be done.
        """
        if not self._begun:
            raise self._missing("on_train_begin", hook)
        if self._in_epoch:
            raise self._missing("on_epoch_end", hook)
        model = self.model
        if epoch is None:
            epoch = 0 if self._loop is None else self._loop.epoch + 1
        if self._loop is None:
            self._loop = self._start(epoch)
            if self._loop.averages:
                self._unguard = on_exception(self, self._abandon)
        if self._backup is None or self._backup.begin_epoch(model):
            self._loop.begin_epoch(epoch)
        self._in_epoch = True

    def _missing(self, missing: str, hook: str) -> RuntimeError:
        name = type(self).__name__
        return RuntimeError(
            f"{name}.{hook} was called, and {name}.{missing} was not called before it. In a "
            f"training loop of your own call, in this order: set_model(model), on_train_begin(), "
            f"for each epoch on_epoch_begin(epoch), for each step on_train_batch_begin(batch) and "
            f"on_train_batch_end(batch), then on_epoch_end(epoch, logs), and on_train_end()."
        )

    def _require_something_to_drive(self) -> None:
        name = type(self).__name__
        if self._optimizers is not None:
            require_in_step(name, self.model, self._optimizers)
        elif self._arguments.get("optimizers") is not None:
            raise ValueError(
                f"{name}(optimizers=...) was pickled, and optimizers stay with their model: make "
                f"a new {name} with those of the model that is to be trained."
            )
        elif getattr(self.model, "optimizer", None) is None:
            raise ValueError(
                f"{name} drives the optimizer of a model, and this one has none. Call "
                f"model.compile(optimizer, ...) with the optimizer that your loop applies, or "
                f"pass what it applies: {name}(optimizers=[...])."
            )
        elif self.model.built and not self.model.trainable_variables:
            raise ValueError(
                f"{name} has nothing to drive: all layers of the model are frozen. Set "
                f"layer.trainable = True for those that are to be trained, and compile again."
            )

    def _require_alone(self) -> None:
        """Refuses what would set the rate too, perhaps hours from now.

        Raises:
            RuntimeError: Names it, and what to do.
        """
        name = type(self).__name__
        rivals = [type(c).__name__ for c in other_callbacks(self) if isinstance(c, _RIVALS)]
        if not rivals:
            return
        remedy = (
            "a schedule and a controller are combined by adaptlr.ScheduleLR(schedule, "
            "controller), and optimizers=[...] of one callback drives several optimizers."
        )
        if "LRFinder" in (name, *rivals):
            remedy = "to find one before, call LRFinder().find(model, x, y), and then fit."
        raise RuntimeError(
            f"{name} sets the learning rate, and so does {', '.join(rivals)}: they would undo "
            f"each other. Callbacks in this fit: {', '.join(other_names(self))}. Keep one that "
            f"sets the rate; {remedy}"
        )

    def _sync(self) -> None:
        _ = self.model  # whose getter brings the variables up to date, where they are not

    def _abandon(self) -> None:
        if self._loop is not None:
            self._sync()
            self._loop.abandon()

    def _start(self, epoch: int) -> Loop:
        saved = None
        if self._backup is not None:
            saved = self._backup.restore(self.model, epoch, self._writers)
        if saved is not None:
            self._carried.averaged = False  # a backup holds what is trained
        else:
            train_again(self.model, self._rate.leaves)
            saved = self._of_this_horizon(self._carried.take(epoch))
            if saved is not None:
                self._identity.require(saved, "the state loaded with the weights", self._mend)
        if saved is not None:
            self.decisions += [Record.load(record) for record in saved["decisions"]]
        fit = Fit(
            owner=type(self).__name__,
            model=self.model,
            rate=self._rate,
            direction=self._direction,
            epoch=epoch,
            epochs=self.params.get("epochs"),
            epoch_steps=self.params.get("steps"),
            others=lambda: other_names(self),
            metrics_may_come=metrics_may_come(self),
            swapped=averages_in_model(self),
            logged=bool(self._writers),
        )
        writer = MultiWriter(self._writers if is_chief() else [])
        log = Log(writer, self._announce, self._hyperparameters(), self._found)
        loop = Loop(self._plan, fit, log, saved)
        self._warn_of_single_epochs(loop)
        return loop

    _is_asked_once = False  # as LRFinder is, of which nothing is to go on

    def _warn_of_single_epochs(self, loop: Loop) -> None:
        """Says once that `fit` is called in a loop, one epoch at a time, and nothing goes on."""
        name, (last, before) = type(self).__name__, self._carried.single_epochs
        compares = not self._plan.open_loop
        anew = loop.begins_anew or (compares and loop.enters_late)
        single = self.params.get("epochs") == loop.epoch + 1 and anew and last == name
        self._carried.single_epochs = name, before + 1 if single else 0
        if self._carried.single_epochs[1] != 2 or self._is_asked_once:
            return
        remedy = "For the schedule to go on, number the epochs: fit(initial_epoch=epoch, "
        remedy += "epochs=epoch + 1)"
        if compares:
            remedy = "It compares epochs, and needs all of them in one fit: fit(epochs=...)"
        warnings.warn(
            f"{name} begins anew in each fit, and this is the third in a row of one epoch. "
            f"{remedy}.",
            stacklevel=5,
        )

    def _of_this_horizon(self, saved: dict[str, Any] | None) -> dict[str, Any] | None:
        """Drops a state that came with the weights, and has planned by another end."""
        other = None if saved is None else self._identity.other_horizon(saved)
        if other is None:
            return saved
        warnings.warn(
            f"{type(self).__name__} plans by the number of epochs. The run whose weights were "
            f"loaded had {other[0]}, this one has {other[1]}: weights and optimizer go on, and "
            f"{type(self).__name__} begins anew.",
            stacklevel=5,
        )
        return None

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
            direction=self._direction or run.direction,
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


def arguments_of(
    callback: type[LearningRateCallback], values: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Returns value and default of each argument of a callback, by name.

    Args:
        callback: The class whose `__init__` asks; a subclass of it may have one of its own.
        values: `locals()` at the begin of that `__init__`, or a superset.
    """
    parameters = inspect.signature(callback).parameters
    return {name: (values[name], p.default) for name, p in parameters.items()}


_RIVALS = (
    LearningRateCallback,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | type(None)) else pasteable(value)


def _nothing() -> None:
    pass
