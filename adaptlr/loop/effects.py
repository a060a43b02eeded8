"""Carries out what a decision says beside the rate, and reports what was done."""

from __future__ import annotations

from typing import Any

from adaptlr.bridge.average import RunningAverage
from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.bridge.schedule_free import points
from adaptlr.bridge.snapshots import Snapshot, Snapshots
from adaptlr.bridge.variables import finite_weights
from adaptlr.controllers import Decision
from adaptlr.controllers.base import Effect


class Effects:
    """Owns what there is to go back to, and the running average of the weights.

    Args:
        model: A model inside `fit`, compiled; one that is not built yet has nothing to keep.
        rate: The rates, which a restore must not touch, and the optimizers that have them.
        averaging: Whether to keep an average; that of a schedule-free optimizer is kept anyway.
        step: Training steps done so far.
        epoch_steps: Steps in an epoch, or None if unknown.

    Attributes:
        average: The average, or None.
        next_average: Step of its next update.
    """

    def __init__(
        self,
        model: Any,
        rate: OptimizerRate,
        averaging: bool,
        *,
        step: int,
        epoch_steps: int | None,
    ) -> None:
        self._model = model
        self._snapshots = Snapshots(rate)
        self._first_step = step
        self._restored_at: int | None = None
        self._validated: list[Any] | None = None  # before an epoch's end has gone back
        self._rate, self._averaging = rate, averaging
        known = points(rate.leaves)
        self.average: RunningAverage | None = None
        if averaging or known:
            self.average = RunningAverage(model, step, known, whole=averaging)
        self.next_average = step
        self._epoch_steps = epoch_steps

    @property
    def restorable(self) -> bool:
        """Whether there is a snapshot to go back to."""
        return bool(self._snapshots)

    @property
    def sound(self) -> bool:
        """Whether training has made no weight NaN or infinite."""
        return finite_weights(self._model, self._snapshots.infinite)

    def carry_out(self, decision: Decision, step: int, *, epoch_end: bool = False) -> set[Effect]:
        """Does what a decision says, in its order.

        Args:
            decision: The decision.
            step: Training steps done.
            epoch_end: Whether an epoch ends here. Then callbacks that come later, such as a
                `ModelCheckpoint`, find the weights that were validated, whatever is restored.

        Returns:
            The effects that took place. A model that is not built yet gives no snapshot, nor do
            weights that hold NaN; without one nothing is gone back to.
        """
        if epoch_end and decision.restores and self.average is not None:
            self._validated = self.average.validated()
        if decision.rate_is != "trial" and "take back" not in decision.effects:
            self._snapshots.let_go()  # before a snapshot, which takes as much memory
        return {e for e in decision.effects if self._do(e, decision, step)}

    def _do(self, effect: Effect, decision: Decision, step: int) -> bool:
        average = self.average
        if effect == "stop":
            self._model.stop_training = True
        elif effect in ("snapshot", "set aside"):
            return self._kept(effect, decision, step)
        elif effect in ("restore", "restore earlier", "take back"):
            return self._went_back(effect, step)
        elif average is None:
            return False
        elif effect == "keep best":
            average.keep_best()
        elif effect == "keep untrained":
            average.keep_untrained()
        elif effect == "leave untrained":
            return average.leave_untrained()
        else:
            average.restart(step)
        return True

    def _kept(self, effect: Effect, decision: Decision, step: int) -> bool:
        # For an experiment a model without weights is an error, which is raised there.
        if not (self._model.built or decision.rate_is == "experiment"):
            return False
        if effect == "set aside":
            kept: Snapshot | None = self._snapshots.set_aside(self._model)
        else:
            kept = self._snapshots.keep(self._model, untrained=step == self._first_step)
        if kept is not None and self.average is not None:
            kept.average = self.average.mark()
        return kept is not None

    def _went_back(self, effect: Effect, step: int) -> bool:
        if effect == "take back":
            reached = self._snapshots.take_back()
        else:
            reached = self._snapshots.restore(earlier=effect == "restore earlier")
        if reached is None:
            return False
        self._restored_at = step
        reached.restore_metrics()
        if self.average is not None:
            self.average.go_back(reached.average, step)
        return True

    # --- the average ------------------------------------------------------------------------

    def take_average(self, step: int) -> None:
        """Takes in the present weights."""
        if self.average is not None and not self.average.swapped:
            self.average.update(step)

    def plan_average(self, step: int) -> None:
        """Says when they are due next."""
        if self.average is not None:
            self.next_average = self.average.due_after(step, self._epoch_steps)

    def begin_epoch(self) -> None:
        """Goes back to the raw weights; the training metrics begin anew."""
        self.swap_out()
        self._validated = None
        self._snapshots.end_epoch()

    def swap_in(self) -> None:
        """Puts the averaged weights into the model, if there are any."""
        self._recognise()
        if self.average is not None:
            self.average.swap_in(self._validated)

    def _recognise(self) -> None:
        """Finds out what a schedule-free optimizer averages that its first step has built."""
        if self.average is not None and self.average.recovers:
            return
        known = points(self._rate.leaves)
        if known and self.average is None:
            self.average = RunningAverage(self._model, self._first_step, known, whole=False)
        elif known and self.average is not None:
            self.average.learn(known)

    def swap_out(self, *, interrupted: bool = False) -> None:
        """Puts the raw weights back."""
        if self.average is not None:
            self.average.swap_out(interrupted=interrupted)

    def finish(
        self, step: int, *, experiment: bool, interrupted: bool, overwritten: bool, averages: bool
    ) -> bool:
        """Leaves the best weights in the model; True if an experiment was undone.

        Args:
            step: Training steps done.
            experiment: Whether the present weights are one, to be undone.
            interrupted: Whether `fit` was; then the best may also be those of the last snapshot.
            overwritten: Whether Keras has put other weights into the model since the last step.
            averages: Whether the averages of the optimizer, and not the weights, were validated.
        """
        self._recognise()
        average = self.average
        if average is not None and self._validated is not None and not overwritten:
            average.swap_out()  # what was validated last was gone back from
            average.swap_in()
        if average is not None:
            average.finish(overwritten=overwritten or self._averaging)
        gone = average is None and overwritten and step == self._restored_at
        back = experiment or gone or (interrupted and not self._averaging)
        restored = back and self._snapshots.restore() is not None
        if restored and average is not None and average.recovers:
            average.finish()  # of what was restored
        elif restored and averages and not experiment:
            self._model.optimizer.finalize_variable_values(self._model.trainable_variables)
        return restored and experiment

    # --- resuming ---------------------------------------------------------------------------

    def keep_loaded(self) -> None:
        """Takes a snapshot of weights that were loaded, which are good to go back to."""
        self._snapshots.keep(self._model, untrained=True)

    def save(self) -> dict[str, Any]:
        """Returns all of it as arrays and numbers for a file; the model holds the raw weights."""
        average = None if self.average is None else self.average.save()
        return {
            "snapshots": self._snapshots.save(),
            "average": average,
            "next_average": self.next_average,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Becomes what `save` has saved, of a model alike."""
        self._snapshots.load(saved["snapshots"], self._model)
        self.next_average = saved["next_average"]
        if self.average is not None:
            self.average.load(saved["average"])
