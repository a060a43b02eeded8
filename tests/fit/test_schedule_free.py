"""Schedule-free optimizers: averages are validated, left and saved; training goes on from y."""

from __future__ import annotations

import copy
import pickle

import keras
import numpy as np
import pytest
from models import (
    Metrics,
    blobs,
    classifier,
    collected_warnings,
    one_weight,
    steps,
    unknown_length,
    weight,
)

import adaptlr
from adaptlr.bridge.carried_state import attach
from adaptlr.bridge.schedule_free import points
from adaptlr.schedules import Constant

pytestmark = pytest.mark.skipif(
    not hasattr(keras.optimizers, "ScheduleFreeAdamW"),
    reason="this release of Keras has no schedule-free optimizer",
)
RATE = 0.1
ones = steps(4)["x"], steps(4)["y"]

# Every callback, in a setting that leaves the rate where it is.
STEADY = {
    "swap": lambda: adaptlr.SwapScheduleFreeWeights(),
    "PlateauLR": lambda: adaptlr.PlateauLR(patience=9),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(Constant(RATE)),
}
steady = pytest.mark.parametrize("make", STEADY.values(), ids=STEADY)
EVERY = {
    **STEADY,
    "AutoLR": lambda: adaptlr.AutoLR(),
    "OneCycleLR": lambda: adaptlr.OneCycleLR(RATE, momentum=None),
}
every_callback = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def schedule_free(rate=RATE, **arguments):
    return keras.optimizers.ScheduleFreeAdamW(rate, **arguments)


def model(**arguments):
    """Its weight z falls by the rate at each step, from 0."""
    return one_weight(schedule_free(**arguments))


def mean_of_z(count):
    """x after `count` steps: the mean of -0.1, -0.2, ..."""
    return pytest.approx(-RATE * (count + 1) / 2, rel=1e-5)


def array(variable):
    return keras.ops.convert_to_numpy(variable.value)


class Recorder(keras.callbacks.Callback):
    """What the model holds at the end of each epoch, and in the middle of it."""

    def __init__(self):
        super().__init__()
        self.within, self.at_end, self.z = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.within.append(weight(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.at_end.append(weight(self.model))
        self.z.append(array(self.model.optimizer._momentums[0]).item())


@steady
class TestAverages:
    def test_are_validated_shown_and_left(self, make):
        network, recorder = model(), Recorder()
        arguments = {"validation_data": ones, "epochs": 3, "callbacks": [make(), recorder]}
        history = network.fit(**steps(4), **arguments).history
        # The loss of `one_weight` is its weight.
        assert history["val_loss"] == [mean_of_z(4), mean_of_z(8), mean_of_z(12)]
        assert recorder.at_end == history["val_loss"]
        assert weight(network) == mean_of_z(12)

    def test_are_left_without_validation(self, make):
        network = model()
        with collected_warnings():  # PlateauLR has no metric to see
            network.fit(**steps(4), epochs=3, callbacks=[make()])
        assert weight(network) == mean_of_z(12)

    @pytest.mark.alike
    def test_change_nothing_of_the_training(self, make):
        trained = []
        for callbacks in ([], [make()]):
            network, recorder = model(), Recorder()
            arguments = {"validation_data": ones, "epochs": 3}
            network.fit(**steps(4), **arguments, callbacks=[*callbacks, recorder])
            trained.append((recorder.within, recorder.z))
        np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-5)
        np.testing.assert_allclose(trained[0][1], trained[1][1], rtol=1e-6)

    @pytest.mark.alike
    @pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
    @pytest.mark.parametrize("way", ["again", "copy", "keras", "weights.h5"])
    def test_are_gone_on_from_by_the_next_fit(self, make, way, tmp_path):
        network = model()
        network.fit(**steps(4), epochs=2, validation_data=ones, callbacks=[make()])
        if way in ("keras", "weights.h5"):
            path = tmp_path / f"model.{way}"
            network.save(path) if way == "keras" else network.save_weights(path)
            network = model()
            network.optimizer.build(network.trainable_variables)
            attach(network)
            network.load_weights(path)
            assert weight(network) == mean_of_z(8)
        callback = make()
        callback = copy.deepcopy(callback) if way == "copy" else callback
        history = network.fit(
            **steps(4), epochs=4, initial_epoch=2, validation_data=ones, callbacks=[callback]
        ).history
        assert history["val_loss"] == [mean_of_z(12), mean_of_z(16)]

    def test_of_data_of_unknown_length(self, make):
        network = model()
        with collected_warnings():
            network.fit(unknown_length(4), epochs=3, verbose=0, callbacks=[make()])
        # TensorFlow may count a batch that was announced and not there, and the mean goes by that.
        off = 0.05 if keras.backend.backend() == "tensorflow" else 1e-5
        assert weight(network) == pytest.approx(-RATE * 13 / 2, rel=off)

    @pytest.mark.alike
    def test_where_several_steps_are_one_call(self, make):
        if keras.backend.backend() == "torch":
            pytest.skip("Keras has no steps_per_execution there")
        network = one_weight(schedule_free(), steps_per_execution=3)
        network.fit(**steps(4), epochs=3, validation_data=ones, callbacks=[make()])
        assert weight(network) == mean_of_z(12)

    def test_where_keras_averages_as_well(self, make):
        network = model(use_ema=True)
        network.fit(**steps(4), epochs=3, validation_data=ones, callbacks=[make()])
        assert weight(network) == mean_of_z(12)

    def test_under_a_loss_scale(self, make):
        network = one_weight(keras.optimizers.LossScaleOptimizer(schedule_free(), 1.0))
        network.fit(**steps(4), epochs=3, validation_data=ones, callbacks=[make()])
        assert weight(network) == mean_of_z(12)

    def test_of_weights_that_are_made_in_the_first_step(self, make):
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        network = keras.Sequential([layer])
        network.compile(schedule_free(), loss=lambda y, p: keras.ops.mean(p, axis=-1))
        history = network.fit(
            **steps(4), epochs=2, validation_data=ones, callbacks=[make()]
        ).history
        assert history["val_loss"] == [mean_of_z(4), mean_of_z(8)]
        assert weight(network) == mean_of_z(8)

    def test_are_not_left_where_an_exception_ends_validation(self, make):
        class Broken(keras.callbacks.Callback):
            def on_test_batch_end(self, batch, logs=None):
                raise KeyError("mine")

        network, recorder = model(), Recorder()
        with pytest.raises(KeyError, match="mine"):
            network.fit(**steps(4), validation_data=ones, callbacks=[make(), recorder, Broken()])
        if keras.backend.backend() != "jax":  # whose variables are the epoch's first then
            assert weight(network) == pytest.approx(trained_at(4), rel=1e-5)
        assert not attach(network).averaged


def test_a_file_from_within_an_epoch_is_gone_on_from_as_what_is_trained(tmp_path):
    class Save(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                self.model.save_weights(tmp_path / "within.weights.h5")

    network = model()
    swap = adaptlr.SwapScheduleFreeWeights()
    network.fit(**steps(4), callbacks=[swap, Save()])
    assert attach(network).averaged  # as fit has left it, and the file does not
    network.load_weights(tmp_path / "within.weights.h5")
    recorder = Recorder()
    network.fit(**steps(1), callbacks=[swap, recorder])
    assert recorder.within == [pytest.approx(trained_at(2), rel=1e-5)]
    assert weight(network) == mean_of_z(3)


def trained_at(count):
    """y after `count` steps, as this backend of Keras has it."""
    network, recorder = model(), Recorder()
    network.fit(**steps(count), callbacks=[recorder])
    return recorder.at_end[-1]


@pytest.mark.alike
@pytest.mark.parametrize("order", [1, -1], ids=["before", "after"])
@steady
def test_early_stopping_keeps_the_best_of_them(make, order):
    network = model()
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", mode="max", patience=1, restore_best_weights=True
    )
    callbacks = [make(), stopping][::order]
    network.fit(**steps(4), epochs=5, validation_data=ones, callbacks=callbacks)
    assert weight(network) == mean_of_z(4)  # the loss falls, which is worse here


@pytest.mark.alike
@steady
def test_backup_and_restore_goes_on_from_y(make, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("interrupted")

    for interrupt in ([Interrupt()], []):
        network, recorder = model(), Recorder()
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [make(), backup, recorder, *interrupt]
        arguments = {"epochs": 4, "validation_data": ones, "callbacks": callbacks}
        if interrupt:
            with pytest.raises(RuntimeError, match="interrupted"):
                network.fit(**steps(4), **arguments)
        else:
            history = network.fit(**steps(4), **arguments).history
    assert history["val_loss"] == [mean_of_z(12), mean_of_z(16)]


def test_a_backup_goes_on_from_y(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("interrupted")

    def callback():
        return adaptlr.ScheduleLR(Constant(RATE), backup_dir=tmp_path / "backup")

    with pytest.raises(RuntimeError, match="interrupted"):
        model().fit(
            **steps(4), epochs=4, validation_data=ones, callbacks=[callback(), Interrupt()]
        )
    network = model()
    history = network.fit(**steps(4), epochs=4, validation_data=ones, callbacks=[callback()])
    assert history.history["val_loss"][-2:] == [mean_of_z(12), mean_of_z(16)]


@pytest.mark.alike
@every_callback
def test_evaluation_after_fit_is_that_of_what_was_left(make):
    x, y = blobs(96)
    network = classifier(schedule_free(0.01), keras.layers.BatchNormalization())
    callback = make()
    with collected_warnings():
        history = network.fit(
            x, y, batch_size=8, epochs=4, validation_data=(x, y), verbose=0, callbacks=[callback]
        ).history
    loss = network.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    best = min(history["val_loss"]) if isinstance(callback, adaptlr.AutoLR) else None
    assert loss == pytest.approx(best or history["val_loss"][-1], rel=0.02)


def test_autolr_averages_only_what_the_optimizer_does_not():
    x, y = blobs(96)
    network = classifier(schedule_free(0.01), keras.layers.BatchNormalization())
    callback = adaptlr.AutoLR()
    network.fit(x, y, batch_size=8, epochs=3, validation_data=(x, y), verbose=0,
                callbacks=[callback])  # fmt: skip
    assert callback.learning_rate > 0.0
    kernel = network.trainable_variables[0]
    z, share = points([network.optimizer])[id(kernel)]
    assert share == (0.9 if keras.backend.backend() == "jax" else 1.0)
    assert not np.allclose(array(kernel), array(z))


def test_statistics_of_batch_normalisation_are_as_recent_as_the_averages():
    """Keras' own still hold most of their initial values after so few steps."""
    x, y = blobs(640)
    errors = []
    for callbacks in ([], [adaptlr.SwapScheduleFreeWeights()]):
        keras.utils.set_random_seed(0)
        norm = keras.layers.BatchNormalization()
        network = keras.Sequential(
            [keras.Input((8,)), keras.layers.Dense(16), norm, keras.layers.Dense(3)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(schedule_free(0.01), loss)
        network.fit(5.0 + x, y, batch_size=32, verbose=0, callbacks=callbacks)
        seen = keras.ops.convert_to_numpy(network.layers[0](5.0 + x)).mean(axis=0)
        errors.append(np.abs(array(norm.moving_mean) - seen).mean() / np.abs(seen).mean())
    assert errors[0] > 0.5
    assert errors[1] < 0.2


def test_the_best_weights_of_plateaulr_are_averages():
    network = model()
    callback = adaptlr.PlateauLR(
        "score", mode="min", patience=1, factor=0.5, restore_best_weights=True, stop=True
    )
    feed = Metrics("score", [0.0] + 9 * [1.0])
    network.fit(**steps(4), epochs=9, validation_data=ones, callbacks=[feed, callback])
    assert len(callback.decisions) > 2
    assert weight(network) == mean_of_z(4)


def test_a_finder_leaves_no_trace():
    plain, network = model(), model()
    for each, callbacks in ((plain, []), (network, [adaptlr.LRFinder(num_steps=3)])):
        swap = [adaptlr.SwapScheduleFreeWeights()]
        each.fit(**steps(4), epochs=1, validation_data=ones, callbacks=swap)
        if callbacks:
            each.fit(**steps(4), epochs=1, validation_data=ones, callbacks=callbacks)
            assert weight(each) == mean_of_z(4)
        each.fit(**steps(4), epochs=1, validation_data=ones, callbacks=swap)
    assert weight(network) == pytest.approx(weight(plain), rel=1e-6)


class TestRefusals:
    def test_of_a_cycled_momentum(self):
        with pytest.raises(ValueError, match=r"ScheduleFreeAdamW has no momentum .*momentum=None"):
            model().fit(**steps(4), callbacks=[adaptlr.OneCycleLR(RATE)])

    @pytest.mark.parametrize(
        "other", [lambda: keras.callbacks.SwapEMAWeights(), adaptlr.PlateauLR], ids=["EMA", "ours"]
    )
    def test_of_a_second_swap(self, other):
        callbacks = [adaptlr.SwapScheduleFreeWeights(), other()]
        for listed in (callbacks, callbacks[::-1]):
            with pytest.raises((RuntimeError, ValueError), match=r"Keep one of them|Leave Swap"):
                model(use_ema=True).fit(**steps(4), validation_data=ones, callbacks=listed)

    def test_of_an_optimizer_that_is_not_schedule_free(self):
        with pytest.raises(ValueError, match=r"SwapScheduleFreeWeights .*Received: Adam$"):
            one_weight(keras.optimizers.Adam()).fit(
                **steps(4), callbacks=[adaptlr.SwapScheduleFreeWeights()]
            )

    def test_of_a_missing_hook(self):
        callback = adaptlr.SwapScheduleFreeWeights()
        callback.set_model(model())
        callback.on_train_begin()
        with pytest.raises(RuntimeError, match="on_epoch_begin was not called before"):
            callback.on_epoch_end(0, {})


def test_the_swap_can_be_copied_before_and_after_a_fit():
    callback = adaptlr.SwapScheduleFreeWeights()
    for _ in range(2):
        for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
            network = model()
            network.fit(**steps(4), epochs=2, callbacks=[twin])
            assert weight(network) == mean_of_z(8)
        model().fit(**steps(4), callbacks=[callback])


def test_the_swap_leaves_the_rate_to_others():
    network = model()
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: RATE)
    network.fit(**steps(4), epochs=2, callbacks=[adaptlr.SwapScheduleFreeWeights(), scheduler])
    assert weight(network) == mean_of_z(8)
