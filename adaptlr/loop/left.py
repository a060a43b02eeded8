"""Which epoch's weights a run leaves, and whether another metric would have left better ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adaptlr.loop.plan import Fit
from adaptlr.loop.sensors import metric_direction, number
from adaptlr.monitor import Monitor, MonitorState, noise

# What is worth a word: three standard deviations of the metric's noise, since the best of many
# epochs is ahead by chance, and one in fifty of it. The noise is known from so many second
# differences, which are five epochs.
_NOISES, _SHARE, _KNOWN = 3.0, 0.02, 3


@dataclass(frozen=True)
class LeftState:
    """What is remembered of a metric that is not monitored, `None` until there is one."""

    name: str | None = None
    seen: MonitorState = field(default_factory=MonitorState)
    best_epoch: int = 0  # index
    epoch: int | None = None  # whose weights are left
    value: float | None = None  # of the metric, with these weights


class Left:
    """Watches the first validation metric beside the loss and the monitored one.

    A network that over-fits may have its lowest loss many epochs before its best accuracy; then
    the weights that are left are not those that the user saw last, and expects.

    Args:
        fit: Where.
        monitored: Name of the metric that decides which weights are left.

    Attributes:
        state: What was seen.
    """

    def __init__(self, fit: Fit, monitored: str) -> None:
        self._fit, self._monitored = fit, monitored
        self.state = LeftState()

    def end_epoch(self, epoch: int, logs: Mapping[str, Any], *, kept: bool) -> None:
        """Takes in the metrics of an epoch, and whether its weights are the best so far."""
        name, direction = self._metric(logs)
        value = None if name is None else number(logs.get(name))
        if name is None or direction is None or value is None:
            return
        state, monitor = self.state, Monitor(name, direction)
        seen = state.seen if state.name == name else monitor.init()
        after, _ = monitor.update(seen, value)
        if after.record != seen.record:
            state = replace(state, best_epoch=epoch)
        if kept:
            state = replace(state, epoch=epoch, value=value)
        self.state = replace(state, name=name, seen=after)

    def _metric(self, logs: Mapping[str, Any]) -> tuple[str | None, Any]:
        if self.state.name is not None:
            return self.state.name, self.state.seen.direction
        for name in logs:
            if name.startswith("val_") and name not in ("val_loss", self._monitored):
                try:
                    return name, metric_direction(self._fit.model, Monitor(name), seen=True)
                except ValueError:  # nothing tells when it is better
                    continue
        return None, None

    def tell(self) -> None:
        """Warns if the weights that are left are far behind the best in that metric."""
        state, owner = self.state, self._fit.owner
        best = state.seen.record
        if state.epoch is None or state.value is None or best is None:
            return
        if len(state.seen.curvatures) < _KNOWN:
            return
        gap = abs(best - state.value)
        if gap <= max(_NOISES * noise(state.seen), _SHARE * abs(best)):
            return
        warnings.warn(
            f"{owner} leaves the weights of epoch {state.epoch + 1}, whose {self._monitored} is "
            f"the best. Their {state.name} is {state.value:.4g}; in epoch {state.best_epoch + 1} "
            f"it was {best:.4g}. Where {state.name} counts more, pass "
            f"{owner}(monitor={state.name!r}).",
            stacklevel=5,
        )
