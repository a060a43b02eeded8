"""A wrapper for any controller: where the training went wrong, restore and cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from adaptlr._checks import require_integer, require_number
from adaptlr.controllers.base import Controller, Decision, Observation, Run, require_controller
from adaptlr.monitor import Monitor, finite

__all__ = ["Divergence", "DivergenceState", "guarded"]

_LEVEL = 0.9  # share of the starting loss above which a run has learnt next to nothing
_FLAT = 0.01  # span of a flat stretch of losses, as a share of the loss
_SUSPICIOUS = 5  # flat control points at that level from which no snapshot is taken
_STUCK_TRIES = 2  # a cut that has not helped twice is not the cure
_BATCHES = 10  # of a probe, whose losses make the one to start from: single ones differ widely
_REFRESH = 100  # steps between snapshots; a copy costs less than a step


@dataclass(frozen=True)
class DivergenceState:
    """The inner controller's state, and what the guard counts."""

    inner: Any
    scale: float = 1.0
    cut: float = 1.0
    exploring: bool = False
    passing: bool = False  # the rate is one that is only passed through
    measured: bool = False  # the monitored metric was a number once
    start: float | None = None  # the first training loss, or the mean of the first in a probe
    seen: int = 0  # losses in it
    best: float | None = None  # the lowest one
    low: float | None = None  # bounds of the present flat stretch of losses
    high: float | None = None
    flat: int = 0  # control points in it, of those that are not closer than usual
    flat_step: int = 0  # step of the last one counted
    spacing: int = 1  # steps between control points, as a rule
    armed: bool = False  # a snapshot exists to go back to
    theirs: bool = False  # the inner controller takes the snapshots
    taken: int = 0  # step of the last one
    good: int = 0  # control points since the last restore
    restores: int = 0  # since the rate was last the inner controller's
    released: int = 0  # how often a cut was taken back
    stuck: int = 0  # restores because the loss did not move


@dataclass(frozen=True)
class Divergence:
    """Guards another controller: goes back to a good snapshot and cuts the rate.

    Training has gone wrong at a control point if

    * the training loss is NaN or infinite, or weights are, which a ReLU may hide, or the monitored
      metric is and was not before;
    * the training loss exceeds `limit` times the first one that was seen (in a probe, where each
      loss is that of one batch, the mean of the first ten);
    * the training loss has stayed within 1 % for `stuck` control points on end, no more than 10 %
      below the first one: a network that outputs the same for everything, whose loss is that of
      chance, from the start or after a spike. At most two restores are spent on this.

    The inner controller never sees such a point. What it decides afterwards is scaled down by all
    cuts, of which there are at most `max_restores`; at the next fault the training is ended. If
    all is well for `recovery` control points, it was a passing fault: the cuts are taken back and
    the tries start anew. Each time that this happens it takes twice as many control points as
    before, so that a rate which is too high is not tried for ever. Steps that the inner controller
    declares to be `exploring` are its own affair.

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
            any number. A rate that is too *low* looks the same, so this is for a controller that
            has seen the loss fall at its rate, and no warm-up longer than this.
        recovery: Good control points after which the first fault has passed, ≥ 1.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> from adaptlr.controllers import Constant, Observation, Run
        >>> guard = Divergence(Constant())
        >>> state = guard.init(Run(learning_rate=0.1))
        >>> state, decision = guard.update(state, Observation(step=0, epoch=0))
        >>> decision.snapshot
        True
        >>> state, decision = guard.update(state, Observation(step=9, epoch=0, loss=float("nan")))
        >>> decision.restore, round(decision.scale, 3)
        (True, 0.333)
    """

    inner: Controller
    factor: float = 1.0 / 3.0
    limit: float | None = 10.0
    max_restores: int = 5
    stuck: int | None = 20
    recovery: int = 30

    def __post_init__(self) -> None:
        require_controller(self, "inner", self.inner)
        require_number(self, "factor", above=0.0, below=1.0)
        require_number(self, "limit", above=1.0, optional=True)
        require_integer(self, "max_restores", minimum=1)
        require_integer(self, "stuck", minimum=10, optional=True)
        require_integer(self, "recovery", minimum=1)

    @property
    def monitor(self) -> Monitor | None:
        """The inner controller's."""
        return self.inner.monitor

    def init(self, run: Run) -> DivergenceState:
        """Returns the inner controller's state, with nothing counted."""
        spacing = max(1, (run.steps_per_epoch or 0) // 10)
        return DivergenceState(inner=self.inner.init(run), spacing=spacing)

    def update(
        self, state: DivergenceState, observation: Observation
    ) -> tuple[DivergenceState, Decision]:
        """Answers for the inner controller, or in its place when training has gone wrong."""
        if not state.exploring:
            state = _flatness(state, observation)
            symptom = self._symptom(state, observation)
            if symptom is not None:
                return self._restore(state, symptom)
            state = self._well(state, observation)
        state = _level(state, observation.loss)
        inner, decision = self.inner.update(state.inner, observation)
        state, decision = self._release(replace(state, inner=inner), decision)
        decision = replace(decision, scale=decision.scale * state.cut)
        state, decision = self._keep(state, decision, observation)
        state = replace(
            state,
            exploring=decision.exploring,
            passing=decision.passing,
            scale=decision.scale,
        )
        return state, decision

    def _symptom(self, state: DivergenceState, observation: Observation) -> str | None:
        loss, monitored = observation.loss, observation.monitored
        if loss is not None and not finite(loss):
            return f"the training loss became {loss}"
        if not observation.sound:
            return "the weights hold NaN or infinities"
        if monitored is not None and not finite(monitored) and state.measured:
            return f"the monitored metric became {monitored}"
        if loss is None or state.start is None or state.best is None:
            return None
        # Where losses are negative, the fall since the start is the better measure of size.
        size = max(abs(state.start), state.start - state.best)
        if self.limit is not None and loss > self.limit * size > 0.0:
            return (
                f"the training loss {loss:.4g} is more than {self.limit:g} × its start "
                f"{state.start:.4g}"
            )
        if self.stuck is not None and self._idle(state, self.stuck):
            return (
                f"the training loss has stayed at {loss:.4g} for {state.flat} control points and "
                f"its start was {state.start:.4g}"
            )
        return None

    def _restore(self, state: DivergenceState, symptom: str) -> tuple[DivergenceState, Decision]:
        stuck = self.stuck is not None and self._idle(state, self.stuck)
        again = state.restores > 0 and state.good == 0
        restores = min(state.restores, self.max_restores) + 1
        stop = restores > self.max_restores
        factor = 1.0 if stop else self.factor
        state = replace(
            state,
            scale=state.scale * factor,
            cut=state.cut * factor,
            good=0,
            flat=0,
            restores=restores,
            stuck=state.stuck + stuck,
        )
        tries = f"restore {restores} of {self.max_restores}"
        what = f"{self.max_restores} restores were in vain" if stop else tries
        after = "to end the training" if stop else f"rate × {factor:.3g}"
        return state, Decision(
            scale=state.scale,
            rule="diverged",
            reason=f"{symptom} ({what}): back to the last good snapshot, {after}",
            restore=state.armed,
            earlier=again,
            restart_average=True,
            stop=stop,
            passing=state.passing,
        )

    def _well(self, state: DivergenceState, observation: Observation) -> DivergenceState:
        measured = observation.monitored is not None and finite(observation.monitored)
        good = state.good + (measured or observation.loss is not None)
        return replace(
            state,
            measured=state.measured or measured,
            good=good,
        )

    def _release(
        self, state: DivergenceState, decision: Decision
    ) -> tuple[DivergenceState, Decision]:
        due = state.cut < 1.0 and state.good >= self.recovery * 2**state.released
        if not due or decision.exploring or decision.rule != "hold":
            return state, decision
        reason = (
            f"all went well for {state.good} control points: the fault has passed, the cut to "
            f"{state.cut:.3g} is taken back"
        )
        state = replace(state, cut=1.0, restores=0, released=state.released + 1)
        return state, replace(decision, rule="released", reason=reason)

    def _keep(
        self, state: DivergenceState, decision: Decision, observation: Observation
    ) -> tuple[DivergenceState, Decision]:
        """Takes the snapshots, if the inner controller takes none, or stops it from a bad one."""
        if decision.exploring:
            return replace(state, armed=state.armed or decision.snapshot), decision
        idle = self._idle(state, _SUSPICIOUS)
        if decision.snapshot or state.theirs:
            # A trial that begins here and fails then goes further back than it knows: to weights
            # from before the flat stretch, which may be dead ones.
            decision = replace(decision, snapshot=decision.snapshot and not idle)
            armed = state.armed or decision.snapshot
            return replace(state, theirs=True, armed=armed), decision
        due = observation.epoch_end and observation.step - state.taken >= _REFRESH
        if state.armed and not (due and not idle and _progressed(state, observation.loss)):
            return state, decision
        state = replace(state, armed=True, taken=observation.step)
        return state, replace(decision, snapshot=True)

    def _idle(self, state: DivergenceState, points: int) -> bool:
        """Whether the loss has not moved for so many control points, at its starting level."""
        if self.stuck is None or state.stuck >= _STUCK_TRIES or state.flat < points:
            return False
        return state.low is not None and state.low >= _LEVEL * (state.start or 0.0) > 0.0


def _level(state: DivergenceState, loss: float | None) -> DivergenceState:
    if loss is None or not finite(loss):
        return state
    start, seen = state.start, state.seen
    if start is None or (state.exploring and seen < _BATCHES):
        start, seen = ((start or 0.0) * seen + loss) / (seen + 1), seen + 1
    best = loss if state.best is None else min(loss, state.best)
    return replace(state, start=start, seen=seen, best=best)


def _flatness(state: DivergenceState, observation: Observation) -> DivergenceState:
    loss, step = observation.loss, observation.step
    if loss is None or not finite(loss):
        return state
    if state.flat > 0 and state.low is not None and state.high is not None:
        low, high = min(loss, state.low), max(loss, state.high)
        if high - low <= _FLAT * abs(high):
            state = replace(state, low=low, high=high)
            # A ramp has a control point each step, and a loss need not move from step to step.
            if step - state.flat_step < state.spacing:
                return state
            return replace(state, flat=state.flat + 1, flat_step=step)
    return replace(state, low=loss, high=loss, flat=1, flat_step=step)


def _progressed(state: DivergenceState, loss: float | None) -> bool:
    if loss is None or state.start is None or state.best is None:
        return False
    return loss - state.best <= 0.25 * (state.start - state.best)


def guarded(controller: Controller) -> Divergence:
    """Guards a controller, unless it is, against NaN and infinities only.

    Nothing else is beyond doubt where the rate is the user's choice: a loss that rises, or does
    not move, may be what was wanted.
    """
    if isinstance(controller, Divergence):
        return controller
    return Divergence(controller, limit=None, stuck=None)
