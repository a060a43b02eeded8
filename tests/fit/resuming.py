"""Runs that are killed and continued, for the tests of both: what is trained, and how it ends."""

from __future__ import annotations

import os

import keras
import numpy as np
from models import blobs

import adaptlr

EPOCHS, STEPS = 5, 40  # the shortest run that AutoLR probes


class KilledError(Exception):
    """Ends a `fit` as a kill would: nothing that comes after it in the process is relied on."""


class Kill(keras.callbacks.Callback):
    """Raises at the beginning of a batch of an epoch, or with None at the end of the epoch."""

    def __init__(self, epoch, batch=None):
        super().__init__()
        self.at, self.batches = (epoch, batch), []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self.batches.append((self.epoch, batch))
        if (self.epoch, batch) == self.at:
            raise KilledError

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.at:
            raise KilledError


def auto(**where):
    return adaptlr.AutoLR(**where)


def plateau(**where):
    return adaptlr.PlateauLR(
        factor=0.5, patience=1, min_delta=0.05, warmup_steps=50, restore_best_weights=True, **where
    )


def cyclical(**where):
    return adaptlr.CyclicalLR(1e-3, 1e-2, step_size=33, momentum=(0.95, 0.85), **where)


def one_cycle(**where):
    return adaptlr.OneCycleLR(max_lr=1e-2, **where)


def model():
    """A classifier in which all that a resume has to bring back is at work."""
    keras.utils.set_random_seed(7)
    network = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(12),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    network.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return network


def fit(network, callback, *others, epochs=EPOCHS, **arguments):
    x, y = blobs(8 * STEPS + 48)
    x = x + np.random.default_rng(3).normal(size=x.shape).astype("float32") * 3.0
    arguments = {"batch_size": 8, "validation_data": (x[-48:], y[-48:]), **arguments}
    x, y = arguments.pop("x", x[:-48]), arguments.pop("y", y[:-48])
    return network.fit(x, y, epochs=epochs, verbose=0, callbacks=[callback, *others], **arguments)


def final(network, callback):
    """What must be the same, to the bit, however often the run was killed."""
    variables = [*network.variables, *network.optimizer.variables]
    values = [keras.ops.convert_to_numpy(v).tobytes() for v in variables]
    return values, callback.decisions


def points(log_dir):
    """Every scalar and every decision of all event files, in the order in which they stand."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = []
    for name in sorted(os.listdir(log_dir)):
        for event in EventFileLoader(os.path.join(log_dir, name)).Load():
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                content = value.tensor.string_val or list(value.tensor.float_val)
                found.append((event.step, value.tag, kind, str(content)))
    return found
