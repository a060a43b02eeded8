"""Mixed precision, weight decay, gradient accumulation, averaged weights: exact, and learning."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from models import Metrics, blobs, classifier, one_weight, steps, weight

import adaptlr
from adaptlr.controllers import Decision
from adaptlr.schedules import Constant

BACKEND = keras.backend.backend()
RATES = [2.0**k for k in range(8)]  # a sum of them says which ones were applied


class Scripted:
    """A controller that gives a rate of its own to each step."""

    monitor = None

    def init(self, run):
        return 0

    def update(self, state, observation):
        return state, Decision(RATES[min(observation.step, 7)], next_step=observation.step + 1)


CALLBACKS = {
    "schedule": lambda: adaptlr.ScheduleLR(lambda step: 2.0**step),
    "controller": lambda: adaptlr.ScheduleLR(Constant(1.0), Scripted()),
}
each_way = pytest.mark.parametrize("way", CALLBACKS)


def compiled_in(way):
    """Whether the rates are a table in the compiled step, and not written by the callback."""
    return way == "schedule" and BACKEND != "torch"


def fit_eight(way, optimizer, callbacks=(), **data):
    """Eight steps on one weight whose gradient is 1, at the rates 1, 2, 4 ... 128."""
    model = one_weight(optimizer)
    model.fit(**{**steps(8), **data}, callbacks=[CALLBACKS[way](), *callbacks])
    return model


class WeightAtEpochEnd(keras.callbacks.Callback):
    """Before `fit` puts averaged weights into the model."""

    def on_epoch_end(self, epoch, logs=None):
        self.value = weight(self.model)


def learns(optimizer, *, epochs=20, **arguments):
    """Fits three clouds with AutoLR; returns the callback and the model."""
    x, y = blobs(640)
    model = classifier(optimizer)
    callback = adaptlr.AutoLR()
    history = model.fit(
        x, y, batch_size=32, epochs=epochs, verbose=0, callbacks=[callback],
        validation_data=(x[:96], y[:96]), **arguments,
    ).history  # fmt: skip
    assert max(history["val_accuracy"]) > 0.9
    assert [r.rule for r in callback.decisions][:3] == ["start", "begin", "warm"]
    assert 1e-4 < callback.learning_rate < 5.0
    return callback, model


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("mixed_float16")
class TestMixedFloat16:
    @each_way
    def test_rates_are_exact(self, way):
        model = fit_eight(way, keras.optimizers.SGD(1.0))
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert model.layers[0].compute_dtype == "float16"
        assert weight(model) == -255.0

    @each_way
    def test_steps_that_the_loss_scale_skips(self, way):
        """A scale of 2**20 overflows in float16: five steps are skipped, halving it each time.

        A controller decides by training steps. A schedule that is compiled in counts the steps
        that the optimizer took, as Keras' own schedules do: it is late by those skipped.
        """
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(1.0), initial_scale=2.0**20
        )
        model = fit_eight(way, optimizer)
        taken = RATES[:3] if compiled_in(way) else RATES[5:]
        assert weight(model) == -sum(taken)

    @each_way
    def test_a_batch_that_is_not_finite_is_skipped(self, way):
        x = np.ones((8, 1), "float32")
        x[2] = np.inf
        model = fit_eight(way, keras.optimizers.SGD(1.0), x=x)
        taken = RATES[:7] if compiled_in(way) else [*RATES[:2], *RATES[3:]]
        assert weight(model) == -sum(taken)

    def test_plateau(self):
        model = one_weight()
        feed = Metrics("score", [1.0, 1.0, 1.0])
        callback = adaptlr.PlateauLR("score", 0.5, 1, mode="min")
        model.fit(**steps(4), epochs=3, callbacks=[feed, callback])
        assert weight(model) == -(4 + 4 + 2)

    @pytest.mark.alike("AutoLR learns")
    def test_autolr_learns(self):
        _, model = learns(keras.optimizers.Adam(1e-7))
        assert model.layers[0].compute_dtype == "float16"

    @pytest.mark.alike("AutoLR learns")
    def test_autolr_learns_where_the_first_steps_are_skipped(self):
        learns(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-7), initial_scale=2.0**24)
        )


class TestWeightDecay:
    @each_way
    @pytest.mark.parametrize("kind", ["SGD", "AdamW"])
    def test_each_step_decays_by_its_own_rate(self, way, kind):
        """w -= rate * decay * w, then the step."""
        decay = 2.0**-9
        if kind == "SGD":
            model = fit_eight(way, keras.optimizers.SGD(1.0, weight_decay=decay))
        else:  # its step is the rate itself while the gradient stays the same
            model = fit_eight(way, keras.optimizers.AdamW(1.0, weight_decay=decay, epsilon=1e-12))
        expected = 0.0
        for rate in RATES:
            expected = expected - rate * decay * expected - rate
        assert weight(model) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.alike("AutoLR learns")
    def test_autolr_learns(self):
        learns(keras.optimizers.AdamW(1e-7, weight_decay=0.01))


class TestGradientAccumulation:
    @each_way
    def test_the_rate_is_read_at_update_steps(self, way):
        model = fit_eight(way, keras.optimizers.SGD(1.0, gradient_accumulation_steps=2))
        assert weight(model) == -(2 + 8 + 32 + 128)

    @pytest.mark.alike("AutoLR learns")
    def test_autolr_learns(self):
        learns(keras.optimizers.Adam(1e-7, gradient_accumulation_steps=2))


class TestAveragedByTheOptimizer:
    @each_way
    def test_rates_are_exact(self, way):
        optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
        raw = WeightAtEpochEnd()
        model = fit_eight(way, optimizer, [raw])
        assert raw.value == -255.0
        average, expected = 0.0, 0.0
        for step, rate in enumerate(RATES):
            expected -= rate
            average = expected if step == 0 else 0.5 * average + 0.5 * expected
        assert weight(model) == pytest.approx(average)

    @pytest.mark.alike("AutoLR learns")
    def test_autolr_learns(self):
        learns(keras.optimizers.Adam(1e-7, use_ema=True))

    def test_a_second_fit_after_autolr(self):
        """It leaves copies in the weights, and so is free of the fault below."""
        optimizer = keras.optimizers.Adam(1e-7, use_ema=True)
        _, model = learns(optimizer)
        x, y = blobs(640)
        model.fit(x, y, batch_size=32, verbose=0, callbacks=[adaptlr.PlateauLR("loss")])
        assert np.isfinite(model.get_weights()[0]).all()

    @pytest.mark.xfail(
        BACKEND == "jax",
        raises=TypeError,
        reason="Keras: on JAX fit ends with weight and average in one buffer, and the next one "
        "fails ('Attempt to donate the same buffer twice'), without any callback too",
    )
    @pytest.mark.parametrize("callbacks", [[], [lambda: adaptlr.PlateauLR("loss")]])
    def test_a_second_fit(self, callbacks):
        x, y = blobs()
        model = classifier(keras.optimizers.Adam(1e-2, use_ema=True))
        for _ in range(2):
            model.fit(x, y, verbose=0, callbacks=[make() for make in callbacks])
        assert np.isfinite(model.get_weights()[0]).all()


def one_cycle(optimizer):
    raw = WeightAtEpochEnd()
    callback = adaptlr.OneCycleLR(0.5)
    one_weight(optimizer).fit(**steps(12), callbacks=[callback, raw])
    return raw.value


@pytest.mark.parametrize(
    "wrap",
    [
        lambda **arguments: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(**arguments)),
        lambda **arguments: keras.optimizers.SGD(**arguments, use_ema=True),
        lambda **arguments: keras.optimizers.SGD(**arguments, weight_decay=0.0),
    ],
    ids=["loss scale", "averaged", "weight decay of 0"],
)
def test_rate_and_momentum_of_one_cycle_are_those_of_the_plain_optimizer(wrap):
    arguments = {"learning_rate": 0.1, "momentum": 0.9}
    plain = one_cycle(keras.optimizers.SGD(**arguments))
    assert plain < -1.0
    assert one_cycle(wrap(**arguments)) == pytest.approx(plain, rel=1e-6)


def test_the_numbers_of_the_page_on_weight_decay():
    page = (Path(__file__).parents[2] / "docs" / "weight-decay.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (expected,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code, {})
    assert shown.getvalue() == expected
