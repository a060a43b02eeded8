"""What the scripts beside this one train, and what each process prints about it."""

from __future__ import annotations

import hashlib
import json

import keras
import numpy as np
from sklearn.datasets import load_digits

import adaptlr

EPOCHS, BATCH, LOG_DIR = 8, 48, "tensorboard_logs/distributed"


def digits(process=0, processes=1):
    """The share of one process: (x, y) to train on, and (x, y) held out."""
    data = load_digits()
    x, y = data.images[..., None].astype("float32") / 16.0, data.target
    # Whole batches: JAX splits each one evenly over the devices.
    train, held_out = np.arange(1440)[process::processes], np.arange(1440, 1776)
    return (x[train], y[train]), (x[held_out], y[held_out])


def network(kind=keras.Model):
    """Compiled with a rate that is far too low: finding one is the callback's work."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, activation="relu")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.Flatten()(x)
    model = kind(inputs, keras.layers.Dense(10, activation="softmax")(x))
    model.compile(
        keras.optimizers.Adam(1e-7), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def train(model, process=0, processes=1):
    """One fit with AutoLR; `BATCH` is that of all processes together."""
    (x, y), held_out = digits(process, processes)
    callback = adaptlr.AutoLR(log_dir=LOG_DIR)
    history = model.fit(
        x, y, batch_size=BATCH // processes, epochs=EPOCHS, verbose=0,
        validation_data=held_out, callbacks=[callback],
    ).history  # fmt: skip
    weights = b"".join(keras.ops.convert_to_numpy(v).tobytes() for v in model.trainable_variables)
    print(
        json.dumps({
            "process": process,
            "decisions": [[r.step, r.rule, r.learning_rate] for r in callback.decisions],
            "trainable_weights": hashlib.sha256(weights).hexdigest()[:16],
            "val_accuracy": max(history["val_accuracy"]),
        }),
        flush=True,
    )  # fmt: skip
