"""What training does not change, or another does: masks, annealed weights, pruned kernels."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import blobs, classifier

import adaptlr
from adaptlr.bridge.average import RunningAverage


class Scaled(keras.layers.Layer):
    """Adds a share of its input's size to the loss, as the weight of a prior."""

    def build(self, shape):
        self.share = self.add_weight(shape=(), trainable=False, initializer="zeros", name="share")

    def call(self, inputs):
        self.add_loss(1e-3 * self.share * keras.ops.mean(inputs**2))
        return inputs


class Masked(keras.layers.Layer):
    """Takes the largest of all numbers but the first, by a mask of 0 and -inf."""

    def build(self, shape):
        def mask(shape, dtype=None):
            return keras.ops.convert_to_tensor([-np.inf] + [0.0] * (shape[0] - 1), dtype)

        self.mask = self.add_weight(shape=shape[-1:], trainable=False, initializer=mask)

    def call(self, inputs):
        return inputs + keras.ops.max(inputs + self.mask, axis=-1, keepdims=True)


def value(variable):
    return keras.ops.convert_to_numpy(variable).copy()


class Anneal(keras.callbacks.Callback):
    """Sets a variable that no optimizer trains, at the hook that is asked for."""

    def __init__(self, hook):
        super().__init__()
        self.seen = []
        setattr(self, hook, self.set)

    def set(self, epoch, logs=None):
        self.model.layers[1].share.assign(epoch + 1.0)

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            self.seen.append(float(value(self.model.layers[1].share)))


@pytest.mark.parametrize("listed", ["before", "after"])
@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
def test_what_a_callback_anneals_is_trained_with_and_left(hook, listed):
    x, y = blobs(256)
    model = classifier("adam", Scaled())
    anneal, ours = Anneal(hook), adaptlr.AutoLR(horizon=None)
    callbacks = [anneal, ours] if listed == "before" else [ours, anneal]
    model.fit(x, y, validation_data=(x, y), epochs=4, callbacks=callbacks, verbose=0)
    late = hook == "on_epoch_end"
    expected = [epoch + 1.0 - late for epoch in range(4)]
    # A trial goes back to the whole state of before it.
    undone = "back" in [decision.rule for decision in ours.decisions]
    assert anneal.seen == expected or (undone and set(anneal.seen) <= set(expected))
    assert float(value(model.layers[1].share)) in [*expected, 4.0]  # and no average


class Prune(keras.callbacks.Callback):
    """Zeroes half of a kernel where an epoch ends, and looks at it in the next step."""

    def __init__(self):
        super().__init__()
        self.pruned, self.others = [], []

    def on_epoch_end(self, epoch, logs=None):
        kernel = self.model.layers[0].kernel
        kernel.assign(value(kernel) * (np.arange(16) < 8))

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0 and hasattr(self, "last"):
            self.pruned.append(np.abs(value(self.model.layers[0].kernel)[:, 8:]).sum())
            self.others.append((self.last, value(self.model.layers[-1].kernel)))

    def on_train_batch_end(self, batch, logs=None):
        self.last = value(self.model.layers[-1].kernel)


@pytest.mark.parametrize("listed", ["before", "after"])
def test_what_a_callback_prunes_is_pruned_and_the_rest_is_raw(listed):
    x, y = blobs(256)
    model = classifier("adam")
    prune, ours = Prune(), adaptlr.AutoLR(horizon=None)
    callbacks = [prune, ours] if listed == "before" else [ours, prune]
    model.fit(x, y, validation_data=(x, y), epochs=3, callbacks=callbacks, verbose=0)
    assert prune.pruned == [0.0, 0.0]
    for before, after in prune.others:
        np.testing.assert_array_equal(before, after)


EVERY = {
    "AutoLR": adaptlr.AutoLR,
    "PlateauLR": adaptlr.PlateauLR,
    "CyclicalLR": lambda: adaptlr.CyclicalLR(1e-3, 1e-2, 8),
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_a_mask_of_infinities_is_no_divergence(make):
    x, y = blobs(256)
    model, ours = classifier("adam", Masked()), make()
    history = model.fit(
        x, y, validation_data=(x, y), epochs=5, callbacks=[ours], verbose=0
    ).history
    assert len(history["loss"]) == 5
    assert "diverged" not in [decision.rule for decision in ours.decisions]
    mask = value(model.layers[1].mask)
    np.testing.assert_array_equal(mask, [-np.inf] + [0.0] * 15)
    assert all(np.isfinite(array).all() for array in value_of(model.trainable_variables))


def value_of(variables):
    return [value(variable) for variable in variables]


class Spoil(keras.callbacks.Callback):
    """Makes NaN of a weight where the second epoch ends, as a step may that nobody has seen."""

    def on_train_batch_end(self, batch, logs=None):
        if (self.params["epochs"], batch) == (3, 7) and getattr(self, "epoch", 0) == 1:
            kernel = self.model.layers[0].kernel
            kernel.assign(value(kernel) * np.nan)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def test_beside_a_mask_nan_in_a_weight_still_is_one():
    x, y = blobs(256)
    model, ours = classifier("adam", Masked()), adaptlr.PlateauLR("loss")
    model.fit(x, y, epochs=3, callbacks=[Spoil(), ours], verbose=0)
    assert "diverged" in [decision.rule for decision in ours.decisions]
    assert all(np.isfinite(array).all() for array in value_of(model.trainable_variables))


def test_frozen_weights_take_no_memory_of_the_device():
    x, y = blobs(128)
    model = classifier("adam", keras.layers.Dense(64, trainable=False))
    ours = adaptlr.AutoLR(horizon=None)
    counted = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            average = ours._loop._effects.average
            counted.append(sum(int(np.prod(array.shape)) for array in average._cells.arrays))

    model.fit(x, y, validation_data=(x, y), epochs=1, callbacks=[ours, Count()], verbose=0)
    assert counted[-1] == sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_in_a_run_alone_nothing_is_taken_for_set_by_others(policy, monkeypatch):
    """The averages that were put in and those that are found are compared bit by bit."""
    found, look = [], RunningAverage._set_by_others

    def spy(average):
        found.append(look(average))
        return found[-1]

    monkeypatch.setattr(RunningAverage, "_set_by_others", spy)
    x, y = blobs(256)
    keras.config.set_dtype_policy(policy)
    try:
        model = classifier("adam", keras.layers.BatchNormalization())
    finally:
        keras.config.set_dtype_policy("float32")
    ours = adaptlr.AutoLR(writers=[adaptlr.writers.MemoryWriter()])
    model.fit(x, y, validation_data=(x, y), epochs=4, callbacks=[ours], verbose=0)
    assert len(found) > 4
    assert not any(map(any, found))
