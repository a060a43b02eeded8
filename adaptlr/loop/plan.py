"""What a callback was constructed to do, before there is a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from adaptlr.controllers import Constant, Controller, Divergence, Run


@dataclass(frozen=True)
class Plan:
    """What a callback was constructed to do.

    Args:
        controller: The closed loop, observation → scale.
        schedule: The open loop, step → rate, made for the run about to begin.
        momentum: Step → momentum (`beta_1`), made for the run likewise, or None to leave it alone.
        averaging: Whether to keep a running average of the weights, validate with it, and leave
            the best of it in the model.
        validation_data: Data to evaluate at epoch ends at which `fit` did not, and in between.
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
        controller = self.controller
        guarded = controller.inner if isinstance(controller, Divergence) else controller
        return isinstance(guarded, Constant)

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


def whatever_the_run(schedule: Callable[[int], float]) -> Callable[[Run], Callable[[int], float]]:
    """Makes a plan's schedule of one that depends on no run."""
    return partial(_the_same, schedule)  # which, unlike a lambda, can be pickled


def _the_same(schedule: Callable[[int], float], run: Run) -> Callable[[int], float]:
    return schedule
