"""What the run's length allows, and whether the training still gets better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from adaptlr.controllers.base import Answer, Decision, Effect, Observation
from adaptlr.monitor import Monitor, MonitorState, finite, noise

if TYPE_CHECKING:
    from adaptlr.controllers.feedback.controller import Feedback, FeedbackState

    Reply = Answer[FeedbackState]


@dataclass(frozen=True)
class Limits:
    """Fixed before the first step: what there is room for."""

    first_step: int
    last_step: int | None
    epoch_steps: int | None
    momentum: float
    probe_steps: int
    warm_steps: int
    segment: int  # steps of a segment of the search
    measurable: bool  # whether the validation loss can be measured between epoch ends
    customary: float  # rate of the class of optimizer, 0 if it is not known
    usual: float  # up to how many times that rate raises are not compared

    def share(self, step: int) -> float:
        """Share of the steps that are done; 0 if the horizon is not known."""
        if self.last_step is None:
            return 0.0
        return (step - self.first_step) / max(1, self.last_step - self.first_step)

    def cooling(self, turn: Turn) -> bool:
        """Whether it is time for the cool-down of a known horizon."""
        return self.share(turn.seen.step) > 1.0 - turn.settings.cool_share

    def total(self, step: int) -> int:
        """Steps of the run, or if they are not known, those that were trained so far."""
        return (step if self.last_step is None else self.last_step) - self.first_step


@dataclass(frozen=True)
class Gauge:
    """The loss that a segment leads to.

    It is the validation loss at its end, or where that cannot be measured, the mean training loss
    over the second half of its steps.
    """

    begin: int  # step
    until: int
    seen: int  # step of the last control point
    total: float = 0.0  # of training losses
    steps: int = 0

    @property
    def half(self) -> int:
        """Step of the control point in its middle."""
        return max(self.begin + 1, (self.begin + self.until) // 2)

    def take(self, seen: Observation) -> Gauge:
        """Takes in a control point."""
        gauge = replace(self, seen=seen.step)
        if seen.loss is None or seen.step <= self.half < self.until:
            return gauge
        count = max(1, seen.step - max(self.begin, self.seen))
        return replace(gauge, total=self.total + count * seen.loss, steps=self.steps + count)

    def next_step(self, seen: Observation) -> int | None:
        """Step of the next control point, or None if this was the last one."""
        if seen.step < self.half:
            return self.half
        if seen.step < self.until:
            return self.until
        # Nothing is measured where an epoch ends; a step later it is, unless that ends one, too.
        missing = seen.epoch_end and seen.validation_loss is None and seen.step == self.until
        return seen.step + 1 if missing else None

    def value(self, seen: Observation) -> float:
        """The loss that was found; infinite if there is none, or it is not finite."""
        value = seen.validation_loss
        if value is None:
            value = self.total / self.steps if self.steps else math.inf
        return value if finite(value) else math.inf


@dataclass(frozen=True)
class Progress:
    """The metric of the epochs, or as long as there is none, their training loss."""

    monitor: MonitorState = field(default_factory=MonitorState)
    training: MonitorState = field(default_factory=MonitorState)
    first: float | None = None  # value judged
    counted: float | None = None  # the last one that was an improvement that matters
    wait: int = 0  # epochs since
    untrained: float | None = None  # the metric before the first step, if it may be the best
    kept: float | None = None  # that of the trained weights that count as the best
    epoch_losses: tuple[float, ...] = ()

    def watch(self, monitor: Monitor, least_gain: float, observation: Observation) -> Progress:
        """Takes in an epoch's metric, or its training loss as long as there was no metric."""
        losses = self.epoch_losses
        if observation.loss is not None and finite(observation.loss):
            losses = (*losses, observation.loss)
        if not observation.epoch_end:
            return replace(self, epoch_losses=losses)
        progress = replace(self, epoch_losses=())
        value = observation.monitored
        if value is not None:
            state, improved = monitor.update(self.monitor, value)
            if self.monitor.best is None:  # it takes over from the training loss
                progress = replace(progress, first=None)
            return replace(progress, monitor=state)._count(value, improved, least_gain)
        if self.monitor.best is None and losses:
            value = sum(losses) / len(losses)
            state, improved = monitor.update(self.training, value)
            return replace(progress, training=state)._count(value, improved, least_gain)
        return progress

    def _count(self, value: float, improved: bool, least_gain: float) -> Progress:
        """Counts the epochs without an improvement that matters."""
        if not finite(value):
            return self if self.first is None else replace(self, wait=self.wait + 1)
        if self.first is None or self.counted is None:
            return replace(self, first=value, counted=value, wait=0)
        gain, progress = abs(value - self.counted), abs(value - self.first)
        if improved and gain >= least_gain * progress:
            return replace(self, counted=value, wait=0)
        return replace(self, wait=self.wait + 1)

    def begin(self, observation: Observation) -> Progress:
        """Remembers what the weights of before the first step are worth, if that was measured."""
        value = observation.monitored
        return self if value is None or not finite(value) else replace(self, untrained=value)

    @property
    def untrained_leads(self) -> bool:
        """Whether epochs were measured, and all of them worse than before the first step."""
        measured = self.monitor.record is not None
        return measured and self.kept is None and self.untrained is not None

    def beats_untrained(self, value: float) -> bool:
        """Whether a value of the metric is better than that of before the first step."""
        if self.untrained is None:
            return True
        lower = self.monitor.direction == "min"
        return value < self.untrained if lower else value > self.untrained

    def left(self, name: str) -> str:
        """Says which weights the run leaves."""
        best, kept = self.monitor.record, self.kept
        if best is None:
            return ""
        if self.untrained_leads:
            found = f"{name} was never better than the {self.untrained:.6g} of before"
            return f"; {found}: those weights are left"
        if kept is None or kept == best:
            return f"; best {name} {best:.6g}"
        return f"; best {name} {best:.6g}, later weights with {kept:.6g} are as good and are left"

    def worse(self, noises: float) -> bool:
        """Whether the last value is so many standard deviations of noise worse than the best.

        Without a metric, or before any weights count as the best, no snapshot is known to be good.
        """
        seen = self.monitor
        if self.kept is None or seen.record is None or seen.value is None:
            return False
        if not seen.curvatures:  # the noise is not known yet
            return False
        return abs(seen.value - seen.record) > noises * noise(seen)

    def gone_back(self) -> Progress:
        """Forgets the last values, so that the jump back does not count as noise."""
        return replace(self, monitor=replace(self.monitor, value=None, previous=None))

    def stalled(self, name: str, least_gain: float) -> str:
        """Says what has not improved, and for how long."""
        what = (
            "the training loss" if self.monitor.best is None else f"{name} of the averaged weights"
        )
        return (
            f"{what} has not improved on {self.counted:.6g} by more than its noise and "
            f"{least_gain:.0%} of its progress for {self.wait} epochs"
        )


@dataclass(frozen=True)
class Turn:
    """What a phase is asked: under these settings, in this state, this was seen."""

    settings: Feedback
    state: FeedbackState
    seen: Observation

    @property
    def limits(self) -> Limits:
        """What there is room for."""
        return self.state.limits

    def go(self, phase: Any, decision: Decision, *effects: Effect, **changes: Any) -> Reply:
        """Answers with a decision, more of its effects, and the phase that follows."""
        return replace(self.state, phase=phase, **changes), decision.also(*effects)
