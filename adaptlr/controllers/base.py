"""What a controller is told, what it answers, the protocol between the two, the null case."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar, get_args

from adaptlr._arguments import refuse
from adaptlr.monitor import Direction, Monitor
from adaptlr.range_test import Curve

# In the order in which several are carried out: the best are the weights that were validated, and
# a snapshot is of what was gone back to.
Effect = Literal[
    "keep best",
    "keep untrained",
    "leave untrained",
    "set aside",
    "restore",
    "restore earlier",
    "take back",
    "snapshot",
    "restart average",
    "stop",
]
_EFFECTS: tuple[Effect, ...] = get_args(Effect)
RateIs = Literal["kept", "passing", "trial", "experiment"]
_State = TypeVar("_State")


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
        customary: What the class of the optimizer is usually trained with, > 0, or None if that is
            not known.
        normalised: Whether batch normalisation follows most layers that have a kernel, so that the
            scale of their weights means nothing.
        accumulation: Steps that make one update of the weights, ≥ 1.
        new: Whether the optimizer has trained nothing, so that `initial_epoch` continues nothing.
    """

    learning_rate: float
    steps_per_epoch: int | None = None
    epochs: int | None = None
    first_step: int = 0
    direction: Direction = "min"
    measurable: bool = False
    optimizer_momentum: float = 0.0
    customary: float | None = None
    normalised: bool = False
    accumulation: int = 1
    new: bool = False

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
        validation_loss: Loss on a sample of the validation data, always the same one, where a
            decision asked to measure between epoch ends; of the averaged weights, if any.
        sound: False if the weights hold NaN or infinities; looked at where an epoch ends.
        restorable: Whether there is a snapshot that "restore" would go back to.
    """

    step: int
    epoch: int
    epoch_end: bool = False
    learning_rate: float | None = None
    loss: float | None = None
    monitored: float | None = None
    validation_loss: float | None = None
    sound: bool = True
    restorable: bool = True


@dataclass(frozen=True)
class Decision:
    """What to do from this control point on. Effects are data: the loop carries them out.

    Args:
        scale: The rate is `schedule(step) * scale`.
        rule: Name of the rule that fired; `"hold"` if none did.
        reason: What was observed and what follows from it, in one sentence.
        next_step: Step of the next control point; None leaves it to the loop's interval.
        effects: What else is done, in this order. `"set aside"` keeps the present training state
            (weights, optimizer slots, random state) apart from all snapshots; `"restore"` goes
            back to the last snapshot, `"restore earlier"` to the one before it, if there is one;
            `"take back"` goes on from what was set aside, which the first decision that is no
            trial lets go of; `"snapshot"` keeps the present training state to go back to. The
            running average of the weights goes back with each of them. `"keep best"` remembers the
            weights that were just measured as the best so far. `"keep untrained"` remembers those
            of before the first step apart, until others are the best; `"leave untrained"` makes
            them the best so far. `"restart average"` starts the average anew; `"stop"` ends the
            training.
        measure: Measure metric and loss on a sample of the validation data at the next control
            point too, if that is not the end of an epoch; of the averaged weights, if any.
        rate_is: `"kept"` until another decision; `"passing"` if a later `fit` must not begin from
            it; `"trial"` if the controller sees for itself whether the coming steps go wrong, and
            undoes them then; `"experiment"` if a restore will undo them in any case. If `fit` ends
            before that, the loop undoes them then, and the optimizer has its own rate again.
        phase: Name of the controller's phase, for the log, if it has any.
        curve: The range test behind this decision, for the log.

    Raises:
        ValueError: If an effect is none of these.
    """

    scale: float
    rule: str = "hold"
    reason: str = ""
    next_step: int | None = None
    effects: tuple[Effect, ...] = ()
    measure: bool = False
    rate_is: RateIs = "kept"
    phase: str = ""
    curve: Curve | None = None

    def __post_init__(self) -> None:
        for effect in self.effects:
            if effect not in _EFFECTS:
                refuse(self, "effects", "a tuple of " + ", ".join(map(repr, _EFFECTS)), effect)

    @property
    def restores(self) -> bool:
        """Whether it goes back to a snapshot."""
        return not {"restore", "restore earlier", "take back"}.isdisjoint(self.effects)

    def also(self, *effects: Effect) -> Decision:
        """Returns this decision with more effects, each in its place."""
        wanted = {*self.effects, *effects}
        return replace(self, effects=tuple(e for e in _EFFECTS if e in wanted))

    def without(self, effect: Effect) -> Decision:
        """Returns this decision without an effect."""
        return replace(self, effects=tuple(e for e in self.effects if e != effect))


Answer = tuple[_State, Decision]  # of a controller, with its next state


class Controller(Protocol):
    """The closed loop: `(state, observation) -> (state, decision)`, without side effects.

    A controller is a frozen dataclass that holds its configuration only. Its state is a second
    frozen dataclass of plain values (numbers, strings, None, tuples and dataclasses of these), so
    that `dataclasses.asdict` makes JSON of it. Before the first step `update` is called once with
    nothing measured, so that a controller can choose the rate to begin with.

    A controller whose scale is the rate itself, under a schedule of 1, has an attribute
    `sets_the_rate` that is True. One that plans the end of the training has a method `ends_at`,
    which tells of a state the step from which on the next epoch's end is the last one, or None.
    """

    @property
    def monitor(self) -> Monitor | None:
        """The metric that feeds the loop, or None if the controller needs none."""

    def init(self, run: Run) -> Any:
        """Returns the state before the first step of `run`."""

    def update(self, state: Any, observation: Observation) -> Answer[Any]:
        """Answers one observation."""


def sets_the_rate(controller: Any) -> bool:
    """Whether a controller's scale is the rate itself."""
    return bool(getattr(controller, "sets_the_rate", False))


def ends_at(controller: Any, state: Any) -> int | None:
    """The step from which on the next epoch's end is the last one; None if it is not known."""
    ends = getattr(controller, "ends_at", None)
    return None if ends is None else ends(state)


def require_controller(owner: object, name: str, value: Any) -> None:
    """Raises unless a value is a controller: a number, a callback and a class are none.

    Args:
        owner: Who was given it, an object or the name of a function.
        name: Name of the argument.
        value: What it was given.
    """
    parts = callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))
    if isinstance(value, type) or not parts or not hasattr(value, "monitor"):
        rule = "a controller (with init, update and monitor), such as Plateau(patience=3)"
        refuse(owner, name, rule, value)


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

    def update(self, state: ConstantState, observation: Observation) -> Answer[ConstantState]:
        """Answers scale 1."""
        return state, Decision(scale=1.0)
