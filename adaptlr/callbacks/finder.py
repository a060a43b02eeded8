"""`LRFinder`: the learning-rate range test."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import keras
import numpy as np

from adaptlr._arguments import speaking_for
from adaptlr.bridge.fit import require_keras_3
from adaptlr.bridge.optimizer import accumulation
from adaptlr.callbacks.base import LearningRateCallback, arguments_of
from adaptlr.controllers import RangeFinder
from adaptlr.loop.plan import Plan, whatever_the_run
from adaptlr.monitor import Monitor
from adaptlr.range_test import Curve, RangeTest
from adaptlr.range_test.figure import finder_curve, png
from adaptlr.schedules import Constant
from adaptlr.writers import Writer


class LRFinder(LearningRateCallback):
    """Trains with ever higher rates, reads off which are good, and leaves no trace.

    The range test of Smith (arXiv 1506.01186, section 3.3): the rate rises at every step until the
    ramp ends or the loss diverges. The curve is made of the losses of single batches, not of the
    running means that Keras logs. Afterwards weights, optimizer slots and counters, learning rate
    and random state are those of before, to the bit.

    `find` does it in one line, before `fit`. Listed in the `callbacks` of a `fit`, it ends that
    `fit` after the ramp.

    Args:
        min_lr: First rate, > 0. With several rates in one optimizer (`MultiOptimizer`), this is
            the largest, and the others keep their proportion.
        max_lr: Last rate, > `min_lr`.
        num_steps: Steps in the ramp, ≥ 2. Below some 50 the noise of single batches shows. Where
            gradients are accumulated, updates of the weights, of several batches each.
        shape: `"exponential"`, which gives each decade as many steps, or `"linear"`, for a close
            look at a range that is roughly known.
        divergence: The ramp ends when the mean of the latest losses exceeds the loss at the start
            by this factor, > 1, or when the loss is not finite.
        validation_data: What to measure after every step of the ramp: arrays `(x, y)`, a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a PyTorch `DataLoader`; keep it small.
            (At the end of an epoch that `fit` validates itself, its figure is taken.)
        log_dir: Directory for TensorBoard event files, or None.
        verbose: 1 prints the verdict, 0 nothing.
        optimizers: Optimizers to drive in place of `model.optimizer`, where a `train_step` has its
            own, as in a GAN. Rates are those of the first; the others keep their ratios to it.
        writers: More places to log to, see `adaptlr.writers`.

    Attributes:
        decisions: What was done and found, with `step`, `epoch`, `learning_rate`, `rule` and
            `reason`.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> import adaptlr
        >>> finder = adaptlr.LRFinder(min_lr=1e-6, max_lr=1.0)
        >>> finder.suggestion is None, finder.verdict
        (True, 'no ramp was run yet')

        With a compiled model and its data::

            finder = adaptlr.LRFinder().find(model, x, y, batch_size=32)
            finder.plot("curve.png")
            if finder.suggestion is None:
                raise SystemExit(finder.verdict)
            model.optimizer.learning_rate = finder.suggestion
            model.fit(x, y, batch_size=32, epochs=20)
    """

    _is_asked_once = True

    def __init__(
        self,
        min_lr: float = 1e-7,
        max_lr: float = 10.0,
        num_steps: int = 100,
        shape: Literal["exponential", "linear"] = "exponential",
        divergence: float = 1.5,
        validation_data: Any = None,
        log_dir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        *,
        optimizers: Sequence[Any] | None = None,
        writers: Sequence[Writer] = (),
    ) -> None:
        given = arguments_of(LRFinder, locals())
        with speaking_for(self):
            ramp = RangeTest(min_lr, max_lr, num_steps, divergence, shape)
        monitor = None if validation_data is None else Monitor("val_loss", "min")
        self._finder = RangeFinder(ramp, monitor)
        plan = Plan(
            self._finder,
            schedule=whatever_the_run(Constant(1.0)),  # the scale is the rate itself
            validation_data=validation_data,
        )
        super().__init__(plan, given)

    def find(self, model: Any, x: Any = None, y: Any = None, **fit_arguments: Any) -> LRFinder:
        """Runs the ramp on a compiled model, and leaves the model as it was.

        Data that are shorter than the ramp are gone through again. A generator is consumed, as by
        `fit`, and ends the ramp where it ends itself: yield a batch for each step, and one more.
        If the ramp is interrupted, the model is put back as well.

        The next `fit` is, to the bit, what it would have been. One thing Keras does in the first
        `fit` of a model only: it takes a look at one batch to build the metrics. With `shuffle` on
        JAX and PyTorch this draws an order, so that if the seed is set anew between the two, the
        orders after it are those of a second `fit`.

        Args:
            model: A compiled model.
            x: Whatever `fit` takes as `x`.
            y: Whatever `fit` takes as `y`.
            **fit_arguments: More arguments of `fit` (`batch_size`, `steps_per_epoch`,
                `class_weight`, ...), except for `epochs` and `initial_epoch`. It is quiet unless
                `verbose` says otherwise.

        Returns:
            This finder, with its answer.

        Raises:
            TypeError: If `epochs` or `initial_epoch` is given, or the model is none.
            ValueError: If the model is not compiled, or there are no data.
        """
        require_keras_3("LRFinder.find(model, x, y)", model)
        if not model.compiled:
            raise ValueError(
                "LRFinder.find(model, x, y) trains the model: call model.compile(optimizer, loss) "
                "before."
            )
        if x is None:
            raise ValueError(
                "LRFinder.find(model, x, y) needs the data that fit would train on. Received: "
                "x=None"
            )
        for name in ("epochs", "initial_epoch"):
            if name in fit_arguments:
                raise TypeError(
                    f"LRFinder.find({name}=...) must be left out: the ramp decides when to end. "
                    f"Received: {name}={fit_arguments[name]!r}"
                )
        others = fit_arguments.pop("callbacks", None) or []
        others = list(others) if isinstance(others, list | tuple) else [others]
        fit_arguments.setdefault("verbose", 0)
        driven = [model.optimizer] if self._optimizers is None else self._optimizers
        steps = (self._finder.ramp.num_steps + 1) * accumulation(driven)
        once = _Once(x) if isinstance(x, Iterator) else None
        with _as_found(model) as keeper:
            listed = [*others, keeper, self, *([] if once is None else [once])]
            try:
                # As many epochs as the ramp would take if each had one step.
                data = x if once is None else once.batches()
                model.fit(data, y, epochs=steps, callbacks=listed, **fit_arguments)
            finally:
                self.on_train_end()  # which Keras leaves out after an exception
        return self

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the curve and the suggestions; needs matplotlib (`pip install adaptlr[plot]`).

        A notebook shows the figure, and a finder that has run shows it by itself.

        Args:
            path: File to save the figure to, in a format by its suffix, or None.

        Returns:
            The `matplotlib.figure.Figure`.
        """
        return finder_curve(self._curve, path)

    @property
    def suggestion(self) -> float | None:
        """The rate to train with, or None: then `verdict` says why.

        It is the geometric mean of the rate with the lowest loss and the rate that brought half of
        that fall.
        """
        return self.suggestions["centre"]

    @property
    def suggestions(self) -> dict[str, float | None]:
        """Rates by rule: `"centre"` (ours), `"valley"`, `"steepest"` and `"minimum/10"`."""
        return dict(self._curve.suggestions)

    @property
    def verdict(self) -> str:
        """What the curve shows, how sure that is, and what to do if it is not."""
        return self._curve.verdict

    @property
    def learning_rates(self) -> list[float]:
        """Rates of the ramp, as far as it came."""
        return list(self._curve.learning_rates)

    @property
    def losses(self) -> list[float]:
        """Batch losses; entry i is the loss after the step with rate i, on the next batch."""
        return list(self._curve.losses)

    @property
    def validation_losses(self) -> list[float]:
        """Losses on the validation data; entry i is the loss after the step with rate i."""
        return list(self._curve.validation_losses)

    _calls_it = "suggestion"

    def _found(self, state: Any) -> float | None:
        return None if state is None else self._finder.curve(state).suggestions["centre"]

    def _repr_png_(self) -> bytes | None:
        """Shows the curve in a notebook, once there is one and if matplotlib is installed."""
        try:
            return png(self.plot()) if self._curve.losses else None
        except ImportError:
            return None

    @property
    def _curve(self) -> Curve:
        state = self._present_state
        return Curve() if state is None else self._finder.curve(state)


class _Shuffling(keras.callbacks.Callback):
    """Keeps the state of the generators by which data are shuffled on JAX.

    It is read when training begins: before that, the first `fit` of a model looks at one batch to
    build its metrics, and draws an order for it. A later `fit` does not.
    """

    unnamed = True

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._states = np.random.get_state(), random.getstate()

    def put_back(self) -> None:
        if hasattr(self, "_states"):
            np.random.set_state(self._states[0])
            random.setstate(self._states[1])


class _Once(keras.callbacks.Callback):
    """Ends the training with data that can be read only once: Keras would repeat the first two.

    Args:
        batches: The data.
    """

    unnamed = True

    def __init__(self, batches: Iterator[Any]) -> None:
        super().__init__()
        self._batches, self._ended = batches, False

    def batches(self) -> Iterator[Any]:
        """The batches, in a generator, as Keras asks for."""
        yield from self._batches
        self._ended = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._ended:
            self.model.stop_training = True


@contextmanager
def _as_found(model: Any) -> Iterator[keras.callbacks.Callback]:
    """Puts back what a `fit` changes beside the training state: metrics, history, shuffling."""
    shuffling = _Shuffling()
    history = vars(model).get("history")
    metrics = {id(v): keras.ops.copy(v) for v in model.metrics_variables}
    try:
        yield shuffling
    finally:
        shuffling.put_back()
        model.stop_training = False
        if history is None:
            vars(model).pop("history", None)
        else:
            model.history = history
        model.reset_metrics()
        for variable in model.metrics_variables:
            if id(variable) in metrics:
                variable.assign(metrics[id(variable)])
