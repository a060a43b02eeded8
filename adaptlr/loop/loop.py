"""One `fit`: observe at control points, ask the controller, carry out its decision, log it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from adaptlr._store import rebuild
from adaptlr.bridge.evaluation import Sums
from adaptlr.bridge.fit import agreed
from adaptlr.bridge.optimizer import RateState, warn_if_idle
from adaptlr.bridge.own_optimizers import built_for
from adaptlr.bridge.variables import normalised, to_host, training_variables
from adaptlr.controllers import Decision, Observation, Run
from adaptlr.controllers.base import ends_at
from adaptlr.loop.clock import Clock, ClockState
from adaptlr.loop.effects import Effects
from adaptlr.loop.lacking import warn_of_rule, warn_of_schedule, warn_of_what_is_lacking
from adaptlr.loop.left import Left, LeftState
from adaptlr.loop.log import Log
from adaptlr.loop.plan import Fit, Plan
from adaptlr.loop.rates import Rates, RatesState
from adaptlr.loop.sensors import Sensors, metric_direction, number, redirected
from adaptlr.monitor import Direction, finite
from adaptlr.writers import Record


@dataclass(frozen=True)
class LoopState:
    """All numbers of the loop, beside those of the controller."""

    epoch: int
    over: bool  # the epoch is
    next_control: int
    check_owner: bool
    epoch_loss: float | None  # of the steps before validation
    warned: bool
    described: bool
    clock: ClockState
    optimizer: RateState
    rates: RatesState
    loss: Sums
    left: LeftState


class Loop:
    """The state of one `fit` and everything that acts on it.

    Between control points a step costs one comparison. At control points (about ten an epoch, at
    epoch ends, and where the controller asks for one) the training loss is read, the controller
    decides, and the decision is carried out and logged. What else there is of one `fit` has rooms
    of its own: steps, rates, sensors, effects, the log.

    Args:
        plan: What to do.
        fit: Where.
        log: Where to log.
        saved: What `save` of the loop to be continued has returned, or the part of it that `carry`
            has; the model must hold its weights already.
    """

    def __init__(
        self, plan: Plan, fit: Fit, log: Log, saved: Mapping[str, Any] | None = None
    ) -> None:
        self._plan, self._fit, self._log = plan, fit, log
        self._epoch, self._over = fit.epoch, False
        steps = fit.epoch_steps
        self._clock = Clock(fit.first_step, steps, fit.execution)
        self._interval = max(1, steps // 10) if steps else 100
        self._first, self._at_start = self.step, fit.rate.progress()
        self._moved = self._unheard_told = False
        self._next_step = self._next_control = self.step
        self._decision = Decision(scale=1.0)
        self._check_owner = False
        self._epoch_loss: float | None = None
        self._untouched: dict[str, float] = {}  # metrics of an experiment's first batch
        known = steps is not None and fit.epochs is not None and plan.known_horizon
        total = (steps or 0) * (fit.epochs or 0) if known else None
        self._sensors = Sensors(plan, fit.owner, fit.model, total)
        if not fit.metrics_may_come:
            self._sensors.require_metric()
        self._effects = Effects(
            fit.model, fit.rate, plan.averaging, step=self.step, epoch_steps=steps
        )
        self._require_own_average()
        monitor = plan.controller.monitor
        self._left = Left(fit, "" if monitor is None else monitor.name)
        self._direction = fit.direction
        self._run = self._known_run() if saved is None else self._saved_run(saved)
        self._rates = Rates(plan, self._run, fit.owner, fit.model, fit.rate)
        self.state = plan.controller.init(self._run)
        self._log.know(self._run)
        self._restored = saved is not None
        if saved is None:
            self._begin()
        else:
            self._continue(saved)

    def _known_run(self) -> Run:
        fit = self._fit
        return Run(
            learning_rate=fit.rate.initial(),
            steps_per_epoch=fit.epoch_steps,
            epochs=fit.epochs if self._plan.known_horizon else None,
            first_step=self.step,
            new=self._at_start[0] == 0,
            direction=self._direction or self._tell_direction(seen=False) or "min",
            measurable=self._sensors.measurable,
            optimizer_momentum=fit.rate.velocity(),
            customary=fit.rate.customary(),
            normalised=normalised(fit.model),
            accumulation=fit.rate.accumulation(),
        )

    def _saved_run(self, saved: Mapping[str, Any]) -> Run:
        run = Run(**saved["run"])
        epochs = self._fit.epochs if self._plan.known_horizon else None
        return replace(run, direction=self._direction or run.direction, epochs=epochs)

    def _tell_direction(self, *, seen: bool) -> Direction | None:
        monitor = self._plan.controller.monitor
        if self._direction is None and monitor is not None:
            self._direction = metric_direction(self._fit.model, monitor, seen=seen)
        return self._direction

    def _settle_direction(self) -> None:
        """Takes to the direction of a metric that is seen for the first time."""
        if self._direction is not None:
            return
        direction = self._tell_direction(seen=True)
        if direction is not None:
            self._run = replace(self._run, direction=direction)
            self.state = redirected(self.state, direction)
            self._log.know(self._run)

    def _begin(self) -> None:
        self._rates.compile_in(self.step, self._decision.scale)
        warn_of_schedule(
            self._fit,
            spent=self._rates.spent_at(),
            steps=self._run.total_steps,
            written=self._rates.in_executions,
        )
        if self._plan.averaging:
            warn_of_what_is_lacking(
                self._fit,
                read_once=self._sensors.read_once,
                planned=self._plan.known_horizon,
                instead=self._sensors.validated_instead,
            )
        reason = f"{self._fit.owner} takes over from a rate of {self._run.learning_rate:.6g}"
        self._record(Decision(1.0, "start", reason))
        untrained = self._sensors.untrained() if self._plan.averaging else {}
        if untrained:
            self._log.left(self.step, untrained)
        self._control(None, number(untrained.get("val_loss")))

    def _require_own_average(self) -> None:
        rivals = {"SwapScheduleFreeWeights"} & {*self._fit.others()}
        if self._fit.swapped is not None:  # under any name
            rivals.add("SwapEMAWeights")
        if self.averages and rivals:
            raise ValueError(
                f"{self._fit.owner} keeps an average of the weights and swaps it in at each "
                f"epoch's end; beside it {min(rivals)} would train on from the wrong weights. "
                f"Leave {min(rivals)} out of fit(callbacks=...)."
            )

    # --- resuming ---------------------------------------------------------------------------

    def _continue(self, saved: Mapping[str, Any]) -> None:
        whole = "loop" in saved
        # A file of weights has none of before the first step, and no snapshot.
        missing = () if whole else ("untrained", "snapshot_loss")
        known = _without(missing, saved["state"])
        self.state = rebuild(self.state, known)
        if self._direction is not None:
            self.state = redirected(self.state, self._direction)
        self._decision = rebuild(self._decision, saved["decision"])
        if whole:
            self._load(rebuild(self._numbers(), saved["loop"]))
        self._rates.compile_in(self.step, self._decision.scale)
        if whole:
            self._effects.load(saved["effects"])
        else:  # carried by a file of weights
            self._effects.keep_loaded()
            self._rates.apply(self.step, self._decision)

    def _numbers(self) -> LoopState:
        return LoopState(
            epoch=self._epoch,
            over=self._over,
            next_control=self._next_control,
            check_owner=self._check_owner,
            epoch_loss=self._epoch_loss,
            warned=self._sensors.warned,
            described=self._log.described,
            clock=self._clock.state,
            optimizer=self._fit.rate.state,
            rates=self._rates.state,
            loss=self._sensors.loss.state,
            left=self._left.state,
        )

    def _load(self, numbers: LoopState) -> None:
        self._epoch, self._over = numbers.epoch, numbers.over
        self._next_control = numbers.next_control
        self._check_owner, self._epoch_loss = numbers.check_owner, numbers.epoch_loss
        self._sensors.warned, self._log.described = numbers.warned, numbers.described
        self._clock.state, self._rates.state = numbers.clock, numbers.rates
        self._fit.rate.load(numbers.optimizer)
        self._sensors.loss.state, self._left.state = numbers.loss, numbers.left

    def carry(self) -> dict[str, Any]:
        """What a file of weights carries: the controller's state and where it stands, as JSON."""
        return {
            "run": asdict(self._run),
            "epoch": self._epoch,
            "over": self._over or self._clock.last_begun,
            "state": asdict(self.state),
            "decision": asdict(replace(self._decision, curve=None)),
        }

    @property
    def enters_late(self) -> bool:
        """Whether this run is said to go on from a step, and nothing of it was restored."""
        return not self._restored and self._run.first_step > 0 and not self._run.new

    @property
    def begins_anew(self) -> bool:
        """Whether an optimizer that was trained goes on, and schedule and rules begin anew."""
        goes_on = self._restored or self._run.new or self._run.first_step > 0
        return not (goes_on or (self._plan.open_loop and self._rates.constant))

    @property
    def direction_known(self) -> bool:
        """Whether the direction of the monitored metric is more than a guess."""
        return self._direction is not None

    def save(self) -> dict[str, Any]:
        """Everything that another process needs to go on from here as if it were this one."""
        fit, average = self._fit, self._effects.average
        swapped = average is not None and average.swapped
        self._effects.swap_out()
        content = {
            **self.carry(),
            "loop": asdict(self._numbers()),
            "weights": to_host(training_variables(fit.model, fit.rate.optimizers)),
            "trains": built_for(fit.rate.optimizers, fit.model),
            "effects": self._effects.save(),
        }
        if swapped:
            self._effects.swap_in()
        return content

    @property
    def step(self) -> int:
        """Training steps done."""
        return self._clock.done

    @property
    def epoch(self) -> int:
        """Index of the present epoch."""
        return self._epoch

    @property
    def averages(self) -> bool:
        """Whether averaged weights are validated, its own or those of the optimizer."""
        return self._effects.average is not None

    @property
    def exploring(self) -> bool:
        """Whether the present weights are an experiment that will be undone."""
        return self._decision.rate_is == "experiment"

    # --- what happens in a fit, in this order -----------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Goes back to the raw weights, which training continues from."""
        self._effects.begin_epoch()
        self._epoch, self._over = epoch, False
        self._clock.begin_epoch()
        self._rates.begin_epoch()
        self._epoch_loss = None
        self._sensors.loss.reset()
        # Other callbacks have just had their turn at the rate: look once, before it is written.
        self._check_owner = True
        self._next_step = self.step

    def advance(self, batch: int) -> bool:
        """Counts a step of the epoch about to be trained; True if it is due for something.

        Only then has the model to be synced for `act`.
        """
        self._clock.begin(batch)
        step = self.step
        if step < self._next_step:
            return False
        due = self._check_owner or step >= self._next_control or self._average_due()
        return due or self._rates.differs(step, self._decision)

    def ended(self, batch: int) -> None:
        """Notes that a batch was trained; may be called from any thread, in any order."""
        self._clock.end(batch)
        steps = self._fit.epoch_steps
        if steps is not None and batch + 1 >= steps:
            self._rates.end_steps()

    def act(self) -> None:
        """Does what is due at this step."""
        step = self.step
        if self._check_owner:
            self._check_owner = False
            self._rates.require_ownership(step, self._fit.others)
        if self._average_due():
            self._take_average()
            self._effects.plan_average(step)
        if step >= self._next_control:
            if self.exploring and not self._untouched:
                self._untouched = self._sensors.training_metrics()
            self._control(self._sensors.loss.read(), *self._measured())
        else:
            self._rates.apply(step, self._decision)
            self._plan_next()

    def begin_validation(self) -> None:
        """Puts the averaged weights into the model; they stay until the next epoch begins."""
        # Validation resets the metrics, and runs them for itself.
        self._epoch_loss = self._sensors.loss.read()
        if self._effects.average is not None and self._clock.end_batches():
            self._take_average()
        self._effects.swap_in()

    def end_epoch(self, logs: dict[str, Any]) -> None:
        """Decides with the epoch's metrics; leaves the averaged weights for other callbacks."""
        self._over = True
        loss = self._sensors.loss.read() if self._epoch_loss is None else self._epoch_loss
        self._end_steps()
        averaging = self._plan.averaging
        if self._sensors.missing_from(logs, last=self._is_last()):
            self._swap_in()
            logs.update(self._sensors.evaluate())
        else:
            self._take_average()
        # Looked up by the step itself, or lost with a batch that was not there.
        self._rates.require_ownership(self.step, self._fit.others)
        self._rates.apply(max(self.step - 1, self._first), self._decision)
        rates = self._fit.rate.read_all()
        if self.exploring and averaging:
            self._tell_without_experiment(logs)
            rates = dict(zip(rates, self._fit.rate.state.begin, strict=True))
        logs.update(rates)
        self._log.epoch(self.step, {**logs}, self._noise())
        self._control(loss, self._sensors.monitored(logs, self._epoch), epoch_end=True)
        kept = "keep best" in self._decision.effects
        if averaging:
            self._left.end_epoch(self._epoch, logs, kept=kept)
        if kept or not averaging:
            self._log.left(self.step, logs)
        self._swap_in()

    def _is_last(self) -> bool:
        """Whether no epoch follows in which the weights would be validated."""
        ends = ends_at(self._plan.controller, self.state)
        planned = self._fit.epochs is not None and self._epoch + 1 >= self._fit.epochs
        return planned or (ends is not None and self.step >= ends)

    def _tell_without_experiment(self, logs: dict[str, Any]) -> None:
        """Puts into an epoch that will be undone whole what is true of the weights it leads to.

        Validation has seen them: the average has taken nothing in. Of the training metrics those
        of the first batch are theirs, which were computed before anything was changed.
        """
        training = {name for name in logs if not name.startswith("val_")}
        if not self._untouched:  # an epoch of one step
            self._untouched = {name: logs[name] for name in training}
        logs.update({name: x for name, x in self._untouched.items() if name in training})

    def _end_steps(self) -> None:
        """Counts the epoch's steps, and looks once at whether the optimizer has counted any."""
        if self._clock.unheard:  # the callback is driven by hand
            trained = self._fit.rate.progress()[0] - self._at_start[0]
            self._clock.count(self._first + int(trained))
            self._require_hooks()
        elif not self._clock.end_epoch():
            self._rates.lost(self.step)
        if not self._moved and self._clock.heard_in_epoch:
            self._moved = True
            warn_if_idle(self._fit.owner, self._fit.model, self._fit.rate, self._at_start)

    def _require_hooks(self) -> None:
        stands = not (self._rates.every_step or self._plan.averaging or self.exploring)
        if not (stands or self._unheard_told):
            self._unheard_told = True
            warnings.warn(
                f"{self._fit.owner} sets the rate in on_train_batch_begin, and on_train_batch_end "
                f"counts the steps. In epoch {self._epoch + 1} one of them was not called: the "
                f"rate changes only where epochs end. Call both around each step.",
                stacklevel=4,
            )

    def abandon(self) -> None:
        """Goes back to the raw weights; an exception is on its way out of `fit`."""
        self._effects.swap_out(interrupted=True)

    def finish(self, *, interrupted: bool = False) -> None:
        """Leaves the best weights in the model and closes the log."""
        self._rates.remove()
        if self._effects.finish(
            self.step,
            experiment=self.exploring,
            interrupted=interrupted,
            overwritten=self._fit.rate.averages,
            # SwapEMAWeights has validated them, and a snapshot has them in the optimizer.
            averages=self._fit.swapped is False,
        ):
            self._fit.rate.put_back()
        else:
            self._fit.rate.settle()
        self._log.close()
        if not interrupted:
            self._left.tell()

    # --- the loop ---------------------------------------------------------------------------

    def _control(
        self,
        loss: float | None,
        monitored: float | None = None,
        sampled: float | None = None,
        *,
        epoch_end: bool = False,
    ) -> None:
        step, scale = self.step, self._decision.scale
        self._rates.require_ownership(step, self._fit.others)
        if monitored is not None:
            self._settle_direction()
        seen = self._observe(loss, monitored, sampled, epoch_end)
        self.state, decision = self._plan.controller.update(self.state, seen)
        self._decision = decision
        done = self._effects.carry_out(decision, step, epoch_end=epoch_end)
        restored = bool(done & {"restore", "restore earlier", "take back"})
        if restored:
            self._sensors.loss.read()  # from here on
        # A restore takes the counter back by which the table is read.
        if restored or decision.scale != scale:
            self._rates.compile_again(step, decision.scale)
        asked = decision.next_step
        self._next_control = step + self._interval if asked is None else asked
        after = epoch_end and not self._clock.unheard  # else nobody writes it before a step
        self._rates.apply(step, decision, after=after, ended=epoch_end)
        self._plan_next()
        # A finder probes too, and lacks nothing by it.
        unseen = decision.rule == "unseen" or (decision.rule == "unprobed" and restored)
        if self._plan.averaging or unseen:
            warn_of_rule(self._fit, decision, restored=restored)
        if decision.rule != "hold":
            kept = "" if restored or not decision.restores else " (there was none to go back to)"
            self._record(replace(decision, reason=decision.reason + kept))
        self._log.control(step, self._rates.present, seen, decision.phase)
        if not self._log.described and self._clock.done_in_epoch > 0:
            # Samples of an epoch's last batch, which may be smaller, would tell the wrong size.
            samples = 0.0 if epoch_end else self._sensors.loss.samples
            self._log.describe(step, samples / self._clock.done_in_epoch)

    def _observe(
        self, loss: float | None, monitored: float | None, sampled: float | None, epoch_end: bool
    ) -> Observation:
        loss, monitored, sampled = agreed([loss, monitored, sampled])
        if loss is not None and not finite(loss) and self._fit.rate.skips_overflow():
            loss = None  # steps that were skipped
        # Skip this device call when no snapshot could be restored.
        look = epoch_end and self._effects.restorable and not self.exploring
        return Observation(
            step=self.step,
            epoch=self._epoch,
            epoch_end=epoch_end,
            learning_rate=self._rates.state.written,
            loss=loss,
            monitored=monitored,
            validation_loss=sampled,
            sound=not look or self._effects.sound,
            restorable=self._effects.restorable,
        )

    def _plan_next(self) -> None:
        due = [self._next_control]
        if self._rates.every_step:
            due.append(self.step + 1)
        if self._effects.average is not None:
            due.append(self._effects.next_average)
        self._next_step = max(self.step + 1, min(due))

    # --- the average ------------------------------------------------------------------------

    def _average_due(self) -> bool:
        return self._effects.average is not None and self.step >= self._effects.next_average

    def _take_average(self) -> None:
        if not self.exploring:
            self._effects.take_average(self.step)

    def _swap_in(self) -> None:
        self._take_average()
        self._effects.swap_in()

    def _measured(self) -> tuple[float | None, float | None]:
        """Measures metric and loss between epoch ends, of the averaged weights, if any."""
        if not (self._decision.measure and self._sensors.measurable):
            return None, None
        self._swap_in()
        measured = self._sensors.look(self._epoch)
        self._effects.swap_out()
        return measured

    def _noise(self) -> dict[str, float | None]:
        """How far averaged and raw weights are apart; leaves the raw ones in the model."""
        average = self._effects.average
        if average is None:
            return {}
        noted = self._plan.averaging and self._fit.logged and self._sensors.measurable
        if not noted or self.exploring:
            average.swap_out()
            return {}
        self._swap_in()  # if nothing has been validated
        return self._sensors.noise(average, self._clock.done_in_epoch)

    # --- small parts ------------------------------------------------------------------------

    def _record(self, decision: Decision) -> None:
        told = (decision.rule, decision.reason, decision.curve)
        record = Record(self.step, self._epoch, self._rates.present, *told)
        self._log.decision(record, self.state)


def _without(names: tuple[str, ...], saved: Any) -> Any:
    """Sets what has one of the names to None, at any depth."""
    if not isinstance(saved, Mapping):
        return saved
    return {key: None if key in names else _without(names, x) for key, x in saved.items()}
