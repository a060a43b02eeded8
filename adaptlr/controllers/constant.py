"""The null controller: the schedule alone sets the rate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from adaptlr._checks import require_integer
from adaptlr.controllers.base import Decision, Observation, Run

__all__ = ["Constant", "ConstantState"]


@dataclass(frozen=True)
class ConstantState:
    """What is known of the run, and what has been said.

    Attributes:
        epoch_steps: Steps in an epoch; a thousand stand for an unknown number.
        stopped: Whether the end of the training was asked for.
    """

    epoch_steps: int = 1000
    stopped: bool = False


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
        """Returns the state in which nothing has been said."""
        return ConstantState(run.steps_per_epoch or 1000)

    def update(
        self, state: ConstantState, observation: Observation
    ) -> tuple[ConstantState, Decision]:
        """Answers scale 1, and stop at the last step."""
        if self.stop_after is None:
            return state, Decision(scale=1.0)
        if state.stopped:
            return state, Decision(scale=1.0, stop=True)
        step = observation.step
        coming = step + 1 if observation.coming is None else observation.coming
        if observation.epoch_end and step < self.stop_after:
            near = self.stop_after - step <= state.epoch_steps
            return state, Decision(scale=1.0, next_step=step if near else None)
        if coming < self.stop_after:
            # The call that ends there begins no earlier than this.
            due = max(step + 1, self.stop_after - (coming - step))
            near = due - step < max(1, state.epoch_steps // 10)
            return state, Decision(scale=1.0, next_step=due if near else None)
        reason = f"the {self.stop_after} steps that were asked for are done"
        decision = Decision(scale=1.0, rule="stop", reason=reason, stop=True)
        return replace(state, stopped=True), decision
