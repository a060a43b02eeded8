"""The null controller: the schedule alone sets the rate."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptlr._checks import require_integer
from adaptlr.controllers.base import Decision, Observation, Run

__all__ = ["Constant", "ConstantState"]


@dataclass(frozen=True)
class ConstantState:
    """Nothing to remember."""


@dataclass(frozen=True)
class Constant:
    """Leaves the scale at 1, whatever is observed.

    Args:
        stop_after: Steps after which it ends the training, ≥ 1, or None to train on.

    Raises:
        ValueError: If that is not a positive integer.

    Example:
        >>> from adaptlr.controllers import Observation, Run
        >>> controller = Constant()
        >>> state = controller.init(Run(learning_rate=0.1))
        >>> controller.update(state, Observation(step=0, epoch=0))[1].scale
        1.0
    """

    stop_after: int | None = None
    monitor: None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_integer(self, "stop_after", minimum=1, optional=True)

    def init(self, run: Run) -> ConstantState:
        """Returns the empty state."""
        return ConstantState()

    def update(
        self, state: ConstantState, observation: Observation
    ) -> tuple[ConstantState, Decision]:
        """Answers scale 1, and stop at the last step."""
        if self.stop_after is None:
            return state, Decision(scale=1.0)
        # Keras looks at the request after the next step, so that one is the last.
        left = self.stop_after - 1 - observation.step
        if left > 0:
            return state, Decision(scale=1.0, next_step=observation.step + left)
        if observation.epoch_end and left == -1:  # that step is done, and it was said before it
            return state, Decision(scale=1.0, stop=True)
        reason = f"the {self.stop_after} steps that were asked for are done"
        return state, Decision(scale=1.0, rule="stop", reason=reason, stop=True)
