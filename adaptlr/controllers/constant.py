"""The null controller: the schedule alone sets the rate."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptlr.controllers.base import Decision, Observation, Run

__all__ = ["Constant", "ConstantState"]


@dataclass(frozen=True)
class ConstantState:
    """There is nothing to remember."""


@dataclass(frozen=True)
class Constant:
    """Leaves the scale at 1, whatever is observed.

    Example:
        >>> from adaptlr.controllers import Observation, Run
        >>> controller = Constant()
        >>> state = controller.init(Run(learning_rate=0.1))
        >>> controller.update(state, Observation(step=0, epoch=0))[1].scale
        1.0
    """

    monitor: None = field(default=None, init=False, repr=False)

    def init(self, run: Run) -> ConstantState:
        """Returns the only state there is."""
        return ConstantState()

    def update(
        self, state: ConstantState, observation: Observation
    ) -> tuple[ConstantState, Decision]:
        """Answers scale 1."""
        return state, Decision(scale=1.0)
