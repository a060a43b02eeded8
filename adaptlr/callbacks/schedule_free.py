"""`SwapScheduleFreeWeights`: validates and keeps what a schedule-free optimizer averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from adaptlr.bridge.average import RunningAverage
from adaptlr.bridge.carried_state import attach
from adaptlr.bridge.fit import on_exception, other_callbacks, require_keras_3
from adaptlr.bridge.optimizer import innermost
from adaptlr.bridge.schedule_free import is_schedule_free, points, train_again
from adaptlr.callbacks.base import LearningRateCallback
from adaptlr.loop.clock import Clock

_BOUND = ("_model", "params", "_average", "_clock", "_next_update", "_unguard")  # to one fit


class SwapScheduleFreeWeights(keras.callbacks.Callback):
    """Validates the weights that a schedule-free optimizer averages, and leaves them in the model.

    `keras.optimizers.ScheduleFreeAdamW` trains at one point and is judged at another, the average
    of where it has been (Defazio et al., arXiv 2405.15682). Keras validates, saves and leaves the
    weights that are trained. With this callback validation, the callbacks behind it at the end of
    an epoch, and `fit` when it has ended have the averages, with statistics of batch normalisation
    that are as recent; training goes on from where it was, in the next epoch and in the next
    `fit`, of a file as well if `adaptlr.bridge.carried_state.attach(model)` is called before
    `load_weights`. It leaves the rate alone. Every other callback of adaptlr does the same by
    itself.

    Raises:
        ValueError: At the start of training, if no optimizer is schedule-free.
        RuntimeError: There as well, beside another callback that swaps weights.

    Example:
        >>> import adaptlr
        >>> callback = adaptlr.SwapScheduleFreeWeights()
    """

    async_safe = True

    def __init__(self) -> None:
        super().__init__()
        self._unbind()

    def _unbind(self) -> None:
        self._average: RunningAverage | None = None
        self._clock: Clock | None = None
        self._next_update = 0
        self._unguard: Callable[[], None] = _nothing

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _BOUND}

    def __setstate__(self, state: dict[str, Any]) -> None:
        keras.callbacks.Callback.__init__(self)
        self._unbind()
        self.__dict__.update(state)

    def set_model(self, model: keras.Model) -> None:
        """Lets files of the model's weights say which weights they hold."""
        require_keras_3(type(self).__name__, model)
        super().set_model(model)
        attach(model)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Checks the optimizer and the other callbacks."""
        name, optimizer = type(self).__name__, self.model.optimizer
        kinds = [] if optimizer is None else innermost(optimizer)
        if not any(map(is_schedule_free, kinds)):
            known = ", ".join(type(kind).__name__ for kind in kinds) or "none"
            raise ValueError(
                f"{name} swaps the averages of a schedule-free optimizer; this model has none: "
                f"compile it with keras.optimizers.ScheduleFreeAdamW (Keras 3.14 or later), or "
                f"leave {name} out. Received: {known}"
            )
        swapping = LearningRateCallback, keras.callbacks.SwapEMAWeights, SwapScheduleFreeWeights
        rivals = [type(c).__name__ for c in other_callbacks(self) if isinstance(c, swapping)]
        if rivals:
            raise RuntimeError(
                f"{name} swaps weights, and so does {', '.join(rivals)}. Keep one of them: every "
                f"callback of adaptlr that sets the rate does what {name} does."
            )
        self._unguard()  # if an exception ended the last fit
        self._unbind()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Goes back to the weights that are trained."""
        model = self.model
        if self._clock is None:  # by now other callbacks have restored what they restore
            if model.built and not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            train_again(model, innermost(model.optimizer))
            execution = int(model.steps_per_execution or 1)
            self._clock = Clock(0, self._epoch_steps, execution)
            self._unguard = on_exception(self, self._swap_out)
            self._make_average()
        elif self._average is not None:
            self._average.swap_out()
        self._clock.begin_epoch()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Takes in statistics of batch normalisation, every few steps."""
        if self._clock is None:
            return
        self._clock.begin(batch)
        average, step = self._average, self._clock.done
        if average is not None and step >= self._next_update:
            _ = self.model  # on JAX that brings the variables up to date
            average.update(step)
            self._next_update = average.due_after(step, self._epoch_steps)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts the steps."""
        if self._clock is not None:
            self._clock.end(batch)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Lets `fit` validate the averages."""
        if self._clock is not None and self.model is not None:
            self._clock.end_batches()
            self._swap_in()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Has the averages in the model for the callbacks that follow."""
        if self._clock is None:
            name = type(self).__name__
            raise RuntimeError(
                f"{name}.on_epoch_end was called, and {name}.on_epoch_begin was not called before "
                f"it. In a training loop of your own call set_model, on_train_begin, "
                f"on_epoch_begin, on_epoch_end and on_train_end."
            )
        if self.model is not None:
            self._clock.end_epoch()
            self._swap_in()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Leaves the averages in the model."""
        average = self._average
        self._unguard()
        self._unbind()
        if average is not None and self.model is not None:
            leaves = innermost(self.model.optimizer)
            average.finish(overwritten=any(getattr(leaf, "use_ema", False) for leaf in leaves))

    @property
    def _epoch_steps(self) -> int | None:
        return (self.params or {}).get("steps")

    def _make_average(self) -> None:
        model = self.model
        known = points(innermost(model.optimizer))
        if known and self._average is None:  # TensorFlow may build both in the first step
            step = 0 if self._clock is None else self._clock.done
            self._average = RunningAverage(model, step, known, whole=False)

    def _swap_in(self) -> None:
        self._make_average()
        if self._average is not None and self._clock is not None:
            if not self._average.swapped:
                self._average.update(self._clock.done)
            self._average.swap_in()

    def _swap_out(self) -> None:
        if self._average is not None and self.model is not None:
            self._average.swap_out()


def _nothing() -> None:
    pass
