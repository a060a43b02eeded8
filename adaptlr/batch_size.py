"""What a change of the batch size asks of the learning rate."""

from __future__ import annotations

from typing import Literal

from adaptlr._arguments import NonNegativeFloat, PositiveInt, checked

__all__ = ["scale_learning_rate"]


def scale_learning_rate(
    learning_rate: NonNegativeFloat,
    batch_size: PositiveInt,
    new_batch_size: PositiveInt,
    rule: Literal["linear", "sqrt"] = "linear",
) -> float:
    """Returns the rate for another batch size, given a good one for the present.

    `"linear"`: `learning_rate * (new_batch_size / batch_size)`, for SGD with or without momentum
    (Goyal et al., arXiv 1706.02677, who also warm the rate up over the first five epochs).

    `"sqrt"`: `learning_rate * (new_batch_size / batch_size) ** 0.5`, for Adam and RMSprop, whose
    step does not grow with the gradient (Malladi et al., arXiv 2205.10287). Their rule also takes
    `1 - beta` times the ratio of the batch sizes and `epsilon` over its root; those are left to
    the caller.

    Both keep the noise of an *epoch* the same while the rate is small against the curvature of the
    loss. They hold up to some batch size that depends on model and data, beyond which no rate
    makes up for the lost steps, and they say nothing of whether the given rate was good.

    Args:
        learning_rate: The rate that suits `batch_size`, ≥ 0.
        batch_size: Samples in a batch for which it is known, ≥ 1; with gradient accumulation or
            several replicas those of one update.
        new_batch_size: Samples in a batch to train with, ≥ 1.
        rule: `"linear"` or `"sqrt"`.

    Raises:
        ValueError: If an argument is outside its range.
        TypeError: If an argument is not a number.

    Example:
        >>> scale_learning_rate(0.1, batch_size=256, new_batch_size=1024)
        0.4
        >>> scale_learning_rate(0.001, 256, 1024, rule="sqrt")
        0.002
    """
    rate, before, now, rule = checked(scale_learning_rate, locals())
    ratio = now / before
    return float(rate * (ratio if rule == "linear" else ratio**0.5))
