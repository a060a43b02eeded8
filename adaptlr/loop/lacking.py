"""What a run has to do without: said once, by name, with its price and the remedy."""

from __future__ import annotations

import warnings

from adaptlr.controllers import Decision
from adaptlr.loop.plan import Fit

_SEEN = (
    "A train_step of your own is seen if it updates a keras.metrics.Mean(name='loss') among the "
    "model's metrics"
)


def warn_of_what_is_lacking(
    fit: Fit, *, read_once: bool, planned: bool, instead: str | None
) -> None:
    """Warns of what `AutoLR` makes use of and the call of `fit` does not give.

    Args:
        fit: Where.
        read_once: Whether `fit` has validation data that can be read only once.
        planned: Whether the epochs are the plan, and not only a bound.
        instead: What could be monitored on validation data that there are, and is not.
    """
    if instead is not None:
        name = instead.removeprefix("val_")
        warnings.warn(
            f"{fit.owner}(monitor={name!r}) judges by the data that are trained on, although "
            f"there are validation data: over-fitting goes unseen. Pass "
            f"{fit.owner}(monitor={instead!r}).",
            stacklevel=6,
        )
    if read_once:
        warnings.warn(
            f"{fit.owner}: the validation data of fit can be read only once, so that nothing is "
            f"measured on them between the ends of epochs: the training loss compares rates. "
            f"Pass data that can be read again to {fit.owner}(validation_data=...).",
            stacklevel=6,
        )
    if planned and (fit.epoch_steps is None or fit.epochs is None):
        by_hand = fit.epochs is None
        warnings.warn(
            f"{fit.owner}: it is not known how many steps the run has, so that the rate is cooled "
            f"down after a plateau only, and not in time for the last epoch. Pass "
            f"{'epochs and steps to CallbackList' if by_hand else 'steps_per_epoch to fit'}.",
            stacklevel=6,
        )


def warn_of_schedule(fit: Fit, *, spent: int | None, steps: int | None, written: bool) -> None:
    """Warns of a schedule that ends at once, and of one that stands still in an execution.

    Args:
        fit: Where.
        spent: The step from which on its rates are next to nothing, if that is most of the run.
        steps: Steps of the run, if known.
        written: Whether its rates are written before each execution, and not compiled in.
    """
    if spent is not None:
        warnings.warn(
            f"{fit.owner}: from step {spent} on the schedule stays below a thousandth of its "
            f"highest rate, and this fit has {steps} steps, {fit.epoch_steps} an epoch: the rest "
            f"trains next to nothing. A schedule counts steps, one for each batch, and no epochs.",
            stacklevel=6,
        )
    if written and fit.execution > 1:
        warnings.warn(
            f"{fit.owner}: the data do not say how many steps an epoch has, so that each rate of "
            f"the schedule stays for the {fit.execution} steps that Keras trains in one call. "
            f"Pass steps_per_epoch to fit, or compile with steps_per_execution=1.",
            stacklevel=6,
        )


def warn_of_rule(fit: Fit, decision: Decision, *, restored: bool) -> None:
    """Warns where a rule stands for something that `AutoLR` could not have."""
    if decision.rule not in ("unseen", "unprobed", "probe"):
        return
    names = ", ".join(type(optimizer).__name__ for optimizer in fit.rate.leaves)
    remedy = f"A class that extends an optimizer of Keras is taken for that one; this is {names}"
    if decision.rule == "unseen" or restored:
        remedy = _SEEN
    elif decision.rule == "unprobed":
        remedy = f"Train for 200 steps or more. {remedy}"
    warnings.warn(f"{fit.owner}: {decision.reason}. {remedy}.", stacklevel=6)
