"""Schedules of this package as Keras' own, for an optimizer that is used without a callback."""

from __future__ import annotations

from typing import Any, cast

import keras

from adaptlr import schedules
from adaptlr._checks import require_integer
from adaptlr.notation import parse, pasteable

__all__ = ["KerasSchedule"]


@keras.saving.register_keras_serializable(package="adaptlr")
class KerasSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Makes a schedule of `adaptlr.schedules` the `learning_rate` of a Keras optimizer.

    The rates of all steps are computed once and looked up by the optimizer's step counter. The
    schedule is saved with the model, as text; before the model is loaded, it must have been
    imported (`from adaptlr import KerasSchedule`), as every class that is not Keras' own. No
    callback can adjust such a rate: for that, and for a log, use `adaptlr.ScheduleLR`.

    Args:
        schedule: One of `adaptlr.schedules`, or its text, such as `"Cosine(0.1, 1000)"`.
        total_steps: Steps to tabulate, ≥ 1; the rate of the last one holds from there on.

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
        self.total_steps = total_steps
        require_integer(self, "total_steps", minimum=1)
        self.schedule = _from_text(schedule)
        self._rates = [self.schedule(step) for step in range(total_steps)]

    def __call__(self, step: Any) -> Any:
        """Returns the rate at a step, a tensor."""
        index = keras.ops.clip(keras.ops.cast(step, "int32"), 0, self.total_steps - 1)
        return keras.ops.take(keras.ops.convert_to_tensor(self._rates, "float32"), index)

    def get_config(self) -> dict[str, Any]:
        """The arguments, with the schedule as text."""
        return {"schedule": repr(self.schedule), "total_steps": self.total_steps}


def _from_text(schedule: Any) -> schedules.Schedule:
    """Builds a schedule from its text, or, to see that it can be saved, from that of an object."""
    text = schedule if isinstance(schedule, str) else pasteable(schedule)
    names = {name: getattr(schedules, name) for name in schedules.__all__}
    built = None if "..." in text else parse(text, names)
    if type(built) not in names.values():
        raise ValueError(
            f"KerasSchedule(schedule=...) must be one of adaptlr.schedules, such as "
            f"Constant(0.1) or the text of it, so that it can be saved as text. "
            f"Received: schedule={schedule!r}"
        )
    return cast(schedules.Schedule, built)
