"""What a `backup_dir` adds to a callback: save while it trains, and continue what was saved."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import keras
import numpy as np

from adaptlr._store import Store, rebuild
from adaptlr.bridge.compiled import SkippedBatches
from adaptlr.bridge.fit import asked_first_epoch
from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.bridge.own_optimizers import build
from adaptlr.bridge.snapshots import (
    data_state,
    random_state,
    set_data_state,
    set_random_state,
)
from adaptlr.bridge.variables import (
    from_host,
    misfit,
    model_variables,
    to_host,
    training_variables,
    write,
)
from adaptlr.controllers import Run
from adaptlr.loop.loop import Loop
from adaptlr.loop.plan import Plan
from adaptlr.writers import Record, Writer

_UNKNOWN = "not yet known"


@dataclass(frozen=True)
class Identity:
    """What makes one run another: the callback, its configuration, and the shape of the run.

    Args:
        owner: Name of the callback.
        plan: What it was constructed to do.
        present: Gives a run that was saved the horizon and direction of the one that begins.
    """

    owner: str
    plan: Plan
    present: Callable[[Run], Run]

    def saved(self, loop: Loop, decisions: Sequence[Record]) -> dict[str, Any]:
        """Returns what is saved of a loop in every kind of file."""
        content = loop.carry()
        words = self._words(Run(**content["run"]))
        if not loop.direction_known:
            words["direction of the metric"] = _UNKNOWN
        return {**content, "identity": words, "decisions": [asdict(r) for r in decisions]}

    def require(self, saved: Mapping[str, Any], source: object, mend: str) -> None:
        """Refuses what was saved of another run.

        Raises:
            ValueError: Names the source, the difference, and what to do.
        """
        try:
            before = Run(**saved["run"])
            run = self.present(before)
            then, now = saved["identity"], self._words(run)
            if self._plans_otherwise(before, run):
                epochs = f"{before.epochs}, that of this run {run.epochs}"
                raise ValueError(f"its number of epochs is {epochs}")
            for name in now:
                if then[name] not in (now[name], _UNKNOWN):
                    raise ValueError(f"its {name} is {then[name]}, that of this run {now[name]}")
            rebuild(self.plan.controller.init(run), saved["state"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{source} is of another run: {error}. {mend}") from error

    def other_horizon(self, saved: Mapping[str, Any]) -> tuple[int | None, int | None] | None:
        """Returns the numbers of epochs, then and now, if what is planned differs by them."""
        before = Run(**saved["run"])
        now = self.present(before)
        return (before.epochs, now.epochs) if self._plans_otherwise(before, now) else None

    def _plans_otherwise(self, then: Run, now: Run) -> bool:
        """Whether schedule or controller make something else of another number of epochs."""
        init, describe = self.plan.controller.init, self.plan.describe
        as_then = replace(now, epochs=then.epochs)
        return init(as_then) != init(now) or describe(as_then) != describe(now)

    def _words(self, run: Run) -> dict[str, str]:
        return {
            "callback": self.owner,
            "number of steps in an epoch": str(run.steps_per_epoch),
            "direction of the metric": run.direction,
            **self.plan.describe(run),
        }


class Backup:
    """Saves a run while it trains, and brings the saved one back.

    Args:
        owner: The callback, for messages.
        directory: Where.
        frequency: `"epoch"`, or after how many steps.
    """

    def __init__(
        self, owner: object, directory: str | os.PathLike[str], frequency: int | Literal["epoch"]
    ) -> None:
        self._owner = type(owner).__name__
        self._store = Store(directory)
        self._mend = f"Run what it was saved by, or remove {os.fspath(directory)} to begin anew."
        self._frequency = "epoch" if frequency == "epoch" else int(frequency)
        self._skipped: SkippedBatches | None = None
        self._content: Any = None  # read and not yet restored
        self._data_state: Any = None  # by which the present epoch is shuffled
        self._at: dict[str, Any] = {}  # where in the run the restored state stands

    @property
    def pending(self) -> bool:
        """Whether a run was found and not yet restored."""
        return self._content is not None and "state" in self._content

    @property
    def epoch(self) -> int:
        """Index of the epoch to continue at."""
        return int(self._at["epoch"])

    def begin(self, identity: Identity, model: Any, rate: OptimizerRate, epochs: int) -> None:
        """Reads what is saved, refuses what is not of this run, and sets the first epoch.

        Args:
            identity: What a saved run must share.
            model: The model; nothing but its first epoch is changed yet.
            rate: The optimizers that are driven; they are built if those that were saved were.
            epochs: Index of the epoch at which `fit` ends.

        Raises:
            ValueError: If what is saved is damaged, of another format, run, model or backend.
        """
        self._identity = identity
        self._first = asked_first_epoch(model)
        self._stop_skipping()
        self._saved_step, self._data_state = 0, None
        self._failing = self._to_skip = False
        self._optimizers = rate.optimizers
        model_variables(model)  # refuses a model that has none yet
        self._content = content = self._store.load()
        if not self.pending:
            return
        identity.require(content, self._store.latest, self._mend)
        build(rate.optimizers, model, content.get("trains", ()))
        reason = misfit(content["weights"], training_variables(model, rate.optimizers))
        if content["backend"] != keras.backend.backend():
            reason = f"backend {content['backend']} where this is {keras.backend.backend()}"
        if reason is not None:
            raise ValueError(f"{self._store.latest} is of another model: {reason}. {self._mend}")
        self._require_fit(content["at"], epochs)
        self._at = content["at"]
        self._saved_step = content["loop"]["clock"]["done"]
        # fit reads this after on_train_begin, and takes it before its own initial_epoch.
        model._initial_epoch = epochs if self._at["stop"] else min(self._at["epoch"], epochs)

    def _require_fit(self, at: Mapping[str, Any], epochs: int) -> None:
        """Refuses what another `fit` of the same script has saved in the same directory."""
        first, own, reason = at.get("first"), self._first, None
        if first is not None and own is not None and first != own:
            reason = f"it began at epoch {first + 1}, and this one at epoch {own + 1}"
        elif (at["epoch"], at["batch"]) > (epochs, 0):
            reason = f"it has come to epoch {at['epoch'] + 1}, and this one has {epochs}"
        if reason is not None:
            raise ValueError(
                f"{self._store.latest} is of another fit: {reason}. Give each fit of a script a "
                f"backup_dir of its own. {self._mend}"
            )

    def restore(self, model: Any, epoch: int, writers: Sequence[Writer]) -> Any:
        """Brings back the training state, and the logs to where they were.

        This waits for the first epoch, so that it comes after what other callbacks restore.

        Args:
            model: The model, inside `fit`.
            epoch: Index of the epoch that begins.
            writers: Where is logged.

        Returns:
            What was saved, or None for a new run.

        Raises:
            RuntimeError: If another callback has set another first epoch.
        """
        pending, content, self._content = self.pending, self._content, None
        model._initial_epoch = None  # else it held for every later fit
        if content is not None:
            _rewind(writers, content["logs"])
        if not pending:
            self._write({"logs": _positions(writers)})
            return None
        if epoch != self._at["epoch"]:
            raise RuntimeError(
                f"{self._owner} continues at epoch {self._at['epoch'] + 1}, and fit began at "
                f"epoch {epoch + 1}: another callback, most likely "
                f"keras.callbacks.BackupAndRestore, has set the first epoch too. Leave it out "
                f"(backup_dir restores all that it does), or list it before {self._owner}."
            )
        _assign(training_variables(model, self._optimizers), content["weights"])
        set_data_state(self._at["data"])
        # What this process logs stands in files of its own, of which the next one must know.
        self._write({**content, "logs": _positions(writers)})
        self._to_skip = bool(self._at["batch"])
        return content

    def begin_epoch(self, model: Any) -> bool:
        """Notes how the data are shuffled; False if the epoch is continued and not begun."""
        continued, self._to_skip = self._to_skip, False
        if continued:
            self._data_state = self._at["data"]
            self._skipped = SkippedBatches(model, self._at["results"])
        elif self._frequency != "epoch":
            self._data_state = data_state()
        return not continued

    def skips(self, batch: int, synced_model: Callable[[], Any]) -> bool:
        """Whether a batch was trained before the backup."""
        if self._skipped is None or batch < self._at["batch"]:
            return self._skipped is not None
        model = synced_model()
        self._stop_skipping()
        _assign(model.metrics_variables, self._at["metrics"])
        set_random_state(self._at["random"])
        return False

    def due(self, step: int) -> bool:
        """Whether to save before a step."""
        every = self._frequency
        return isinstance(every, int) and step // every > self._saved_step // every

    def save(
        self,
        loop: Loop,
        model: Any,
        decisions: Sequence[Record],
        writers: Sequence[Writer],
        *,
        batch: int | None,
    ) -> None:
        """Saves before a batch is trained; with None for a batch, after an epoch."""
        at: dict[str, Any] = {"epoch": loop.epoch, "batch": batch, "stop": False}
        if batch is None:
            if self._frequency != "epoch":
                return
            at = {"epoch": loop.epoch + 1, "batch": 0, "stop": bool(model.stop_training)}
            at["data"] = data_state()
        else:
            at["data"] = self._data_state
            results = model.get_metrics_result()
            at["results"] = {name: _result(value) for name, value in results.items()}
            at["metrics"] = to_host(model.metrics_variables)
            at["random"] = random_state()
        at["first"] = self._first
        self._saved_step = loop.step
        self._write(
            {
                **self._identity.saved(loop, decisions),
                **loop.save(),
                "at": at,
                "backend": keras.backend.backend(),
                "logs": _positions(writers),
            }
        )

    def end_epoch(self) -> None:
        """Refuses an epoch that ended before the batch to continue at.

        Raises:
            RuntimeError: If it did.
        """
        if self._skipped is not None:
            self._stop_skipping()
            raise RuntimeError(
                f"{self._owner} continues at batch {self._at['batch'] + 1} of epoch "
                f"{self._at['epoch'] + 1}, and the data ended before it: they are not those of "
                f"the run that was saved. {self._mend}"
            )

    def end(self) -> None:
        """Removes what was saved: the run is complete, and the next one begins anew."""
        try:
            self._store.remove()
        except OSError as error:
            warnings.warn(f"{self._owner} cannot remove its backup: {error}", stacklevel=3)

    def _write(self, content: Any) -> None:
        """Training is worth more than its backup: what cannot be written is a warning, once."""
        try:
            self._store.save(content)
            self._failing = False
        except OSError as error:
            if not self._failing:
                warnings.warn(
                    f"{self._owner} cannot save a backup, and the training goes on without a new "
                    f"one until it can: {error}",
                    stacklevel=5,
                )
            self._failing = True

    def _stop_skipping(self) -> None:
        if self._skipped is not None:
            self._skipped.end()
            self._skipped = None


def _assign(variables: Sequence[Any], arrays: Sequence[Any]) -> None:
    write(variables, from_host(arrays, variables))


def _result(value: Any) -> Any:
    """A metric's value for a file: a number, or of one with several an array."""
    array = np.asarray(keras.ops.convert_to_numpy(value))
    return float(array) if array.ndim == 0 else array


def _positions(writers: Sequence[Writer]) -> list[Any]:
    """Where each log stands, None for those that cannot tell."""
    return [_position(writer) for writer in writers]


def _position(writer: Any) -> Any:
    with suppress(Exception):  # it will be named when something is written to it
        return writer.position() if hasattr(writer, "position") else None
    return None


def _rewind(writers: Sequence[Writer], positions: Sequence[Any]) -> None:
    for writer, position in zip(writers, positions, strict=False):
        if position is not None and hasattr(writer, "rewind"):
            try:
                writer.rewind(position)
            except Exception as error:
                name = type(writer).__name__
                warnings.warn(f"{name} cannot drop what comes again: {error}", stacklevel=4)
