"""What the examples share: real images, a small network, a command line, a table."""

import argparse
import os
import platform
import shutil
import sys
from pathlib import Path

# TensorFlow's C++ logs to the terminal; errors that matter are raised. It has to be set before
# Keras is imported, so the examples import this module first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from sklearn.datasets import load_digits

import adaptlr

TRAIN, VALIDATION = 1000, 300  # of 1797 digits; the other 497 are the test split
BATCH = 50  # 20 steps an epoch: small enough to see the rate act within one
WIDTH, GPU_WIDTH = 16, 128  # channels: 16 are enough for 8x8 images, and a run takes seconds
# Momentum of batch norm's statistics. At Keras' 0.99 they lag five of these short epochs behind
# the weights, and every validation but that of AutoLR, which brings its own, would show the lag.
STATISTICS = 0.9

console = Console(width=None if sys.stdout.isatty() else 110)
progress = Console(stderr=True)  # so that standard output is the result alone


def split(images, labels, seed, train, validation):
    """Returns (x, y) of a train, a validation and a test split, in an order by the seed."""
    order = np.random.default_rng(seed).permutation(len(images))
    cuts = [train, train + validation]
    return list(zip(np.split(images[order], cuts), np.split(labels[order], cuts), strict=True))


def digits():
    """Returns the 1797 handwritten digits of scikit-learn, 8x8 in [0, 1], and their labels."""
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 16.0).astype("float32"), labels


def convolutions(side, width):
    """Convolutions with batch norm, the first at full size, each later one halving down to 2x2."""
    layers, stride = [], 1
    while not layers or side > 2:
        layers += [
            keras.layers.Conv2D(width, 3, stride, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=STATISTICS),
            keras.layers.ReLU(),
        ]
        side, stride = (side + 1) // 2 if stride == 2 else side, 2
    return [*layers, keras.layers.Flatten()]


def network(shape=(8, 8, 1), classes=10, width=WIDTH):
    """A small convolutional classifier, not compiled."""
    head = keras.layers.Dense(classes, activation="softmax")
    return keras.Sequential([keras.Input(shape), *convolutions(min(shape[:2]), width), head])


def compiled(model, optimizer):
    """Returns the classifier, compiled; a number is a rate of Adam."""
    if isinstance(optimizer, int | float):
        optimizer = keras.optimizers.Adam(optimizer)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class ProgressBar(keras.callbacks.Callback):
    """One line a run; where the output is not a terminal it appears when the run is over."""

    def __init__(self, title):
        super().__init__()
        columns = TextColumn(f"{title:16}"), BarColumn(16), TextColumn("{task.description}")
        self.progress = Progress(*columns, console=progress)

    def on_train_begin(self, logs=None):
        self.task = self.progress.add_task("compiling", total=self.params["epochs"])
        self.progress.start()

    def on_train_batch_begin(self, batch, logs=None):
        if self.params["steps"]:  # an epoch of many images takes minutes
            self.progress.update(self.task, completed=self.epoch + batch / self.params["steps"])

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        rate = logs.get("learning_rate", self.model.optimizer.learning_rate)
        line = (
            f"epoch {epoch + 1:2}/{self.params['epochs']}  rate {float(rate):.1e}  "
            f"validation {logs['val_accuracy']:.1%}"
        )
        self.progress.update(self.task, completed=epoch + 1, description=line)

    def on_train_end(self, logs=None):
        self.progress.stop()


def fit(model, splits, epochs, *callbacks, batch=BATCH):
    """Trains on the first split and validates on the second; returns the number of steps."""
    train, validation, _ = splits
    history = model.fit(
        *train,
        validation_data=validation,
        batch_size=batch,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
    )
    return len(history.epoch) * -(-len(train[0]) // batch)


def accuracy(model, part):
    """Accuracy of the present weights on one split."""
    return model.evaluate(*part, batch_size=500, verbose=0, return_dict=True)["accuracy"]


def command_line(doc, name, epochs, gpu_epochs, seeds=(0,)):
    """Returns the parser that every example begins with."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="a wider network, more epochs")
    parser.add_argument("--epochs", type=int, help=f"default: {epochs}, with --gpu {gpu_epochs}")
    listed = " ".join(map(str, seeds))
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(seeds), help=f"a run for each: {listed}"
    )
    folder = Path("tensorboard_logs") / name
    parser.add_argument("--out", type=Path, default=folder, help=f"for TensorBoard: {folder}")
    parser.set_defaults(sizes=((epochs, WIDTH), (gpu_epochs, GPU_WIDTH)))
    return parser


def parsed(parser):
    """Returns the options, with `epochs` and `width` by the size that was asked for."""
    options = parser.parse_args()
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs must be at least 1, not {options.epochs}")
    epochs, options.width = options.sizes[options.gpu]
    options.epochs = options.epochs or epochs
    return options


def log_dir(options, name, seed):
    """Returns an empty folder for one run: a rerun would pile up in TensorBoard."""
    folder = options.out / name
    if len(options.seeds) > 1:
        folder = folder / f"seed_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def spread(values, form):
    """Formats one value, or the mean and the range of several; None is a run without a value."""
    known = [v for v in values if v is not None]
    if not known:
        return "never"
    text, low, high = map(form, (sum(known) / len(known), min(known), max(known)))
    if low != high:
        text += f" ({low} to {high})"
    return text if len(known) == len(values) else f"{text}, {len(known)} of {len(values)} runs"


percent, digits2, whole = "{:.1%}".format, "{:.2g}".format, "{:.0f}".format


def table(title, headings, cells):
    """A rich table whose last column takes the room that is left."""
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in cells:
        shown.add_row(*row)
    return shown


def notes(seeds):
    """Where figures come from."""
    backend = keras.backend.backend()
    device = "GPU" if "cpu" not in str(keras.ops.zeros(1).device).lower() else "CPU"
    count = f"{len(seeds)} seeds: mean (range, if any)" if len(seeds) > 1 else "1 seed"
    made_by = f"{backend} {sys.modules[backend].__version__}, adaptlr {adaptlr.__version__}"
    return (
        f"{count}; {device}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"Keras {keras.__version__}, {made_by}."
    )


def tensorboard(out):
    """The command that shows what was logged, as it can be typed here."""
    program = Path(sys.executable).with_name("tensorboard")
    shown = os.path.relpath(program) if program.exists() else "tensorboard"
    return f"{'tensorboard' if shown.startswith('..') else shown} --logdir {out}"


def report(title, headings, cells, columns, options):
    """Prints the result of an example: table, what its columns mean, source, what to type next."""
    console.print(table(title, headings, cells))
    console.print(f"{columns}\n{notes(options.seeds)}", style="dim", highlight=False)
    console.print(f"\nTensorBoard: {tensorboard(options.out)}", highlight=False, soft_wrap=True)
