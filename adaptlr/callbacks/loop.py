"""One `fit`: observe at control points, ask the controller, carry out its decision, log it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from adaptlr.callbacks.held_out import HeldOut
from adaptlr.callbacks.logs import number
from adaptlr.callbacks.plan import Plan
from adaptlr.callbacks.rates import Rates
from adaptlr.callbacks.steps import StepCounter
from adaptlr.checkpoint import plain, rebuild
from adaptlr.controllers import Decision, Observation, Run
from adaptlr.monitor import Direction, finite
from adaptlr.range_test import Curve
from adaptlr.training.arrays import to_arrays
from adaptlr.training.distributed import agreed
from adaptlr.training.evaluation import TrainingLoss
from adaptlr.training.optimizer import OptimizerRate
from adaptlr.training.weights import (
    RunningAverage,
    Snapshots,
    finite_weights,
    training_variables,
)
from adaptlr.writers import Record, Writer
from adaptlr.writers.base import PHASES

__all__ = ["ControlLoop"]


class ControlLoop:
    """The state of one `fit` and everything that acts on it.

    Between control points a step costs one comparison. At control points (about ten an epoch, at
    epoch ends, and where the controller asks for one) the training loss is read, the controller
    decides, and the decision is carried out and logged. What else there is of one `fit` has rooms
    of its own: the steps, the rates, the monitored metric, the averaged weights, the snapshots.

    Args:
        plan: What to do.
        owner: Name of the callback, for messages.
        synced_model: Returns the model, its variables holding their present values: on JAX they
            hold none inside an epoch unless asked, and a value written without asking is lost.
        rate: The optimizer's rate.
        direction: Whether the monitored metric is better when lower or when higher.
        epoch: Index of the first epoch.
        epochs: Index of the epoch at which `fit` ends, or None.
        epoch_steps: Steps in an epoch, or None if unknown.
        hyperparameters: What to log of the callback and the model, by name.
        writer: Where to log.
        announce: Called with each decision's record.
        others: Returns the names of the other callbacks in this `fit`.
        saved: What `save` of the loop to be continued has returned, or the part of it that `carry`
            has; the model must hold its weights already.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        owner: str,
        synced_model: Callable[[], Any],
        rate: OptimizerRate,
        direction: Direction,
        epoch: int,
        epochs: int | None,
        epoch_steps: int | None,
        hyperparameters: dict[str, Any],
        writer: Writer,
        announce: Callable[[Record], None],
        others: Callable[[], list[str]],
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self._plan = plan
        self._owner = owner
        self._synced_model = synced_model
        self._optimizer = rate
        self._writer = writer
        self._announce = announce
        self._others = others
        self._epoch = epoch
        self._epochs = epochs
        self._steps = StepCounter(self._first_step(epoch, epoch_steps), epoch_steps)
        self._interval = max(1, epoch_steps // 10) if epoch_steps else 100
        self._average_interval = max(1, min(16, epoch_steps // 8)) if epoch_steps else 16
        self._next_step = self._next_control = self._next_average = self.step
        self._decision = Decision(scale=1.0)
        self._check_owner = False
        self._over = False  # the present epoch
        self._epoch_loss: float | None = None  # of the steps before validation
        self._snapshots = Snapshots(leave=rate.variables())
        model = synced_model()
        self._loss = TrainingLoss(model)
        self._held_out = HeldOut(plan, owner=owner, synced_model=synced_model)
        self._require_own_average()
        self._average = RunningAverage(model, self.step) if plan.averaging else None
        self._run = Run(
            learning_rate=rate.initial(),
            steps_per_epoch=epoch_steps,
            epochs=epochs if plan.known_horizon else None,
            first_step=self.step,
            direction=direction,
            measurable=self._held_out.measurable,
            optimizer_momentum=rate.velocity(),
        )
        if saved is not None:
            self._run = Run(**saved["run"])
        self._open_run(hyperparameters)
        if saved is not None:
            self._continue(saved, model)
        else:
            self._begin()

    def _open_run(self, hyperparameters: dict[str, Any]) -> None:
        """Makes for this run what depends on it."""
        plan, run, default = self._plan, self._run, asdict(Run(0.0))
        self._rates = Rates(
            plan,
            run,
            owner=self._owner,
            synced_model=self._synced_model,
            optimizer=self._optimizer,
        )
        self._state = plan.controller.init(run)
        known = {name: x for name, x in asdict(run).items() if x != default[name]}
        self._about: dict[str, Any] | None = {**hyperparameters, **known}

    def _begin(self) -> None:
        self._rates.compile_in(self.step, self._decision.scale)
        rate = self._run.learning_rate
        self._record("start", f"{self._owner} takes over from a rate of {rate:.6g}")
        self._control(None)

    def _require_own_average(self) -> None:
        if self._plan.averaging and "SwapEMAWeights" in self._others():
            raise ValueError(
                f"{self._owner} keeps an average of the weights and swaps it in at each epoch's "
                f"end; beside it keras.callbacks.SwapEMAWeights would train on from the wrong "
                f"weights. Leave SwapEMAWeights out of fit(callbacks=...)."
            )

    def _first_step(self, epoch: int, epoch_steps: int | None) -> int:
        if epoch_steps:
            return epoch * epoch_steps
        return self._optimizer.steps_counted() if epoch else 0

    def _counting(self) -> list[tuple[str, object]]:
        """What has numbers of its own that a saved run holds, by their names there."""
        return [
            ("loop", self),
            ("steps", self._steps),
            ("rate", self._optimizer),
            ("rates", self._rates),
            ("held_out", self._held_out),
            ("loss", self._loss),
        ]

    def _continue(self, saved: Mapping[str, Any], model: Any) -> None:
        for name, owner in self._counting():
            numbers = saved.get(name, {})
            vars(owner).update({k: v for k, v in numbers.items() if k in plain(owner)})
        self._state = rebuild(self._state, saved["state"])
        self._decision = Decision(**saved["decision"])
        self._rates.compile_in(self.step, self._decision.scale)
        if "loop" not in saved:  # carried by a file of weights, which is good to go back to
            self._snapshots.keep(model)
            self._rates.apply(self.step, self._decision)
            return
        if self._average is not None:
            self._average.load(saved["average"])
        self._snapshots.load(saved["snapshots"], model)
        if saved["described"]:
            self._about = None

    def carry(self) -> dict[str, Any]:
        """What a file of weights carries: the controller's state and where it stands, as JSON."""
        return {
            "run": asdict(self._run),
            "epoch": self._epoch,
            "over": self._over or self._steps.last_begun(self._execution()),
            "state": asdict(self._state),
            "decision": asdict(replace(self._decision, curve=None)),
        }

    def save(self) -> dict[str, Any]:
        """Everything that another process needs to go on from here as if it were this one."""
        model, average = self._synced_model(), self._average
        swapped = average is not None and average.swapped
        if average is not None:
            average.swap_out()
        content = {
            **self.carry(),
            # Each number that there is, so that none is forgotten.
            **{name: plain(owner) for name, owner in self._counting()},
            "weights": to_arrays(training_variables(model)),
            "average": None if average is None else average.save(),
            "snapshots": self._snapshots.save(),
            "described": self._about is None,
        }
        if average is not None and swapped:
            average.swap_in()
        return content

    @property
    def step(self) -> int:
        """Training steps done."""
        return self._steps.done

    @property
    def epoch(self) -> int:
        """Index of the present epoch."""
        return self._epoch

    @property
    def exploring(self) -> bool:
        """Whether the present weights are an experiment that will be undone."""
        return self._decision.exploring

    @property
    def state(self) -> Any:
        """The controller's state."""
        return self._state

    # --- what happens in a fit, in this order ----------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Goes back to the raw weights, which training continues from."""
        if self._average is not None:
            self._average.swap_out()
        self._epoch, self._over = epoch, False
        self._steps.begin_epoch()
        self._epoch_loss = None
        self._loss.reset()
        # Other callbacks have just had their turn at the rate: look once, before it is written.
        self._check_owner = True
        self._next_step = self.step

    def advance(self, batch: int) -> bool:
        """Counts a step of the epoch about to be trained; True if it is due for something."""
        self._steps.begin(batch)
        return self._steps.done >= self._next_step

    def ended(self, batch: int) -> None:
        """Notes that a batch was trained; may be called from any thread, in any order."""
        self._steps.end(batch)

    def act(self) -> None:
        """Does what is due at this step."""
        if self._check_owner:
            self._check_owner = False
            self._rates.require_ownership(self.step, self._others)
        if self.step >= self._next_average:
            self._take_average()
            self._next_average = self.step + self._average_spacing()
        if self.step >= self._next_control:
            self._synced_model()
            self._control(self._loss.read(), self._measured())
        else:
            self._rates.apply(self.step, self._decision)
            self._plan_next()

    def begin_validation(self) -> None:
        """Puts the averaged weights into the model; they stay until the next epoch begins."""
        # Validation resets the metrics, and runs them for itself.
        self._synced_model()
        self._epoch_loss = self._loss.read()
        self._swap_in()

    def end_epoch(self, logs: dict[str, Any]) -> None:
        """Decides with the epoch's metrics; leaves the averaged weights for other callbacks."""
        self._synced_model()
        self._over = True
        loss = self._loss.read() if self._epoch_loss is None else self._epoch_loss
        if not self._steps.end_epoch(self._execution()):
            self._rates.lost(self.step)
        if self._held_out.lacking_in(logs):
            self._swap_in(counted=True)
            logs.update(self._held_out.evaluate())
        elif self._average is not None and not self._average.swapped:
            self._take_average()
        logs.update(self._optimizer.read_all())
        numbers = {f"epoch/{k}": number(v) for k, v in logs.items()}
        if self._average is not None:
            numbers.update(self._noise(self._average))
        self._writer.write_scalars(self.step, {k: v for k, v in numbers.items() if v is not None})
        self._control(loss, self._held_out.monitored(logs, self._epoch), epoch_end=True)
        self._swap_in(counted=True)

    def abandon(self) -> None:
        """Goes back to the raw weights; an exception is on its way out of `fit`."""
        self._synced_model()
        if self._average is not None:
            self._average.swap_out()

    def finish(self, *, interrupted: bool = False) -> None:
        """Leaves the best weights in the model and closes the log.

        If `fit` was interrupted, these may also be those of the last snapshot.
        """
        self._synced_model()
        self._rates.remove()
        if self._average is not None:
            self._average.finish()
        exploring = self._decision.exploring
        if exploring or (interrupted and self._average is None):
            self._snapshots.restore()
            if exploring and self._snapshots:
                self._optimizer.put_back()
        self._writer.close()

    # --- the loop --------------------------------------------------------------------------

    def _control(
        self, loss: float | None, monitored: float | None = None, *, epoch_end: bool = False
    ) -> None:
        self._rates.require_ownership(self.step, self._others)
        loss, monitored = agreed([loss, monitored])
        step = self.step
        if loss is not None and not finite(loss) and self._optimizer.skips_overflow():
            loss = None  # steps that were skipped
        # Only where there is something to go back to does anybody want to know.
        look = epoch_end and self._snapshots and not self._decision.exploring
        sound = not look or finite_weights(self._synced_model())
        rates, scale = self._rates, self._decision.scale
        observation = Observation(
            step,
            self._epoch,
            epoch_end,
            rates.written,
            loss,
            monitored,
            sound,
            step if epoch_end else self._steps.coming(self._execution()),
        )
        self._state, decision = self._plan.controller.update(self._state, observation)
        self._decision = decision
        self._carry_out(decision)
        # A restore takes the counter back by which the table is read.
        if decision.restore or decision.scale != scale:
            rates.compile_again(step, decision.scale)
        asked = decision.next_step
        self._next_control = step + self._interval if asked is None else asked
        ended = epoch_end and self._epoch + 1 == self._epochs
        rates.apply(step, decision, ended=ended)
        self._plan_next()
        if decision.rule == "unprobed" and decision.restore:
            warnings.warn(
                f"{self._owner}: {decision.reason}. A train_step of your own is seen if it "
                f"updates a keras.metrics.Mean(name='loss') among the model's metrics.",
                stacklevel=5,
            )
        if decision.rule != "hold":
            self._record(decision.rule, decision.reason, decision.curve)
        phase = PHASES.get(_phase(self._state))
        scalars = {
            "learning_rate": rates.written,
            "loss": loss,
            "monitored": monitored,
            "phase": phase,
        }
        self._writer.write_scalars(step, {k: v for k, v in scalars.items() if v is not None})
        if self._about is not None and step > self._steps.epoch_start:
            self._describe(self._about, epoch_end)

    def _carry_out(self, decision: Decision) -> None:
        model = self._synced_model()
        if decision.restore and self._snapshots.restore(earlier=decision.earlier):
            # The sums behind the epoch's metrics hold what was undone, NaN included.
            model.reset_metrics()
            self._loss.reset()
        # A model that is not built yet has nothing to keep; for an experiment, that is an error.
        if decision.snapshot and (model.built or decision.exploring):
            self._snapshots.keep(model)
        if self._average is not None:
            if decision.keep_best:
                self._average.keep_best()
            if decision.restart_average:
                self._average.restart(self.step)
        if decision.stop:
            model.stop_training = True

    def _plan_next(self) -> None:
        due = [self._next_control]
        if self._rates.every_step:
            due.append(self.step + 1)
        if self._average is not None:
            due.append(self._next_average)
        self._next_step = max(self.step + 1, min(due))

    # --- small parts -----------------------------------------------------------------------

    def _execution(self) -> int:
        return int(self._synced_model().steps_per_execution or 1)

    def _take_average(self) -> None:
        if self._average is not None and not self._decision.exploring:
            self._synced_model()
            self._average.update(self.step)

    def _average_spacing(self) -> int:
        """Steps to the next update: a young average has a short window and needs more of them."""
        age = 0 if self._average is None else self._average.age
        return max(1, min(self._average_interval, age // 32))

    def _swap_in(self, *, counted: bool = False) -> None:
        if self._average is None or self._average.swapped:
            return
        if counted or self._steps.end_batches(self._execution()):
            self._take_average()
        self._synced_model()
        self._average.swap_in()

    def _measured(self) -> float | None:
        if not (self._decision.measure and self._held_out.measurable):
            return None
        self._take_average()
        return self._held_out.measure(self._average, self._epoch)

    def _noise(self, average: RunningAverage) -> dict[str, float | None]:
        """How far averaged and raw weights are apart; leaves the raw ones in the model."""
        if not self._held_out.measurable or self._decision.exploring:
            average.swap_out()
            return {}
        self._swap_in(counted=True)  # if nothing has been validated
        return self._held_out.noise(average)

    def _describe(self, about: dict[str, Any], epoch_end: bool) -> None:
        # Keras tells no callback the batch size: it shows once some batches were seen, unless the
        # last of an epoch, which may be smaller, is among them.
        self._about = None
        if not epoch_end and self._loss.samples:
            about["batch_size"] = round(self._loss.samples / (self.step - self._steps.epoch_start))
        self._writer.write_run(self.step, about)

    def _record(self, rule: str, reason: str, curve: Curve | None = None) -> None:
        record = Record(self.step, self._epoch, self._rates.present, rule, reason, curve)
        self._announce(record)
        self._writer.write_decision(record)


def _phase(state: Any) -> str:
    """The phase of a controller's state, or of the controller inside a wrapper, if it has any."""
    while hasattr(state, "inner"):
        state = state.inner
    return getattr(state, "phase", "")
