"""Plateau detection: cut the rate when the monitored metric has stopped improving."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from adaptlr._arguments import Fraction, NonNegativeFloat, NonNegativeInt, check
from adaptlr.controllers.base import Answer, Decision, Effect, Observation, Run
from adaptlr.monitor import Monitor, MonitorState, require_monitor, single


@dataclass(frozen=True)
class PlateauState:
    """Counters of the plateau rule."""

    scale: float = 1.0
    wait: int = 0
    cooldown: int = 0
    monitor: MonitorState = field(default_factory=MonitorState)
    fruitless: bool = False  # nothing has improved since the last cut


@dataclass(frozen=True)
class Plateau:
    """Multiplies the rate by `factor` after `patience` epochs without improvement.

    The rule of `keras.callbacks.ReduceLROnPlateau`, epoch for epoch: an epoch of cooldown is
    counted down before its value is judged, an improvement during cooldown counts as one, and
    waiting begins in the epoch in which the cooldown reaches zero. Once the rate is at `min_lr`
    no cut is made or reported. Unlike Keras, a NaN does not become the best value.

    What counts as an improvement is the monitor's affair: its `threshold` may be absolute,
    relative or in units of the metric's noise, and it may smooth.

    Args:
        monitor: The metric and its threshold.
        factor: What a cut multiplies the rate by, in (0, 1).
        patience: Epochs without improvement before a cut, ≥ 0; 0 and 1 both cut at the first.
        cooldown: Epochs from a cut to the first that counts again, ≥ 0: a cooldown of n leaves
            n - 1 epochs uncounted, and 0 and 1 leave none.
        min_lr: Lower bound of the rate, ≥ 0.
        warmup_steps: Steps at the start during which epochs are not counted, ≥ 0.
        restore_best_weights: Go back to the best epoch's weights and optimizer slots at a cut, and
            where `stop` ends the training.
        stop: End the training at a plateau that a cut cannot help: when nothing has improved since
            the last cut, or when the rate is already at `min_lr`.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> from adaptlr.controllers import Observation, Run
        >>> controller = Plateau(patience=2, factor=0.5)
        >>> state, scales = controller.init(Run(learning_rate=0.1)), []
        >>> for epoch, loss in enumerate([1.0, 1.0, 1.0, 0.8]):
        ...     seen = Observation(step=epoch, epoch=epoch, epoch_end=True, monitored=loss,
        ...                        learning_rate=0.1)
        ...     state, decision = controller.update(state, seen)
        ...     scales.append(decision.scale)
        >>> scales
        [1.0, 1.0, 0.5, 0.5]
    """

    monitor: Monitor = field(default_factory=Monitor)
    factor: Fraction = 0.1
    patience: NonNegativeInt = 10
    cooldown: NonNegativeInt = 0
    min_lr: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 0
    restore_best_weights: bool = False
    stop: bool = False

    def __post_init__(self) -> None:
        require_monitor(self)
        check(self)

    def init(self, run: Run) -> PlateauState:
        """Returns the state before the first epoch."""
        return PlateauState(monitor=self.monitor.init(run.direction))

    def update(self, state: PlateauState, observation: Observation) -> Answer[PlateauState]:
        """Counts one epoch; anything but the end of a measured epoch is held."""
        value = observation.monitored
        if not observation.epoch_end or value is None or observation.step < self.warmup_steps:
            return state, Decision(scale=state.scale)
        cooldown = max(0, state.cooldown - 1)
        waited = 0 if state.cooldown else state.wait
        monitor, improved = self.monitor.update(state.monitor, value)
        state = replace(state, monitor=monitor, cooldown=cooldown, wait=waited)
        if improved:
            state = replace(state, wait=0, fruitless=False)
            kept: tuple[Effect, ...] = ("snapshot",) if self.restore_best_weights else ()
            return state, Decision(scale=state.scale, effects=kept)
        if cooldown:
            return state, Decision(scale=state.scale)
        state = replace(state, wait=state.wait + 1)
        rate = observation.learning_rate
        if state.wait < self.patience or rate is None:
            return state, Decision(scale=state.scale)
        if single(rate) <= single(self.min_lr):
            return self._end(state, f"the rate is at min_lr ({self.min_lr:g})")
        if self.stop and state.fruitless:
            return self._end(state, "the last cut brought no improvement")
        return self._cut(state, rate)

    def _cut(self, state: PlateauState, rate: float) -> Answer[PlateauState]:
        # The bound is on the rate and not on the scale: a schedule may be below the scale.
        scale = state.scale * max(self.factor, self.min_lr / rate)
        decision = Decision(
            scale=scale,
            rule="plateau",
            reason=self._reason(state, f"rate × {scale / state.scale:.3g}"),
            effects=self._restore(state),
        )
        state = replace(state, scale=scale, cooldown=self.cooldown, wait=0, fruitless=True)
        return state, decision

    def _end(self, state: PlateauState, why: str) -> Answer[PlateauState]:
        if not self.stop:
            return state, Decision(scale=state.scale)
        return state, Decision(
            scale=state.scale,
            rule="stop",
            reason=self._reason(state, f"{why}, so the training ends"),
            effects=(*self._restore(state), "stop"),
        )

    def _restore(self, state: PlateauState) -> tuple[Effect, ...]:
        possible = self.restore_best_weights and state.monitor.best is not None
        return ("restore",) if possible else ()

    def _reason(self, state: PlateauState, consequence: str) -> str:
        best = "no finite value yet" if state.monitor.best is None else f"{state.monitor.best:.6g}"
        back = ", back to the weights of the best epoch" if self._restore(state) else ""
        return (
            f"{self.monitor.name} has not improved on its best ({best}) for {state.wait} "
            f"epoch{'s' * (state.wait != 1)}: {consequence}{back}"
        )
