"""What a run has to do without: said once, by name, with its price and the remedy."""

from __future__ import annotations

import warnings

from adaptlr.controllers import Decision
from adaptlr.loop.plan import Fit

_SEEN = (
    "A train_step of your own is seen if it updates a keras.metrics.Mean(name='loss') among the "
    "model's metrics"
)


def warn_of_what_is_lacking(fit: Fit, *, read_once: bool, planned: bool) -> None:
    """Warns of what `AutoLR` makes use of and the call of `fit` does not give.

    Args:
        fit: Where.
        read_once: Whether `fit` has validation data that can be read only once.
        planned: Whether the epochs are the plan, and not only a bound.
    """
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
