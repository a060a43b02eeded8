"""CIFAR-10 with ResNet-20 and ResNet-18: every method, from several start rates, on a GPU.

KERAS_BACKEND=torch python examples/benchmark/cifar_gpu.py --data cifar10.npz --minutes 9
python examples/benchmark/cifar_gpu.py --table docs/performance.md

Runs on JAX or PyTorch, without TensorFlow. Training goes in pieces: after `--minutes` the program
ends, and the same command goes on where it was; each finished run is one JSON line. A run is never
cut in two: one that would not fit into the time left is not begun. The archive holds x_train,
y_train, x_test, y_test as `keras.datasets.cifar10` returns them.

The last 5 000 training images are the control split, which every decision is made on; the test
split is evaluated once, at the end. Protocol: 30 epochs, batch 128, flip and shifts by up to 4.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np

EPOCHS, BATCH, CONTROL = 30, 128, 5_000
STANDARD = {"Adam": 1e-3, "SGD": 1e-2}  # what "constant" and "cosine" are tuned against
START = (1e-4, 1e-3, 1e-2)
METHODS = ("constant", "cosine", "ReduceLROnPlateau", "PlateauLR", "CyclicalLR", "OneCycleLR",
           "SwapEMAWeights", "AutoLR")  # fmt: skip
LINES = Path(__file__).parents[2] / "docs" / "data" / "cifar_gpu.jsonl"
MARK = "ARC's mean 92.30, its worst 91.80, best fixed cosine 92.93"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--lines", type=Path, default=LINES)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet18"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--optimizers", nargs="+", default=list(STANDARD), choices=STANDARD)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="fewer for a trial only")
    parser.add_argument("--images", type=int, help="fewer for a trial only")
    parser.add_argument("--table", type=Path, help="write the table into this page, run nothing")
    args = parser.parse_args()
    if args.table:
        write_table(args.lines, args.table)
    else:
        train_all(args)


def train_all(args):
    begun, longest = time.perf_counter(), 0.0
    data = load(args.data, args.images)
    done = [key(line) for line in read(args.lines)]
    todo = [run for run in runs(args) if key(run) not in done]
    for i, run in enumerate(todo):
        left = 60 * args.minutes - (time.perf_counter() - begun)
        if longest > left:
            print(f"{len(todo) - i} runs left; the same command goes on with them")
            return
        start = time.perf_counter()
        line = {**run, **train(run, data), "machine": machine()}
        longest = max(longest, time.perf_counter() - start)
        args.lines.parent.mkdir(parents=True, exist_ok=True)
        with args.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(run, f"test accuracy {line['test_accuracy']:.4f} in {line['seconds']:.0f} s")


def runs(args):
    """Every run, seed by seed, so that what is there at any time is balanced."""
    for seed in args.seeds:
        for model in args.models:
            for optimizer in args.optimizers:
                for method in args.methods:
                    for rate in START:
                        yield {
                            "backend": backend(), "model": model, "optimizer": optimizer,
                            "method": method, "start_rate": rate, "seed": seed,
                            "epochs": args.epochs, "images": args.images,
                        }  # fmt: skip


def key(line):
    names = "backend", "model", "optimizer", "method", "start_rate", "seed", "epochs", "images"
    return [line[name] for name in names]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# --- one run -------------------------------------------------------------------------------


def train(run, data):
    import keras

    keras.utils.set_random_seed(run["seed"])
    (x, y), control, test = data
    batches = batches_of(x, y, run["seed"])
    total = len(batches) * run["epochs"]
    model = network(run["model"])
    model.compile(
        optimizer(run, total),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    history = model.fit(
        batches, epochs=run["epochs"], verbose=0, validation_data=control,
        callbacks=callbacks(run, len(batches)),
    ).history  # fmt: skip
    seconds = time.perf_counter() - start
    _, accuracy = model.evaluate(*test, batch_size=500, verbose=0)
    return {
        "steps": len(batches) * len(history["loss"]),
        "seconds": round(seconds, 2),
        "test_accuracy": accuracy,
        "val_accuracy": [round(value, 4) for value in history["val_accuracy"]],
        "loss": [round(value, 4) for value in history["loss"]],
    }


def optimizer(run, total):
    import keras

    rate = run["start_rate"]
    if run["method"] == "cosine":
        warm_up = total // 20
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, total - warm_up), warmup_target=rate, warmup_steps=max(1, warm_up)
        )
    extra = {"momentum": 0.9} if run["optimizer"] == "SGD" else {}
    ema = run["method"] == "SwapEMAWeights"
    return getattr(keras.optimizers, run["optimizer"])(rate, use_ema=ema, **extra)


def callbacks(run, epoch_steps):
    """Where a method takes a rate, it takes the start rate; AutoLR looks for its own."""
    import keras

    import adaptlr

    rate, half_cycle = run["start_rate"], 4 * epoch_steps
    return {
        "constant": lambda: [],
        "cosine": lambda: [],
        "ReduceLROnPlateau": lambda: [keras.callbacks.ReduceLROnPlateau(patience=3)],
        "PlateauLR": lambda: [adaptlr.PlateauLR(patience=3, restore_best_weights=True)],
        "CyclicalLR": lambda: [adaptlr.CyclicalLR(rate / 10, rate, half_cycle, "triangular2")],
        "OneCycleLR": lambda: [adaptlr.OneCycleLR(rate)],
        "SwapEMAWeights": lambda: [keras.callbacks.SwapEMAWeights()],
        "AutoLR": lambda: [adaptlr.AutoLR()],
    }[run["method"]]()


def load(path, images):
    """(x, y) of each split; `images` caps the training split, and the others in proportion."""
    if path is None:
        raise SystemExit("--data must name an archive with x_train, y_train, x_test and y_test")
    with np.load(path) as archive:
        x, y = archive["x_train"], archive["y_train"].ravel()
        test = archive["x_test"], archive["y_test"].ravel()
    splits = (x[:-CONTROL], y[:-CONTROL]), (x[-CONTROL:], y[-CONTROL:]), test
    others = max(BATCH, images // 9) if images else None
    few = images, others, others
    return [(scaled(x[:n]), y[:n]) for (x, y), n in zip(splits, few, strict=True)]


def scaled(images):
    mean, spread = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of CIFAR-10's training images
    return ((images - np.float32(mean)) / np.float32(spread)).astype("float32")


def batches_of(x, y, seed):
    """Shuffled, flipped and shifted batches; the same for every method."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.random = np.random.default_rng(seed)
            self.padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
            self.on_epoch_end()

        def __len__(self):
            return len(x) // BATCH

        def __getitem__(self, index):
            chosen = self.order[index * BATCH : (index + 1) * BATCH]
            rows, columns = self.random.integers(0, 9, (2, len(chosen), 1)) + np.arange(32)
            flipped = self.random.random(len(chosen)) < 0.5
            columns[flipped] = columns[flipped, ::-1]
            images = self.padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
            return images, y[chosen]

        def on_epoch_end(self):
            self.order = self.random.permutation(len(x))

    return Batches()


def network(name):
    """ResNet-20 as in arXiv 1512.03385, section 4.2; ResNet-18 with its first layer made small."""
    import keras

    inputs = keras.Input((32, 32, 3))
    widths, blocks = ((16, 32, 64), 3) if name == "resnet20" else ((64, 128, 256, 512), 2)
    x = keras.layers.ReLU()(convolution(inputs, widths[0]))
    for stage, width in enumerate(widths):
        for block in range(blocks):
            x = residual(x, width, 2 if stage > 0 and block == 0 else 1)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def convolution(x, width, stride=1, size=3):
    import keras

    x = keras.layers.Conv2D(
        width, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(1e-4),
    )(x)  # fmt: skip
    return keras.layers.BatchNormalization(momentum=0.9)(x)


def residual(x, width, stride):
    import keras

    y = keras.layers.ReLU()(convolution(x, width, stride))
    y = convolution(y, width)
    if x.shape[-1] != width or stride != 1:
        x = convolution(x, width, stride, 1)
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


def backend():
    import keras

    return keras.backend.backend()


def machine():
    import keras

    if backend() == "torch":
        import torch as library

        device = library.cuda.get_device_name(0) if library.cuda.is_available() else "CPU"
    else:
        import jax as library

        device = library.devices()[0].device_kind
    versions = {"keras": keras.__version__, backend(): library.__version__}
    return {"device": device, "python": platform.python_version(), **versions}


# --- the table -----------------------------------------------------------------------------


def write_table(lines, page):
    groups = {}
    for line in read(lines):
        name = line["model"], line["optimizer"], line["method"]
        groups.setdefault(name, {}).setdefault(line["start_rate"], []).append(line)
    rows = [row(name, by_rate) for name, by_rate in sorted(groups.items())]
    head = ["model", "optimizer", "method", *(f"from {rate:g}" for rate in START), "mean",
            "worst", "runs"]  # fmt: skip
    table = "\n".join(
        "| " + " | ".join(map(str, line)) + " |" for line in [head, ["---"] * len(head), *rows]
    )
    begin, end = "<!-- cifar: made by cifar_gpu.py -->", "<!-- end of cifar -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    text = f"{table}\n\nTest accuracy in percent. Published: {MARK}." if rows else "No runs yet."
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def row(name, by_rate):
    means = {
        rate: 100 * statistics.mean(line["test_accuracy"] for line in lines)
        for rate, lines in by_rate.items()
    }
    cells = [f"{means[rate]:.2f}" if rate in means else "" for rate in START]
    count = sum(map(len, by_rate.values()))
    mean, worst = statistics.mean(means.values()), min(means.values())
    return [*name, *cells, f"{mean:.2f}", f"{worst:.2f}", count]


if __name__ == "__main__":
    main()
