"""Your own images: a small classifier, and any of the callbacks at its rate.

    python examples/images.py                                # handwritten digits, AutoLR
    python examples/images.py --data cifar10                 # through keras.datasets
    python examples/images.py --data mine.npz                # x_train, y_train, x_test, y_test
    python examples/images.py --data photographs/            # photographs/cat/1.jpg, ...
    python examples/images.py --callback auto plateau cyclical onecycle schedule finder

A control split, set aside from the training images, drives every decision; the test split is
evaluated once a run. Without a test split of its own, a folder is divided 60 : 20 : 20.
"""

import argparse
from pathlib import Path

import common
import keras
import numpy as np
from common import BATCH, digits2, percent, spread

import adaptlr
from adaptlr.schedules import Constant, Cosine, Warmup

EPOCHS, GPU_EPOCHS = 20, 60
CONTROL = 0.2  # of the images, for control; as much for testing where there is no test split
SIDE = 64  # pixels: what photographs are resized to. Held in memory, 80 000 of them take 1 GB
# Rates of Adam for all but AutoLR and the finder: the standard rate, and the highest that this
# network learns the digits with at all seeds tried.
RATE, HIGH = 0.001, 0.01


def auto(epoch_steps, epochs, control, **log):
    return adaptlr.AutoLR(validation_data=control, **log)


def plateau(epoch_steps, epochs, control, **log):
    return adaptlr.PlateauLR(factor=0.3, patience=2, **log)


def cyclical(epoch_steps, epochs, control, **log):
    half = 2 * epoch_steps  # two epochs up, two down, as Smith advises
    return adaptlr.CyclicalLR(RATE / 3, HIGH, half, mode="triangular2", **log)


def onecycle(epoch_steps, epochs, control, **log):
    return adaptlr.OneCycleLR(HIGH, **log)


def schedule(epoch_steps, epochs, control, **log):
    cosine = Cosine(HIGH, epoch_steps * epochs)
    return adaptlr.ScheduleLR(Warmup(cosine, warmup_steps=epoch_steps), **log)


def finder(epoch_steps, epochs, control, **log):
    """The finder is run before `fit`; what it suggests is held."""
    return adaptlr.LRFinder(**log)


CALLBACKS = {f.__name__: f for f in (auto, plateau, cyclical, onecycle, schedule, finder)}


def load(data, seed):
    """Returns (images, labels) of the train, control and test split."""
    if data == "digits":
        images, labels = common.digits()
        return common.split((images * 255).astype("uint8"), labels, seed, 1000, 300)
    if data == "cifar10":
        images, labels, *test = load_cifar10()
    elif data.endswith(".npz"):
        with np.load(data) as arrays:
            images, labels, *test = [
                arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")
            ]
    else:
        images, labels = load_folder(Path(data))
        test = None
    images, labels = as_images(images), np.ravel(labels)
    control = int(CONTROL * len(images))
    train = len(images) - control * (1 if test else 2)
    splits = common.split(images, labels, seed, train, control)
    return [*splits[:2], (as_images(test[0]), np.ravel(test[1]))] if test else splits


def as_images(images):
    """Gives grey images the channel that they lack."""
    return images if images.ndim == 4 else images[..., None]


def load_cifar10():
    try:
        train, test = keras.datasets.cifar10.load_data()
    except Exception as error:  # whatever the download raised
        raise SystemExit(
            f"CIFAR-10 could not be downloaded: {error}\nWhere there is a connection, save it "
            'with\n\n    python -c "import keras, numpy; (x, y), (u, v) = '
            "keras.datasets.cifar10.load_data(); numpy.savez('cifar10.npz', x_train=x, "
            'y_train=y, x_test=u, y_test=v)"\n\nand pass --data cifar10.npz'
        ) from error
    return *train, *test


def load_folder(folder):
    """Reads class folders with Pillow, which needs no TensorFlow."""
    if not folder.is_dir():
        raise SystemExit(f"--data must be digits, cifar10, a .npz file or a folder, not {folder}")
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, c in enumerate(classes) for path in sorted(c.iterdir())]
    if not files:
        raise SystemExit(f"{folder} must hold a folder of images for each class; it holds none")
    images = np.empty((len(files), SIDE, SIDE, 3), "uint8")
    for i, (path, _) in enumerate(files):
        images[i] = keras.utils.load_img(path, target_size=(SIDE, SIDE))
    return images, np.array([label for _, label in files])


def build(splits, width, rate):
    """The shared network behind a layer that scales 0 to 255 to 0 to 1."""
    shape = splits[0][0].shape[1:]
    classes = 1 + max(int(labels.max()) for _, labels in splits)
    layers = [keras.Input(shape), keras.layers.Rescaling(1 / 255)]
    return common.compiled(
        keras.Sequential([*layers, common.network(shape, classes, width)]), rate
    )


def run(name, seed, options):
    """Trains with one callback; returns what goes into the table."""
    splits = load(options.data, seed)
    keras.utils.set_random_seed(seed)
    model = build(splits, options.width, HIGH if name == "plateau" else RATE)
    log = adaptlr.writers.MemoryWriter()
    folder = common.log_dir(options, name, seed)
    epoch_steps, steps = -(-len(splits[0][0]) // BATCH), 0
    callback = CALLBACKS[name](
        epoch_steps, options.epochs, splits[1], log_dir=folder, writers=[log]
    )
    if name == "finder":
        callback.find(model, *splits[0], batch_size=BATCH)
        if callback.suggestion is None:
            raise SystemExit(callback.verdict)
        steps = len(callback.learning_rates)
        held = Constant(callback.suggestion)
        callback = adaptlr.ScheduleLR(held, log_dir=folder / "fit", writers=[log])
    steps += common.fit(model, splits, options.epochs, callback)
    rates = [callback.learning_rate] if name == "auto" else []
    rates = [r for r in rates if r] or [r for _, r in log.series("learning_rate")]
    if name == "finder":
        rates = rates[-1:]
    control = max(value for _, value in log.series("epoch/val_accuracy"))
    return steps, min(rates), max(rates), control, common.accuracy(model, splits[2])


def main():
    parser = common.command_line(__doc__, "images", EPOCHS, GPU_EPOCHS)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--callback", nargs="+", choices=CALLBACKS, default=["auto"])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    options = common.parsed(parser)
    lines = []
    for name in options.callback:
        common.progress.print(f"{name}: at most {options.epochs} epochs")
        runs = [run(name, seed, options) for seed in options.seeds]
        steps, low, high, control, test = zip(*runs, strict=True)
        cells = [(control, percent), (test, percent), (steps, common.whole)]
        cells += [(low, digits2), (high, digits2)]
        lines.append([name, *(spread(*cell) for cell in cells)])
    headings = ["callback", "control", "test", "steps", "lowest rate", "highest rate"]
    columns = (
        f"{options.data}. control: best accuracy on the control split; test: accuracy of the "
        "weights that fit leaves, measured once; steps: of training, those of the finder "
        "included; rates: of auto and finder the one that was found, no rate given."
    )
    common.report("Result", headings, lines, columns, options)


if __name__ == "__main__":
    main()
