"""Five ways to set the learning rate of one small network, side by side.

The network learns scikit-learn's handwritten digits with Adam. Weights and batch order are the
same for each method; a control split drives every decision, the test split is used once a run.

AutoLR, from rates that teach this network little or nothing, reaches a test accuracy of 98.5 %
(98.2 to 99.0) in 12 epochs; PlateauLR, from a rate picked by hand, 98.4 % (98.0 to 99.0) and
Keras' standard rate 97.5 % (97.0 to 98.2) in 20. Three seeds; 497 test images, so that a standard
error is half a percent; 2 CPU cores, TensorFlow 2.21, Keras 3.15.

    python examples/digits.py                            # one seed, every decision explained
    python examples/digits.py --seeds 0 1 2 --markdown   # the table of the README
    python examples/digits.py --out tensorboard_logs/reference   # the runs that are committed
"""

import argparse
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from sklearn.datasets import load_digits

import adaptlr
from adaptlr.plotting import comparison

TRAIN, CONTROL = 1000, 300  # of 1797 images; the other 497 are the test split
BATCH = 50  # 20 steps an epoch: small enough to see the rate act within one
WIDTH = 16  # channels: enough for 8x8 images, and a run takes seconds
# Momentum of batch norm's statistics. At Keras' 0.99 they lag five of these short epochs behind
# the weights, and every validation but that of AutoLR, which brings its own, would show the lag.
STATISTICS = 0.9
EPOCHS = 20  # the higher rates have stopped improving by then
STANDARD = 0.001  # the rate of Adam in Keras
# Held for 20 epochs these end at control accuracies of 7 to 14 % and of 10 to 46 % (3 seeds).
TOO_LOW, TOO_HIGH = 1e-6, 1.0


@dataclass(frozen=True)
class Method:
    """A rate to compile with, and how to make the callback that takes it from there."""

    title: str
    folder: str
    rate: float
    callback: partial


METHODS = [
    Method(
        "constant",
        "constant",
        STANDARD,
        partial(adaptlr.ScheduleLR, adaptlr.schedules.Constant(STANDARD)),  # logs, changes nothing
    ),
    Method(
        "PlateauLR",
        "plateau",
        10 * STANDARD,  # it only lowers, so it starts high: a rate picked by hand
        partial(adaptlr.PlateauLR, factor=0.3, patience=2),  # Keras' patience of 10 is half a run
    ),
    Method(
        "CyclicalLR",
        "cyclical",
        STANDARD,
        partial(  # a decade around the standard rate, half a cycle in two epochs as Smith advises
            adaptlr.CyclicalLR, 0.0003, 0.003, step_size=2 * TRAIN // BATCH, mode="triangular2"
        ),
    ),
    Method("AutoLR from 1e-6", "auto", TOO_LOW, partial(adaptlr.AutoLR)),
    Method("AutoLR from 1.0", "auto_from_1", TOO_HIGH, partial(adaptlr.AutoLR)),
]


@dataclass(frozen=True)
class Result:
    """What one run left behind."""

    method: Method
    log: adaptlr.writers.MemoryWriter
    settled: float
    test: float

    @property
    def accuracies(self):
        """Control accuracy at each epoch's end, as (step, value)."""
        return self.log.series("epoch/val_accuracy")

    @property
    def best(self):
        """Best control accuracy of the run."""
        return max(value for _, value in self.accuracies)

    def steps_to(self, target):
        """Step of the first epoch end at which the control accuracy was `target`, or None."""
        return next((step for step, value in self.accuracies if value >= target), None)


def load_splits(seed):
    """Returns (x, y) of the train, control and test split."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images = (images[order].reshape(-1, 8, 8, 1) / 16.0).astype("float32")
    cuts = [TRAIN, TRAIN + CONTROL]
    return list(zip(np.split(images, cuts), np.split(labels[order], cuts), strict=True))


def build_model(rate):
    """Three convolutions with batch norm, halving 8x8 to 4x4 and 2x2."""
    layers = [keras.Input((8, 8, 1))]
    for stride in (1, 2, 2):
        layers += [
            keras.layers.Conv2D(WIDTH, 3, stride, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=STATISTICS),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.Adam(rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class ProgressBar(keras.callbacks.Callback):
    """One line a method; where the output is not a terminal it appears when the run is over."""

    def __init__(self, title, console):
        super().__init__()
        columns = [f"{title:16}", BarColumn(16), TextColumn("{task.description}")]
        self.progress = Progress(*map(_column, columns), console=console)

    def on_train_begin(self, logs=None):
        self.task = self.progress.add_task("compiling", total=self.params["epochs"])
        self.progress.start()

    def on_epoch_end(self, epoch, logs=None):
        line = (
            f"epoch {epoch + 1:2}/{self.params['epochs']}  "
            f"rate {logs['learning_rate']:.1e}  control {logs['val_accuracy']:.1%}"
        )
        self.progress.update(self.task, completed=epoch + 1, description=line)

    def on_train_end(self, logs=None):
        self.progress.stop()


def _column(column):
    return TextColumn(column) if isinstance(column, str) else column


def run(method, seed, epochs, log_dir, console):
    """Trains with one method and evaluates the test split, once."""
    train, control, test = load_splits(seed)
    keras.utils.set_random_seed(seed)
    model = build_model(method.rate)
    log = adaptlr.writers.MemoryWriter()
    callback = method.callback(log_dir=log_dir, writers=[log])
    model.fit(
        *train,
        validation_data=control,
        batch_size=BATCH,
        epochs=epochs,
        callbacks=[callback, ProgressBar(method.title, console)],
        verbose=0,
    )
    settled = getattr(callback, "learning_rate", None)
    return Result(
        method,
        log,
        log.series("learning_rate")[-1][1] if settled is None else settled,
        model.evaluate(*test, batch_size=len(test[0]), verbose=0, return_dict=True)["accuracy"],
    )


def spread(values, form):
    """Formats one value, or the mean and the range of several; None is a run without a value."""
    known = [v for v in values if v is not None]
    if not known:
        return "never"
    text, low, high = map(form, (sum(known) / len(known), min(known), max(known)))
    if low != high:
        text += f" ({low} to {high})"
    return text if len(known) == len(values) else f"{text}, {len(known)} of {len(values)} runs"


HEADINGS = ["method", "control", "test", "steps", "epochs", "rate"]


def rows(results):
    """The table's rows: one a method, over all seeds."""
    targets = [r.best for r in results[METHODS[0].folder]]
    for runs in results.values():
        yield [
            runs[0].method.title,
            spread([r.best for r in runs], "{:.1%}".format),
            spread([r.test for r in runs], "{:.1%}".format),
            spread([r.steps_to(t) for r, t in zip(runs, targets, strict=True)], "{:.0f}".format),
            spread([len(r.accuracies) for r in runs], "{:.0f}".format),
            spread([r.settled for r in runs], "{:.2g}".format),
        ]


def notes(seeds):
    """What the columns mean, and where the figures come from."""
    backend = keras.backend.backend()
    device = "GPU" if "cpu" not in str(keras.ops.zeros(1).device).lower() else "CPU"
    count = f"{len(seeds)} seeds: mean (range, if any)" if len(seeds) > 1 else "1 seed"
    made_by = f"{backend} {sys.modules[backend].__version__}, adaptlr {adaptlr.__version__}"
    return (
        "control: best accuracy on the control split; test: accuracy of the weights that fit "
        "leaves, measured once; steps: until the control accuracy reaches the best of the "
        "constant run, over the runs that reach it; rate: the one AutoLR settled on, for the "
        "others the last.\n"
        f"{count}; {device}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"Keras {keras.__version__}, {made_by}."
    )


def table(title, headings, cells):
    """A rich table whose last column takes the room that is left."""
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in cells:
        shown.add_row(*row)
    return shown


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("tensorboard_logs/digits"))
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown too")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 110)

    results = {method.folder: [] for method in METHODS}
    for seed in options.seeds:
        console.print(
            f"\nseed {seed}: {len(METHODS)} methods, at most {options.epochs} epochs each"
        )
        for method in METHODS:
            log_dir = options.out / method.folder
            if len(options.seeds) > 1:
                log_dir = log_dir / f"seed_{seed}"
            shutil.rmtree(log_dir, ignore_errors=True)  # or a rerun piles up in TensorBoard
            results[method.folder].append(run(method, seed, options.epochs, log_dir, console))

    lines = list(rows(results))
    console.print()
    console.print(table("Result", HEADINGS, lines))
    console.print(notes(options.seeds), style="dim", highlight=False)
    auto = results["auto"][0]
    moves = [(str(d.step), f"{d.learning_rate:.3g}", d.rule, d.reason) for d in auto.log.decisions]
    console.print()
    console.print(table("Every move of AutoLR from 1e-6", ["step", "rate", "rule", "why"], moves))
    picture = options.out / "digits.png"
    logs = {runs[0].method.title: [run.log for run in runs] for runs in results.values()}
    comparison(logs, marked=auto.method.title, path=picture)
    console.print(f"\npicture:     {picture}", highlight=False, soft_wrap=True)
    tensorboard = Path(sys.executable).with_name("tensorboard")
    shown = os.path.relpath(tensorboard) if tensorboard.exists() else "tensorboard"
    shown = "tensorboard" if shown.startswith("..") else shown
    command = f"{shown} --logdir {options.out}"
    console.print(f"TensorBoard: {command}", highlight=False, soft_wrap=True)
    if options.markdown:
        print("\n" + "\n".join(f"| {' | '.join(r)} |" for r in [HEADINGS, ["---"] * 6, *lines]))
        print("\n" + notes(options.seeds))


if __name__ == "__main__":
    main()
