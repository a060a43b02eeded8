"""Whether a higher rate pays: measured against where the present one was going."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["expected"]


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
