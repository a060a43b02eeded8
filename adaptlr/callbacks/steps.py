"""How many steps were trained, from hooks that do not always say so."""

from __future__ import annotations

from collections import deque

__all__ = ["StepCounter"]


class StepCounter:
    """Counts training steps.

    Args:
        first: Steps trained before the epoch that comes first.
        epoch_steps: Steps in an epoch, or None if the data do not say.

    Attributes:
        done: Training steps done.
        epoch_start: Those that were done when the epoch began.
    """

    def __init__(self, first: int, epoch_steps: int | None) -> None:
        self.done = self.epoch_start = self._begun = first
        self._epoch_steps = epoch_steps
        self._ended: deque[int] = deque(maxlen=64)

    def begin_epoch(self) -> None:
        """Notes where an epoch begins."""
        self.epoch_start = self.done
        self._ended.clear()

    def begin(self, batch: int) -> None:
        """Notes that a batch of the epoch, or several from it on, are about to be trained."""
        self.done = self._begun = self.epoch_start + batch

    def coming(self, execution: int) -> int:
        """Steps that will be done after the next call, which an epoch's end may cut short."""
        step, steps = self.done + execution, self._epoch_steps
        return step if steps is None else min(step, self.epoch_start + steps)

    def last_begun(self, execution: int) -> bool:
        """Whether the last batch of the epoch has begun, as far as that is known."""
        steps = self._epoch_steps
        return steps is not None and self._begun + execution >= self.epoch_start + steps

    def end(self, batch: int) -> None:
        """Notes that a batch was trained; may be called from any thread, in any order."""
        self._ended.append(batch)

    def end_batches(self, execution: int) -> bool:
        """Counts what was begun as done, as far as epochs have a known length; True if they have.

        Args:
            execution: Steps that Keras trains in one call.
        """
        if self._epoch_steps is None:  # the count may lag behind until the epoch ends
            return False
        self.done = min(self._begun + execution, self.epoch_start + self._epoch_steps)
        return True

    def end_epoch(self, execution: int) -> bool:
        """Counts an epoch that has ended, and the threads with it; True if it ended as planned.

        Data that end early, or at an unknown place, end in a batch that begins and is not there.
        Neither the last begun tells, nor the optimizer, whose counter TensorFlow may have raised
        all the same.
        """
        ended = max(self._ended, default=-1)
        if ended >= self._begun - self.epoch_start and self.end_batches(execution):
            return True
        self.done = self.epoch_start + ended + 1
        return False
