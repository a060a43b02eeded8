"""A wrapper for any controller: it tells training gone wrong, restores, and cuts the rate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from adaptlr._arguments import AboveOne, Fraction, PositiveInt, check, integer
from adaptlr.controllers.base import (
    Answer,
    Controller,
    Decision,
    Effect,
    Observation,
    RateIs,
    Run,
    ends_at,
    require_controller,
    sets_the_rate,
)
from adaptlr.monitor import Monitor, finite

_SUSPICIOUS = 5  # flat control points at the starting level from which no snapshot is taken
_REFRESH = 100  # steps between snapshots; a copy costs less than a step
_LEVEL = 0.9  # share of the starting loss above which a run has learnt next to nothing
_FLAT = 0.01  # span of a flat stretch of losses, as a share of the loss
_STUCK_TRIES = 2  # a cut that has not helped twice is not the cure
_BATCHES = 10  # of a probe, whose losses make the one to start from: single ones differ widely


@dataclass(frozen=True)
class Signs:
    """What was seen so far, as far as it tells good from bad."""

    measured: bool = False  # the monitored metric was a number once
    start: float | None = None  # the first training loss, or the mean of the first in a probe
    seen: int = 0  # losses in it
    best: float | None = None  # the lowest one
    low: float | None = None  # bounds of the present flat stretch of losses
    high: float | None = None
    flat: int = 0  # control points in it, of those that are not closer than usual
    flat_step: int = 0  # step of the last one counted
    spacing: int = 1  # steps between control points, as a rule
    tries: int = 0  # restores because the loss did not move

    def stuck(self, points: int | None) -> bool:
        """Whether the loss, once lower, has stayed at its starting level for so long."""
        if points is None or self.tries >= _STUCK_TRIES or self.flat < points:
            return False
        level = _LEVEL * (self.start or 0.0)
        if self.low is None or self.best is None:
            return False
        return self.low >= level > 0.0 and self.best < level

    def symptom(
        self, observation: Observation, limit: float | None, points: int | None
    ) -> str | None:
        """Says what is wrong, or None if nothing is.

        Args:
            observation: What was seen now, taken in by `watch_movement` already.
            limit: How many times the first training loss is an explosion, or None for never.
            points: Control points without movement that are too many, or None for never.
        """
        loss, monitored = observation.loss, observation.monitored
        if loss is not None and not finite(loss):
            return f"the training loss became {loss}"
        if not observation.sound:
            return "the weights hold NaN or infinities"
        if monitored is not None and not finite(monitored) and self.measured:
            return f"the monitored metric became {monitored}"
        if loss is None or self.start is None or self.best is None:
            return None
        # Where losses are negative, the fall since the start is the better measure of size.
        size = max(abs(self.start), self.start - self.best)
        if limit is not None and loss > limit * size > 0.0:
            return (
                f"the training loss {loss:.4g} is more than {limit:g} × its start {self.start:.4g}"
            )
        if self.stuck(points):
            return (
                f"the training loss has stayed at {loss:.4g} for {self.flat} control points and "
                f"its start was {self.start:.4g}"
            )
        return None


def watch_level(signs: Signs, loss: float | None, *, probing: bool) -> Signs:
    """Takes in where the losses began and how low they came."""
    if loss is None or not finite(loss):
        return signs
    start, seen = signs.start, signs.seen
    if start is None or (probing and seen < _BATCHES):
        start, seen = ((start or 0.0) * seen + loss) / (seen + 1), seen + 1
    best = loss if signs.best is None else min(loss, signs.best)
    return replace(signs, start=start, seen=seen, best=best)


def watch_movement(signs: Signs, observation: Observation) -> Signs:
    """Takes in whether the loss moves."""
    loss, step = observation.loss, observation.step
    if loss is None or not finite(loss):
        return signs
    if signs.flat > 0 and signs.low is not None and signs.high is not None:
        low, high = min(loss, signs.low), max(loss, signs.high)
        if high - low <= _FLAT * abs(high):
            signs = replace(signs, low=low, high=high)
            # A ramp has a control point each step, and a loss need not move from step to step.
            if step - signs.flat_step < signs.spacing:
                return signs
            return replace(signs, flat=signs.flat + 1, flat_step=step)
    return replace(signs, low=loss, high=loss, flat=1, flat_step=step)


def progressed(signs: Signs, loss: float | None) -> bool:
    """Whether a loss keeps three quarters of the fall that was seen."""
    if loss is None or signs.start is None or signs.best is None:
        return False
    return loss - signs.best <= 0.25 * (signs.start - signs.best)


@dataclass(frozen=True)
class DivergenceState:
    """The inner controller's state, and what the guard counts."""

    inner: Any
    signs: Signs = field(default_factory=Signs)
    scale: float = 1.0
    cut: float = 1.0
    rate_is: RateIs = "kept"  # of the last decision
    phase: str = ""
    asked: bool = False  # for a first snapshot
    inner_snapshots: bool = False  # the inner controller takes them
    snapshot_step: int = 0  # of the last one asked for here
    good: int = 0  # control points since the last restore
    restores: int = 0  # since the rate was last the inner controller's
    released: int = 0  # how often a cut was taken back
    ended: int | None = None  # epoch in which the training was ended


@dataclass(frozen=True)
class Divergence:
    """Guards another controller: goes back to a good snapshot and cuts the rate.

    Training has gone wrong at a control point if

    * the training loss is NaN or infinite, or weights are, which a ReLU may hide, or the monitored
      metric is and was not before;
    * the training loss exceeds `limit` times the first one that was seen (in a probe, where each
      loss is that of one batch, the mean of the first ten);
    * the training loss has stayed within 1 % for `stuck` control points on end, no more than 10 %
      below the first one, after it was lower: a network that outputs the same for everything,
      whose loss is that of chance, after a spike. At most two restores are spent on this. A loss
      that has never moved says first that the rate is too low, and is no fault.

    The inner controller never sees such a point. What it decides afterwards is scaled down by all
    cuts, of which there are at most `max_restores`; at the next fault the training is ended. If
    all is well for `recovery` control points, it was a passing fault: the cuts are taken back and
    the tries start anew. Each time that this happens it takes twice as many control points as
    before, so that a rate which is too high is not tried for ever. Steps that the inner controller
    declares to be a trial or an experiment are its own affair.

    A snapshot is taken before the first step, and at ends of epochs, at least 100 steps apart, at
    which the training loss keeps three quarters of the fall it has seen. If training goes wrong
    again before one control point was good, the snapshot itself is at fault, and the one before it
    is gone back to. An inner controller that takes snapshots of its own is left to that.

    Args:
        inner: The controller to guard.
        factor: What each restore multiplies the rate by, in (0, 1).
        limit: How many times the first training loss counts as an explosion, > 1, or None to allow
            any.
        max_restores: After so many restores the training is ended, ≥ 1.
        stuck: Control points, about ten an epoch, without any movement, ≥ 10, or None to allow
            any number.
        recovery: Good control points after which the first fault has passed, ≥ 1.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> from adaptlr.controllers import Constant, Observation, Run
        >>> guard = Divergence(Constant())
        >>> state = guard.init(Run(learning_rate=0.1))
        >>> state, decision = guard.update(state, Observation(step=0, epoch=0))
        >>> decision.effects
        ('snapshot',)
        >>> state, decision = guard.update(state, Observation(step=9, epoch=0, loss=float("nan")))
        >>> decision.effects, round(decision.scale, 3)
        (('restore', 'restart average'), 0.333)
    """

    inner: Controller
    factor: Fraction = 1.0 / 3.0
    limit: AboveOne | None = 10.0
    max_restores: PositiveInt = 5
    stuck: Annotated[int, integer(10)] | None = 20
    recovery: PositiveInt = 30

    def __post_init__(self) -> None:
        require_controller(self, "inner", self.inner)
        check(self)

    @property
    def monitor(self) -> Monitor | None:
        """The inner controller's."""
        return self.inner.monitor

    @property
    def sets_the_rate(self) -> bool:
        """The inner controller's."""
        return sets_the_rate(self.inner)

    def ends_at(self, state: DivergenceState) -> int | None:
        """The inner controller's."""
        return ends_at(self.inner, state.inner)

    def init(self, run: Run) -> DivergenceState:
        """Returns the inner controller's state, with nothing counted."""
        spacing = max(1, (run.steps_per_epoch or 0) // 10)
        return DivergenceState(self.inner.init(run), Signs(spacing=spacing))

    def update(self, state: DivergenceState, observation: Observation) -> Answer[DivergenceState]:
        """Answers for the inner controller, or in its place when training has gone wrong."""
        if state.ended == observation.epoch:
            return state, _at_an_end(state, observation)
        probing = state.rate_is == "experiment"
        if not probing and state.rate_is != "trial":
            state = replace(state, signs=watch_movement(state.signs, observation))
            symptom = state.signs.symptom(observation, self.limit, self.stuck)
            if symptom is not None:
                return self._restore(state, symptom, observation)
            state = _all_is_well(state, observation)
        signs = watch_level(state.signs, observation.loss, probing=probing)
        inner, decision = self.inner.update(state.inner, observation)
        state, decision = self._release(replace(state, inner=inner, signs=signs), decision)
        decision = replace(decision, scale=decision.scale * state.cut)
        state, decision = self._keep(state, decision, observation)
        state = replace(
            state, rate_is=decision.rate_is, phase=decision.phase, scale=decision.scale
        )
        return state, decision

    def _restore(
        self, state: DivergenceState, symptom: str, observation: Observation
    ) -> Answer[DivergenceState]:
        tries = state.signs.tries + state.signs.stuck(self.stuck)
        again = state.restores > 0 and state.good == 0
        restores = min(state.restores, self.max_restores) + 1
        stop = restores > self.max_restores
        factor = 1.0 if stop else self.factor
        state = replace(
            state,
            signs=replace(state.signs, flat=0, tries=tries),
            scale=state.scale * factor,
            cut=state.cut * factor,
            good=0,
            restores=restores,
            ended=observation.epoch if stop else None,
        )
        count = f"restore {restores} of {self.max_restores}"
        what = f"{self.max_restores} restores were in vain" if stop else count
        after = "to end the training" if stop else f"rate × {factor:.3g}"
        effects: tuple[Effect, ...] = ("restart average",)
        if stop:
            effects = (*effects, "stop")
        if observation.restorable:
            back = "back to the last good snapshot"
            effects = ("restore earlier" if again else "restore", *effects)
        else:
            # Of a model that was built in the very step that failed there is none.
            what = what.replace("restore", "cut")
            back = "no snapshot was taken yet, the weights stay"
        return state, Decision(
            scale=state.scale,
            rule="diverged",
            reason=f"{symptom} ({what}): {back}, {after}",
            effects=effects,
            rate_is=_outlasting(state),
            phase=state.phase,
        )

    def _release(self, state: DivergenceState, decision: Decision) -> Answer[DivergenceState]:
        due = state.cut < 1.0 and state.good >= self.recovery * 2**state.released
        if not due or decision.rate_is in ("trial", "experiment") or decision.rule != "hold":
            return state, decision
        reason = (
            f"all went well for {state.good} control points: the fault has passed, the cut to "
            f"{state.cut:.3g} is taken back"
        )
        state = replace(state, cut=1.0, restores=0, released=state.released + 1)
        return state, replace(decision, rule="released", reason=reason)

    def _keep(
        self, state: DivergenceState, decision: Decision, observation: Observation
    ) -> Answer[DivergenceState]:
        """Takes the snapshots, if the inner controller takes none, or stops it from a bad one."""
        snapshot = "snapshot" in decision.effects
        if decision.rate_is == "experiment":
            return replace(state, asked=state.asked or snapshot), decision
        stuck = self.stuck is not None and state.signs.stuck(_SUSPICIOUS)
        if snapshot or state.inner_snapshots:
            # A trial that begins here and fails then goes further back than it knows: to weights
            # from before the flat stretch, which may be dead ones.
            if stuck:
                decision, snapshot = decision.without("snapshot"), False
            return replace(state, inner_snapshots=True, asked=state.asked or snapshot), decision
        due = observation.epoch_end and observation.step - state.snapshot_step >= _REFRESH
        due = due and not stuck and progressed(state.signs, observation.loss)
        # One may have been asked for in vain: a model that is not built has nothing to keep.
        if state.asked and observation.restorable and not due:
            return state, decision
        state = replace(state, asked=True, snapshot_step=observation.step)
        return state, decision.also("snapshot")


def _at_an_end(state: DivergenceState, observation: Observation) -> Decision:
    """Keras trains one more step after a request to stop, and asks once more: silently."""
    back: tuple[Effect, ...] = ("restore",) if observation.restorable else ()
    return Decision(
        scale=state.scale,
        effects=(*back, "restart average", "stop"),
        rate_is=_outlasting(state),
        phase=state.phase,
    )


def _outlasting(state: DivergenceState) -> RateIs:
    """What the rate is after a restore, which ends an experiment."""
    return "passing" if state.rate_is == "passing" else "kept"


def _all_is_well(state: DivergenceState, observation: Observation) -> DivergenceState:
    measured = observation.monitored is not None and finite(observation.monitored)
    signs = replace(state.signs, measured=state.signs.measured or measured)
    good = state.good + (measured or observation.loss is not None)
    return replace(state, signs=signs, good=good)


def guarded(controller: Controller) -> Divergence:
    """Guards a controller, unless it is, against NaN and infinities only.

    Nothing else is beyond doubt where the rate is the user's choice: a loss that rises, or does
    not move, may be what was wanted.
    """
    if isinstance(controller, Divergence):
        return controller
    return Divergence(controller, limit=None, stuck=None)
