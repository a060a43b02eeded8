"""Where raising the rate stops to pay."""

from __future__ import annotations

from adaptlr.monitor import finite

__all__ = ["edge"]


def edge(rate: float, factor: float, gain: float | None, loss: float) -> float:
    """Between two rates a raise apart, the one at which a raise would have brought nothing.

    A raise to `rate` brought `gain`, the next one, to `rate * factor`, lost `loss`: a straight
    line between the two, over the logarithm of the rate, crosses zero at the edge.

    Args:
        rate: The highest rate that paid, > 0.
        factor: What a raise multiplies the rate by, > 1.
        gain: Improvement of the metric in the last trial that paid, > 0; None if none did, which
            counts as a gain of the size of the loss.
        loss: Change for the worse in the trial that did not, ≥ 0; not finite if it diverged.

    Example:
        >>> round(edge(0.1, 2.0, gain=0.03, loss=0.01), 4)
        0.1682
        >>> edge(0.1, 2.0, gain=0.03, loss=float("inf"))
        0.1
    """
    if not finite(loss):
        return rate
    share = 0.5 if gain is None else gain / (gain + loss)
    return float(rate * factor**share)
