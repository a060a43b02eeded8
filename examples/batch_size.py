"""Which rule carries a learning rate over to another batch size? Measured on small real images.

scikit-learn's handwritten digits, a small convolutional network, the same number of epochs at
every batch size. The rate is tuned at one batch size; at the others it is kept, scaled linearly,
and scaled by the square root, and a grid around it shows what would have been best.

    python examples/batch_size.py                     # train, record, show (about 5 minutes)
    python examples/batch_size.py --docs docs/batch-size.md   # the record's table, into the page
"""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import adaptlr
from adaptlr.batch_size import scale_learning_rate

TRAIN, VALIDATION = 1200, 297  # of 1797 images, the other 300 are the test split
EPOCHS = 15
TUNED_AT = 50
BATCHES = [25, 50, 100, 200, 400]  # all divide the 1200 training images
SEEDS = [0, 1, 2]
OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(),
}
# Factor 2 between neighbours: finer than the valley of good rates is wide.
TUNING_RATES = {
    "SGD": [0.1 * 2.0**k for k in range(-5, 3)],
    "Adam": [0.01 * 2.0**k for k in range(-6, 2)],
}
# Times the tuned rate, in factors of the root of 2: every rate that a rule asks for is among them.
FACTORS = [2.0 ** (k / 2) for k in range(-4, 7)]
RULES = ["unscaled", "linear", "square root"]
RECORD = Path("docs/data/batch_size.jsonl")
PICTURE = Path("docs/images/batch_size.png")
MARKS = ("<!-- table: begin -->", "<!-- table: end -->")


def load_splits():
    """Returns (x, y) of the train, validation and test split."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images = (images[order].reshape(-1, 8, 8, 1) / 16.0).astype("float32")
    cuts = [TRAIN, TRAIN + VALIDATION]
    return list(zip(np.split(images, cuts), np.split(labels[order], cuts), strict=True))


def build_model(optimizer):
    """Two convolutions; no batch norm, whose statistics change with the batch size too."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    return model


class Trainer:
    """One compiled model for one optimizer and batch size, set back before every run."""

    def __init__(self, name, batch, epochs):
        self.name, self.batch, self.epochs = name, batch, epochs
        self.train, self.validation, self.test = load_splits()
        self.model = build_model(OPTIMIZERS[name]())
        slots = self.model.optimizer.variables
        self.fresh = [keras.ops.convert_to_numpy(v).copy() for v in slots]

    def run(self, rate, seed):
        """Trains from a seed's weights at one rate; returns what goes into the record."""
        keras.utils.set_random_seed(seed)
        initial = build_model(OPTIMIZERS[self.name]()).get_weights()
        self.model.set_weights(initial)
        for variable, value in zip(self.model.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        self.model.optimizer.learning_rate = rate
        keras.utils.set_random_seed(seed)
        self.model.fit(*self.train, batch_size=self.batch, epochs=self.epochs, verbose=0)
        result = {"optimizer": self.name, "batch": self.batch, "seed": seed, "rate": rate}
        for split in ("train", "validation", "test"):
            images, labels = getattr(self, split)
            measured = self.model.evaluate(
                images, labels, batch_size=len(labels), verbose=0, return_dict=True
            )
            for metric, value in measured.items():
                result[f"{split}_{metric}"] = float(f"{value:.5g}") if np.isfinite(value) else None
        return result


def measure(batches, epochs, seeds, path):
    """Tunes at one batch size, sweeps at all of them; one JSON line a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    package = {"tensorflow": "tensorflow_cpu", "jax": "jax", "torch": "torch"}
    backend = keras.backend.backend()
    device = "GPU" if "cpu" not in str(keras.ops.zeros(1).device).lower() else "CPU"
    about = {
        "epochs": epochs,
        "device": f"{device}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "keras": keras.__version__,
        backend: version(package[backend]),
        "adaptlr": adaptlr.__version__,
    }
    with path.open("w") as record:

        def write(line):
            record.write(json.dumps(line, allow_nan=False) + "\n")
            record.flush()

        write(about)
        for name in OPTIMIZERS:
            trainer = Trainer(name, TUNED_AT, epochs)
            tuning = [trainer.run(rate, seed) for rate in TUNING_RATES[name] for seed in seeds]
            for line in tuning:
                write({"phase": "tuning", **line})
            tuned = best_rate(tuning)
            print(f"{name}: {tuned:.4g} is best at batch {TUNED_AT}", flush=True)
            for batch in batches:
                trainer = Trainer(name, batch, epochs)
                for factor in FACTORS:
                    for seed in seeds:
                        line = trainer.run(tuned * factor, seed)
                        write({"phase": "sweep", "factor": factor, **line})
                print(f"{name}: batch {batch} done", flush=True)


def best_rate(runs):
    """The rate with the lowest mean validation loss; one that diverged for any seed is none."""
    losses = {}
    for run in runs:
        losses.setdefault(run["rate"], []).append(run["validation_loss"])
    finite = {rate: np.mean(seen) for rate, seen in losses.items() if None not in seen}
    return min(finite, key=finite.get)


def load_record(path):
    """Returns what is known of the measurement, and its runs."""
    about, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    return about, [line for line in lines if line["phase"] == "sweep"]


def runs_of(rule, runs, name, batch):
    """The runs at the rate that a rule, or the grid, gives for a batch size."""
    mine = [run for run in runs if (run["optimizer"], run["batch"]) == (name, batch)]
    if rule == "best of the grid":
        rate = best_rate(mine)
        return [run for run in mine if run["rate"] == rate]
    wanted = {
        "unscaled": 1.0,
        "linear": scale_learning_rate(1.0, TUNED_AT, batch, "linear"),
        "square root": scale_learning_rate(1.0, TUNED_AT, batch, "sqrt"),
    }[rule]
    return [run for run in mine if np.isclose(run["factor"], wanted)]


def cell(runs):
    """Rate, and test loss as mean and range."""
    losses = [run["test_loss"] for run in runs]
    rate = f"{runs[0]['rate']:.3g}"
    if None in losses:
        return f"{rate}: diverged in {losses.count(None)} of {len(losses)}"
    accuracy = np.mean([run["test_accuracy"] for run in runs])
    spread = f"{min(losses):.3f} to {max(losses):.3f}"
    return f"{rate}: {np.mean(losses):.3f} ({spread}), {accuracy:.1%}"


def table(about, runs):
    """The result as a Markdown table, with where it comes from."""
    columns = [*RULES, "best of the grid"]
    lines = [f"| optimizer | batch | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    pairs = [
        (n, b)
        for n in OPTIMIZERS
        for b in BATCHES
        if any((r["optimizer"], r["batch"]) == (n, b) for r in runs)
    ]
    for name, batch in pairs:
        cells = [cell(runs_of(rule, runs, name, batch)) for rule in columns]
        lines.append(f"| {name} | {batch} | {' | '.join(cells)} |")
    seeds = sorted({run["seed"] for run in runs})
    versions = ", ".join(
        f"{package} {about[package]}"
        for package in ("python", "keras", "tensorflow", "jax", "torch", "adaptlr")
        if package in about
    )
    return "\n".join(
        [
            *lines,
            "",
            "Each cell: rate: test loss, mean (lowest to highest) of "
            f"{len(seeds)} seeds, and mean test accuracy. "
            f"{about['epochs']} epochs at every batch size; the rate was tuned at batch "
            f"{TUNED_AT} and the best of the grid chosen by validation loss. "
            f"`python examples/batch_size.py`, {about['device']}, {versions}.",
        ]
    )


def draw(runs, path):
    """Test loss over the batch size, a panel an optimizer."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    names = [name for name in OPTIMIZERS if any(run["optimizer"] == name for run in runs)]
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    styles = {
        "unscaled": ("#7a7a7a", "-"),
        "linear": ("#d98200", "-"),
        "square root": ("#2457c5", "-"),
        "best of the grid": ("#2a9d6f", "--"),
    }
    for axes, name in zip(panels, names, strict=True):
        batches = sorted({run["batch"] for run in runs if run["optimizer"] == name})
        for rule, (colour, line) in styles.items():
            losses = [
                [np.nan if run["test_loss"] is None else run["test_loss"] for run in each]
                for each in (runs_of(rule, runs, name, batch) for batch in batches)
            ]
            means = np.mean(losses, axis=1)
            axes.plot(batches, means, line, color=colour, label=rule, marker="o", markersize=3.5)
            low, high = np.min(losses, axis=1), np.max(losses, axis=1)
            axes.fill_between(batches, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(xscale="log", yscale="log", title=name, xlabel="batch size")
        axes.set_xticks(batches, map(str, batches))
        axes.minorticks_off()
        axes.grid(alpha=0.2, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test loss")
    panels[0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--record", type=Path, default=RECORD, help="written, or read by --docs")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--docs", type=Path, help="train nothing, put the table into this page")
    options = parser.parse_args()
    if options.docs is None:
        measure(options.batches, options.epochs, options.seeds, options.record)
    about, runs = load_record(options.record)
    shown = table(about, runs)
    draw(runs, options.picture)
    print(shown)
    if options.docs is not None:
        before, rest = options.docs.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        options.docs.write_text(f"{before}{MARKS[0]}\n{shown}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
