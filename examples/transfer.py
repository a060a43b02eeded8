"""Transfer learning: pre-train on some classes, fine-tune on others, in six ways.

The digits 0 to 4 stand for the large data set, the digits 5 to 9 with thirty images a class for
the small one; nothing is downloaded. AutoLR needs no rate for the new task, and keeps the shares
that discriminative rates give to the layers (Howard & Ruder, arXiv 1801.06146).

    python examples/transfer.py
    python examples/transfer.py --data cifar10.npz      # x_train, y_train (x_test, y_test unused)
    python examples/transfer.py --imagenet --data cifar10.npz   # MobileNetV2 from ImageNet
"""

from dataclasses import dataclass
from pathlib import Path

import common
import keras
import numpy as np
from common import percent, spread

import adaptlr
from adaptlr.schedules import Constant

EPOCHS, GPU_EPOCHS = 40, 100  # of fine-tuning, six steps each
PRETRAINING = 20  # epochs of 15 steps
BATCH = 25
TRAIN, VALIDATION = 150, 150  # images of the new classes; the rest are the test split
RATE = 0.001  # the standard rate of Adam
GROUPS = 3  # thirds of the layers, from the images to the head, each at a share of the rate


@dataclass(frozen=True)
class Method:
    title: str
    pretrained: bool = True
    frozen: bool = False
    shares: bool = False
    auto: bool = False


METHODS = [
    Method("from scratch, AutoLR", pretrained=False, auto=True),
    Method("base frozen", frozen=True),
    Method("all at one rate"),
    Method("discriminative rates", shares=True),
    Method("all, AutoLR", auto=True),
    Method("discriminative, AutoLR", shares=True, auto=True),
]


def load(data, seed):
    """Returns the old classes' splits and the new classes' splits, each labelled from 0."""
    if data == "digits":
        images, labels = common.digits()
    else:
        with np.load(data) as arrays:
            images, labels = arrays["x_train"].astype("float32") / 255, arrays["y_train"].ravel()
    new = labels >= (int(labels.max()) + 1) // 2
    old, first = int(0.8 * (~new).sum()), labels[new].min()
    return (
        common.split(images[~new], labels[~new], seed, old, len(labels)),
        common.split(images[new], labels[new] - first, seed, TRAIN, VALIDATION),
    )


def small_base(shape, width):
    """The convolutions of the shared network."""
    layers = common.convolutions(min(shape[:2]), width)
    return keras.Sequential([keras.Input(shape), *layers], name="base")


def imagenet_base(shape, weights="imagenet"):
    """MobileNetV2 for images in [0, 1] of any size, grey or coloured."""
    inside = (96, 96, 3)  # the smallest size that its weights were trained for
    try:
        network = keras.applications.MobileNetV2(inside, weights=weights, include_top=False)
    except Exception as error:  # whatever the download raised
        raise SystemExit(
            f"The ImageNet weights could not be downloaded: {error}\nLeave out --imagenet to "
            "pre-train on half of the classes instead."
        ) from error
    colour = keras.Input(shape)
    seen = colour if shape[-1] == 3 else keras.layers.Concatenate()([colour] * 3)
    seen = keras.layers.Resizing(*inside[:2])(keras.layers.Rescaling(2.0, offset=-1.0)(seen))
    pooled = keras.layers.GlobalAveragePooling2D()(network(seen))
    return keras.Model(colour, pooled, name="base")


def classifier(base, classes, method, rate=RATE):
    """A new head on a base, compiled as the method wants it."""
    base.trainable = not method.frozen
    head = keras.layers.Dense(classes, activation="softmax")
    model = keras.Sequential([keras.Input(base.input_shape[1:]), base, head])
    optimizer = keras.optimizers.Adam(rate)
    if method.shares:
        shares = adaptlr.groups.geometric_shares(GROUPS)
        optimizer = adaptlr.groups.group_optimizer(optimizer, model, shares)
    return common.compiled(model, optimizer)


def pretrained_base(splits, seed, options):
    """Returns a function that makes the base, and the weights to put into it."""
    shape = splits[0][0].shape[1:]
    if options.imagenet:
        return lambda: imagenet_base(shape), imagenet_base(shape).get_weights()
    keras.utils.set_random_seed(seed)
    base = small_base(shape, options.width)
    model = classifier(base, 1 + int(splits[0][1].max()), Method("pre-training", auto=True))
    folder = common.log_dir(options, "pretraining", seed)
    common.fit(model, splits, PRETRAINING, adaptlr.AutoLR(log_dir=folder))
    return lambda: small_base(shape, options.width), base.get_weights()


def run(method, make_base, weights, splits, seed, options):
    """Fine-tunes with one method; returns validation and test accuracy and the rate."""
    keras.utils.set_random_seed(seed)
    base = make_base()
    if method.pretrained:
        base.set_weights(weights)
    elif options.imagenet:
        base = imagenet_base(base.input_shape[1:], weights=None)
    model = classifier(base, 1 + int(splits[0][1].max()), method)
    folder = common.log_dir(options, method.title.replace(", ", "_").replace(" ", "_"), seed)
    held = adaptlr.ScheduleLR(Constant(RATE), log_dir=folder)
    callback = adaptlr.AutoLR(log_dir=folder) if method.auto else held
    common.fit(model, splits, options.epochs, callback, batch=BATCH)
    rate = callback.learning_rate if method.auto else RATE
    return (*(common.accuracy(model, part) for part in splits[1:]), rate)


def main():
    parser = common.command_line(__doc__, "transfer", EPOCHS, GPU_EPOCHS, seeds=(0, 1, 2))
    parser.add_argument("--data", default="digits", help="digits, or a .npz file of images")
    imagenet = "MobileNetV2 as the base; downloads its weights, 9 MB"
    parser.add_argument("--imagenet", action="store_true", help=imagenet)
    options = common.parsed(parser)
    if options.data != "digits" and not Path(options.data).is_file():
        parser.error(f"--data must be digits or a .npz file, not {options.data}")
    # The releases of Keras for Python 3.10 have no rates by layer.
    methods = [m for m in METHODS if not m.shares or hasattr(keras.optimizers, "OptimizerMap")]
    results = {method: [] for method in methods}
    for seed in options.seeds:
        old, new = load(options.data, seed)
        common.progress.print(f"seed {seed}: pre-training")
        base = pretrained_base(old, seed, options)
        for method in methods:
            common.progress.print(f"seed {seed}: {method.title}")
            results[method].append(run(method, *base, new, seed, options))
    lines = []
    for method, runs in results.items():
        validation, test, rates = zip(*runs, strict=True)
        cells = [(validation, percent), (test, percent), (rates, common.digits2)]
        lines.append([method.title, *(spread(*cell) for cell in cells)])
    columns = (
        f"Fine-tuned on {TRAIN} images of the new classes, validated on {VALIDATION}; accuracies: "
        "of the weights that fit leaves, test measured once; rate: of the head, found by AutoLR "
        "or given; each lower group of layers has the rate above it divided by 2.6 where rates "
        "are discriminative."
    )
    common.report("Result", ["method", "validation", "test", "rate"], lines, columns, options)


if __name__ == "__main__":
    main()
