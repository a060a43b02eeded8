"""The range test as a controller: a ramp that is undone, and a reading of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from adaptlr._arguments import refuse
from adaptlr.controllers.base import Answer, Decision, Observation, Run
from adaptlr.monitor import Monitor, finite, require_monitor
from adaptlr.range_test import Curve, RampState, RangeTest, read_curve


@dataclass(frozen=True)
class RangeFinderState:
    """Where the ramp stands. The scale is the rate itself: the schedule is 1."""

    learning_rate: float  # the one that the optimizer came with, and gets back
    momentum: float = 0.0
    accumulation: int = 1  # steps that make one update, for which a rate is held
    due: int = 0  # step at which the present rate has had its update
    begun: bool = False
    ramp: RampState = field(default_factory=RampState)
    validation_losses: tuple[float, ...] = ()
    told: bool = False  # what was found has been said


@dataclass(frozen=True)
class RangeFinder:
    """Runs a range test, then puts everything back and ends the training.

    Where gradients are accumulated over n steps, a step of the ramp is an update of the weights: n
    steps at one rate, and the mean of their losses.

    Args:
        ramp: The rates to try, and when to give up.
        monitor: What to measure on validation data after each step, or None.

    Raises:
        ValueError, TypeError: If an argument is none of these.

    Example:
        >>> from adaptlr.controllers import Observation, Run
        >>> finder = RangeFinder(RangeTest(min_lr=0.001, max_lr=1.0, num_steps=4))
        >>> state = finder.init(Run(learning_rate=0.5))
        >>> state, decision = finder.update(state, Observation(step=0, epoch=0))
        >>> decision.rule, decision.scale, decision.effects
        ('ramp', 0.001, ('snapshot',))
        >>> for step, loss in enumerate([2.0, 2.0, 1.0, 0.5, 3.0], start=1):
        ...     state, decision = finder.update(state, Observation(step, epoch=0, loss=loss))
        >>> decision.rule, decision.scale, decision.effects
        ('found', 0.5, ('restore', 'stop'))
        >>> round(finder.curve(state).suggestions["centre"], 4)
        0.01
    """

    ramp: RangeTest = field(default_factory=RangeTest)
    monitor: Monitor | None = None
    sets_the_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.ramp, RangeTest):
            refuse(self, "ramp", "a RangeTest, such as RangeTest(num_steps=50)", self.ramp)
        require_monitor(self, optional=True)

    def init(self, run: Run) -> RangeFinderState:
        """Returns the state before the ramp."""
        return RangeFinderState(run.learning_rate, run.optimizer_momentum, run.accumulation)

    def curve(self, state: RangeFinderState) -> Curve:
        """What the ramp has shown so far."""
        if state.ramp.ended == "unseen":
            return Curve(verdict="the model reports no metric named 'loss': there is no curve")
        ramp = replace(self.ramp, momentum=state.momentum)
        diverged = state.ramp.ended in ("diverged", "not finite")
        return read_curve(ramp, state.ramp.losses, diverged, state.validation_losses)

    def update(
        self, state: RangeFinderState, observation: Observation
    ) -> Answer[RangeFinderState]:
        """Answers the next rate of the ramp; after the last, the end."""
        loss, left = observation.loss, state.due - observation.step
        if left > 0 and not state.ramp.ended and (loss is None or finite(loss)):
            return state, self._try(state, left, observation)  # an epoch ends between two updates
        state = replace(state, due=observation.step + state.accumulation)
        if not state.begun:
            ramp = self.ramp
            reason = (
                f"{ramp.shape} ramp from {ramp.min_lr:.3g} to {ramp.max_lr:.3g} over "
                f"{ramp.num_steps} steps, to be undone"
            )
            state = replace(state, begun=True)
            first = self._try(state, state.accumulation, observation)
            return state, replace(first, rule="ramp", reason=reason).also("snapshot")
        if not state.ramp.ended:
            state = self._take_in(state, observation)
        if not state.ramp.ended:
            return state, self._try(state, state.accumulation, observation)
        # Keras trains one step more after it was asked to stop: as an experiment this one is
        # undone as well, and so is the copying of averaged weights at the end of `fit`.
        end = Decision(
            state.learning_rate, effects=("restore", "stop"), rate_is="experiment", phase="done"
        )
        return (state, end) if state.told else self._tell(replace(state, told=True), end)

    def _tell(self, state: RangeFinderState, end: Decision) -> Answer[RangeFinderState]:
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
        measured = observation.monitored
        if observation.loss is not None and measured is not None and not finite(measured):
            return replace(state, ramp=replace(state.ramp, ended="not finite"))
        ramp = self.ramp.take(state.ramp, observation.loss, epoch_end=observation.epoch_end)
        validation = state.validation_losses
        if measured is not None and len(ramp.losses) > len(state.ramp.losses):
            validation = (*validation, measured)
        return replace(state, ramp=ramp, validation_losses=validation)

    def _try(self, state: RangeFinderState, steps: int, observation: Observation) -> Decision:
        return Decision(
            self.ramp.next_rate(state.ramp),
            next_step=observation.step + steps,
            measure=self.monitor is not None,
            rate_is="experiment",
            phase="ramp",
        )
