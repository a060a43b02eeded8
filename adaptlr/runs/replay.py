"""What another controller, or other settings, would have decided in a recorded run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from adaptlr.controllers import Controller, Observation, Run
from adaptlr.controllers.base import require_controller, sets_the_rate
from adaptlr.monitor import Direction, direction_by_name
from adaptlr.schedules import Constant
from adaptlr.writers.base import MemoryWriter, Record, Session

__all__ = ["observations", "parting", "recorded_run", "replay"]


def replay(
    recorded: MemoryWriter,
    controller: Controller,
    schedule: Callable[[int], float] | None = None,
    run: Run | None = None,
) -> MemoryWriter:
    """Shows a recorded run to a controller and returns what it would have decided.

    The loop is open: losses and metrics stay those that the recorded rates led to, whatever the
    controller answers. Up to its first different rate the answer is what would have happened;
    after that, what it would have made of these curves. A ramp is read only off a recorded ramp.
    The controller that made a recording, given the same schedule, decides the same again. Where
    several calls of `fit` wrote one after another, the controller begins anew in each, as a
    callback does, from the rate that the replay of the one before has left.

    Args:
        recorded: A run, from `adaptlr.recording.read` or the `MemoryWriter` of a live one.
        controller: The controller to ask.
        schedule: Step → rate, which the controller's scale multiplies. None takes the rate that
            the run was compiled with, or 1 for controllers whose scale is the rate itself
            (`Feedback`, `RangeFinder`, and those with `sets_the_rate`).
        run: What was known before the first step; None takes it from the recording, as does every
            later `fit`.

    Returns:
        The replayed run: `learning_rate` at its control points, and the decisions.

    Raises:
        ValueError: If the recording does not hold the rate that the run began with.

    Example:
        >>> from adaptlr.controllers import Plateau
        >>> recorded = MemoryWriter()
        >>> recorded.write_run(0, {"learning_rate": 0.1, "steps_per_epoch": 1})
        >>> recorded.write_scalars(0, {})
        >>> for step, loss in enumerate([1.0, 1.0, 1.0, 0.8], start=1):
        ...     recorded.write_scalars(step, {"epoch/val_loss": loss})
        ...     recorded.write_scalars(step, {})
        >>> replay(recorded, Plateau(patience=2, factor=0.5)).series("learning_rate")
        [(0, 0.1), (1, 0.1), (2, 0.1), (3, 0.05), (4, 0.05)]
    """
    require_controller("replay", "controller", controller)
    replayed = MemoryWriter()
    earlier: Session | None = None
    for session in recorded.sessions():
        if run is None or earlier is not None:
            run = _with_rate_left(_known(session.run, controller), earlier, replayed)
        replayed.write_run(run.first_step, {**session.run, "callback": repr(controller)})
        rate_of = _usual_schedule(controller, run) if schedule is None else schedule
        _replay(session, controller, rate_of, run, replayed)
        earlier = session
    return replayed


def _replay(
    session: Session,
    controller: Controller,
    rate_of: Callable[[int], float],
    run: Run,
    replayed: MemoryWriter,
) -> None:
    state, scale, due, restorable = controller.init(run), None, 0, False
    for seen in _observations(session, controller):
        if seen.step < due and not seen.epoch_end:
            continue
        rate = None if scale is None else rate_of(max(seen.step - 1, run.first_step)) * scale
        seen = replace(seen, learning_rate=rate, restorable=restorable)
        state, decision = controller.update(state, seen)
        restorable = restorable or "snapshot" in decision.effects
        scale, due = decision.scale, decision.next_step or 0
        rate = rate_of(seen.step) * scale
        replayed.write_scalars(seen.step, {"learning_rate": rate})
        if decision.rule != "hold":
            what = (decision.rule, decision.reason, decision.curve)
            replayed.write_decision(Record(seen.step, seen.epoch, rate, *what))
        if "stop" in decision.effects:
            break


def _with_rate_left(run: Run, earlier: Session | None, replayed: MemoryWriter) -> Run:
    """Begins at the replayed rate, if the recorded run began at the rate that it had reached."""
    reached = (
        [x["learning_rate"] for _, x in earlier.scalars if "learning_rate" in x] if earlier else []
    )
    left = replayed.series("learning_rate")
    if not reached or not left or not _same(reached[-1], run.learning_rate):
        return run
    rate = left[-1][1]
    # The optimizer's is rounded to float32: the same controller is to see the same rate.
    return run if _same(rate, run.learning_rate) else replace(run, learning_rate=rate)


def observations(recorded: MemoryWriter, controller: Controller) -> Iterator[Observation]:
    """Yields what was seen at the control points of a run, with the controller's own metric.

    The rate is left out: it depends on what the controller answers.
    """
    for session in recorded.sessions():
        yield from _observations(session, controller)


def _observations(session: Session, controller: Controller) -> Iterator[Observation]:
    monitor, about = None if controller.monitor is None else controller.monitor.name, session.run
    epoch = session.epoch
    if epoch is None:
        epoch = about.get("first_step", 0) // (about.get("steps_per_epoch") or 1)
    ended: dict[str, float] | None = None  # metrics of the epoch that ends here
    for step, values in session.scalars:
        if any(tag.startswith("epoch/") for tag in values):
            ended = values
            continue
        if values and all(tag.startswith("end/") for tag in values):
            continue  # what a run has come to, and no control point
        measured = values.get("monitored") if monitor == about.get("monitor") else None
        if ended is not None:
            measured = ended.get(f"epoch/{monitor}")
        yield Observation(
            step,
            epoch,
            epoch_end=ended is not None,
            loss=values.get("loss"),
            monitored=measured,
            validation_loss=values.get("validation_loss"),
        )
        epoch += ended is not None
        ended = None


def recorded_run(recorded: MemoryWriter, controller: Controller) -> Run:
    """Returns what was known of a recorded run before its first step.

    Raises:
        ValueError: If the recording does not hold the rate that the run began with.
    """
    return _known(recorded.sessions()[0].run, controller)


def _known(about: Mapping[str, Any], controller: Controller) -> Run:
    if "learning_rate" not in about:
        raise ValueError(
            "the recording does not say which learning rate the run began with: pass "
            "run=Run(learning_rate=...), or --learning-rate on the command line"
        )
    known = {field.name: about[field.name] for field in fields(Run) if field.name in about}
    return Run(**{**known, "direction": _direction(about, controller)})


def _direction(about: Mapping[str, Any], controller: Controller) -> Direction:
    monitor = controller.monitor
    if monitor is None:
        return "min"
    if monitor.mode != "auto":
        return monitor.mode
    same = monitor.name == about.get("monitor")
    return about.get("direction", "min") if same else direction_by_name(monitor.name)


def _usual_schedule(controller: Controller, run: Run) -> Constant:
    return Constant(1.0 if sets_the_rate(controller) else run.learning_rate)


def _same(rate: float, other: float) -> bool:
    return math.isclose(rate, other, rel_tol=1e-6)


def parting(first: MemoryWriter, second: MemoryWriter) -> int | None:
    """Returns the first step at which the rates of two runs differ, or None if none does.

    Example:
        >>> one, other = MemoryWriter(), MemoryWriter()
        >>> for writer, rates in ((one, (0.1, 0.1)), (other, (0.1, 0.05))):
        ...     for step, rate in enumerate(rates):
        ...         writer.write_scalars(step, {"learning_rate": rate})
        >>> parting(one, other)
        1
    """
    others = dict(second.series("learning_rate"))
    differ = (
        step
        for step, rate in first.series("learning_rate")
        if step in others and not _same(rate, others[step])
    )
    return next(differ, None)
