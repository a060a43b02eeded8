"""The autonomous controller: probe for a rate, try a higher one, hold, cool down, stop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from adaptlr._arguments import require_integer, require_number
from adaptlr.controllers.base import Decision, Observation, Run
from adaptlr.controllers.feedback.hold import Cool, Hold
from adaptlr.controllers.feedback.probe import Probe, Start
from adaptlr.controllers.feedback.progress import Limits, Progress
from adaptlr.controllers.feedback.trial import Trial, Warm
from adaptlr.monitor import Monitor, require_monitor

__all__ = ["Feedback", "FeedbackState"]


@dataclass(frozen=True)
class FeedbackState:
    """Where the controller stands. The scale is the rate itself: the schedule is 1."""

    limits: Limits
    progress: Progress
    phase: Start | Probe | Warm | Trial | Hold | Cool


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
        >>> decision.rule, decision.scale, decision.rate_is, state.limits.probe_steps
        ('probe', 1e-06, 'experiment', 50)
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
    sets_the_rate: ClassVar[bool] = True

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
        progress = Progress(monitor=self.monitor.init(run.direction))
        return FeedbackState(self._limits(run), progress, Start(run.learning_rate))

    def _limits(self, run: Run) -> Limits:
        total = run.total_steps
        probe = warm = trial = self.probe_steps
        if total is not None:
            probe = min(probe, max(20, int(self.probe_share * total)))
            warm, trial = int(self.warm_share * total), int(self.trial_share * total)
        trial = max(trial, 10, round(2.0 / (1.0 - run.optimizer_momentum)))
        too_short = total is not None and probe > total / 10
        room = not too_short and (total is None or trial <= total / 20)
        measurable = run.measurable and self.trial_share > 0.0 and room
        return Limits(
            first_step=run.first_step,
            last_step=run.last_step,
            epoch_steps=run.steps_per_epoch,
            momentum=run.optimizer_momentum,
            probe_steps=0 if too_short else probe,
            warm_steps=warm if self.warm_share else 0,
            trial_steps=trial if measurable else 0,
        )

    def update(
        self, state: FeedbackState, observation: Observation
    ) -> tuple[FeedbackState, Decision]:
        """Answers one observation by the rule of the phase."""
        if isinstance(state.phase, Start | Probe):
            state, decision = state.phase.update(self, state, observation)
            return state, replace(decision, phase=state.phase.kind)
        record = state.progress.monitor.record
        progress = state.progress.watch(self.monitor, self.least_gain, observation)
        state = replace(state, progress=progress)
        state, decision = state.phase.update(self, state, observation)
        phase = state.phase
        if progress.monitor.record != record:
            decision = decision.also("keep best")
            # A raise that may be undone goes back to before itself, whatever has improved since.
            if not (isinstance(phase, Trial) and phase.trying):
                decision = decision.also("snapshot")
        name = "stopped" if isinstance(phase, Cool) and phase.told else phase.kind
        cooling = isinstance(phase, Cool)
        return state, replace(decision, phase=name, rate_is="passing" if cooling else "kept")

    def held(self, state: FeedbackState) -> float | None:
        """The rate that it settled on so far, or None before that."""
        phase = state.phase
        return None if isinstance(phase, Start | Probe) else phase.rate
