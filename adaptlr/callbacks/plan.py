"""What a callback was constructed to do, before there is a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adaptlr.controllers import Constant, Controller, Divergence, Run

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What a callback was constructed to do.

    Args:
        controller: The closed loop, observation → scale.
        schedule: The open loop, step → rate, made for the run about to begin.
        momentum: Step → momentum (`beta_1`), made for the run likewise, or None to leave it alone.
        averaging: Whether to keep a running average of the weights, validate with it, and leave
            the best of it in the model.
        validation_data: Held-out data to evaluate at epoch ends at which `fit` did not.
        known_horizon: Whether the epochs given to `fit` are a plan rather than a bound.
    """

    controller: Controller
    schedule: Callable[[Run], Callable[[int], float]]
    momentum: Callable[[Run], Callable[[int], float]] | None = None
    averaging: bool = False
    validation_data: Any = None
    known_horizon: bool = True

    @property
    def open_loop(self) -> bool:
        """Whether the schedule alone sets the rate, as long as nothing goes wrong."""
        return isinstance(_guarded(self.controller), Constant)

    @property
    def stop_after(self) -> int | None:
        """Steps after which the controller ends the training, if it does so by their number."""
        inner = _guarded(self.controller)
        return inner.stop_after if isinstance(inner, Constant) else None

    def describe(self, run: Run) -> dict[str, str]:
        """Says in words what is configured, to tell one run's state from another's."""
        shapes = {"schedule": self.schedule(run)}
        if self.momentum is not None:
            shapes["momentum"] = self.momentum(run)
        words = {"controller": repr(self.controller), "averaging": str(self.averaging)}
        for name, shape in shapes.items():
            config = shape.get_config() if hasattr(shape, "get_config") else ""
            words[name] = f"{shape!r}{config}"
        # Where an object is in memory is no part of what it does.
        return {name: re.sub(r" at 0x[0-9a-fA-F]+", "", text) for name, text in words.items()}


def _guarded(controller: Controller) -> Controller:
    """The controller, or the one that a guard against divergence is around."""
    return controller.inner if isinstance(controller, Divergence) else controller
