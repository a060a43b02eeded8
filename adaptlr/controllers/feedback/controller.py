"""The autonomous controller: from what is customary upwards while it pays, hold, cool down."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from adaptlr._arguments import (
    AboveOne,
    AtLeastOne,
    BelowOne,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    accept,
    check,
    integer,
    number,
    refuse,
)
from adaptlr.controllers.base import Answer, Observation, Run
from adaptlr.controllers.feedback.hold import Cool, Hold
from adaptlr.controllers.feedback.progress import Limits, Progress, Turn
from adaptlr.controllers.feedback.search import Back, First, Look, Lower, Raised, Segment, look_up
from adaptlr.controllers.feedback.start import Probe, Start, Warm
from adaptlr.monitor import Monitor, noise, require_monitor


@dataclass(frozen=True)
class FeedbackState:
    """Where the controller stands. The scale is the rate itself: the schedule is 1."""

    limits: Limits
    progress: Progress
    phase: Start | Probe | Warm | First | Look | Raised | Back | Lower | Hold | Cool


@dataclass(frozen=True)
class Feedback:
    """Begins with a customary rate, raises it while that is better, holds it, and cools it.

    * *Start*: `begin` times what the class of optimizer is usually trained with, linear from zero
      over `warm_share` of the run. An unknown class gets a rate from a ramp, undone afterwards
      (see `RangeTest`), divided by `caution`.
    * *Search*: segments of `segment_share` of the run, each at `factor` times the rate before. Up
      to `usual` times the customary rate (`usual_normalised` with batch normalisation) a raise is
      kept if the loss fell. Beyond, the rate before it is then trained with from the same weights,
      and the two losses are compared: the raise must have gained `least_raise` times as much, and
      `doubt` more with each doubling beyond. The better one goes on, weights and slots included;
      the first raise that is not better ends the search. If it lost more than `spoilt` of all
      gains while the rate before it gained, that one is close to what spoils the weights, and is
      divided by `factor`, too. If neither brought anything, a lower rate is tried from there.
    * *Wait*: as long as the loss has not left its start by more than its noise, nothing is
      compared. The rate goes up to `usual` times the customary one, and beyond it after
      `wait_share` of the run. Where the loss has risen by `least_move`, the weights were good
      already: those of before the rise come back, at the rate over the square of `factor`.
    * *Hold*: the rate is held on trial. When `patience` epochs (and `patience_share` of the run)
      have brought nothing, it is divided by `cut`, `cuts` times at most, and then cooled down,
      from the last snapshot if the metric is worse than its best by `worse` times its noise. At
      the shares `look_at` of the run one more search looks up. If the loss has lost more than
      `spoilt` of what was gained with the last snapshot, that comes back instead, at the rate over
      the square of `factor`. If the last search finds that the held rate gains less than
      `late_gain` of what segments have gained on average, and a higher one no more, it is held no
      longer, unless the loss has not clearly moved (`clear_move`).
    * *Cool*: linear to zero over what is left after the last look, or over the last `cool_share`
      of a known horizon, or of the steps so far once lower rates do not help either. Linear decay
      to zero is the strongest simple shape (arXiv 2502.15938), and a short cool-down after a
      constant rate reaches what a full decay does (arXiv 2405.18392). Then the training stops.

    Losses are those of the *averaged* weights on validation data, whose noise is small enough that
    ten steps can tell two rates apart; where nothing can be measured between epoch ends, the
    training loss stands in. Searches end once they have undone `waste_share` of the run.

    Args:
        monitor: The metric that says whether the run still improves, and which weights are best.
        begin: What the customary rate is multiplied by at first, > 0.
        usual: Up to how many times the customary rate raises are not compared, ≥ 1.
        usual_normalised: The same where batch normalisation follows most layers, ≥ 1. Larger
            weights then make for smaller steps, and such networks stand higher rates
            (arXiv 1806.02375, 1812.03981).
        factor: What a raise multiplies the rate by, > 1.
        least_raise: Share of the gain of the rate before that a raise must bring, > 0.
        doubt: What is added to it with each doubling beyond twice `usual`, ≥ 0.
        late: What it is multiplied by in later searches, ≥ 1: they risk weights that are worth
            more, and less time is left to make use of a higher rate.
        highest: Up to how many times the customary rate anything is tried, ≥ 1.
        warm_share: Share of a known horizon that the warm-up takes, in [0, 1).
        segment_share: Share of a known horizon that a segment takes, in (0, 1).
        segment_updates: Updates of the weights in a segment, at least, ≥ 1; an unknown horizon
            gives it ten times as many.
        search_share: Share of a known horizon after which nothing is raised any more, in [0, 1].
        wait_share: Share of it after which a loss that has not moved raises the rate further.
        waste_share: Share of the run that searches may undo, ≥ 0.
        least_move: Share of the first loss by which it must have fallen to have moved, if that is
            more than four times its noise, in [0, 1).
        clear_move: Share by which it has moved whatever its noise, in [0, 1).
        look_at: Shares of a known horizon at which to look up, ascending.
        late_gain: Share of the mean gain per segment so far that the held rate must still bring in
            the last of these looks, in [0, 1).
        spoilt: Share of all gains before a trial or a hold that are lost again by a rate that
            spoils the weights, > 0.
        cut: What a plateau divides the rate by, > 1.
        cuts: How often, ≥ 0; a rise of the loss in the search lowers the rate as often.
        worse: Standard deviations of the metric's noise by which it must be worse than its best,
            for the weights to go back at a plateau or before the last steps' cool-down, ≥ 0.
        cool_share: Share of the steps that the cool-down takes, in (0, 1).
        least_gain: Improvements smaller than this share of all progress since the first value do
            not count as one, in [0, 1): a loss that falls towards zero by ever smaller steps ends.
        patience: Epochs without improvement that are a plateau, ≥ 1.
        patience_share: Share of a known horizon that they must be, at least, in [0, 1).
        min_lr: Where the ramp for an unknown class of optimizer begins, > 0.
        max_lr: Where it ends, > `min_lr`.
        probe_steps: Longest ramp, in steps, ≥ 20; at most 5 % of a known horizon, if that is 20.
        caution: What the rate of the ramp is divided by, ≥ 1.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> from adaptlr.controllers import Observation, Run
        >>> controller = Feedback()
        >>> run = Run(learning_rate=1e-6, steps_per_epoch=100, epochs=10, customary=0.001)
        >>> state = controller.init(run)
        >>> state, decision = controller.update(state, Observation(step=0, epoch=0))
        >>> decision.rule, state.phase.rate, state.limits.warm_steps, state.limits.segment
        ('begin', 0.002, 20, 25)
    """

    monitor: Monitor = field(default_factory=lambda: Monitor(min_delta=0.5, threshold="noise"))
    begin: PositiveFloat = 2.0
    usual: AtLeastOne = 4.0
    usual_normalised: AtLeastOne = 16.0
    factor: AboveOne = 2.0
    least_raise: PositiveFloat = 0.8
    doubt: NonNegativeFloat = 0.2
    late: AtLeastOne = 1.25
    highest: AtLeastOne = 1000.0
    warm_share: BelowOne = 0.02
    segment_share: Fraction = 0.025
    segment_updates: PositiveInt = 10
    search_share: NonNegativeFloat = 0.5
    wait_share: NonNegativeFloat = 0.4
    waste_share: NonNegativeFloat = 0.12
    least_move: BelowOne = 0.015
    clear_move: BelowOne = 0.05
    look_at: tuple[float, ...] = (0.25, 0.45)
    late_gain: BelowOne = 0.2
    spoilt: PositiveFloat = 0.5
    cut: AboveOne = 3.0
    cuts: NonNegativeInt = 2
    worse: NonNegativeFloat = 2.0
    cool_share: Fraction = 0.25
    least_gain: BelowOne = 0.01
    patience: PositiveInt = 3
    patience_share: BelowOne = 0.05
    min_lr: PositiveFloat = 1e-6
    max_lr: float = 10.0
    probe_steps: Annotated[int, integer(20)] = 100
    caution: AtLeastOne = 4.0
    sets_the_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_monitor(self)
        check(self)
        accept(self, "max_lr", Annotated[float, number(above=self.min_lr)])
        if list(self.look_at) != sorted(self.look_at):
            refuse(self, "look_at", "shares of the run in ascending order", self.look_at)

    def init(self, run: Run) -> FeedbackState:
        """Returns the state before the first step."""
        progress = Progress(monitor=self.monitor.init(run.direction))
        return FeedbackState(self._limits(run), progress, Start(run.learning_rate))

    def _limits(self, run: Run) -> Limits:
        # A new rate takes 1 / (1 - momentum) updates to come into force.
        updates = max(self.segment_updates, round(1.0 / (1.0 - run.optimizer_momentum)))
        total, updates = run.total_steps, updates * run.accumulation
        warm, segment, probe = 10 * updates, 10 * updates, self.probe_steps
        if total is not None:
            warm = max(int(self.warm_share * total), min(updates // 2, total // 20))
            segment = max(int(self.segment_share * total), min(updates, total // 8), 1)
            probe = min(probe, max(20, total // 20))
            probe = probe if probe <= total // 10 else 0
        return Limits(
            first_step=run.first_step,
            last_step=run.last_step,
            epoch_steps=run.steps_per_epoch,
            momentum=run.optimizer_momentum,
            probe_steps=probe,
            warm_steps=warm,
            segment=-(-segment // run.accumulation) * run.accumulation,
            measurable=run.measurable,
            customary=run.customary or 0.0,
            usual=self.usual_normalised if run.normalised else self.usual,
        )

    def update(self, state: FeedbackState, observation: Observation) -> Answer[FeedbackState]:
        """Answers one observation by the rule of the phase."""
        if isinstance(state.phase, Start | Probe):
            begins = observation.step == state.limits.first_step and not observation.epoch_end
            progress = state.progress.begin(observation) if begins else state.progress
            state = replace(state, progress=progress)
            state, decision = state.phase.update(Turn(self, state, observation))
            if begins and progress.untrained is not None:
                decision = decision.also("keep untrained")
        else:
            state, decision = self._watched(state, observation)
        phase, name = state.phase, str(state.phase.kind)
        if isinstance(phase, Segment):
            name = "trial"
        elif isinstance(phase, Cool) and phase.told:
            name = "stopped"
        passing = isinstance(phase, Cool | Warm)
        rate_is = "passing" if passing else decision.rate_is
        return state, replace(decision, phase=name, rate_is=rate_is)

    def _watched(self, state: FeedbackState, observation: Observation) -> Answer[FeedbackState]:
        """Answers when the training is under way, with what its progress asks for."""
        record, phase = state.progress.monitor.record, state.phase
        progress = state.progress.watch(self.monitor, self.least_gain, observation)
        turn = Turn(self, replace(state, progress=progress), observation)
        if isinstance(phase, Hold) and phase.look_is_due(turn):
            state, decision = look_up(turn, phase)
        else:
            state, decision = phase.update(turn)
        if _among_the_best(record, state, observation):
            progress = replace(state.progress, kept=observation.monitored)
            state, decision = replace(state, progress=progress), decision.also("keep best")
            # A trial may go back to before itself, whatever has improved since.
            if decision.rate_is == "kept" and not decision.restores:
                state, decision = self._saved(state, observation), decision.also("snapshot")
        elif observation.epoch_end and state.progress.untrained_leads:
            decision = decision.also("leave untrained")
        if decision.rule == "stop":
            left = state.progress.left(self.monitor.name)
            decision = replace(decision, reason=decision.reason + left)
        return state, decision

    def _saved(self, state: FeedbackState, observation: Observation) -> FeedbackState:
        """Remembers the loss of the weights that a snapshot is taken of in a hold."""
        if not isinstance(state.phase, Hold):
            return state
        loss = observation.monitored if self.monitor.name == "val_loss" else None
        return replace(state, phase=replace(state.phase, snapshot_loss=loss))

    def ends_at(self, state: FeedbackState) -> int | None:
        """The step from which on the next epoch's end is the last one, or None before that."""
        return state.phase.end if isinstance(state.phase, Cool) else None

    def held(self, state: FeedbackState) -> float | None:
        """The rate that it held last, or None before that."""
        phase = state.phase
        return None if isinstance(phase, Start | Probe) else phase.rate


def _among_the_best(record: float | None, state: FeedbackState, observation: Observation) -> bool:
    """Whether the weights are the best so far, or later ones that are as good.

    While cooling, noise is allowed for: of two that cannot be told apart, those trained further at
    a lower rate are the better guess. None that are worse than before the first step are.
    """
    seen = state.progress.monitor
    if seen.record is None or not observation.epoch_end or observation.monitored is None:
        return False
    if not state.progress.beats_untrained(observation.monitored):
        return False
    allowed = 0.5 * noise(seen) if isinstance(state.phase, Cool) else 0.0
    return seen.record != record or abs(observation.monitored - seen.record) <= allowed
