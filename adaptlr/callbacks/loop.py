"""One `fit`: observe at control points, ask the controller, carry out its decision, log it."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from adaptlr.callbacks.logs import number, why_missing
from adaptlr.callbacks.steps import StepCounter
from adaptlr.checkpoint import plain, rebuild
from adaptlr.controllers import Constant, Controller, Decision, Divergence, Observation, Run
from adaptlr.monitor import Direction, finite
from adaptlr.range_test import Curve
from adaptlr.schedules import Constant as ConstantRate
from adaptlr.schedules import Cosine, Linear, OneCycle, Warmup
from adaptlr.training.arrays import to_arrays
from adaptlr.training.distributed import agreed
from adaptlr.training.evaluation import TrainingLoss, evaluate, few
from adaptlr.training.in_graph import InGraph, compiles_steps
from adaptlr.training.momentum import CycledMomentum
from adaptlr.training.optimizer import OptimizerRate
from adaptlr.training.weights import (
    RunningAverage,
    Snapshot,
    finite_weights,
    training_variables,
)
from adaptlr.writers import Record, Writer
from adaptlr.writers.base import PHASES

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

    @property
    def open_loop(self) -> bool:
        """Whether the schedule alone sets the rate, as long as nothing goes wrong."""
        return isinstance(_guarded(self.controller), Constant)

    @property
    def stop_after(self) -> int | None:
        """Steps after which the controller ends the training, if it does so by their number."""
        inner = _guarded(self.controller)
        return inner.stop_after if isinstance(inner, Constant) else None

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
    training step, it is compiled in (`InGraph`), exact at every step whatever the callback does,
    and compiled anew if the guard against divergence cuts it. Elsewhere a rate is written before
    each step at which it differs.

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
        self._steps = StepCounter(self._first_step(epoch, epoch_steps), epoch_steps)
        self._interval = max(1, epoch_steps // 10) if epoch_steps else 100
        self._average_interval = max(1, min(16, epoch_steps // 8)) if epoch_steps else 16
        self._next_step = self._next_control = self._next_average = self.step
        self._decision = Decision(scale=1.0)
        self._rate: float | None = None  # the one last written
        self._base = rate.initial()
        self._check_owner = self._warned = self._write_lost = False
        self._over = False  # the present epoch
        self._epoch_loss: float | None = None  # of the steps before validation
        self._snapshot: Snapshot | None = None
        self._earlier: Snapshot | None = None  # the one before
        model = synced_model()
        self._loss = TrainingLoss(model)
        self._metrics = self._try_out(model)
        self._require_own_average()
        self._average = RunningAverage(model, self.step) if plan.averaging else None
        self._run = Run(
            learning_rate=self._base,
            steps_per_epoch=epoch_steps,
            epochs=epochs if plan.known_horizon else None,
            first_step=self.step,
            direction=direction,
            measurable=self._measurable(),
            optimizer_momentum=self._optimizer.velocity(),
        )
        self._in_graph: InGraph | None = None
        self._cycled: CycledMomentum | None = None
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
        self._schedule = plan.schedule(run)
        self._momentum = None if plan.momentum is None else plan.momentum(run)
        self._state = plan.controller.init(run)
        known = {name: x for name, x in asdict(run).items() if x != default[name]}
        self._about: dict[str, Any] | None = {**hyperparameters, **known}

    def _begin(self) -> None:
        self._compile_in()
        self._record("start", f"{self._owner} takes over from a rate of {self._base:.6g}")
        self._control(None)

    def _try_out(self, model: Any) -> set[str]:
        """Evaluates one batch, so that data of the wrong shape do not cost an epoch.

        Returns:
            The names of the metrics that can be measured at any step.
        """
        data = self._plan.validation_data
        if data is None:
            return set()
        try:
            return set(evaluate(model, data, steps=1))
        except Exception as error:
            raise ValueError(
                f"{self._owner}(validation_data=...) must be data that model.evaluate takes, at "
                f"least one batch of them. It says: {error}"
            ) from error

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

    def _compile_in(self) -> None:
        """Compiles the rates to come into the step, if nothing but a fault will change them."""
        run, scale, momentum = self._run, self._decision.scale, self._momentum
        if not compiles_steps() or isinstance(self._schedule, ConstantRate):
            if momentum is not None:
                self._cycled = CycledMomentum(self._synced_model(), self._optimizer.leaves)
            return
        end = self._last_change()
        planned = run.total_steps is not None or momentum is not None  # else each is written
        if end is None or not planned or not self._plan.open_loop:
            if momentum is not None:
                raise ValueError(
                    f"{self._owner}(momentum=...) needs to know the number of steps, and the data "
                    f"does not say; pass steps_per_epoch to fit, or momentum=None."
                )
            return
        if self._in_graph is not None:
            self._in_graph.remove()
        steps = range(self.step, max(self.step + 1, end))
        self._in_graph = InGraph(
            self._synced_model(),
            self._optimizer.leaves,
            self._optimizer.ratios,
            self.step,
            [scale * self._scheduled(step) for step in steps],
            None if momentum is None else [momentum(step) for step in steps],
        )

    def _last_change(self) -> int | None:
        """The step from which on the schedule stays where it is, or None if that is not known."""
        schedule, stop = self._schedule, self._plan.stop_after
        ends = [self._run.last_step]
        if stop is not None:
            ends.append(stop + self._execution())  # it is looked at between executions
        if isinstance(schedule, OneCycle):
            ends.append(schedule.total_steps)
        if isinstance(schedule, Cosine | Linear):
            ends.append(schedule.decay_steps + 1)
        return min((end for end in ends if end is not None), default=None)

    def _counting(self) -> list[tuple[str, object]]:
        """What has numbers of its own that a saved run holds, by their names there."""
        return [
            ("loop", self),
            ("steps", self._steps),
            ("rate", self._optimizer),
            ("loss", self._loss),
        ]

    def _continue(self, saved: Mapping[str, Any], model: Any) -> None:
        self._base = self._run.learning_rate
        for name, owner in self._counting():
            numbers = saved.get(name, {})
            vars(owner).update({k: v for k, v in numbers.items() if k in plain(owner)})
        self._state = rebuild(self._state, saved["state"])
        self._decision = Decision(**saved["decision"])
        if "loop" not in saved:  # carried by a file of weights, which is good to go back to
            self._snapshot = Snapshot(model, leave=self._optimizer.variables())
            self._compile_in()
            self._apply_rate()
            return
        if self._average is not None:
            self._average.load(saved["average"])
        self._snapshot = self._loaded(saved["snapshot"], model)
        self._earlier = self._loaded(saved["earlier"], model)
        if saved["described"]:
            self._about = None
        self._compile_in()

    def _loaded(self, saved: Any, model: Any) -> Snapshot | None:
        if saved is None:
            return None
        snapshot = Snapshot(model, leave=self._optimizer.variables())
        snapshot.load(saved)
        return snapshot

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
        snapshots = {"snapshot": self._snapshot, "earlier": self._earlier}
        swapped = average is not None and average.swapped
        if average is not None:
            average.swap_out()
        content = {
            **self.carry(),
            # Each number that there is, so that none is forgotten.
            **{name: plain(owner) for name, owner in self._counting()},
            "weights": to_arrays(training_variables(model)),
            "average": None if average is None else average.save(),
            **{name: None if x is None else x.save() for name, x in snapshots.items()},
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
            self._require_ownership()
        if self.step >= self._next_average:
            self._take_average()
            self._next_average = self.step + self._average_spacing()
        if self.step >= self._next_control:
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

    def end_epoch(self, logs: dict[str, Any]) -> None:
        """Decides with the epoch's metrics; leaves the averaged weights for other callbacks."""
        self._synced_model()
        self._over = True
        loss = self._loss.read() if self._epoch_loss is None else self._epoch_loss
        if not self._steps.end_epoch(self._execution()):
            # On JAX what was written before a batch that was not there is lost.
            self._optimizer.forget()
            self._write_lost = True
            if self._in_graph is not None:
                self._in_graph.align(self.step)
        monitor = self._plan.controller.monitor
        due = monitor is not None and monitor.name not in logs
        if due and self._measurable():
            self._swap_in(counted=True)
            logs.update(evaluate(self._synced_model(), self._plan.validation_data))
        elif self._average is not None and not self._average.swapped:
            self._take_average()
        logs.update(self._optimizer.read_all())
        numbers = {f"epoch/{k}": number(v) for k, v in logs.items()}
        if self._average is not None:
            numbers.update(self._noise(self._average))
        self._writer.write_scalars(self.step, {k: v for k, v in numbers.items() if v is not None})
        self._control(loss, self._monitored(logs), epoch_end=True)
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
        if self._in_graph is not None:
            self._in_graph.remove()
        if self._cycled is not None:
            self._cycled.remove()
        if self._average is not None:
            self._average.finish()
        exploring = self._decision.exploring
        if self._snapshot is not None and (exploring or (interrupted and self._average is None)):
            self._snapshot.restore()
            if exploring:
                self._optimizer.put_back()
        self._writer.close()

    # --- the loop --------------------------------------------------------------------------

    def _control(
        self, loss: float | None, monitored: float | None = None, *, epoch_end: bool = False
    ) -> None:
        self._require_ownership()
        loss, monitored = agreed([loss, monitored])
        step = self.step
        if loss is not None and not finite(loss) and self._optimizer.skips_overflow():
            loss = None  # steps that were skipped
        # Only where there is something to go back to does anybody want to know.
        look = epoch_end and self._snapshot is not None and not self._decision.exploring
        sound = not look or finite_weights(self._synced_model())
        observation = Observation(step, self._epoch, epoch_end, self._rate, loss, monitored, sound)
        scale = self._decision.scale
        self._state, decision = self._plan.controller.update(self._state, observation)
        self._decision = decision
        self._carry_out(decision)
        # A restore takes the counter back by which the table is read.
        if self._in_graph is not None and (decision.restore or decision.scale != scale):
            self._compile_in()
        asked = decision.next_step
        self._next_control = step + self._interval if asked is None else asked
        self._apply_rate()
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
            "learning_rate": self._rate,
            "loss": loss,
            "monitored": monitored,
            "phase": phase,
        }
        self._writer.write_scalars(step, {k: v for k, v in scalars.items() if v is not None})
        if self._about is not None and step > self._steps.epoch_start:
            self._describe(self._about, epoch_end)

    def _carry_out(self, decision: Decision) -> None:
        model = self._synced_model()
        if decision.restore and self._snapshot is not None:
            if decision.earlier and self._earlier is not None:
                self._snapshot = self._earlier
            self._snapshot.restore()
            # The sums behind the epoch's metrics hold what was undone, NaN included.
            model.reset_metrics()
            self._loss.reset()
        # A model that is not built yet has nothing to keep; for an experiment, that is an error.
        if decision.snapshot and (model.built or decision.exploring):
            self._keep(model)
        if self._average is not None:
            if decision.keep_best:
                self._average.keep_best()
            if decision.restart_average:
                self._average.restart(self.step)
        if decision.stop:
            model.stop_training = True

    def _keep(self, model: Any) -> None:
        # A loss is that of the step before: the last step may have made NaN of the weights unseen.
        snapshot = Snapshot(model, leave=self._optimizer.variables())
        if self._snapshot is None or snapshot.finite:
            self._earlier, self._snapshot = self._snapshot, snapshot

    def _apply_rate(self) -> None:
        rate = self._decision.scale * self._scheduled(self.step)
        if rate != self._rate or self._write_lost:
            self._synced_model()
            self._optimizer.write(rate, self._lasting(rate))
            self._rate, self._write_lost = rate, False
        if self._momentum is not None and self._cycled is not None:
            self._cycled.write(self._momentum(self.step))

    def _lasting(self, rate: float) -> float:
        """What a later `fit` begins from if this one leaves `rate` in the optimizer.

        Rates that a run only passes through are none: those of a probe, of a warm-up (it is where
        that leads to) and of AutoLR's cool-down, and zero, from which there is no way back.
        """
        schedule = self._schedule
        if isinstance(schedule, Warmup) and self.step < schedule.warmup_steps:
            rate = self._decision.scale * self._scheduled(schedule.warmup_steps)
        elif self._decision.exploring or self._decision.passing:
            return self._base
        return rate or self._base

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

    def _measurable(self) -> bool:
        monitor = self._plan.controller.monitor
        return monitor is not None and monitor.name in self._metrics

    def _measured(self) -> float | None:
        if not (self._decision.measure and self._measurable()):
            return None
        if self._average is not None:
            self._take_average()
            self._average.swap_in()
        measured = self._monitored(evaluate(self._synced_model(), self._plan.validation_data))
        if self._average is not None:
            self._synced_model()
            self._average.swap_out()
        return measured

    def _noise(self, average: RunningAverage) -> dict[str, float | None]:
        """Measures averaged and raw weights on the same few batches; leaves the raw ones."""
        monitor, data = self._plan.controller.monitor, self._plan.validation_data
        if monitor is None or not self._measurable() or self._decision.exploring:
            average.swap_out()
            return {}
        self._swap_in(counted=True)  # if nothing has been validated
        found = []
        for last in (False, True):
            if last:
                average.swap_out()
            logs = evaluate(self._synced_model(), data, steps=few(data))
            found.append(number(logs.get(monitor.name)))
            self._synced_model()
        averaged, raw = found
        gap = None if averaged is None or raw is None else abs(raw - averaged)
        return {"noise/averaged": averaged, "noise/raw": raw, "noise/gap": gap}

    def _monitored(self, logs: dict[str, Any]) -> float | None:
        monitor = self._plan.controller.monitor
        if monitor is None:
            return None
        value = number(logs.get(monitor.name))
        if value is None and not self._warned:
            self._warned = True
            why = why_missing(monitor.name, logs, self._epoch, self._without_metric())
            warnings.warn(f"{self._owner}(monitor={monitor.name!r}): {why}", stacklevel=4)
        return value

    def _without_metric(self) -> str:
        if self._average is None:
            return "the rate is held"
        return (
            "the training loss decides about the rate, over-fitting goes unseen, and the last "
            "averaged weights count as the best"
        )

    def _require_ownership(self) -> None:
        self._synced_model()
        changed = self._optimizer.changed_by_others()
        if changed is not None:
            others = self._others()
            raise RuntimeError(
                f"{self._owner} set the learning rate to {changed[0]:.6g} and found "
                f"{changed[1]:.6g} at step {self.step}: something else changes it too, another "
                f"callback (LearningRateScheduler, ReduceLROnPlateau, a second adaptlr callback), "
                f"code in a training step, or optimizer state that was loaded. Callbacks in this "
                f"fit: {', '.join(others) or 'no other'}. Keep one that sets the rate; a schedule "
                f"and a controller are combined by adaptlr.ScheduleLR(schedule, controller)."
            )

    def _describe(self, about: dict[str, Any], epoch_end: bool) -> None:
        # Keras tells no callback the batch size: it shows once some batches were seen, unless the
        # last of an epoch, which may be smaller, is among them.
        self._about = None
        if not epoch_end and self._loss.samples:
            about["batch_size"] = round(self._loss.samples / (self.step - self._steps.epoch_start))
        self._writer.write_run(self.step, about)

    def _record(self, rule: str, reason: str, curve: Curve | None = None) -> None:
        rate = self._base if self._rate is None else self._rate
        record = Record(self.step, self._epoch, rate, rule, reason, curve)
        self._announce(record)
        self._writer.write_decision(record)


def _guarded(controller: Controller) -> Controller:
    """The controller, or the one that a guard against divergence is around."""
    return controller.inner if isinstance(controller, Divergence) else controller


def _phase(state: Any) -> str:
    """The phase of a controller's state, or of the controller inside a wrapper, if it has any."""
    while hasattr(state, "inner"):
        state = state.inner
    return getattr(state, "phase", "")
