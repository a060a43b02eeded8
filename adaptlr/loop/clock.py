"""How many steps were trained, from hooks that do not always say so."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ClockState:
    """Steps since training began."""

    done: int
    epoch_start: int  # done when the epoch began
    begun: int  # first of the batches begun last


class Clock:
    """Counts training steps.

    Args:
        first: Steps trained before the epoch that comes first.
        epoch_steps: Steps in an epoch, or None if the data do not say.
        execution: Steps that Keras trains in one call.
    """

    def __init__(self, first: int, epoch_steps: int | None, execution: int) -> None:
        self.state = ClockState(first, first, first)
        self._epoch_steps = epoch_steps
        self._execution = execution
        self._ended: deque[int] = deque(maxlen=64)
        self._begun = 0  # calls, in this epoch

    @property
    def done(self) -> int:
        """Training steps done."""
        return self.state.done

    @property
    def done_in_epoch(self) -> int:
        """Those of the present epoch."""
        return self.state.done - self.state.epoch_start

    @property
    def last_begun(self) -> bool:
        """Whether the last batch of the epoch has begun, as far as that is known."""
        steps, state = self._epoch_steps, self.state
        return steps is not None and state.begun + self._execution >= state.epoch_start + steps

    @property
    def heard_in_epoch(self) -> bool:
        """Whether batches of the present epoch were announced, and trained."""
        return bool(self._ended)

    @property
    def unheard(self) -> bool:
        """Whether nobody tells of batches. Data that are empty end in the first that begins."""
        return not self._ended and self._begun != 1

    def count(self, done: int) -> None:
        """Takes the count of somebody else for an epoch that is unheard."""
        self.state = replace(self.state, done=max(done, self.state.epoch_start))

    def begin_epoch(self) -> None:
        """Notes where an epoch begins."""
        self.state = replace(self.state, epoch_start=self.state.done)
        self._ended.clear()
        self._begun = 0

    def begin(self, batch: int) -> None:
        """Notes that a batch of the epoch, or several from it on, are about to be trained."""
        step = self.state.epoch_start + batch
        self.state = replace(self.state, done=step, begun=step)
        self._begun += 1

    def end(self, batch: int) -> None:
        """Notes that a batch was trained; may be called from any thread, in any order."""
        self._ended.append(batch)

    def end_batches(self) -> bool:
        """Counts what was begun as done, as far as epochs have a known length; True if they have.

        Validation comes before the end of the epoch is announced.
        """
        if self._epoch_steps is None:  # the count may lag behind until the epoch ends
            return False
        begun, start = self.state.begun, self.state.epoch_start
        done = min(begun + self._execution, start + self._epoch_steps)
        self.state = replace(self.state, done=done)
        return True

    def end_epoch(self) -> bool:
        """Counts an epoch that has ended, and the threads with it; True if it ended as planned.

        Data that end early, or at an unknown place, end in a batch that begins and is not there.
        Neither the last begun tells, nor the optimizer, whose counter TensorFlow may have raised
        all the same.
        """
        ended, start = max(self._ended, default=-1), self.state.epoch_start
        if ended >= self.state.begun - start and self.end_batches():
            return True
        self.state = replace(self.state, done=start + ended + 1)
        return False
