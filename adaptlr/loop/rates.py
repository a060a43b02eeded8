"""The open loop: the rate and the momentum of every step, and how they reach the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from adaptlr.bridge.compiled import CycledMomentum, InGraph
from adaptlr.bridge.fit import compiles_steps
from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.controllers import Decision, Run
from adaptlr.loop.plan import Plan
from adaptlr.schedules import Constant, OneCycle, Warmup
from adaptlr.schedules.base import last_change

# A schedule is spent below this share of its highest rate. Shorter runs show what they do.
_SPENT, _LONG = 1000.0, 20


@dataclass(frozen=True)
class RatesState:
    """What was written into the optimizer."""

    written: float | None = None  # the rate, the last time
    lost: bool = False  # and it may not have arrived


class Rates:
    """Sets `rate = schedule(step) * scale` in the optimizer, and the momentum if it is cycled.

    A schedule that no controller scales is known in advance: where the backend compiles the
    training step, it is compiled in (`InGraph`), exact at every step whatever the callback does,
    and compiled anew if the guard against divergence cuts it. Elsewhere a rate is written before
    each step at which it differs.

    Args:
        plan: Where the schedule and the momentum come from.
        run: The run about to begin, for which they are made.
        owner: Name of the callback, for messages.
        model: A compiled, built model.
        optimizer: The rate where it is written.

    Attributes:
        in_executions: Whether a rate stays for all steps that Keras trains in one call, since it
            is not known how many come.
    """

    def __init__(
        self, plan: Plan, run: Run, owner: str, model: Any, optimizer: OptimizerRate
    ) -> None:
        self.state = RatesState()
        self._coming: float | None = None
        self._unknown: tuple[int, Exception] | None = None  # a step, and why it has no rate
        self._plan = plan
        self._run = run
        self._owner = owner
        self._model = model
        self._optimizer = optimizer
        self._schedule = plan.schedule(run)
        self._momentum = None if plan.momentum is None else plan.momentum(run)
        self._in_graph: InGraph | None = None
        self.in_executions = False
        self._cycled: CycledMomentum | None = None

    @property
    def present(self) -> float:
        """The rate that the next step is trained with, as far as it is known."""
        written = self.state.written if self._coming is None else self._coming
        return self._run.learning_rate if written is None else written

    @property
    def every_step(self) -> bool:
        """Whether each step may have a rate of its own that is to be written before it."""
        return self._in_graph is None and not self.constant

    @property
    def constant(self) -> bool:
        """Whether the schedule is one rate."""
        return isinstance(self._schedule, Constant)

    def differs(self, step: int, decision: Decision) -> bool:
        """Whether rate or momentum of a step are to be written: on JAX that takes a sync."""
        if not self.every_step:
            return False
        new = decision.scale * self._expected(step) != self.state.written
        return new or self.state.lost or self._cycled is not None

    def compile_in(self, step: int, scale: float) -> None:
        """Compiles the rates to come into the step, if nothing but a fault will change them."""
        momentum = self._momentum
        if not compiles_steps() or self.constant:
            if momentum is not None:
                self._cycled = CycledMomentum(self._model, self._optimizer.leaves)
            return
        end = self._last_change()
        planned = self._run.total_steps is not None or momentum is not None  # else each is written
        own = self._optimizer.given  # one may count several updates a step
        if end is None or not planned or not self._plan.open_loop or own:
            self.in_executions = self._plan.open_loop and not own
            if momentum is not None and own:
                raise ValueError(
                    f"{self._owner}(momentum=...) must be None with optimizers=[...], except on "
                    f"PyTorch: elsewhere a momentum is compiled into the training step, by a "
                    f"count of steps that optimizers of a train_step of your own may not keep."
                )
            if momentum is not None:
                raise ValueError(
                    f"{self._owner}(momentum=...) needs to know the number of steps, and the data "
                    f"does not say; pass steps_per_epoch to fit, or momentum=None."
                )
            return
        if self._in_graph is not None:
            self._in_graph.remove()
        steps = range(step, max(step + 1, end))
        self._in_graph = InGraph(
            self._model,
            self._optimizer.leaves,
            self._optimizer.state.ratios,
            step,
            [scale * self._scheduled(later) for later in steps],
            None if momentum is None else [momentum(later) for later in steps],
        )

    def spent_at(self) -> int | None:
        """The step from which on the rate is next to nothing, if that is most of a known run.

        So it is where a schedule was given epochs, and counts steps.
        """
        first, last = self._run.first_step, self._run.last_step
        if last is None or first > 0 or self.constant or last < _LONG:
            return None
        steps = [*range(_LONG), *range(_LONG, last, max(1, last // 200))]
        try:
            rates = {step: self._scheduled(step) for step in steps}
        except Exception:  # it is told where that step comes
            return None
        least = max(rates.values()) / _SPENT
        spent = max((step for step in steps if rates[step] >= least), default=last) + 1
        return spent if spent < last / 2 else None

    def compile_again(self, step: int, scale: float) -> None:
        """Does so for rates that another scale, or a restored counter, has put out of date."""
        if self._in_graph is not None:
            self.compile_in(step, scale)

    def apply(
        self, step: int, decision: Decision, *, after: bool = False, ended: bool = False
    ) -> None:
        """Writes rate and momentum of the step about to be trained, if they differ.

        Args:
            step: That step.
            decision: Its scale counts.
            after: Where an epoch ends, the rate of the step before it, at the new scale: what the
                optimizer shows there is what was trained with, and what was decided since.
            ended: Whether an epoch has, perhaps the last: a schedule that knows no rate for the
                step leaves the one before it, and is told where that step comes.
        """
        before = max(step - 1, self._run.first_step)
        self._coming = decision.scale * self._expected(step, ended=ended)
        rate = decision.scale * self._scheduled(before) if after else self._coming
        if rate != self.state.written or self.state.lost or after:
            lasting = self._lasting(step, self._coming, decision)
            self._optimizer.write(rate, rate if lasting == self._coming else lasting)
            self.state = RatesState(rate)
        if self._momentum is not None and self._cycled is not None:
            self._cycled.write(self._momentum(before if after else step))
        if self._in_graph is not None and after:
            self._in_graph.rest()

    def begin_epoch(self) -> None:
        """Lets the optimizer show the rate that comes next, of those that are compiled in."""
        if self._in_graph is not None:
            self._in_graph.wake()

    def end_steps(self) -> None:
        """Lets it show the last one, from the last step of an epoch on; from any thread."""
        if self._in_graph is not None:
            self._in_graph.look_back()

    def lost(self, step: int) -> None:
        """Allows for a last batch that was announced and was not there; `step` comes next.

        On JAX what was written before it is lost; TensorFlow may have counted it.
        """
        self._optimizer.forget()
        self.state = replace(self.state, lost=True)
        if self._in_graph is not None:
            self._in_graph.align(step)

    def require_ownership(self, step: int, others: Callable[[], list[str]]) -> None:
        """Refuses to go on if something else has changed the rate since it was written.

        Raises:
            RuntimeError: If it has, or if what is driven no longer trains this model.
        """
        replaced = self._optimizer.replaced(self._model)
        if replaced is not None:
            kinds = ", ".join(type(leaf).__name__ for leaf in self._optimizer.leaves)
            raise RuntimeError(
                f"{self._owner} drives the learning rate of {kinds}, and at step {step} "
                f"{replaced}: what is driven would have no effect. Compile a model, and set a "
                f"schedule, between two calls of fit. Callbacks in this fit: "
                f"{', '.join(others()) or 'no other'}."
            )
        changed = self._optimizer.changed_by_others()
        if changed is not None:
            names = ", ".join(others()) or "no other"
            raise RuntimeError(
                f"{self._owner} set the learning rate to {changed[0]:.6g} and found "
                f"{changed[1]:.6g} at step {step}: something else changes it too, another "
                f"callback (LearningRateScheduler, ReduceLROnPlateau, a second adaptlr callback), "
                f"code in a training step, or optimizer state that was loaded. Callbacks in this "
                f"fit: {names}. Keep one that sets the rate; a schedule and a controller are "
                f"combined by adaptlr.ScheduleLR(schedule, controller)."
            )

    def remove(self) -> None:
        """Leaves nothing in the training step, and the momentum as it was compiled."""
        if self._in_graph is not None:
            self._in_graph.remove()
        if self._cycled is not None:
            self._cycled.remove()

    def _last_change(self) -> int | None:
        """The step from which on the schedule stays where it is, or None if that is not known."""
        rest = last_change(self._schedule)
        ends = [self._run.last_step, None if rest is None else rest + 1]
        return min((end for end in ends if end is not None), default=None)

    def _lasting(self, step: int, rate: float, decision: Decision) -> float:
        """What a later `fit` begins from if this one leaves `rate` in the optimizer.

        Rates that a run only passes through are none: those of a probe, of a warm-up (it is where
        that leads to), of AutoLR's cool-down and of the last descent of one cycle, and zero, from
        which there is no way back.
        """
        schedule = self._schedule
        if isinstance(schedule, OneCycle) and rate < decision.scale * schedule(0):
            return self._run.learning_rate
        if isinstance(schedule, Warmup) and step < schedule.warmup_steps:
            rate = decision.scale * self._scheduled(schedule.warmup_steps)
        elif decision.rate_is != "kept":
            return self._run.learning_rate
        return rate or self._run.learning_rate

    def _expected(self, step: int, *, ended: bool = False) -> float:
        """The rate of a step that may not be there; if it is not, a schedule may not know it.

        Data of unknown length announce a batch before they look for it. What the schedule raises
        is then kept until the batch is known to have been there, and the rate stays as it was.
        """
        if self._unknown is not None and step > self._unknown[0]:
            raise self._unknown[1]
        self._unknown = None
        try:
            return self._scheduled(step)
        except Exception as error:
            first = step == self._run.first_step
            if not ended and (first or self._run.steps_per_epoch is not None):
                raise
            self._unknown = step, error
            return self._scheduled(max(step - 1, self._run.first_step))

    def _scheduled(self, step: int) -> float:
        value = float(self._schedule(step))
        if not (math.isfinite(value) and value >= 0.0):
            raise ValueError(
                f"{self._owner}(schedule=...) must return a finite rate >= 0 at every step. "
                f"Received: {value} at step {step} from {self._schedule!r}"
            )
        return value
