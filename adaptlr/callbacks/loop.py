"""One `fit`: observe at control points, ask the controller, carry out its decision, log it."""

from __future__ import annotations

import math
import re
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

from adaptlr.checkpoint import plain, rebuild
from adaptlr.controllers import Constant, Controller, Decision, Observation, Run
from adaptlr.monitor import Direction
from adaptlr.schedules import Constant as ConstantRate
from adaptlr.training.arrays import to_arrays
from adaptlr.training.evaluation import TrainingLoss, evaluate
from adaptlr.training.in_graph import InGraph, compiles_steps
from adaptlr.training.optimizer import OptimizerRate
from adaptlr.training.weights import RunningAverage, Snapshot, training_variables
from adaptlr.writers import Record, Writer

__all__ = ["ControlLoop", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What a callback was constructed to do.

    Args:
        controller: The closed loop, observation → scale.
        schedule: The open loop, step → rate, made for the run about to begin.
        momentum: Step → momentum (`beta_1`), made for the run likewise, or None to leave it alone.
        averaging: Whether to keep a running average of the weights, validate with it, and leave
            the best of it in the model.
        validation_data: Held-out data to evaluate at epoch ends at which `fit` did not.
        known_horizon: Whether the epochs given to `fit` are a plan rather than a bound.
    """

    controller: Controller
    schedule: Callable[[Run], Callable[[int], float]]
    momentum: Callable[[Run], Callable[[int], float]] | None = None
    averaging: bool = False
    validation_data: Any = None
    known_horizon: bool = True

    def describe(self, run: Run) -> dict[str, str]:
        """Says in words what is configured, to tell one run's state from another's."""
        shapes = {"schedule": self.schedule(run)}
        if self.momentum is not None:
            shapes["momentum"] = self.momentum(run)
        words = {"controller": repr(self.controller), "averaging": str(self.averaging)}
        for name, shape in shapes.items():
            config = shape.get_config() if hasattr(shape, "get_config") else ""
            words[name] = f"{shape!r}{config}"
        # Where an object is in memory is no part of what it does.
        return {name: re.sub(r" at 0x[0-9a-fA-F]+", "", text) for name, text in words.items()}


class ControlLoop:
    """The state of one `fit` and everything that acts on it.

    Between control points a step costs one comparison. At control points (about ten an epoch, at
    epoch ends, and where the controller asks for one) the training loss is read, the controller
    decides, and the decision is carried out and logged.

    A schedule that no controller scales is known in advance: where the backend compiles the
    training step, it is compiled in (`InGraph`), exact at every step whatever the callback does.
    Elsewhere a rate is written before each step at which it differs.

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
        writer: Where to log.
        announce: Called with each decision's record.
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
        writer: Writer,
        announce: Callable[[Record], None],
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self._plan = plan
        self._owner = owner
        self._synced_model = synced_model
        self._optimizer = rate
        self._writer = writer
        self._announce = announce
        self._epoch = epoch
        self._epoch_steps = epoch_steps
        self._interval = max(1, epoch_steps // 10) if epoch_steps else 100
        self._average_interval = max(1, min(16, epoch_steps // 8)) if epoch_steps else 16
        self._step = self._begun = self._first_step(epoch)
        self._epoch_start = self._next_step = self._next_control = self._next_average = self._step
        self._decision = Decision(scale=1.0)
        self._rate: float | None = None  # the one last written
        self._base = rate.read()
        self._check_owner = self._warned = self._write_lost = False
        self._ended: deque[int] = deque(maxlen=64)
        self._epoch_loss: float | None = None  # of the steps before validation
        self._snapshot: Snapshot | None = None
        model = synced_model()
        self._loss = TrainingLoss(model)
        self._average = RunningAverage(model, self._step) if plan.averaging else None
        self._run = run = Run(
            learning_rate=self._base,
            steps_per_epoch=epoch_steps,
            epochs=epochs if plan.known_horizon else None,
            first_step=self._step,
            direction=direction,
        )
        if saved is not None:
            self._run = run = Run(**saved["run"])
            self._restore_numbers(saved)
        self._schedule = plan.schedule(run)
        self._momentum = None if plan.momentum is None else plan.momentum(run)
        self._in_graph = self._compile_in(model, run)
        self._state = plan.controller.init(run)
        if saved is not None:
            self._continue(saved, model)
            return
        self._record("start", f"{owner} takes over from a rate of {self._base:.6g}")
        self._control(None)

    def _first_step(self, epoch: int) -> int:
        if self._epoch_steps:
            return epoch * self._epoch_steps
        return self._optimizer.steps_counted() if epoch else 0

    def _compile_in(self, model: Any, run: Run) -> InGraph | None:
        known = run.total_steps is not None and isinstance(self._plan.controller, Constant)
        if not compiles_steps() or isinstance(self._schedule, ConstantRate):
            return None
        if not known:
            if self._momentum is not None:
                raise ValueError(
                    f"{self._owner}(momentum=...) needs to know the number of steps, and the data "
                    f"does not say; pass steps_per_epoch to fit, or momentum=None."
                )
            return None
        steps = range(self._step, max(self._step + 1, run.last_step or 0))
        return InGraph(
            model,
            self._optimizer.leaves,
            self._optimizer.ratios,
            [self._scheduled(step) for step in steps],
            None if self._momentum is None else [self._momentum(step) for step in steps],
        )

    def _restore_numbers(self, saved: Mapping[str, Any]) -> None:
        self._base = self._run.learning_rate
        for owner, name in ((self, "loop"), (self._optimizer, "rate"), (self._loss, "loss")):
            numbers = saved.get(name, {})
            vars(owner).update({k: v for k, v in numbers.items() if k in plain(owner)})

    def _continue(self, saved: Mapping[str, Any], model: Any) -> None:
        self._state = rebuild(self._state, saved["state"])
        self._decision = Decision(**saved["decision"])
        if (
            "loop" not in saved
        ):  # carried by a file of weights: what it holds is good to go back to
            self._snapshot = Snapshot(model, leave=self._optimizer.variables())
            self._apply_rate()
            return
        if self._average is not None:
            self._average.load(saved["average"])
        if saved["snapshot"] is not None:
            self._snapshot = Snapshot(model, leave=self._optimizer.variables())
            self._snapshot.load(saved["snapshot"])

    def carry(self) -> dict[str, Any]:
        """What a file of weights carries: the controller's state and where it stands, as JSON."""
        return {
            "run": asdict(self._run),
            "epoch": self._epoch,
            "state": asdict(self._state),
            "decision": asdict(self._decision),
        }

    def save(self) -> dict[str, Any]:
        """Everything that another process needs to go on from here as if it were this one."""
        model, average, snapshot = self._synced_model(), self._average, self._snapshot
        swapped = average is not None and average.swapped
        if average is not None:
            average.swap_out()
        content = {
            **self.carry(),
            # Each number that there is, so that none is forgotten.
            "loop": plain(self),
            "rate": plain(self._optimizer),
            "loss": plain(self._loss),
            "weights": to_arrays(training_variables(model)),
            "average": None if average is None else average.save(),
            "snapshot": None if snapshot is None else snapshot.save(),
        }
        if average is not None and swapped:
            average.swap_in()
        return content

    @property
    def step(self) -> int:
        """Training steps done."""
        return self._step

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
        self._epoch = epoch
        self._epoch_start = self._step
        self._ended.clear()
        self._epoch_loss = None
        self._loss.reset()
        # Other callbacks have just had their turn at the rate: look once, before it is written.
        self._check_owner = True
        self._next_step = self._step

    def advance(self, batch: int) -> bool:
        """Counts a step of the epoch about to be trained; True if it is due for something."""
        self._step = self._begun = self._epoch_start + batch
        return self._step >= self._next_step

    def ended(self, batch: int) -> None:
        """Notes that a batch was trained; may be called from any thread, in any order."""
        self._ended.append(batch)

    def act(self) -> None:
        """Does what is due at this step."""
        if self._check_owner:
            self._check_owner = False
            self._require_ownership()
        if self._step >= self._next_average:
            self._next_average = self._step + self._average_interval
            self._take_average()
        if self._step >= self._next_control:
            self._synced_model()
            self._control(self._loss.read(), self._measured())
        else:
            self._apply_rate()
            self._plan_next()

    def begin_validation(self) -> None:
        """Puts the averaged weights into the model; they stay until the next epoch begins."""
        # Validation resets the metrics, and runs them for itself.
        self._synced_model()
        self._epoch_loss = self._loss.read()
        self._swap_in()

    def end_epoch(self, logs: dict[str, float]) -> None:
        """Decides with the epoch's metrics; leaves the averaged weights for other callbacks."""
        self._synced_model()
        loss = self._loss.read() if self._epoch_loss is None else self._epoch_loss
        self._step = self._steps_done()
        self._swap_in()
        monitor = self._plan.controller.monitor
        held_out = self._plan.validation_data
        if held_out is not None and monitor is not None and monitor.name not in logs:
            logs.update(evaluate(self._synced_model(), held_out))
        logs.update(self._optimizer.read_all())
        numbers = {k: float(v) for k, v in logs.items() if isinstance(v, Real)}
        self._writer.write_scalars(self._step, {f"epoch/{k}": v for k, v in numbers.items()})
        if self._average is not None:
            self._average.swap_out()
        self._control(loss, self._monitored(logs), epoch_end=True)
        self._swap_in()

    def finish(self) -> None:
        """Leaves the best averaged weights in the model and closes the log."""
        self._synced_model()
        if self._in_graph is not None:
            self._in_graph.remove()
        if self._average is not None:
            self._average.finish()
        if self._decision.exploring and self._snapshot is not None:
            self._snapshot.restore()
            self._optimizer.write(self._base)
        self._writer.close()

    # --- the loop --------------------------------------------------------------------------

    def _control(
        self, loss: float | None, monitored: float | None = None, *, epoch_end: bool = False
    ) -> None:
        self._require_ownership()
        step = self._step
        observation = Observation(step, self._epoch, epoch_end, self._rate, loss, monitored)
        self._state, decision = self._plan.controller.update(self._state, observation)
        self._decision = decision
        self._carry_out(decision)
        asked = decision.next_step
        self._next_control = step + self._interval if asked is None else asked
        self._apply_rate()
        self._plan_next()
        if decision.rule != "hold":
            self._record(decision.rule, decision.reason)
        scalars = {"learning_rate": self._rate, "loss": loss, "monitored": monitored}
        self._writer.write_scalars(step, {k: v for k, v in scalars.items() if v is not None})

    def _carry_out(self, decision: Decision) -> None:
        model = self._synced_model()
        if decision.restore and self._snapshot is not None:
            self._snapshot.restore()
            # The sums behind the epoch's metrics hold what was undone, NaN included.
            model.reset_metrics()
            self._loss.reset()
        if decision.snapshot:
            self._snapshot = Snapshot(model, leave=self._optimizer.variables())
        if self._average is not None:
            if decision.keep_best:
                self._average.keep_best()
            if decision.restart_average:
                self._average.restart(self._step)
        if decision.stop:
            model.stop_training = True

    def _apply_rate(self) -> None:
        rate = self._decision.scale * self._scheduled(self._step)
        if rate != self._rate or self._write_lost:
            self._synced_model()
            self._optimizer.write(rate)
            self._rate, self._write_lost = rate, False
        if self._momentum is not None and self._in_graph is None:
            self._optimizer.write_momentum(self._momentum(self._step))

    def _scheduled(self, step: int) -> float:
        value = float(self._schedule(step))
        if not (math.isfinite(value) and value >= 0.0):
            raise ValueError(
                f"{self._owner}(schedule=...) must return a finite rate >= 0 at every step. "
                f"Received: {value} at step {step} from {self._schedule!r}"
            )
        return value

    def _plan_next(self) -> None:
        due = [self._next_control]
        if self._in_graph is None and not isinstance(self._schedule, ConstantRate):
            due.append(self._step + 1)
        if self._average is not None:
            due.append(self._next_average)
        self._next_step = max(self._step + 1, min(due))

    # --- small parts -----------------------------------------------------------------------

    def _steps_done(self) -> int:
        """Steps trained when an epoch ends."""
        if self._epoch_steps is not None:
            done = self._begun + int(self._synced_model().steps_per_execution or 1)
            return min(done, self._epoch_start + self._epoch_steps)
        # Data of unknown length end in a batch that begins and is not there. Neither the last
        # begun tells, nor the optimizer, whose counter TensorFlow may have raised all the same.
        # On JAX what was written before that batch is lost.
        self._optimizer.forget()
        self._write_lost = True
        return self._epoch_start + max(self._ended, default=-1) + 1

    def _take_average(self) -> None:
        if self._average is not None and not self._decision.exploring:
            self._synced_model()
            self._average.update(self._step)

    def _swap_in(self) -> None:
        if self._average is None or self._average.swapped:
            return
        if self._epoch_steps is not None:  # else the count may lag behind until the epoch ends
            self._step = self._steps_done()
            self._take_average()
        self._synced_model()
        self._average.swap_in()

    def _measured(self) -> float | None:
        held_out = self._plan.validation_data
        if not self._decision.measure or held_out is None:
            return None
        return self._monitored(evaluate(self._synced_model(), held_out))

    def _monitored(self, logs: dict[str, float]) -> float | None:
        monitor = self._plan.controller.monitor
        if monitor is None or monitor.name in logs:
            return None if monitor is None else float(logs[monitor.name])
        if not self._warned:
            self._warned = True
            hint = ""
            if monitor.name.startswith("val_") and not any(k.startswith("val_") for k in logs):
                hint = " (nothing was validated in this epoch: pass validation_data to fit)"
            warnings.warn(
                f"{self._owner}(monitor={monitor.name!r}): there is no such metric at the end of "
                f"epoch {self._epoch + 1}{hint}; the rate is held until there is. Metrics: "
                f"{', '.join(sorted(logs))}",
                stacklevel=4,
            )
        return None

    def _require_ownership(self) -> None:
        self._synced_model()
        changed = self._optimizer.changed_by_others()
        if changed is not None:
            raise RuntimeError(
                f"{self._owner} set the learning rate to {changed[0]:.6g} and found "
                f"{changed[1]:.6g}: something else changes it too, most likely another callback "
                f"(LearningRateScheduler, ReduceLROnPlateau, a second adaptlr callback) or code "
                f"in a training step. Keep one of them; a schedule and a controller are combined "
                f"by adaptlr.ScheduleLR(schedule, controller)."
            )

    def _record(self, rule: str, reason: str) -> None:
        rate = self._base if self._rate is None else self._rate
        record = Record(self._step, self._epoch, rate, rule, reason)
        self._announce(record)
        self._writer.write_decision(record)
