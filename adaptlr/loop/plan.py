"""What a loop is given: what its callback was constructed to do, and the `fit` it is in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.controllers import Constant, Controller, Divergence, Run
from adaptlr.monitor import Direction


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


@dataclass(frozen=True)
class Fit:
    """What a callback knows of the `fit` that it is in.

    Args:
        owner: Name of the callback, for messages.
        model: The model. Whoever calls the loop has synced it: on JAX its variables hold no
            values inside an epoch unless asked, and what is written without asking is lost.
        rate: The optimizer's rate.
        direction: Whether the monitored metric is better when lower or when higher, or None if
            that is known only when the metric is first seen.
        epoch: Index of the first epoch.
        epochs: Index of the epoch at which `fit` ends, or None.
        epoch_steps: Steps in an epoch, or None if unknown.
        others: Returns the names of the other callbacks.
        metrics_may_come: Whether one of them may put metrics of its own into the logs.
        swapped: Whether `SwapEMAWeights` has put averages into the model when an epoch ends here;
            None without that callback.
        logged: Whether anything is logged, be it by another process: all of them measure alike.
    """

    owner: str
    model: Any
    rate: OptimizerRate
    direction: Direction | None
    epoch: int
    epochs: int | None
    epoch_steps: int | None
    others: Callable[[], list[str]]
    metrics_may_come: bool
    swapped: bool | None
    logged: bool

    @property
    def execution(self) -> int:
        """Steps that Keras trains in one call."""
        return int(self.model.steps_per_execution or 1)

    @property
    def first_step(self) -> int:
        """Steps trained before the first epoch."""
        if self.epoch_steps:
            return self.epoch * self.epoch_steps
        return self.rate.steps_counted() if self.epoch else 0


def whatever_the_run(schedule: Callable[[int], float]) -> Callable[[Run], Callable[[int], float]]:
    """Makes a plan's schedule of one that depends on no run."""
    return partial(_the_same, schedule)  # which, unlike a lambda, can be pickled


def _the_same(schedule: Callable[[int], float], run: Run) -> Callable[[int], float]:
    return schedule
