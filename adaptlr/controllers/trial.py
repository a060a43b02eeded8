"""Whether a higher rate pays: measured against where the present one was going."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adaptlr.monitor import Direction, finite

__all__ = ["expected", "pays"]

# A raise begins with a shock that passes, and its worth shows later than a trial ends: less than
# what was expected without it may still be worth it, no progress is not.
_ENOUGH = 1.0 / 3.0


def expected(marks: Sequence[tuple[int, float]], step: int) -> float:
    """Continues the last two of `marks` to `step`, on a straight line in the logarithm of steps.

    The loss of averaged weights falls nearly straight against the logarithm of the steps while the
    rate stays, so the line says what the loss would have become without the change.

    Args:
        marks: At least two pairs of step, ≥ 1, and value; the last two differ in their steps.
        step: Where to continue to, ≥ 1.

    Example:
        >>> round(expected([(10, 2.0), (100, 1.5)], 1000), 6)
        1.0
    """
    (first, then), (second, now) = marks[-2:]
    return now + (now - then) * math.log(step / second) / math.log(second / first)


def pays(value: float, last: float, line: float, direction: Direction) -> bool:
    """Whether a raise brought a third of the progress that was expected without it.

    Args:
        value: The metric at the end of the trial.
        last: The metric at its begin.
        line: What was expected at its end (see `expected`).
        direction: Whether the metric is better when lower or when higher.

    Example:
        >>> pays(1.9, last=2.0, line=1.8, direction="min")
        True
        >>> pays(2.0, last=2.0, line=1.8, direction="min")
        False
    """
    if not finite(value):
        return False
    least = last + _ENOUGH * (line - last)
    return value < min(least, last) if direction == "min" else value > max(least, last)
