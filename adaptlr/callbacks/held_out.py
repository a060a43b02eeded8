"""The monitored metric: from the logs of `fit`, or measured on held-out data at any step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from adaptlr.callbacks.logs import number, why_missing
from adaptlr.callbacks.plan import Plan
from adaptlr.training.evaluation import evaluate, few
from adaptlr.training.weights import RunningAverage

__all__ = ["HeldOut"]


class HeldOut:
    """Measures the monitored metric, with the averaged weights where it is given them.

    Args:
        plan: Where monitor and held-out data come from.
        owner: Name of the callback, for messages.
        synced_model: Returns the model, its variables holding their present values.

    Raises:
        ValueError: If the model cannot be evaluated on the data; one batch is tried, so that data
            of the wrong shape do not cost an epoch.
    """

    def __init__(self, plan: Plan, *, owner: str, synced_model: Callable[[], Any]) -> None:
        self._plan = plan
        self._monitor = plan.controller.monitor
        self._data = plan.validation_data
        self._owner = owner
        self._synced_model = synced_model
        self._warned = False
        self._names = self._try_out()

    @property
    def measurable(self) -> bool:
        """Whether the monitored metric can be measured at any step."""
        return self._monitor is not None and self._monitor.name in self._names

    def _try_out(self) -> set[str]:
        if self._data is None:
            return set()
        try:
            return set(evaluate(self._synced_model(), self._data, steps=1))
        except Exception as error:
            raise ValueError(
                f"{self._owner}(validation_data=...) must be data that model.evaluate takes, at "
                f"least one batch of them. It says: {error}"
            ) from error

    def lacking_in(self, logs: dict[str, Any]) -> bool:
        """Whether `logs` lack the monitored metric, and it can be measured instead."""
        return self.measurable and self._monitor is not None and self._monitor.name not in logs

    def evaluate(self) -> dict[str, float]:
        """Evaluates the present weights on all of the held-out data."""
        return evaluate(self._synced_model(), self._data)

    def measure(self, average: RunningAverage | None, epoch: int) -> float | None:
        """Measures the metric with the averaged weights, if there are any; leaves the raw ones."""
        if average is not None:
            average.swap_in()
        measured = self.monitored(self.evaluate(), epoch)
        if average is not None:
            self._synced_model()
            average.swap_out()
        return measured

    def noise(self, average: RunningAverage) -> dict[str, float | None]:
        """Measures averaged and raw weights on the same few batches.

        Args:
            average: The averaged weights, which are in the model; afterwards the raw ones are.
        """
        if self._monitor is None:
            return {}
        found = []
        for last in (False, True):
            if last:
                average.swap_out()
            logs = evaluate(self._synced_model(), self._data, steps=few(self._data))
            found.append(number(logs.get(self._monitor.name)))
            self._synced_model()
        averaged, raw = found
        gap = None if averaged is None or raw is None else abs(raw - averaged)
        return {"noise/averaged": averaged, "noise/raw": raw, "noise/gap": gap}

    def monitored(self, logs: dict[str, Any], epoch: int) -> float | None:
        """Picks the metric; warns once if it is not there."""
        if self._monitor is None:
            return None
        name = self._monitor.name
        value = number(logs.get(name))
        if value is None and not self._warned:
            self._warned = True
            why = why_missing(name, logs, epoch, self._without_metric())
            warnings.warn(f"{self._owner}(monitor={name!r}): {why}", stacklevel=4)
        return value

    def _without_metric(self) -> str:
        if not self._plan.averaging:
            return "the rate is held"
        return (
            "the training loss decides about the rate, over-fitting goes unseen, and the last "
            "averaged weights count as the best"
        )
