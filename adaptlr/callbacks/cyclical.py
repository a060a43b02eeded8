"""`CyclicalLR`: the rate goes up and down between two bounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from adaptlr.callbacks.base import LearningRateCallback
from adaptlr.callbacks.loop import Plan
from adaptlr.controllers import Constant
from adaptlr.schedules import Cyclical
from adaptlr.writers import Writer

__all__ = ["CyclicalLR"]


class CyclicalLR(LearningRateCallback):
    """Cyclical rates (Smith, arXiv 1506.01186), set before every step.

    Args:
        base_lr: Lower bound of the rate, ≥ 0.
        max_lr: Upper bound, > `base_lr`.
        step_size: Steps from one bound to the other, half a cycle, ≥ 1. Smith advises 2 to 10
            epochs' worth.
        mode: `"triangular"`; `"triangular2"`, which halves the amplitude after each cycle; or
            `"exp_range"`, which shrinks it by `gamma` every step.
        gamma: Factor of `"exp_range"`, in (0, 1].
        log_dir: Directory for TensorBoard event files, or None.
        writers: More places to log to, see `adaptlr.writers`.
        verbose: 1 prints each decision.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> import adaptlr
        >>> callback = adaptlr.CyclicalLR(base_lr=1e-4, max_lr=1e-2, step_size=2000)
    """

    def __init__(
        self,
        base_lr: float,
        max_lr: float,
        step_size: int,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        *,
        log_dir: str | os.PathLike[str] | None = None,
        writers: Sequence[Writer] = (),
        verbose: int = 0,
    ) -> None:
        super().__init__(
            Plan(
                Constant(),
                schedule=Cyclical(base_lr, max_lr, step_size, mode, gamma),
            ),
            log_dir=log_dir,
            writers=writers,
            verbose=verbose,
        )
