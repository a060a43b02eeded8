"""An optimizer that trains nothing, or hands its work on, is named after the first epoch."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import collected_warnings, one_weight, steps, weight

import adaptlr
from adaptlr.schedules import Constant

EVERY = {
    "PlateauLR": lambda: adaptlr.PlateauLR("loss", patience=1, factor=0.5, min_delta=1e9),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 1.0, 3),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(Constant(0.1)),
}


class Adversaries(keras.Model):
    """As a GAN is written: `compile` with optimizers of its own, whatever the training step is."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.tracker = keras.metrics.Mean(name="loss")

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def call(self, x):
        return self.dense(x)

    def train_step(self, *arguments):
        if keras.backend.backend() == "jax":
            state = arguments[0]
            return {"loss": keras.ops.ones(())}, state
        self.tracker.update_state(1.0)
        return {"loss": self.tracker.result()}


@pytest.mark.parametrize("name", EVERY)
def test_own_optimizers_of_a_gan(name):
    model = Adversaries()
    model.build((None, 1))
    model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(2e-3))
    with collected_warnings() as messages:
        model.fit(**steps(4), epochs=3, callbacks=[EVERY[name]()])
    (message,) = messages
    assert f"{name} drives the learning rate of RMSprop" in message
    assert "Others of this model: model.d_optimizer, model.g_optimizer." in message


class Wrapper(keras.optimizers.Optimizer):
    """Hands all work to another optimizer, which no attribute that Keras knows holds."""

    def __init__(self, base, counts):
        super().__init__(learning_rate=0.5)
        self.base, self.counts = base, counts

    def build(self, variables):
        super().build(variables)
        self.base.build(variables)

    @property
    def variables(self):
        return [*super().variables, *(self.base.variables if hasattr(self, "base") else [])]

    def apply(self, gradients, trainable_variables=None):
        if self.counts:
            self._iterations.assign_add(1)
        self.base.apply(gradients, trainable_variables)


@pytest.mark.parametrize("counts", [False, True])
def test_a_wrapper_that_hides_the_inner_one(counts):
    model = one_weight(Wrapper(keras.optimizers.SGD(0.25), counts))
    with collected_warnings() as messages:
        model.fit(**steps(4), epochs=3, callbacks=[EVERY["PlateauLR"]()])
    (message,) = messages
    assert "PlateauLR drives the learning rate of Wrapper" in message
    assert "in a wrapper of your own call it self.inner_optimizer" in message


class Known(Wrapper):
    """The remedy: the same under the name that Keras' own wrapper uses."""

    @property
    def inner_optimizer(self):
        return self.base


def test_a_wrapper_that_names_it_as_keras_does_is_driven():
    model = one_weight(Known(keras.optimizers.SGD(0.25), counts=True))
    model.fit(**steps(4), epochs=2, callbacks=[adaptlr.ScheduleLR(lambda step: 2.0**step)])
    assert weight(model) == -255.0


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1),
        lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=8),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), 2.0**120),
    ],
    ids=["plain", "accumulated", "all steps skipped by a loss scale"],
)
def test_those_that_train_are_not_named(optimizer):
    one_weight(optimizer()).fit(**steps(4), callbacks=[EVERY["ScheduleLR"]()])


def test_a_range_test_that_is_undone_at_the_end_of_an_epoch_is_training():
    x = np.ones((40, 1), "float32")
    finder = adaptlr.LRFinder(num_steps=5)
    one_weight().fit(x, x, batch_size=8, epochs=3, verbose=0, callbacks=[finder])
    assert len(finder.learning_rates) >= 4


def compiled_anew(model):
    model.compile(keras.optimizers.Adam(0.5), "mse")
    model.make_train_function()


def swapped(model):
    model.optimizer = keras.optimizers.Adam(0.5)
    model.optimizer.build(model.trainable_variables)
    model.make_train_function(force=True)


def scheduled(model):
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(0.5, 10)


class Within(keras.callbacks.Callback):
    """Does something to the model where the second epoch begins, or ends."""

    def __init__(self, act, at_end):
        super().__init__()
        self.act, self.at_end = act, at_end

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1 and not self.at_end:
            self.act(self.model)

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1 and self.at_end:
            self.act(self.model)


MORE = {
    **EVERY,
    "OneCycleLR": lambda: adaptlr.OneCycleLR(1.0, momentum=None),
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
}
# Callback, act, when, and who is listed first: all pairs of two of these, and not all fours.
WITHIN = [
    (name, act, at_end, at_end == bool((i + j) % 2))
    for i, name in enumerate(MORE)
    for j, act in enumerate((compiled_anew, swapped, scheduled))
    for at_end in (False, True)
]


@pytest.mark.alike
@pytest.mark.parametrize(("name", "act", "at_end", "first"), WITHIN)
def test_one_that_is_replaced_within_fit_is_named(name, act, at_end, first):
    """The variable that is driven, and logged, would train nothing any more."""
    model, callback = one_weight(), MORE[name]()
    callbacks = [callback, Within(act, at_end)]
    what = "its learning rate was repl.* CosineDecay" if act is scheduled else "is another.* Adam"
    match = rf"{name} drives the learning rate of SGD, and at step \d+ .*{what}.*: Within"
    with pytest.raises(RuntimeError, match=match):
        model.fit(**steps(4), epochs=4, callbacks=callbacks[::-1] if first else callbacks)


def test_a_number_that_is_set_within_fit_is_another_fault():
    def halve(model):
        model.optimizer.learning_rate = 0.25

    with pytest.raises(RuntimeError, match=r"set the learning rate to 1 and found 0\.25"):
        one_weight().fit(
            **steps(4), epochs=3, callbacks=[EVERY["PlateauLR"](), Within(halve, False)]
        )
