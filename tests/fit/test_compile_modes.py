"""Every way to compile and to write a model: the rates that were asked for, and learning."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import blobs, classifier, collected_warnings, one_weight, steps, weight

import adaptlr
from adaptlr.controllers import Decision, Feedback
from adaptlr.monitor import Monitor
from adaptlr.schedules import Constant

BACKEND = keras.backend.backend()


class Scripted:
    """A controller that gives a rate of its own to each step."""

    monitor = None

    def init(self, run):
        return 0

    def update(self, state, observation):
        return state, Decision(2.0 ** min(observation.step, 7), next_step=observation.step + 1)


def both_ways():
    yield adaptlr.ScheduleLR(lambda step: 2.0**step)
    yield adaptlr.ScheduleLR(Constant(1.0), Scripted())


def learns(model, x, y, **arguments):
    callback = adaptlr.AutoLR()
    history = model.fit(
        x, y, batch_size=32, epochs=12, verbose=0, callbacks=[callback],
        validation_data=(x[:96], y[:96]), **arguments,
    ).history  # fmt: skip
    assert [r.rule for r in callback.decisions][:3] == ["start", "begin", "warm"]
    assert max(history["val_accuracy"]) > 0.9
    return callback


COMPILED = {
    "jit": {"jit_compile": True},
    "no jit": {"jit_compile": False},
    "auto": {"jit_compile": "auto"},
    "eager": {"run_eagerly": True, "jit_compile": False},
}


@pytest.mark.parametrize("how", COMPILED)
@pytest.mark.parametrize("way", ["schedule", "controller"])
def test_rates_are_exact_however_the_step_is_compiled(way, how):
    if BACKEND == "torch" and how == "jit":
        pytest.skip("torch.compile needs a C++ toolchain that CI machines may lack")
    callback = dict(zip(["schedule", "controller"], both_ways(), strict=True))[way]
    model = one_weight(**COMPILED[how])
    model.fit(**steps(8), callbacks=[callback])
    assert weight(model) == -255.0


@pytest.fixture(params=["float64", "float16", "bfloat16"])
def floatx(request):
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx("float32")


@pytest.mark.alike
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning")
@pytest.mark.parametrize("controller", [None, Scripted()])
def test_rates_that_no_type_of_floats_holds(controller, floatx):
    """Also in the type that JAX says to have, and by default has not."""
    model, schedule = one_weight(), adaptlr.ScheduleLR(lambda step: 0.1 / 2.0**step, controller)
    model.fit(**steps(4), epochs=2, callbacks=[schedule])
    expected = -0.8 if controller else -0.1 * (2.0 - 2.0**-7)
    assert weight(model) == pytest.approx(expected, rel=1e-2)
    rule = adaptlr.PlateauLR("loss", patience=1, factor=0.3, min_delta=1e9)
    model = one_weight(keras.optimizers.SGD(0.1))
    history = model.fit(**steps(2), epochs=4, callbacks=[rule]).history
    assert history["learning_rate"] == pytest.approx([0.1, 0.1, 0.03, 0.009], rel=1e-2)


@pytest.mark.alike("AutoLR learns")
@pytest.mark.parametrize("how", [how for how in COMPILED if (BACKEND, how) != ("torch", "jit")])
def test_autolr_learns_however_the_step_is_compiled(how):
    x, y = blobs(640)
    model = classifier(keras.optimizers.Adam(1e-7))
    model.compile(keras.optimizers.Adam(1e-7), model.loss, metrics=["accuracy"], **COMPILED[how])
    learns(model, x, y)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras: steps_per_execution must be 1 on PyTorch")
class TestStepsPerExecution:
    """A callback is asked once for all of these steps."""

    def test_what_is_decided_holds_for_all_steps_of_an_execution(self):
        model = one_weight(steps_per_execution=4)
        callback = adaptlr.ScheduleLR(Constant(1.0), Scripted())
        model.fit(**steps(8), callbacks=[callback])
        assert weight(model) == -(4 * 1 + 4 * 16)

    def test_plateau(self):
        model = one_weight(steps_per_execution=4)
        callback = adaptlr.PlateauLR("loss", 0.5, 1, min_delta=1e9)  # no later epoch is better
        model.fit(**steps(8), epochs=3, callbacks=[callback])
        assert weight(model) == -(8 + 8 + 4)

    @pytest.mark.alike("AutoLR learns")
    def test_autolr_learns(self):
        x, y = blobs(640)
        model = classifier(keras.optimizers.Adam(1e-7))
        model.compile(
            keras.optimizers.Adam(1e-7), model.loss, metrics=["accuracy"], steps_per_execution=5
        )
        callback = adaptlr.AutoLR()
        model.fit(
            x, y, batch_size=16, epochs=30, verbose=0, callbacks=[callback], validation_data=(x, y)
        )
        steps_acted = [record.step for record in callback.decisions]
        assert all(step % 5 == 0 for step in steps_acted)
        assert model.evaluate(x, y, verbose=0)[1] > 0.9


@pytest.fixture(params=["bfloat16", "mixed_bfloat16"])
def bfloat16(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


class TestBfloat16:
    @pytest.mark.parametrize("way", [0, 1], ids=["schedule", "controller"])
    def test_rates_are_exact(self, bfloat16, way):
        model = one_weight()
        model.fit(**steps(8), callbacks=[list(both_ways())[way]])
        assert model.layers[0].compute_dtype == "bfloat16"
        assert float(keras.ops.convert_to_numpy(model.weights[0]).item()) == -255.0

    @pytest.mark.alike("AutoLR learns")
    def test_autolr_learns(self, bfloat16):
        if bfloat16 == "bfloat16":
            pytest.skip("Keras does not learn this in bfloat16 without adaptlr either")
        x, y = blobs(640)
        learns(classifier(keras.optimizers.Adam(1e-7), keras.layers.BatchNormalization()), x, y)


def pictures():
    """Three kinds of stripes, 640 pictures of 8×8 in the layout in use."""
    x, y = blobs(640)
    x = np.repeat(x[:, None, :], 8, axis=1)[..., None]
    return (x if keras.config.image_data_format() == "channels_last" else x.swapaxes(1, 3)), y


def has_channels_first():
    """TensorFlow has the gradient on CPUs through oneDNN alone, left off on older ones."""
    if keras.backend.backend() != "tensorflow":
        return True
    tf = pytest.importorskip("tensorflow")

    @tf.function
    def gradient(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = tf.nn.conv2d(x, kernel, 1, "VALID", data_format="NCHW")
        return tape.gradient(y, kernel)

    try:
        gradient(tf.zeros((1, 1, 4, 4)), tf.zeros((3, 3, 1, 1)))
    except tf.errors.OpError:
        return False
    return True


@pytest.fixture
def channels_first():
    if not has_channels_first():
        pytest.skip("this TensorFlow trains no convolution with channels first on this device")
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.usefixtures("channels_first")
def test_channels_first():
    x, y = pictures()
    assert x.shape[1] == 1
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(axis=1, momentum=0.9),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(1e-7), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    learns(model, x, y)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(16, activation="relu")
        self.answer = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.answer(self.hidden(x))


def functional(kind=keras.Model):
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    return kind(inputs, keras.layers.Dense(3, activation="softmax")(hidden))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8), "float32"))  # AutoLR copies weights, so there must be some
    return model


class OwnStep(keras.Model):
    """A step that is the user's, in the manner of each backend."""

    seen = 0

    def train_step(self, *arguments):
        OwnStep.seen += 1
        return super().train_step(*arguments)


@pytest.mark.alike
@pytest.mark.parametrize("make", [functional, subclassed, lambda: functional(OwnStep)])
def test_models_of_every_kind(make):
    x, y = blobs(640)
    model = make()
    model.compile(
        keras.optimizers.Adam(1e-7), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    learns(model, x, y)


class OwnLoop(keras.Model):
    """Computes, applies and reports by itself; its loss is in no metric of Keras."""

    def train_step(self, *arguments):
        return getattr(self, f"_step_on_{BACKEND}")(*arguments)

    def _step_on_tensorflow(self, data):
        import tensorflow as tf

        x, _ = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"own": loss}

    def _step_on_torch(self, data):
        import torch

        self.zero_grad()
        loss = self(data[0], training=True).mean()
        loss.backward()
        variables = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in variables], variables)
        return {"own": loss}

    def _step_on_jax(self, state, data):
        import jax

        trainable, other, optimizer, metrics = state

        def mean(trainable):
            y, updated = self.stateless_call(trainable, other, data[0], training=True)
            return y.mean(), updated

        (loss, other), gradients = jax.value_and_grad(mean, has_aux=True)(trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"own": loss}, (trainable, other, optimizer, metrics)


def test_without_a_loss_to_see_autolr_says_so_and_trains_at_a_customary_rate():
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = OwnLoop(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.5))
    callback, ones = adaptlr.AutoLR(monitor="own", mode="min"), np.ones((640, 1), "float32")
    with collected_warnings() as messages:
        model.fit(ones, ones, batch_size=2, epochs=2, verbose=0, callbacks=[callback])
    assert sum("reports no metric named 'loss'" in message for message in messages) == 1
    assert [d.rule for d in callback.decisions][:3] == ["start", "begin", "unseen"]
    assert callback.learning_rate == pytest.approx(0.2)
    assert model.get_weights()[0].item() < -100.0  # it was trained: the gradient is one


def test_without_a_loss_to_see_feedback_under_another_callback_says_so_too():
    inputs = keras.Input((1,))
    model = OwnLoop(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    model.compile(keras.optimizers.SGD(0.5))
    callback = adaptlr.ScheduleLR(Constant(0.5), Feedback(Monitor("own", "min")))
    with collected_warnings() as messages:
        model.fit(**steps(80), epochs=2, callbacks=[callback])
    assert sum("ScheduleLR: " in m and "no metric named 'loss'" in m for m in messages) == 1


@pytest.mark.parametrize("way", [0, 1], ids=["schedule", "controller"])
def test_a_step_of_the_users_own(way):
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = OwnLoop(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0))
    model.fit(**steps(8), callbacks=[list(both_ways())[way]])
    assert weight(model) == -255.0


def test_plateau_reads_what_the_users_own_step_reports():
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = OwnLoop(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0))
    callback = adaptlr.PlateauLR("own", 0.5, 1, mode="max")
    model.fit(**steps(4), epochs=3, callbacks=[callback])
    assert weight(model) == -(4 + 4 + 2)
