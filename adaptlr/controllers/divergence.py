"""A wrapper for any controller: on NaN, Inf or an exploding loss, restore and cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from adaptlr._checks import require_integer, require_number
from adaptlr.controllers.base import Controller, Decision, Observation, Run
from adaptlr.monitor import Monitor, finite

__all__ = ["Divergence", "DivergenceState"]


@dataclass(frozen=True)
class DivergenceState:
    """The inner controller's state, and what the guard counts."""

    inner: Any
    cut: float = 1.0
    start_loss: float | None = None
    restores: int = 0
    exploring: bool = False
    armed: bool = False  # a snapshot exists to go back to
    scale: float = 1.0


@dataclass(frozen=True)
class Divergence:
    """Guards another controller: goes back to the last good snapshot and cuts the rate.

    A control point has diverged if the training loss or the monitored metric is NaN or infinite,
    or if the training loss exceeds `limit` times the first training loss that was seen. The inner
    controller never sees such a point. What it decides afterwards is scaled down by all cuts.
    Steps that the inner controller declares to be `exploring` are its own affair.

    Args:
        inner: The controller to guard.
        factor: What each restore multiplies the rate by, in (0, 1).
        limit: How many times the first training loss counts as an explosion, > 1.
        max_restores: After so many restores the training is ended, ≥ 1.

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
    limit: float = 10.0
    max_restores: int = 5

    def __post_init__(self) -> None:
        require_number(self, "factor", above=0.0, below=1.0)
        require_number(self, "limit", above=1.0)
        require_integer(self, "max_restores", minimum=1)

    @property
    def monitor(self) -> Monitor | None:
        """The inner controller's."""
        return self.inner.monitor

    def init(self, run: Run) -> DivergenceState:
        """Returns the inner controller's state, with nothing counted."""
        return DivergenceState(inner=self.inner.init(run))

    def update(
        self, state: DivergenceState, observation: Observation
    ) -> tuple[DivergenceState, Decision]:
        """Answers for the inner controller, or in its place when the run has diverged."""
        symptom = None if state.exploring else self._symptom(state, observation)
        if symptom is not None:
            return self._restore(state, observation, symptom)
        inner, decision = self.inner.update(state.inner, observation)
        decision = replace(decision, scale=decision.scale * state.cut)
        if not state.armed and not decision.exploring:
            decision = replace(decision, snapshot=True)
        loss = None if state.exploring else observation.loss
        return replace(
            state,
            inner=inner,
            start_loss=loss if state.start_loss is None else state.start_loss,
            exploring=decision.exploring,
            armed=state.armed or decision.snapshot,
            scale=decision.scale,
        ), decision

    def _symptom(self, state: DivergenceState, observation: Observation) -> str | None:
        for name, value in (
            ("training loss", observation.loss),
            ("monitored metric", observation.monitored),
        ):
            if value is not None and not finite(value):
                return f"the {name} became {value}"
        loss, start = observation.loss, state.start_loss
        if loss is not None and start is not None and loss > self.limit * max(start, 0.0) > 0.0:
            return (
                f"the training loss {loss:.4g} is more than {self.limit:g} × its start {start:.4g}"
            )
        return None

    def _restore(
        self, state: DivergenceState, observation: Observation, symptom: str
    ) -> tuple[DivergenceState, Decision]:
        scale = state.scale * self.factor
        restores = state.restores + 1
        state = replace(state, restores=restores, cut=state.cut * self.factor, scale=scale)
        stop = restores > self.max_restores
        after = "to end the training" if stop else f"rate × {self.factor:.3g}"
        return state, Decision(
            scale=scale,
            rule="diverged",
            reason=f"{symptom} (restore {restores} of {self.max_restores}): back to the last good "
            f"snapshot, {after}",
            restore=state.armed,
            restart_average=True,
            stop=stop,
        )
