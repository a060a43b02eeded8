"""The autonomous controller: probe for a rate, try a higher one, hold, cool down, stop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from adaptlr._checks import require_integer, require_number
from adaptlr.controllers.base import Decision, Observation, Run
from adaptlr.controllers.trial import edge
from adaptlr.monitor import Monitor, MonitorState, finite, require_monitor
from adaptlr.range_test import Curve, RangeTest

__all__ = ["Feedback", "FeedbackState"]

Phase = Literal["start", "probe", "warm", "trial", "hold", "cool", "stopped"]


@dataclass(frozen=True)
class FeedbackState:
    """Where the controller stands. The scale is the rate itself: the schedule is 1."""

    phase: Phase
    scale: float
    first_step: int
    last_step: int | None
    epoch_steps: int | None
    momentum: float
    probe_steps: int
    warm_steps: int
    trial_steps: int  # 0 if nothing can be measured between epoch ends
    probe_losses: tuple[float, ...] = ()
    rate: float = 0.0  # held until the cool-down
    settled: int = 0  # step after which the rate is in force
    trial_until: int = 0
    mark: float | None = None  # the metric when the present trial began
    gain: float | None = None  # what the last raise that paid brought
    trying: bool = False  # a raise that may be undone
    wait: int = 0
    first: float | None = None  # value of the metric
    counted: float | None = None  # the last one that was an improvement that matters
    cool_from: int = 0
    cool_until: int = 0
    monitor: MonitorState = field(default_factory=MonitorState)
    # Stands in for the metric while nothing is validated.
    training: MonitorState = field(default_factory=MonitorState)
    epoch_losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Feedback:
    """Finds a rate by a range test and trials, holds it while the weights improve, then cools.

    * *Probe*: an exponential ramp over at most `probe_share` of the run, undone afterwards. The
      rate is the geometric mean of the rate with the lowest loss and the rate that brought half
      of that fall (see `RangeTest`), divided by `caution`: what is too low costs time, what is too
      high destroys the weights. A run without trials that is too short for the longest ramp has no
      such time, and takes the rate as it is.
    * *Warm-up*: linear from zero over `warm_share` of the run. A rate that is good later can
      destroy fresh weights for good (dead ReLUs) while the optimizer's moments are young.
    * *Trials*: if held-out data can be measured between epoch ends, the rate is raised by
      `trial_factor` for `trial_share` of the run, again and again, as long as the averaged weights
      have become better each time. The raise after which they have not is undone together with
      the one before, and the rate becomes that at which a raise would have brought nothing (see
      `edge`), divided by `margin`: what is fast for a few steps is too high for many.
    * *Hold*: the rate stays. The monitored metric is that of the running average of the weights,
      whose noise is small enough that a plateau shows within an epoch or two.
    * *Cool*: linear to zero, over the last `cool_share` of a known horizon, or, once the metric
      has not improved for `patience` epochs, over `cool_share` of the steps trained so far.
      Linear decay to zero is the strongest simple shape (arXiv 2502.15938), and a short cool-down
      after a constant rate reaches what a full decay does (arXiv 2405.18392).
    * At the end of the cool-down the training stops.

    As long as nothing is validated, the mean training loss of the epochs stands in for the metric:
    the rate is found and cooled, but nothing tells which weights generalise best.

    A ramp of fewer than twenty steps over seven decades reads noise. A run in which it would take
    more than a tenth, that is, one of fewer than 200 steps, is not probed: it trains at the rate
    the optimizer came with.

    Args:
        monitor: The metric and its threshold.
        min_lr: Where the ramp begins, > 0.
        max_lr: Where it ends, > `min_lr`.
        probe_steps: Longest ramp, in steps, ≥ 20.
        probe_share: Its largest share of a known horizon, in (0, 1).
        warm_share: Share of a known horizon that the warm-up takes, in [0, 1); 0 for none. An
            unknown horizon gives it `probe_steps`.
        trial_share: Share of a known horizon that a trial takes, in [0, 1); 0 for no trials. An
            unknown horizon gives it `probe_steps`. A trial has at least ten steps, and twice the
            1 / (1 - momentum) steps that a new rate takes to come into force; runs that are
            shorter than twenty trials do without.
        trial_factor: What a trial multiplies the rate by, > 1.
        margin: What the rate that the trials found is divided by, ≥ 1.
        caution: What the rate of the probe is divided by, ≥ 1, except in a run without trials that
            is too short for a probe of `probe_steps`.
        cool_share: Share of the steps that the cool-down takes, in (0, 1).
        least_gain: Improvements smaller than this share of all progress since the first value do
            not count as one, in [0, 1): a loss that falls towards zero by ever smaller steps ends.
        patience: Epochs without improvement that start the cool-down, ≥ 1.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> from adaptlr.controllers import Observation, Run
        >>> controller = Feedback()
        >>> state = controller.init(Run(learning_rate=1e-6, steps_per_epoch=100, epochs=10))
        >>> state, decision = controller.update(state, Observation(step=0, epoch=0))
        >>> decision.rule, decision.scale, decision.exploring, state.probe_steps
        ('probe', 1e-06, True, 50)
    """

    monitor: Monitor = field(default_factory=lambda: Monitor(min_delta=0.5, threshold="noise"))
    min_lr: float = 1e-6
    max_lr: float = 10.0
    probe_steps: int = 100
    probe_share: float = 0.05
    warm_share: float = 0.02
    trial_share: float = 0.0125
    trial_factor: float = 2.0
    margin: float = 2.5
    caution: float = 2.0
    cool_share: float = 0.25
    least_gain: float = 0.01
    patience: int = 3

    def __post_init__(self) -> None:
        require_monitor(self)
        require_number(self, "min_lr", above=0.0)
        require_number(self, "max_lr", above=self.min_lr)
        require_integer(self, "probe_steps", minimum=20)
        require_number(self, "probe_share", above=0.0, below=1.0)
        require_number(self, "warm_share", minimum=0.0, below=1.0)
        require_number(self, "trial_share", minimum=0.0, below=1.0)
        require_number(self, "trial_factor", above=1.0)
        require_number(self, "margin", minimum=1.0)
        require_number(self, "caution", minimum=1.0)
        require_number(self, "cool_share", above=0.0, below=1.0)
        require_number(self, "least_gain", minimum=0.0, below=1.0)
        require_integer(self, "patience", minimum=1)

    def init(self, run: Run) -> FeedbackState:
        """Returns the state before the probe."""
        total = run.total_steps
        probe = warm = trial = self.probe_steps
        if total is not None:
            probe = min(probe, max(20, int(self.probe_share * total)))
            warm, trial = int(self.warm_share * total), int(self.trial_share * total)
        trial = max(trial, 10, round(2.0 / (1.0 - run.optimizer_momentum)))
        too_short = total is not None and probe > total / 10
        room = not too_short and (total is None or trial <= total / 20)
        measurable = run.measurable and self.trial_share > 0.0 and room
        return FeedbackState(
            phase="start",
            scale=run.learning_rate,
            first_step=run.first_step,
            last_step=run.last_step,
            epoch_steps=run.steps_per_epoch,
            momentum=run.optimizer_momentum,
            probe_steps=0 if too_short else probe,
            warm_steps=warm if self.warm_share else 0,
            trial_steps=trial if measurable else 0,
            monitor=self.monitor.init(run.direction),
        )

    def update(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Answers one observation by the rule of the phase."""
        if state.phase == "start":
            return self._start(state, observation)
        if state.phase == "probe":
            return self._probe(state, observation)
        record = state.monitor.record
        state = self._watch(state, observation)
        ahead = state.monitor.record != record
        phases = {"warm": self._warm, "trial": self._trial, "hold": self._hold}
        state, decision = phases.get(state.phase, self._cool)(state, observation)
        cooling = state.phase in ("cool", "stopped")
        # A raise that may be undone goes back to before itself, whatever has improved since.
        snapshot = decision.snapshot or (ahead and not state.trying)
        return state, replace(decision, keep_best=ahead, snapshot=snapshot, passing=cooling)

    def _watch(self, state: FeedbackState, observation: Observation) -> FeedbackState:
        """Takes in an epoch's metric, or its training loss as long as there was no metric."""
        losses = state.epoch_losses
        if observation.loss is not None and finite(observation.loss):
            losses = (*losses, observation.loss)
        if not observation.epoch_end:
            return replace(state, epoch_losses=losses)
        state = replace(state, epoch_losses=())
        value = observation.monitored
        if value is not None:
            monitor, improved = self.monitor.update(state.monitor, value)
            if state.monitor.best is None:  # it takes over from the training loss
                state = replace(state, first=None)
            return self._count(replace(state, monitor=monitor), value, improved)
        if state.monitor.best is None and losses:
            value = sum(losses) / len(losses)
            training, improved = self.monitor.update(state.training, value)
            return self._count(replace(state, training=training), value, improved)
        return state

    def _count(self, state: FeedbackState, value: float, improved: bool) -> FeedbackState:
        """Counts the epochs without an improvement that matters."""
        if not finite(value):
            return state if state.first is None else replace(state, wait=state.wait + 1)
        if state.first is None or state.counted is None:
            return replace(state, first=value, counted=value, wait=0)
        gain, progress = abs(value - state.counted), abs(value - state.first)
        if improved and gain >= self.least_gain * progress:
            return replace(state, counted=value, wait=0)
        return replace(state, wait=state.wait + 1)

    def _start(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        if state.probe_steps == 0:
            reason = (
                f"too few steps for a probe: the optimizer's own rate {state.scale:.3g} is held"
            )
            state = replace(state, phase="hold", rate=state.scale)
            return state, Decision(state.scale, "unprobed", reason, restart_average=True)
        state = replace(state, phase="probe", scale=self.min_lr, rate=state.scale)
        reason = (
            f"exponential ramp from {self.min_lr:.3g} to {self.max_lr:.3g} over "
            f"{state.probe_steps} steps, to be undone; the optimizer's own rate is not used"
        )
        return state, Decision(
            self.min_lr, "probe", reason, observation.step + 1, snapshot=True, exploring=True
        )

    def _probe(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        ramp = self._ramp(state)
        losses = state.probe_losses
        if observation.loss is not None:
            losses = (*losses, observation.loss)
        elif not observation.epoch_end:  # where the last one may have been seen already
            return self._unseen(state)
        state = replace(state, probe_losses=losses)
        if losses and (len(losses) > state.probe_steps or ramp.diverged(losses)):
            return self._settle(state, observation)
        # The loss that the last rate led to is that of one step more.
        rate = ramp.rate(min(len(losses), ramp.num_steps - 1))
        state = replace(state, scale=rate)
        return state, Decision(rate, next_step=observation.step + 1, exploring=True)

    def _unseen(self, state: FeedbackState) -> tuple[FeedbackState, Decision]:
        reason = (
            f"the model reports no metric named 'loss': there is no curve to read a rate off, and "
            f"the optimizer's own rate {state.rate:.3g} is held"
        )
        state = replace(state, phase="hold", scale=state.rate)
        return state, Decision(state.rate, "unprobed", reason, restore=True, restart_average=True)

    def _settle(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        reading = self._ramp(state).read(state.probe_losses)
        rate, step = reading.suggestion, observation.step
        if rate is None:
            rate, losses = self.min_lr * 1e3, state.probe_losses
            short = len(losses) <= state.probe_steps
            ended = f", until it rose by a rate of {state.scale:.3g}" if short else ""
            reason = f"{reading.verdict}{ended}; a cautious {rate:.3g} is tried"
        else:
            reason = f"{reading.verdict}: their geometric mean is {rate:.3g}"
            # A short run without trials has no time to make up for a rate that is too low.
            if self.caution > 1.0 and (state.trial_steps or state.probe_steps == self.probe_steps):
                rate /= self.caution
                reason += f", {rate:.3g} is safer"
        reason += f"; the weights are those of before the ramp ({step - state.first_step} steps)"
        if state.warm_steps:
            reason += f", the rate warms up over {state.warm_steps} steps"
        curve = self._shown(state, reading.suggestion, reason)
        state = replace(state, phase="warm", rate=rate, settled=step, probe_losses=())
        state, decision = self._warm(state, observation)
        return state, replace(
            decision,
            rule="settle",
            reason=reason,
            restore=True,
            restart_average=True,
            curve=curve,
        )

    def _warm(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        step = observation.step
        left = min(state.settled + state.warm_steps - step, state.warm_steps)
        if left > 0:
            scale = state.rate * (1.0 - left / (state.warm_steps + 1))
            wait = min(left, max(1, state.warm_steps // 50))
            measure = wait == left and state.trial_steps > 0
            state = replace(state, scale=scale)
            return state, Decision(scale, next_step=step + wait, measure=measure)
        state = replace(state, scale=state.rate, phase="hold")
        reason = f"warmed up to {state.rate:.3g} in {state.warm_steps} steps"
        if not state.trial_steps:
            return state, Decision(state.rate, "warm", reason)
        state = replace(state, phase="trial", trial_until=step)
        if observation.monitored is None or observation.epoch_end:
            return state, Decision(state.rate, "warm", reason, step + 1, measure=True)
        return self._raise(replace(state, mark=observation.monitored), step, reason)

    def _trial(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        step, value, mark = observation.step, observation.monitored, state.mark
        # Validation data of `fit` need not be those that are measured between epoch ends.
        if observation.epoch_end or step < state.trial_until:
            until = max(state.trial_until, step + 1)
            return state, Decision(state.scale, next_step=until, measure=True)
        if value is None:  # it was asked for
            rate = state.rate / self.trial_factor if state.trying else state.rate
            state = replace(state, phase="hold", rate=rate, scale=rate, trying=False, wait=0)
            reason = f"{self.monitor.name} cannot be measured on held-out data: {rate:.3g} is held"
            return state, Decision(rate, "keep", reason)
        found = f"{self.monitor.name} of the averaged weights is {value:.6g}"
        if mark is None:
            return self._raise(replace(state, mark=value), step, found)
        found += f" after {mark:.6g}"
        gain = mark - value if state.monitor.direction == "min" else value - mark
        if gain > 0.0:
            state = replace(state, mark=value, gain=gain)
            return self._raise(state, step, f"{found}: {state.rate:.3g} pays")
        top = state.rate / self.trial_factor
        limit = edge(top, self.trial_factor, state.gain, -gain)
        rate, paid = limit / self.margin, state.gain is not None
        undone = state.trial_steps * (1 + paid)
        reason = f"{found}: a raise brings nothing at {limit:.3g}, {rate:.3g} is held"
        reason += f"; the last {undone} steps are undone"
        state = replace(state, phase="hold", rate=rate, scale=rate, trying=False, wait=0)
        return state, Decision(
            rate, "undo", reason, restore=True, earlier=paid, restart_average=True
        )

    def _raise(
        self, state: FeedbackState, step: int, reason: str
    ) -> tuple[FeedbackState, Decision]:
        rate, until = state.rate * self.trial_factor, step + state.trial_steps
        if rate > self.max_lr:
            rate = state.rate / self.margin
            state = replace(state, phase="hold", rate=rate, scale=rate, trying=False, wait=0)
            return state, Decision(
                rate, "keep", f"{reason}, and is as high as trials go: {rate:.3g} is held"
            )
        state = replace(state, rate=rate, scale=rate, trying=True, trial_until=until)
        reason += f"; {rate:.3g} is tried for {state.trial_steps} steps"
        return state, Decision(rate, "raise", reason, until, snapshot=True, measure=True)

    def _shown(self, state: FeedbackState, rate: float | None, verdict: str) -> Curve:
        """The curve of the probe, with what was made of it."""
        losses = [loss for loss in state.probe_losses if finite(loss)]
        curve = self._ramp(state).curve(losses)
        suggestions = {**curve.suggestions, "centre": rate}
        return replace(curve, suggestions=suggestions, verdict=verdict)

    def _hold(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        step, last = observation.step, state.last_step
        cool_steps = None
        if last is not None and last - step <= self.cool_share * (last - state.first_step):
            cool_steps = last - step
            reason = f"the last {cool_steps} steps of the horizon have begun"
        elif state.wait >= self.patience:
            cool_steps = max(1, int(self.cool_share * (step - state.first_step)))
            if state.epoch_steps:  # whole epochs, so that the last weights are measured
                cool_steps = -(-cool_steps // state.epoch_steps) * state.epoch_steps
            cool_steps = cool_steps if last is None else min(cool_steps, last - step)
            reason = self._stalled(state)
        if not cool_steps or cool_steps < 0:  # nothing is due, or nothing is left
            return state, Decision(state.scale)
        state = replace(state, phase="cool", cool_from=step, cool_until=step + cool_steps)
        reason += f": linear decay to zero over {cool_steps} steps"
        return state, Decision(state.scale, "cool", reason, self._next_cool(state, step))

    def _stalled(self, state: FeedbackState) -> str:
        averaged = f"{self.monitor.name} of the averaged weights"
        what = "the training loss" if state.monitor.best is None else averaged
        return (
            f"{what} has not improved on {state.counted:.6g} by more than its noise and "
            f"{self.least_gain:.0%} of its progress for {state.wait} epochs"
        )

    def _cool(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        step, begin, end = observation.step, state.cool_from, state.cool_until
        if step >= end:
            if state.phase == "stopped" or not observation.epoch_end:
                return state, Decision(state.scale)
            state = replace(state, phase="stopped")
            best = state.monitor.record
            measured = "" if best is None else f"; best {self.monitor.name} {best:.6g}"
            return state, Decision(state.scale, "stop", f"cooled down{measured}", stop=True)
        scale = state.rate * (end - step) / (end - begin)
        state = replace(state, scale=scale)
        return state, Decision(scale, next_step=self._next_cool(state, step))

    def _next_cool(self, state: FeedbackState, step: int) -> int:
        return step + max(1, (state.cool_until - state.cool_from) // 50)

    def _ramp(self, state: FeedbackState) -> RangeTest:
        steps = max(2, state.probe_steps)
        return RangeTest(self.min_lr, self.max_lr, steps, momentum=state.momentum)
