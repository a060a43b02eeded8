"""Schedules of this package as Keras' own, and those of Keras evaluated many steps at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import keras
import numpy as np

from adaptlr import schedules
from adaptlr._arguments import PositiveInt, accepted, parse, pasteable, refuse

__all__ = ["KerasSchedule", "Tabulated", "from_text", "tabulated"]

_BLOCK = 1 << 14
_MOST_SINGLE = 128  # in a block; more take longer than the vector saves in a short run


@keras.saving.register_keras_serializable(package="adaptlr")
class KerasSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Makes a schedule of `adaptlr.schedules` the `learning_rate` of a Keras optimizer.

    The rates of all steps are computed once and looked up by the optimizer's step counter. The
    schedule is saved with the model, as text; before the model is loaded, it must have been
    imported (`from adaptlr import KerasSchedule`), as every class that is not Keras' own. No
    callback can adjust such a rate: for that, and for a log, use `adaptlr.ScheduleLR`.

    Args:
        schedule: One of `adaptlr.schedules`, or its text, such as `"Cosine(0.1, 1000)"`.
        total_steps: Steps to tabulate, ≥ 1; the rate of step `total_steps`, where decays have
            arrived, holds from there on.

    Raises:
        ValueError: If the schedule is none of `adaptlr.schedules`, whose text can be saved, or
            `total_steps` is outside its range.

    Example:
        >>> import keras
        >>> from adaptlr.schedules import Cosine
        >>> optimizer = keras.optimizers.SGD(KerasSchedule(Cosine(0.1, 1000), total_steps=1000))
        >>> round(float(optimizer.learning_rate), 4)
        0.1
    """

    def __init__(self, schedule: schedules.Schedule | str, total_steps: int) -> None:
        self.total_steps: int = accepted(self, "total_steps", PositiveInt, total_steps)
        self.schedule = from_text(self, schedule)
        rates = [self.schedule(step) for step in range(self.total_steps + 1)]
        self._rates = np.asarray(rates, "float32")
        self._on_device: Any = None

    def __call__(self, step: Any) -> Any:
        """Returns the rate at a step, a tensor."""
        index = keras.ops.clip(keras.ops.cast(step, "int32"), 0, self.total_steps)
        return keras.ops.take(self._table(), index)

    def _table(self) -> Any:
        if keras.backend.backend() != "torch":
            return keras.ops.convert_to_tensor(self._rates)  # of a graph that is compiled, maybe
        if self._on_device is None:  # Keras asks for the rate at every step
            self._on_device = keras.ops.convert_to_tensor(self._rates)
        return self._on_device

    def get_config(self) -> dict[str, Any]:
        """The arguments, with the schedule as text."""
        return {"schedule": repr(self.schedule), "total_steps": self.total_steps}


class Tabulated:
    """A schedule of Keras as a function of the step that costs a look-up.

    Called with a number it takes a millisecond on TensorFlow, minutes for a table of all steps. So
    it is called with a vector of many steps; where that fails, or gives something else at the
    first, middle or last of them, it is mapped over the vector, and where that fails too, as under
    PyTorch where a schedule branches, called step by step. A rate may differ from that of a single
    call in the last digits of float32; where the rates jump or bend, they are those of single
    calls. The vectors begin at fixed steps: a run that is continued has the same rates.

    Args:
        schedule: A `keras.optimizers.schedules.LearningRateSchedule`.

    Example:
        >>> import keras
        >>> theirs = keras.optimizers.schedules.InverseTimeDecay(0.5, 10, 1.0)
        >>> [round(Tabulated(theirs)(step), 4) for step in (0, 10, 30)]
        [0.5, 0.25, 0.125]
    """

    def __init__(self, schedule: Callable[[Any], Any]) -> None:
        self._schedule = schedule
        self._blocks: dict[int, list[float] | None] = {}

    def __call__(self, step: int) -> float:
        """Returns the rate at `step`."""
        if type(step) is not int:
            return float(self._schedule(step))
        block, index = divmod(step, _BLOCK)
        if block not in self._blocks:
            self._blocks[block] = self._evaluated(block * _BLOCK)
        rates = self._blocks[block]
        return float(self._schedule(step)) if rates is None else rates[index]

    def __repr__(self) -> str:
        return repr(self._schedule)

    def get_config(self) -> Any:
        """That of the schedule, by which a run is told from another."""
        return self._schedule.get_config()  # type: ignore[attr-defined]

    def _evaluated(self, first: int) -> list[float] | None:
        steps = np.arange(first, first + _BLOCK, dtype="int32")
        ways: tuple[Callable[[Any], Any], ...] = (
            self._schedule,
            lambda vector: keras.ops.vectorized_map(self._schedule, vector),
        )
        for way in ways:
            try:
                found = way(keras.ops.convert_to_tensor(steps))
                rates = np.array(keras.ops.convert_to_numpy(found), "float32")
                if rates.shape == steps.shape and self._mended(rates, first):
                    return cast(list[float], rates.tolist())
            except Exception:  # whatever it is, a single step may do without
                continue
        return None

    def _mended(self, rates: Any, first: int) -> bool:
        """Puts the rates of single calls where it matters; False if others differ from them."""
        known = np.array([0, _BLOCK // 2, _BLOCK - 1])
        singly = [float(self._schedule(first + int(place))) for place in known]
        if not np.allclose(rates[known], singly, rtol=1e-5, atol=1e-9, equal_nan=True):
            return False
        # A last digit can move a jump, as that of a restart, by a step.
        bends = np.abs(np.diff(rates, 2)) > 1e-3 * np.max(np.abs(rates))
        places = np.flatnonzero(bends) + 1
        if len(places) > _MOST_SINGLE:
            return False
        rates[places] = [float(self._schedule(first + int(place))) for place in places]
        rates[known] = singly
        return True


def tabulated(schedule: Any) -> Any:
    """Tabulates a schedule of Keras, also inside one that warms up, scales, clips or joins."""
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return Tabulated(schedule)
    if isinstance(schedule, schedules.Warmup | schedules.Clipped):
        return replace(schedule, schedule=tabulated(schedule.schedule))
    if isinstance(schedule, schedules.Scaled):
        parts = tabulated(schedule.schedule), tabulated(schedule.factor)
        return replace(schedule, schedule=parts[0], factor=parts[1])
    if isinstance(schedule, schedules.Joined):
        return replace(schedule, schedules=tuple(map(tabulated, schedule.schedules)))
    return schedule


def from_text(owner: object, schedule: Any) -> schedules.Schedule:
    """Builds a schedule from its text, or, to see that it can be saved, from that of an object."""
    text = schedule if isinstance(schedule, str) else pasteable(schedule)
    names = {name: getattr(schedules, name) for name in schedules.__all__}
    rule = (
        "one of adaptlr.schedules, such as Constant(0.1) or the text of it, so that it can be "
        "saved as text"
    )
    try:
        built = None if "..." in text else parse(text, names)
    except ValueError as error:
        why = str(error).removesuffix(f" Received: {text}").rstrip(".")
        refuse(owner, "schedule", f"{rule}: {why}", schedule, ValueError)
    if type(built) not in names.values():
        refuse(owner, "schedule", rule, schedule, ValueError)
    return cast(schedules.Schedule, built)
