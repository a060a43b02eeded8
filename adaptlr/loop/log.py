"""What a run leaves behind: decisions, scalars, and once its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from adaptlr.controllers import Observation, Run
from adaptlr.loop.sensors import number
from adaptlr.writers import Record, Writer
from adaptlr.writers.base import PHASES, RATE_FOUND


class Log:
    """Writes what a loop tells it of.

    Args:
        writer: Where to.
        announce: Called with each decision's record first.
        hyperparameters: What is known of the callback and the model, by name.
        found: Returns the rate that a controller's state has found, or None.

    Attributes:
        described: Whether the description was written.
    """

    def __init__(
        self,
        writer: Writer,
        announce: Callable[[Record], None],
        hyperparameters: Mapping[str, Any],
        found: Callable[[Any], float | None],
    ) -> None:
        self._writer = writer
        self._announce = announce
        self._about = dict(hyperparameters)
        self._found = found
        self.described = False

    def know(self, run: Run) -> None:
        """Adds to the description what is known of a run."""
        default = asdict(Run(0.0, new=run.new))
        self._about.update({name: x for name, x in asdict(run).items() if x != default[name]})

    def describe(self, step: int, batch_size: float) -> None:
        """Writes the description; Keras tells no callback the batch size, 0 if it is unknown."""
        self.described = True
        if batch_size:
            self._about["batch_size"] = round(batch_size)
        self._writer.write_run(step, self._about)

    def decision(self, record: Record, state: Any) -> None:
        """Writes one decision, and ahead of it the rate that the controller's state has found."""
        self._scalars(record.step, {RATE_FOUND: self._found(state)})
        self._announce(record)
        self._writer.write_decision(record)

    def control(self, step: int, rate: float | None, seen: Observation, phase: str) -> None:
        """Writes the scalars of a control point."""
        scalars = {
            "learning_rate": rate,
            "loss": seen.loss,
            "monitored": seen.monitored,
            "validation_loss": seen.validation_loss,
            "phase": PHASES.get(phase),
        }
        self._scalars(step, scalars)

    def epoch(self, step: int, logs: Mapping[str, Any], more: Mapping[str, float | None]) -> None:
        """Writes the metrics of an epoch, those of Keras and some of our own."""
        self._scalars(step, {**{f"epoch/{name}": number(x) for name, x in logs.items()}, **more})

    def left(self, step: int, logs: Mapping[str, Any]) -> None:
        """Writes the validation metrics of the weights that the run would leave if it ended here.

        TensorBoard compares runs by the last value of each tag, and lists tags by the alphabet.
        """
        validation = {name: x for name, x in logs.items() if name.startswith("val_")}
        self._scalars(step, {f"end/{name}": number(x) for name, x in validation.items()})

    def close(self) -> None:
        """Ends the run."""
        self._writer.close()

    def _scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            self._writer.write_scalars(step, known)
