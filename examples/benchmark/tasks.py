"""What is trained: data, model and optimizer of each suite."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pictures

# Keras' default rates, and momentum 0.9 for SGD, which has none by default.
OPTIMIZERS = {
    "sgd": (keras.optimizers.SGD, 0.01, {"momentum": 0.9}),
    "adam": (keras.optimizers.Adam, 0.001, {}),
    "rmsprop": (keras.optimizers.RMSprop, 0.001, {}),
    "adamw": (keras.optimizers.AdamW, 0.001, {}),
}


@dataclass(frozen=True)
class Split:
    """Images, shape (n, height, width, channels), and integer labels."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Task:
    """One model on one data set.

    Args:
        suite: Name of the suite.
        name: Name of the task inside it.
        splits: Path of the CIFAR archive → train, control and test split.
        model: Shape of an image → logits model, not compiled.
        optimizers: Keys of `OPTIMIZERS`.
        epochs: Epochs of a full run.
        batch_size: Images a step.
        shift: Largest random shift in pixels; 0 trains on the images as they are.
        mirror: Whether images are flipped at random.
        in_graph: Whether images are bytes that the model itself scales, shifts and flips, since
            a GPU would wait for a processor that does.
        precision: Keras' dtype policy of the model.
    """

    suite: str
    name: str
    splits: Callable[[Path | None], tuple[Split, Split, Split]]
    model: Callable[[tuple[int, ...]], keras.Model]
    optimizers: tuple[str, ...] = ("sgd", "adam", "rmsprop")
    epochs: int = 15
    batch_size: int = 64
    shift: int = 0
    mirror: bool = False
    in_graph: bool = False
    precision: str = "float32"

    def as_they_are(self, split: Split) -> tuple[Any, np.ndarray]:
        """What `evaluate` takes: images, or with each how far it is moved, and labels."""
        if not self.in_graph:
            return split.x, split.y
        still = np.array([self.shift, self.shift, 0], "int32")
        return (split.x, np.tile(still, (len(split.x), 1))), split.y

    def few(self, images: int, epochs: int) -> Task:
        """The same with fewer images and epochs: to see that it runs."""

        def splits(path: Path | None) -> tuple[Split, Split, Split]:
            train, control, test = self.splits(path)
            return tuple(Split(s.x[:images], s.y[:images]) for s in (train, control, test))

        return replace(self, splits=splits, epochs=epochs)


class Batches(keras.utils.PyDataset):
    """Shuffled, augmented batches that depend on seed, epoch and index alone.

    Keras draws the order of their indices from Python's generator, which no method touches. So
    every method sees the same images at the same step, whatever else it draws at random.
    """

    def __init__(self, split: Split, task: Task, seed: int) -> None:
        super().__init__()
        self._split, self._task, self._seed, self._epoch = split, task, seed, 0
        pad = task.shift
        if not task.in_graph:
            self._padded = np.pad(split.x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        self._order = self._shuffled()

    def __len__(self) -> int:
        return math.ceil(len(self._split.x) / self._task.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        size = self._task.batch_size
        chosen = self._order[index * size : (index + 1) * size]
        random = np.random.default_rng((self._seed, self._epoch, index))
        offsets = random.integers(0, 2 * self._task.shift + 1, (len(chosen), 2))
        mirrored = random.integers(0, 2, len(chosen)) * self._task.mirror
        if self._task.in_graph:
            moves = np.column_stack([offsets, mirrored]).astype("int32")
            return (self._split.x[chosen], moves), self._split.y[chosen]
        height, width = self._split.x.shape[1:3]
        images = [
            self._padded[i, row : row + height, column : column + width][:, :: -1 if flip else 1]
            for i, (row, column), flip in zip(chosen, offsets, mirrored, strict=True)
        ]
        return np.stack(images), self._split.y[chosen]

    def on_epoch_end(self) -> None:
        self.skip(1)

    def skip(self, epochs: int) -> None:
        """Goes on with the batches that come so many epochs later."""
        self._epoch += epochs
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        return np.random.default_rng((self._seed, self._epoch)).permutation(len(self._split.x))


class Moved(keras.layers.Layer):
    """Scales images, shifts them and flips them: what `Batches` does where a model does not.

    Args:
        shift: Largest shift in pixels.
    """

    def __init__(self, shift: int) -> None:
        super().__init__()
        self._shift = shift

    def call(self, images: Any, moves: Any) -> Any:
        """Images, unsigned bytes; for each the row and column it begins at, and 1 to flip it."""
        (height, width), ops = images.shape[1:3], keras.ops
        columns = ops.arange(width)
        columns = ops.where(moves[:, 2:] == 1, width - 1 - columns, columns)
        rows = ops.arange(height) + moves[:, :1] - self._shift
        columns = columns + moves[:, 1:2] - self._shift
        # What is shifted in from outside is zero after the scaling, so about the mean.
        inside = (
            _inside(rows, height)[:, :, None, None] & _inside(columns, width)[:, None, :, None]
        )
        rows, columns = ops.clip(rows, 0, height - 1), ops.clip(columns, 0, width - 1)
        images = ops.take_along_axis(images, rows[:, :, None, None], axis=1)
        images = ops.take_along_axis(images, columns[:, None, :, None], axis=2)
        shades = ops.convert_to_tensor(scaled(np.arange(256)))
        return ops.where(inside, ops.take(shades, ops.cast(images, "int32")), 0.0)


def _inside(places: Any, size: int) -> Any:
    return (places >= 0) & (places < size)


def build(
    task: Task, optimizer: str, shape: tuple[int, ...], rate: Any, kind: Any = None, **more: Any
) -> Any:
    """Returns the task's model, compiled, maybe with another kind of optimizer than the task's."""
    own, _, settings = OPTIMIZERS[optimizer]
    kind, settings = (own, settings) if kind is None else (kind, {})
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(task.precision)
    try:
        model = task.model(shape)
    finally:
        keras.config.set_dtype_policy(before)
    if task.in_graph:
        inputs = keras.Input(shape, dtype="uint8"), keras.Input((3,), dtype="int32")
        model = keras.Model(inputs, model(Moved(task.shift)(*inputs)))
    model.compile(
        kind(rate, **settings, **more),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


# --- data ------------------------------------------------------------------------------------


def digits_splits(_: Path | None) -> tuple[Split, Split, Split]:
    """scikit-learn's 1797 digits of 8×8 pixels: 1000 train, 300 control, 497 test."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = (images[order].reshape(-1, 8, 8, 1) / 16.0).astype("float32")
    y = labels[order]
    return Split(x[:1000], y[:1000]), Split(x[1000:1300], y[1000:1300]), Split(x[1300:], y[1300:])


def cifar_splits(
    train: int, size: int = 16
) -> Callable[[Path | None], tuple[Split, Split, Split]]:
    """CIFAR-10 mean-pooled to `size`: the first `train` images, the last 5000 of train, test.

    In their own size, 32, images stay the bytes that they are.
    """

    def load(path: Path | None) -> tuple[Split, Split, Split]:
        (x, y), (x_test, y_test) = read_cifar(path)

        def split(images: np.ndarray, labels: np.ndarray) -> Split:
            block = 32 // size
            if block > 1:
                pooled = images.reshape(-1, size, block, size, block, 3).mean(axis=(2, 4))
                images = scaled(pooled)
            return Split(images, labels.ravel().astype("int32"))

        return split(x[:train], y[:train]), split(x[-5000:], y[-5000:]), split(x_test, y_test)

    return load


def scaled(shades: np.ndarray) -> np.ndarray:
    """Shades from 0 to 255 about zero, of about unit variance."""
    return ((shades / 255.0 - 0.5) / 0.25).astype("float32")


def picture_splits(_: Path | None) -> tuple[Split, Split, Split]:
    """Crops of sixteen photographs, 64×64: 4096 train, 1024 validation, 2048 test."""
    everything = range(len(pictures.pictures()))
    train, validation, test = (Split(*pictures.crops(part, everything)) for part in pictures.EACH)
    return train, validation, test


def few_pictures(_: Path | None) -> tuple[Split, Split, Split]:
    """Of eight of them: 192 train, 512 validation, 1024 test; the network knows the others."""
    pictures.known_weights()  # before a run draws its first random number
    others = range(pictures.KNOWN, len(pictures.pictures()))
    train = Split(*pictures.crops("train", others, each=24))
    validation, test = (Split(*pictures.crops(part, others)) for part in ("validation", "test"))
    return train, validation, test


def read_cifar(path: Path | None) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """CIFAR-10 from an archive with the names of the original's arrays, or by download.

    An archive may hold each image as a JPEG file instead, which takes a tenth of the space: one
    after another in `jpeg_train`, the n-th from `offsets_train[n]` on; so for test.
    """
    if path is None:
        return keras.datasets.cifar10.load_data()
    with np.load(path) as arrays:
        if "jpeg_train" in arrays:
            return tuple(
                (unpacked(arrays[f"jpeg_{part}"], arrays[f"offsets_{part}"]), arrays[f"y_{part}"])
                for part in ("train", "test")
            )
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])


def unpacked(files: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The images of JPEG files that stand one after another."""
    from PIL import Image

    parts = (files[a:b].tobytes() for a, b in pairwise(offsets))
    return np.stack([np.asarray(Image.open(io.BytesIO(part))) for part in parts])


# --- models ----------------------------------------------------------------------------------


def conv_net(widths: tuple[int, ...], norm: bool) -> Callable[[tuple[int, ...]], keras.Model]:
    """3×3 convolutions, halved between by max pooling, averaged over space at the end."""

    def make(shape: tuple[int, ...]) -> keras.Model:
        layers: list[keras.layers.Layer] = [keras.Input(shape)]
        for index, width in enumerate(widths):
            layers += [keras.layers.MaxPooling2D()] if index else []
            layers += [keras.layers.Conv2D(width, 3, padding="same", use_bias=not norm)]
            layers += [keras.layers.BatchNormalization()] if norm else []
            layers += [keras.layers.ReLU()]
        return keras.Sequential(
            [*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
        )

    return make


def strided_net(shape: tuple[int, ...]) -> keras.Model:
    """Three convolutions of width 16 with batch norm, as in examples/digits.py.

    With the default momentum of 0.99 the statistics of batch norm would lag five of the short
    epochs behind, and every method that validates with them would be judged by the lag.
    """
    layers: list[keras.layers.Layer] = [keras.Input(shape)]
    for stride in (1, 2, 2):
        layers += [
            keras.layers.Conv2D(16, 3, stride, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(10)])


class Places(keras.layers.Layer):
    """Adds a learned vector to each place of a sequence."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.vectors = self.add_weight(shape=shape[1:], initializer="uniform")

    def call(self, x: Any) -> Any:
        return x + self.vectors


def attention_net(shape: tuple[int, ...]) -> keras.Model:
    """2×2 patches, three pre-norm blocks of width 48 with four heads."""
    image = keras.Input(shape)
    x = keras.layers.Conv2D(48, 2, 2)(image)
    x = Places()(keras.layers.Reshape((-1, 48))(x))
    for _ in range(3):
        y = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(4, 12)(y, y)
        y = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.Dense(48)(keras.layers.Dense(96, activation="gelu")(y))
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(x))
    return keras.Model(image, keras.layers.Dense(10)(x))


def multilayer_perceptron(shape: tuple[int, ...]) -> keras.Model:
    """Three hidden layers of 256, no normalisation."""
    hidden = [keras.layers.Dense(256, activation="relu") for _ in range(3)]
    return keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), *hidden, keras.layers.Dense(10)]
    )


def residual_net(shape: tuple[int, ...]) -> keras.Model:
    """Three pre-activation residual blocks with group normalisation."""
    image = keras.Input(shape)
    x = keras.layers.Conv2D(16, 3, padding="same")(image)
    for width in (16, 32, 64):
        stride = 1 if width == 16 else 2
        y = keras.layers.ReLU()(keras.layers.GroupNormalization(4)(x))
        short = x if stride == 1 else keras.layers.Conv2D(width, 1, stride)(y)
        y = keras.layers.Conv2D(width, 3, stride, padding="same")(y)
        y = keras.layers.ReLU()(keras.layers.GroupNormalization(4)(y))
        x = short + keras.layers.Conv2D(width, 3, padding="same")(y)
    x = keras.layers.ReLU()(keras.layers.GroupNormalization(4)(x))
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


class Normalization(keras.layers.BatchNormalization):
    """Batch normalisation, on PyTorch by its own kernel.

    There Keras makes it from a dozen elementary operations, which take longer than convolutions
    do in a ResNet-20. That kernel keeps the unbiased variance, larger than Keras' by one part in
    the places that a batch has: thousands in a ResNet-20.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if keras.backend.backend() != "torch":
            return super().call(inputs, training, mask)
        import torch

        return torch.nn.functional.batch_norm(
            inputs, self.moving_mean.value, self.moving_variance.value, self.gamma.value,
            self.beta.value, bool(training) and self.trainable, 1.0 - self.momentum, self.epsilon,
        )  # fmt: skip


def resnet(widths: tuple[int, ...], blocks: int) -> Callable[[tuple[int, ...]], keras.Model]:
    """Residual net of arXiv 1512.03385, section 4.2, weight decay included.

    With four widths and two blocks it is that paper's ResNet-18, its first layer made small. On
    PyTorch the channels come first, or Keras would copy the images twice at each convolution.
    """
    first = keras.backend.backend() == "torch"
    order, axis = ("channels_first", 1) if first else ("channels_last", -1)

    def convolution(x: Any, width: int, stride: int = 1, size: int = 3) -> Any:
        x = keras.layers.Conv2D(
            width, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(1e-4), data_format=order,
        )(x)  # fmt: skip
        return Normalization(axis, momentum=0.9)(x)

    def make(shape: tuple[int, ...]) -> keras.Model:
        image = keras.Input(shape)
        x = keras.ops.transpose(image, (0, 3, 1, 2)) if first else image
        x = keras.layers.ReLU()(convolution(x, widths[0]))
        for width in widths:
            for block in range(blocks):
                stride = 2 if block == 0 and width > widths[0] else 1
                y = convolution(keras.layers.ReLU()(convolution(x, width, stride)), width)
                short = convolution(x, width, stride, 1) if stride == 2 else x
                x = keras.layers.ReLU()(keras.layers.Add()([short, y]))
        x = keras.layers.GlobalAveragePooling2D(order)(x)
        # Where the rest is in 16 bits, the loss is not.
        return keras.Model(image, keras.layers.Dense(10, dtype="float32")(x))

    return make


def narrow_mobile_net(shape: tuple[int, ...]) -> keras.Model:
    """MobileNet of width 0.25, for all the pictures."""
    return pictures.mobile_net(shape, len(pictures.pictures()))


def efficient_net(shape: tuple[int, ...]) -> keras.Model:
    """EfficientNetB0, without weights; it divides by 255 what comes in, and crops are about 1."""
    image = keras.Input(shape)
    network = keras.applications.EfficientNetB0(
        input_shape=shape, weights=None, classes=16, classifier_activation=None
    )
    network = pictures.with_short_epochs(network)
    return keras.Model(image, network(keras.layers.Rescaling(255.0)(image)))


TASKS = [
    Task("digits", "cnn-bn", digits_splits, strided_net, epochs=20, batch_size=50),
    *(
        Task(
            "cifar-small",
            name,
            cifar_splits(20_000),
            conv_net((16, 32, 64), norm),
            shift=2,
            mirror=True,
        )
        for name, norm in (("cnn", False), ("cnn-bn", True))
    ),
    Task(
        "vit-small",
        "vit",
        cifar_splits(10_000),
        attention_net,
        ("adam", "adamw"),
        shift=2,
        mirror=True,
    ),
    # Never looked at while the controller was tuned.
    Task("held-out", "mlp", cifar_splits(10_000), multilayer_perceptron, shift=2, mirror=True),
    Task("held-out", "resnet-gn", cifar_splits(10_000, 8), residual_net, shift=1, mirror=True),
    *(
        Task(
            suite,
            name,
            splits,
            model,
            ("adam",),
            epochs=20,
            batch_size=size,
            shift=4,
            mirror=True,
        )
        for suite, name, splits, model, size in (
            ("pictures", "mobilenet", picture_splits, narrow_mobile_net, 64),
            ("pictures", "mobilenet-tuned", few_pictures, pictures.tuned_net, 16),
            ("pictures-large", "efficientnet", picture_splits, efficient_net, 64),
        )
    ),
    # 30 epochs at batch 128 are ARC's protocol (arXiv 2106.08767). The suite `cifar` is for a GPU,
    # and that in 16 bits for a processor that computes in them.
    *(
        Task(
            suite,
            name,
            cifar_splits(45_000, 32),
            model,
            ("adam", "sgd"),
            epochs=30,
            batch_size=128,
            shift=4,
            mirror=True,
            in_graph=True,
            precision=precision,
        )
        for suite, name, model, precision in (
            ("cifar", "resnet20", resnet((16, 32, 64), 3), "float32"),
            ("cifar", "resnet18", resnet((64, 128, 256, 512), 2), "float32"),
            ("cifar-bfloat16", "resnet20", resnet((16, 32, 64), 3), "mixed_bfloat16"),
        )
    ),
]
