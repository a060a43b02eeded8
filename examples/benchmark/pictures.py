"""Crops of sixteen photographs that scikit-image and scikit-learn carry: which one is it of?

Each picture is cut into cells. A cell belongs to one split, so that what a network is tested on
was in no crop that it has trained on. Crops are grey, of one mean, and of one contrast unless they
are faint: colour and light alone do not tell the pictures apart.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np

SIDE, CELL = 64, 96  # pixels, of a crop and of a cell
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}  # of a picture's cells
EACH = {"train": 256, "validation": 64, "test": 128}  # crops of a picture
# So many of the pictures, from the first, a network learns before it is tuned to the others.
KNOWN = 8
Arrays = tuple[np.ndarray, np.ndarray]


@functools.cache
def pictures() -> tuple[np.ndarray, ...]:
    """Sixteen pictures in grey, from 0 to 255; their places are their classes."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    names = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel",
             "hubble_deep_field", "immunohistochemistry", "moon", "retina", "rocket")  # fmt: skip
    found = [getattr(skimage.data, name)() for name in names]
    found += [skimage.data.stereo_motorcycle()[0]]
    found += [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return tuple(x.mean(axis=2) if x.ndim == 3 else x.astype("float64") for x in found)


def crops(part: str, classes: range, each: int | None = None) -> Arrays:
    """Crops of a split, shape (n, 64, 64, 1), and labels from 0; the classes take turns."""
    each = each or EACH[part]
    groups = [_of_one(pictures()[number], part, number)[:each] for number in classes]
    images = np.stack(groups, axis=1).reshape(-1, SIDE, SIDE, 1)
    return images, np.tile(np.arange(len(groups), dtype="int32"), each)


def _of_one(picture: np.ndarray, part: str, number: int) -> np.ndarray:
    """All crops of one picture that a split has."""
    random = np.random.default_rng((number, list(SHARES).index(part)))
    cells = _cells(picture, part, number)
    found = []
    for index in range(EACH[part]):
        row, column = cells[index % len(cells)] + random.integers(0, CELL - SIDE + 1, 2)
        crop = picture[row : row + SIDE, column : column + SIDE]
        # A contrast below 8 shades of 256 is noise, and stays faint.
        found.append((crop - crop.mean()) / max(crop.std(), 8.0))
    return np.stack(found).astype("float32")


def _cells(picture: np.ndarray, part: str, number: int) -> np.ndarray:
    """Upper left corners of a split's cells."""
    height, width = picture.shape
    grid = np.stack(np.mgrid[: height // CELL, : width // CELL], axis=-1).reshape(-1, 2) * CELL
    grid = np.random.default_rng(number).permutation(grid)
    ends = np.cumsum([round(share * len(grid)) for share in SHARES.values()][:-1])
    return np.split(grid, ends)[list(SHARES).index(part)]


def mobile_net(shape: tuple[int, ...], classes: int) -> keras.Model:
    """MobileNet of width 0.25, without weights."""
    return with_short_epochs(
        keras.applications.MobileNet(
            shape, 0.25, weights=None, classes=classes, classifier_activation=None
        )
    )


def with_short_epochs(model: keras.Model) -> keras.Model:
    """The same, its statistics of batch normalisation as recent as epochs of 12 steps need."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return model


@functools.cache
def known_weights() -> tuple[np.ndarray, ...]:
    """Weights of a MobileNet that has learnt the first half of the pictures."""
    keras.utils.set_random_seed(0)
    x, y = crops("train", range(KNOWN))
    model = mobile_net(x.shape[1:], KNOWN)
    epochs, batch = 20, 64
    rate: Any = keras.optimizers.schedules.CosineDecay(0.008, epochs * len(x) // batch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(x, y, batch, epochs, verbose=0)
    return tuple(model.get_weights())


def tuned_net(shape: tuple[int, ...]) -> keras.Model:
    """The same with a new head, for the pictures that it has not seen."""
    model = mobile_net(shape, len(pictures()) - KNOWN)
    head = model.get_layer("conv_preds")
    drawn = head.get_weights()
    model.set_weights(known_weights())
    head.set_weights(drawn)
    return model
