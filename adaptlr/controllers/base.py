"""What a controller is told, what it answers, and the protocol between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from adaptlr._checks import refuse
from adaptlr.monitor import Direction, Monitor
from adaptlr.range_test import Curve

__all__ = ["Controller", "Decision", "Observation", "Run", "require_controller"]


@dataclass(frozen=True)
class Run:
    """What is known of a run before its first step.

    Args:
        learning_rate: The rate that the optimizer came with, > 0.
        steps_per_epoch: Training steps in an epoch, or None if unknown.
        epochs: Index of the epoch at which `fit` ends, or None for an unknown horizon.
        first_step: Steps trained before this `fit` began (`initial_epoch` counts).
        direction: Whether the monitored metric is better when lower or when higher.
        measurable: Whether a decision with `measure` gets its measurement.
        optimizer_momentum: Of an optimizer whose velocity holds the rates of earlier steps (SGD,
            RMSprop), in [0, 1); 0 for others.
    """

    learning_rate: float
    steps_per_epoch: int | None = None
    epochs: int | None = None
    first_step: int = 0
    direction: Direction = "min"
    measurable: bool = False
    optimizer_momentum: float = 0.0

    @property
    def last_step(self) -> int | None:
        """The step at which `fit` will end, or None if that is not known."""
        if self.steps_per_epoch is None or self.epochs is None:
            return None
        return self.steps_per_epoch * self.epochs

    @property
    def total_steps(self) -> int | None:
        """The steps that this `fit` will train, or None if that is not known."""
        return None if self.last_step is None else max(0, self.last_step - self.first_step)


@dataclass(frozen=True)
class Observation:
    """What was seen at one control point. `None` stands for "not measured here".

    Args:
        step: Training steps done so far; the decision holds from this step on.
        epoch: Index of the current epoch, from 0.
        epoch_end: Whether this control point closes an epoch.
        learning_rate: The rate that the last step was trained with.
        loss: Mean training loss over the steps since the last control point, un-averaged.
        monitored: Value of the monitored metric, at control points where it was measured.
        sound: False if the weights hold NaN or infinities; looked at where an epoch ends.
        coming: Steps that will be done when Keras next looks at a request to stop: `step` where an
            epoch ends, else one more, or several with `steps_per_execution`.
    """

    step: int
    epoch: int
    epoch_end: bool = False
    learning_rate: float | None = None
    loss: float | None = None
    monitored: float | None = None
    sound: bool = True
    coming: int | None = None


@dataclass(frozen=True)
class Decision:
    """What to do from this control point on. Effects are data: the callback carries them out.

    Args:
        scale: The rate is `schedule(step) * scale`.
        rule: Name of the rule that fired; `"hold"` if none did.
        reason: What was observed and what follows from it, in one sentence.
        next_step: Step of the next control point; None leaves it to the callback's interval.
        snapshot: Keep the present training state (weights, optimizer slots, random state).
        restore: Go back to the last snapshot; happens before anything else.
        earlier: With `restore`: go back to the snapshot before the last one, if there is one.
        keep_best: Remember the weights that were just measured as the best so far.
        restart_average: Start the running average of the weights anew.
        measure: Measure the monitored metric on the callback's held-out data at the next control
            point too, if that is not the end of an epoch; of the averaged weights, if any.
        exploring: The coming steps are an experiment that a restore will undo; if `fit` ends
            before, the callback undoes it then, and the optimizer has its own rate again.
        passing: The rate is only passed through: a later `fit` does not begin from it.
        stop: End the training.
        curve: The range test behind this decision, for the log.
    """

    scale: float
    rule: str = "hold"
    reason: str = ""
    next_step: int | None = None
    snapshot: bool = False
    restore: bool = False
    earlier: bool = False
    keep_best: bool = False
    restart_average: bool = False
    measure: bool = False
    exploring: bool = False
    passing: bool = False
    stop: bool = False
    curve: Curve | None = None


class Controller(Protocol):
    """The closed loop: `(state, observation) -> (state, decision)`, without side effects.

    A controller is a frozen dataclass that holds its configuration only. Its state is a second
    frozen dataclass of plain values (numbers, strings, None, tuples and dataclasses of these), so
    that `dataclasses.asdict` makes JSON of it. Before the first step `update` is called once with
    nothing measured, so that a controller can choose the rate to begin with.
    """

    @property
    def monitor(self) -> Monitor | None:
        """The metric that feeds the loop, or None if the controller needs none."""

    def init(self, run: Run) -> Any:
        """Returns the state before the first step of `run`."""

    def update(self, state: Any, observation: Observation) -> tuple[Any, Decision]:
        """Answers one observation."""


def require_controller(owner: object, name: str, value: Any) -> None:
    """Refuses what cannot be asked as a controller: a number, a callback, a class.

    Args:
        owner: Who was given it, an object or the name of a function.
        name: Name of the argument.
        value: What it was given.
    """
    parts = callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))
    if isinstance(value, type) or not parts or not hasattr(value, "monitor"):
        rule = "a controller (with init, update and monitor), such as Plateau(patience=3)"
        refuse(owner, name, rule, value)
