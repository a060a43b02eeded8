"""Callbacks that no `fit` drives: all hooks, some, or none of those that are needed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import collected_warnings, one_weight, weight

import adaptlr

ONE = np.ones((1, 1), "float32")

EVERY = {
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
    "PlateauLR": lambda: adaptlr.PlateauLR(patience=2, factor=0.5),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 1.0, 3),
    "OneCycleLR": lambda: adaptlr.OneCycleLR(1.0, total_steps=6, momentum=None),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(lambda step: 2.0**step),
}
every_callback = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def rate(model):
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


def epochs_alone(callback, model):
    """The least that anybody calls: rates after each of six epochs with the same loss."""
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch in range(6):
        callback.on_epoch_end(epoch, {"val_loss": 1.0})
        rates.append(rate(model))
    return rates


def test_epoch_ends_alone_are_enough_for_a_plateau():
    ours = epochs_alone(adaptlr.PlateauLR(patience=2, factor=0.5), one_weight())
    theirs = keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.5)
    assert ours == epochs_alone(theirs, one_weight()) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


@every_callback
@pytest.mark.filterwarnings("ignore:AutoLR. it is not known how many steps:UserWarning")
def test_a_list_without_parameters(make):
    model = one_weight()
    hooks = keras.callbacks.CallbackList([make()], model=model)
    hooks.on_train_begin()
    for epoch in range(2):
        hooks.on_epoch_begin(epoch)
        for batch in range(3):
            hooks.on_train_batch_begin(batch)
            logs = model.train_on_batch(ONE, ONE, return_dict=True)
            hooks.on_train_batch_end(batch, logs)
        hooks.on_epoch_end(epoch, {"val_loss": 1.0, "loss": 1.0})
    hooks.on_train_end()
    assert np.isfinite(weight(model))


@pytest.mark.parametrize("begin_epochs", [True, False])
def test_a_loop_of_train_on_batch_has_exact_rates(begin_epochs):
    model, callback = one_weight(), EVERY["ScheduleLR"]()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(2):
        if begin_epochs:
            callback.on_epoch_begin(epoch)
        for batch in range(4):
            callback.on_train_batch_begin(batch)
            model.train_on_batch(ONE, ONE)
            callback.on_train_batch_end(batch)
        callback.on_epoch_end(epoch)
    callback.on_train_end()
    assert weight(model) == -255.0


def test_a_loop_without_epochs_has_exact_rates():
    model, callback = one_weight(), EVERY["ScheduleLR"]()
    callback.set_model(model)
    callback.on_train_begin()
    for step in range(8):
        callback.on_train_batch_begin(step)
        model.train_on_batch(ONE, ONE)
        callback.on_train_batch_end(step)
    callback.on_train_end()
    assert weight(model) == -255.0


def test_steps_that_nobody_tells_of_are_counted_by_the_optimizer_and_said_to_be():
    model, callback = one_weight(), EVERY["ScheduleLR"]()
    callback.set_model(model)
    callback.on_train_begin()
    with collected_warnings() as messages:
        for epoch in range(2):
            callback.on_epoch_begin(epoch)
            for _ in range(3):
                model.train_on_batch(ONE, ONE)
            callback.on_epoch_end(epoch)
    (message,) = messages
    assert "ScheduleLR sets the rate in on_train_batch_begin" in message
    assert rate(model) == 2.0**6


class Looped(keras.Sequential):
    """A model whose `fit` is a loop of its own, with arguments of its own."""

    def fit(self, data, validation_data=None, passes=2, callbacks=()):
        hooks = keras.callbacks.CallbackList(list(callbacks), model=self, epochs=passes, steps=3)
        hooks.on_train_begin()
        for epoch in range(passes):
            hooks.on_epoch_begin(epoch)
            for batch in range(3):
                hooks.on_train_batch_begin(batch)
                logs = self.train_on_batch(*data, return_dict=True)
                hooks.on_train_batch_end(batch, logs)
            hooks.on_epoch_end(epoch, logs)
        hooks.on_train_end()


@pytest.mark.parametrize("monitor", ["loss", "val_loss"])
@pytest.mark.parametrize("name", ["AutoLR", "PlateauLR"])
def test_a_method_fit_of_the_model_is_taken_for_a_loop_of_its_own(name, monitor):
    model = Looped([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = getattr(adaptlr, name)(monitor=monitor)
    with collected_warnings() as messages:
        model.fit((ONE, ONE), validation_data="none of Keras'", callbacks=[callback])
    missing = [message for message in messages if "no such metric" in message]
    assert len(missing) == (monitor == "val_loss")


class TestMissingHooks:
    """Are named, with the order of all."""

    @every_callback
    def test_on_train_begin(self, make):
        for hook in ("on_epoch_begin", "on_train_batch_begin", "on_epoch_end"):
            callback = make()
            callback.set_model(one_weight())
            message = rf"{hook} was called, and .*on_train_begin was not .*set_model\(model\)"
            with pytest.raises(RuntimeError, match=message):
                getattr(callback, hook)(0)

    @every_callback
    def test_set_model(self, make):
        with pytest.raises(RuntimeError, match=r"on_train_begin was called, and .*set_model was"):
            make().on_train_begin()

    @every_callback
    def test_on_epoch_end(self, make):
        callback = make()
        callback.set_model(one_weight())
        callback.set_params({"epochs": 2, "steps": 1})
        callback.on_train_begin()
        callback.on_epoch_begin(0)
        with pytest.raises(RuntimeError, match=r"on_epoch_begin was called, and .*on_epoch_end"):
            callback.on_epoch_begin(1)

    @every_callback
    def test_compile(self, make):
        callback = make()
        callback.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
        with pytest.raises(ValueError, match=r"Call model\.compile\(optimizer"):
            callback.on_train_begin()

    def test_a_fit_for_a_backup(self, tmp_path):
        callback = adaptlr.PlateauLR(backup_dir=tmp_path)
        callback.set_model(one_weight())
        with pytest.raises(ValueError, match=r"PlateauLR\(backup_dir=\.\.\.\) continues a fit"):
            callback.on_train_begin()

    @every_callback
    def test_validation_and_prediction_alone_ask_for_none(self, make):
        model, callback = one_weight(), make()
        model.evaluate(ONE, ONE, verbose=0, callbacks=[callback])
        model.predict(ONE, verbose=0, callbacks=[callback])
