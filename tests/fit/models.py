"""What the callback tests share: the smallest models in which a rate can be read off."""

from __future__ import annotations

import contextlib
import warnings

import keras
import numpy as np
import pytest

needs_multi_optimizer = pytest.mark.skipif(
    not hasattr(keras.optimizers, "OptimizerMap"),
    reason="this release of Keras has no MultiOptimizer",
)


def one_weight(optimizer=None, **compile_arguments):
    """A model with one weight, starting at 0, whose gradient is 1 at every step.

    With plain SGD the weight ends at minus the sum of the rates that were applied.
    """
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    optimizer = keras.optimizers.SGD(1.0) if optimizer is None else optimizer
    model.compile(optimizer, loss=lambda y, p: keras.ops.mean(p, axis=-1), **compile_arguments)
    return model


def steps(count):
    """`count` batches of one sample for `one_weight`."""
    ones = np.ones((count, 1), "float32")
    return {"x": ones, "y": ones, "batch_size": 1, "verbose": 0, "shuffle": False}


def unknown_length(count):
    """`count` batches of one sample for `one_weight`; nobody can tell how many they are."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        ones = tf.ones((1, 1))
        return tf.data.Dataset.from_tensors((ones, ones)).repeat(count).filter(lambda x, y: True)
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            for _ in range(count):
                yield np.ones((1,), "float32"), np.ones((1,), "float32")

    return torch.utils.data.DataLoader(Stream(), batch_size=1)


def weight(model):
    return model.get_weights()[0].item()


class Metrics(keras.callbacks.Callback):
    """Puts given values into the epoch's logs; listed before the callback under test."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


def blobs(samples=64, classes=3, seed=0):
    """Three separable clouds in eight dimensions, for runs in which learning must be seen."""
    random = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    centres = random.normal(size=(classes, 8)) * 2.0
    return (centres[labels] + random.normal(size=(samples, 8))).astype("float32"), labels


def classifier(optimizer, *layers):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            *layers,
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@contextlib.contextmanager
def collected_warnings():
    """Yields a list that fills with the messages of our own warnings.

    `pytest.warns` would also raise what Keras does inside (see pyproject.toml).
    """
    messages = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message="Explicitly requested dtype int64")
        yield messages
    messages += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
