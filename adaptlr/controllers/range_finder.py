"""The range test as a controller: a ramp that is undone, and a reading of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from adaptlr._checks import refuse
from adaptlr.controllers.base import Decision, Observation, Run
from adaptlr.monitor import Monitor, finite, require_monitor
from adaptlr.range_test import Curve, RangeTest

__all__ = ["RangeFinder", "RangeFinderState"]


@dataclass(frozen=True)
class RangeFinderState:
    """Where the ramp stands. The scale is the rate itself: the schedule is 1."""

    learning_rate: float  # the one that the optimizer came with, and gets back
    momentum: float = 0.0
    phase: Literal["start", "ramp", "done"] = "start"
    losses: tuple[float, ...] = ()
    validation_losses: tuple[float, ...] = ()
    diverged: bool = False
    unseen: bool = False  # the model reports no loss


@dataclass(frozen=True)
class RangeFinder:
    """Runs a range test, then puts everything back and ends the training.

    Args:
        ramp: The rates to try, and when to give up.
        monitor: What to measure on held-out data after each step, or None.

    Raises:
        ValueError, TypeError: If an argument is none of these.

    Example:
        >>> from adaptlr.controllers import Observation, Run
        >>> finder = RangeFinder(RangeTest(min_lr=0.001, max_lr=1.0, num_steps=4))
        >>> state = finder.init(Run(learning_rate=0.5))
        >>> state, decision = finder.update(state, Observation(step=0, epoch=0))
        >>> decision.rule, decision.scale, decision.snapshot
        ('ramp', 0.001, True)
        >>> for step, loss in enumerate([2.0, 2.0, 1.0, 0.5, 3.0], start=1):
        ...     state, decision = finder.update(state, Observation(step, epoch=0, loss=loss))
        >>> decision.rule, decision.scale, decision.restore, decision.stop
        ('found', 0.5, True, True)
        >>> round(finder.curve(state).suggestions["centre"], 4)
        0.01
    """

    ramp: RangeTest = field(default_factory=RangeTest)
    monitor: Monitor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.ramp, RangeTest):
            refuse(self, "ramp", "a RangeTest, such as RangeTest(num_steps=50)", self.ramp)
        require_monitor(self, optional=True)

    def init(self, run: Run) -> RangeFinderState:
        """Returns the state before the ramp."""
        return RangeFinderState(run.learning_rate, run.optimizer_momentum)

    def curve(self, state: RangeFinderState) -> Curve:
        """What the ramp has shown so far."""
        if state.unseen:
            return Curve(verdict="the model reports no metric named 'loss': there is no curve")
        ramp = replace(self.ramp, momentum=state.momentum)
        return ramp.curve(state.losses, state.diverged, state.validation_losses)

    def update(
        self, state: RangeFinderState, observation: Observation
    ) -> tuple[RangeFinderState, Decision]:
        """Answers the next rate of the ramp; after the last, the end."""
        if state.phase == "start":
            ramp = self.ramp
            reason = (
                f"{ramp.shape} ramp from {ramp.min_lr:.3g} to {ramp.max_lr:.3g} over "
                f"{ramp.num_steps} steps, to be undone"
            )
            first = self._try(0, observation)
            return replace(state, phase="ramp"), replace(
                first, rule="ramp", reason=reason, snapshot=True
            )
        # Keras trains one step more after it was asked to stop: exploring says that this one is
        # to be undone as well, and so is the copying of averaged weights at the end of `fit`.
        end = Decision(state.learning_rate, restore=True, exploring=True, stop=True)
        if state.phase == "done":
            return state, end
        state = self._take_in(state, observation)
        if state.phase == "ramp":
            return state, self._try(len(state.losses), observation)
        curve = self.curve(state)
        rate = curve.suggestions["centre"]
        found = "" if rate is None else f": their geometric mean {rate:.3g} is suggested"
        return state, replace(
            end,
            rule="unclear" if rate is None else "found",
            reason=f"{curve.verdict}{found}",
            curve=curve if curve.losses else None,
        )

    def _take_in(self, state: RangeFinderState, observation: Observation) -> RangeFinderState:
        loss = observation.loss
        if loss is None:
            # At an epoch's end its last loss may have been seen already; elsewhere there is none.
            return state if observation.epoch_end else replace(state, phase="done", unseen=True)
        measured = observation.monitored
        if not finite(loss) or (measured is not None and not finite(measured)):
            return replace(state, phase="done", diverged=True)
        losses = (*state.losses, loss)
        # One loss more than rates: what a rate led to is seen in the next step.
        complete = len(losses) > self.ramp.num_steps
        diverged = self.ramp.diverged(losses)
        return replace(
            state,
            phase="done" if complete or diverged else "ramp",
            losses=losses,
            validation_losses=(
                *state.validation_losses,
                *([] if measured is None else [measured]),
            ),
            diverged=diverged,
        )

    def _try(self, index: int, observation: Observation) -> Decision:
        rate = self.ramp.rate(min(index, self.ramp.num_steps - 1))
        return Decision(
            rate,
            next_step=observation.step + 1,
            measure=self.monitor is not None,
            exploring=True,
        )
