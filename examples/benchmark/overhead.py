"""What adaptlr costs: time per step in pairs, time of one piece by its size, and the import.

KERAS_BACKEND=torch python examples/benchmark/overhead.py
python examples/benchmark/overhead.py --parts memory whole --data cifar10.npz
python examples/benchmark/overhead.py --table docs/performance.md

Each result is one JSON line, and a run that was cut off goes on after the last one. A round is one
run of `fit` without a callback and one with each, in one process; each round begins with another
of them, and each with ÷ without is a pair. Beside the time by the clock stands that of the
processor, which other work on the machine disturbs less. What is timed is one epoch's worth of
steps over an epoch's end, where AutoLR has been holding its rate for a while. The metric that it
monitors falls with every epoch, which is its dearest case: each time it takes a snapshot.
The part `whole` compares whole runs of `fit`, compiling and validation included: of the small
networks of the suite cifar-small, or of the tasks named, for a third of their epochs or as many as
are named. The part `memory` counts the copies of weights and slots that are in the host's memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lines import append, read_lines

PAIRS = 10
# 1024 steps: AutoLR probes for 51, warms up for 20 and holds until step 768.
EPOCH, EPOCHS = 128, 8
TIMED = 4  # the epoch in which the clock starts; it stops at the same step of the next one
FIRST = 30  # that step
SIZES = {"parameters": (10**5, 10**6, 10**7), "groups": (1, 4, 16), "scalars": (1, 5, 20)}
BATCH = {"cnn": 64, "resnet20": 8}  # the smaller a step, the more an overhead shows
PARTS = ("pairs", "pieces", "import", "memory", "whole")
MARK = {"AutoLR": 1.02, "CyclicalLR": 1.02}
WHOLE_MARK = {"resnet20": 1.03}
WHOLE_MARK_OF_SMALL = 1.06
COPIES_MARK = 3
LINES = Path(__file__).parents[2] / "docs" / "data" / "overhead.jsonl"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=Path, default=LINES)
    parser.add_argument("--parts", nargs="+", default=PARTS[:3], choices=PARTS)
    parser.add_argument("--models", nargs="+", default=list(BATCH), choices=BATCH)
    parser.add_argument("--methods", nargs="+", help="names in the table; all without")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--epoch", type=int, default=EPOCH, help="steps; fewer for a trial only")
    parser.add_argument("--batch", type=int, help="samples; fewer for a trial only")
    parser.add_argument("--table", type=Path, help="write the tables into this page, run nothing")
    parser.add_argument("--tasks", nargs="+", help="names of tasks of run.py for whole")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as .npz for whole")
    parser.add_argument("--images", type=int, default=20_000, help="of each split, for whole")
    parser.add_argument("--epochs", type=int, help="for whole")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no round after it")
    args = parser.parse_args()
    if args.table:
        write_tables(args.lines, args.table)
        return
    log = Log(args.lines, machine(), args.minutes)
    measure = {"pairs": measure_pairs, "pieces": measure_pieces, "import": measure_import,
               "memory": measure_memory, "whole": measure_whole}  # fmt: skip
    for part in args.parts:
        measure[part](log, args)


# --- the runs ------------------------------------------------------------------------------


def measure_pairs(log, args):
    for name in args.models:
        measure_pairs_of(name, log, args)


def measure_pairs_of(name, log, args):
    model, data = None, None
    batch, epoch = args.batch or BATCH[name], args.epoch
    for pair in range(args.pairs):
        line = {"kind": "pair", "model": name, "batch": batch, "pair": pair}
        wanted = args.methods or methods(name)
        missing = [m for m in wanted if m in methods(name) and not log.has({**line, "method": m})]
        if not missing:
            continue
        if log.late():
            return
        if model is None:
            model, data = network(name), images(batch)
            for callbacks in (no_callbacks, methods(name)["AutoLR"]):  # compiles what is used
                timed_fit(model, data, epoch, callbacks)
        arms = ["without", *missing]
        arms = arms[pair % len(arms) :] + arms[: pair % len(arms)]
        times = {}
        for arm in arms:
            # A new one each time: on JAX Keras fits a model with use_ema only once.
            used = network(name, ema=True) if arm == "SwapEMAWeights" else model
            times[arm] = timed_fit(used, data, epoch, methods(name).get(arm, no_callbacks))
        for method in missing:
            log.add(
                {**line, "method": method},
                first=arms[0], without_ms=times["without"], with_ms=times[method],
            )  # fmt: skip


def no_callbacks(folder):
    return []


def methods(model):
    """Name → the callbacks of one run, made from a folder to log to; Keras' own on one model."""
    import keras

    import adaptlr

    chosen = {
        "AutoLR": lambda folder: [Falling(), adaptlr.AutoLR(log_dir=folder)],
        "CyclicalLR": lambda folder: [adaptlr.CyclicalLR(1e-5, 1e-3, step_size=100)],
        "an empty callback": lambda folder: [Empty()],
    }
    if model == "cnn":
        chosen["SwapEMAWeights"] = lambda folder: [keras.callbacks.SwapEMAWeights()]
    if model == "cnn" and keras.backend.backend() == "tensorflow":
        chosen["TensorBoard(update_freq=1)"] = lambda folder: [
            keras.callbacks.TensorBoard(folder, update_freq=1)
        ]
    return chosen


def timed_fit(model, data, epoch, callbacks):
    """Milliseconds a step: by the clock, and of processor time."""
    clock = Clock(epoch)
    with tempfile.TemporaryDirectory() as folder:
        model.fit(
            data, epochs=EPOCHS, steps_per_epoch=epoch, verbose=0,
            callbacks=[clock, *callbacks(folder)],
        )  # fmt: skip
    return clock.spent


def now():
    """Milliseconds by the clock on the wall, and of processor time in all threads."""
    return 1e3 * time.perf_counter(), 1e3 * time.process_time()


def Falling():  # noqa: N802 - a class that waits for Keras to be imported
    import keras

    class Falling(keras.callbacks.Callback):
        """A held-out loss that improves with each epoch."""

        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = 1.0 / (epoch + 1)

    return Falling()


def Empty():  # noqa: N802
    import keras

    class Empty(keras.callbacks.Callback):
        """What Keras itself takes for a callback that is told of each step."""

        def on_train_batch_begin(self, batch, logs=None):
            pass

        def on_train_batch_end(self, batch, logs=None):
            pass

    return Empty()


def Clock(epoch_steps):  # noqa: N802
    import keras

    class Clock(keras.callbacks.Callback):
        """Times from a step of epoch TIMED to the same one of the next, then ends training."""

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            if batch == min(FIRST, epoch_steps - 1):
                if self.epoch == TIMED:
                    self.start = now()
                elif self.epoch == TIMED + 1:
                    self.spent = [
                        (b - a) / epoch_steps for a, b in zip(self.start, now(), strict=True)
                    ]
                    self.model.stop_training = True

    return Clock()


def images(batch):
    """One batch of noise in the shape of CIFAR-10, over and over."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.normal(size=(batch, 32, 32, 3)).astype("float32")
    y = random.integers(0, 10, batch)

    def batches():
        while True:
            yield x, y

    return batches()


def network(name, ema=False):
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    if name == "cnn":
        x = inputs
        for width in (16, 32, 64):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
    else:
        x = keras.layers.ReLU()(convolution(inputs, 16))
        for width in (16, 32, 64):
            for block in range(3):
                x = residual(x, width, 2 if width > 16 and block == 0 else 1)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4, use_ema=ema), loss, metrics=["accuracy"])
    return model


def convolution(x, width, stride=1, size=3):
    import keras

    x = keras.layers.Conv2D(width, size, stride, padding="same", use_bias=False)(x)
    return keras.layers.BatchNormalization()(x)


def residual(x, width, stride):
    import keras

    y = keras.layers.ReLU()(convolution(x, width, stride))
    y = convolution(y, width)
    shortcut = x if x.shape[-1] == width and stride == 1 else convolution(x, width, stride, 1)
    return keras.layers.ReLU()(keras.layers.Add()([shortcut, y]))


# --- whole runs ----------------------------------------------------------------------------


def measure_whole(log, args):
    from tasks import TASKS

    whole = [task for task in TASKS if task.precision == "float32"]  # a name, one task
    chosen = [
        t for t in whole if (t.name in args.tasks if args.tasks else t.suite == "cifar-small")
    ]
    for task in chosen:
        task = task.few(args.images, args.epochs or task.epochs // 3)
        task = replace(task, batch_size=args.batch or task.batch_size)
        splits = task.splits(args.data)
        line = {"kind": "whole", "model": task.name, "batch": task.batch_size, "method": "AutoLR"}
        size = {"images": len(splits[0].x), "epochs": task.epochs}
        missing = [pair for pair in range(args.pairs) if not log.has({**line, "pair": pair})]
        first = task.few(1000, 1)
        for method in ("without", "AutoLR") if missing else ():  # what a process does once
            whole_fit(first, first.splits(args.data), method)
        for pair in missing:
            if log.late():
                return
            order = ("without", "AutoLR") if pair % 2 else ("AutoLR", "without")
            spent = {method: whole_fit(task, splits, method) for method in order}
            log.add({**line, "pair": pair}, **size, first=order[0],
                    without_ms=spent["without"], with_ms=spent["AutoLR"])  # fmt: skip


def whole_fit(task, splits, method):
    """Milliseconds a step that was trained: by the clock, and of processor time."""
    import keras
    from tasks import Batches, build

    import adaptlr

    train, validation = splits[0], task.as_they_are(splits[1])
    keras.utils.set_random_seed(0)
    model = build(task, "adam", train.x.shape[1:], 0.001)
    batches, start = Batches(train, task, 0), now()
    model.fit(
        batches, epochs=task.epochs, verbose=0, validation_data=validation,
        validation_batch_size=1000, callbacks=[adaptlr.AutoLR()] if method == "AutoLR" else [],
    )  # fmt: skip
    steps = len(batches) * task.epochs
    return [(b - a) / steps for a, b in zip(start, now(), strict=True)]


# --- memory --------------------------------------------------------------------------------


def measure_memory(log, args):
    """A second fit of one model, so that what compiling leaves behind is not counted."""
    batch, epoch = args.batch or BATCH["resnet20"], args.epoch
    line = {"kind": "memory", "model": "resnet20", "batch": batch, "method": "AutoLR"}
    if log.has(line):
        return
    import tracemalloc

    import adaptlr

    model, data = network("resnet20"), images(batch)
    few = [part[:1] for part in next(data)]
    look = Host()
    for callbacks in ([], [look]):
        tracemalloc.start()
        model.fit(
            data, epochs=EPOCHS, steps_per_epoch=epoch, verbose=0, validation_data=few,
            callbacks=[adaptlr.AutoLR(), *callbacks],
        )  # fmt: skip
        tracemalloc.stop()
    variables = {id(v): v for v in [*model.variables, *model.optimizer.variables]}
    copy = sum(math.prod(v.shape) * 4 for v in variables.values())
    log.add(line, steps=EPOCHS * epoch, copy_mb=round(copy / 1e6, 3),
            looks=len(look.sizes), median_copies=round(statistics.median(look.sizes) / copy, 3),
            most_copies=round(max(look.sizes) / copy, 3))  # fmt: skip


def Host():  # noqa: N802
    import tracemalloc

    import keras
    import numpy as np

    class Host(keras.callbacks.Callback):
        """Bytes in arrays of NumPy at each eighth step and in each validation."""

        def __init__(self):
            super().__init__()
            self.sizes = []

        def on_test_batch_begin(self, batch, logs=None):
            self.look()

        def on_train_batch_begin(self, batch, logs=None):
            if batch % 8 == 0:
                self.look()

        def look(self):
            arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
            traces = tracemalloc.take_snapshot().filter_traces([arrays]).traces
            self.sizes.append(sum(trace.size for trace in traces))

    return Host()


# --- one piece at a time -------------------------------------------------------------------


def measure_pieces(log, args):
    pieces = {"parameters": copies, "groups": write_rate, "scalars": write_scalars, "steps": step}
    for name, measure in pieces.items():
        for size in SIZES.get(name, (1,)):
            line = {"kind": "piece", "grows_with": name, "size": size}
            if not (log.has(line) or log.late()):
                log.add(line, microseconds=measure(size))


def copies(parameters):
    import keras

    from adaptlr.bridge.average import RunningAverage
    from adaptlr.bridge.optimizer import OptimizerRate
    from adaptlr.bridge.snapshots import Snapshot

    width = int(parameters**0.5 / 2)  # four square matrices
    model = keras.Sequential([keras.Input((width,)), *(keras.layers.Dense(width) for _ in "1234")])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    average, rate = RunningAverage(model, 0), OptimizerRate(model)

    def update():
        average.update(average._step + 1)
        return average._cells.arrays

    def swap():
        average.swap_in()
        average.swap_out()
        return [v.value for v in average._variables]

    return {
        "average": microseconds(update),
        "swap in and out": microseconds(swap),
        "snapshot": microseconds(lambda: Snapshot(model, rate)._values),
    }


def write_rate(groups):
    from adaptlr import groups as by_layer  # noqa: F401 - says where groups come from
    from adaptlr.bridge.optimizer import OptimizerRate

    rate = OptimizerRate(grouped_model(groups))
    rates = iter(range(1, 10**9))
    return {"write": microseconds(lambda: [rate.write(1.0 / next(rates)), rate._rates[0].value])}


def grouped_model(groups):
    import keras

    layers = [keras.layers.Dense(4, name=f"part_{i:02}") for i in range(groups)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    optimizers = keras.optimizers.OptimizerMap(default_optimizer=keras.optimizers.Adam(1e-3))
    for i in range(1, groups):
        optimizers[f"part_{i:02}.*"] = keras.optimizers.Adam(1e-3 / i)
    model.compile(keras.optimizers.MultiOptimizer(optimizers), "mse")
    return model


def write_scalars(scalars):
    from adaptlr.writers import TensorBoardWriter

    with tempfile.TemporaryDirectory() as folder:
        writer = TensorBoardWriter(folder)
        values = {f"tag_{i}": 1.0 for i in range(scalars)}
        spent = microseconds(lambda: writer.write_scalars(1, values))
        writer.close()
    return {"write": spent}


def step(_):
    """Both batch hooks between two control points."""
    import adaptlr

    model, callback = network("cnn"), adaptlr.CyclicalLR(1e-5, 1e-3, 100)
    callback.set_model(model)
    callback.set_params({"epochs": 1, "steps": 10**7})
    model.stop_training = False
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_train_batch_begin(0)
    callback._loop._next_step = 10**7

    def thousand():
        for batch in range(1, 1001):
            callback.on_train_batch_begin(batch)
            callback.on_train_batch_end(batch)

    return {"hooks": microseconds(thousand) / 1000}


def microseconds(function, repeats=9):
    """Median of several calls, after one to warm up; waits for the device."""
    wait(function())
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        wait(function())
        spent.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(spent), 2)


def wait(arrays):
    import keras

    for array in arrays or ():
        if hasattr(array, "block_until_ready"):
            array.block_until_ready()
    if keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def measure_import(log, args):
    code = (
        "import time, keras; t = time.perf_counter(); import adaptlr; "
        "print(1e3 * (time.perf_counter() - t))"
    )
    for pair in range(PAIRS):
        line = {"kind": "import", "pair": pair}
        if not (log.has(line) or log.late()):
            shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            log.add(line, milliseconds=round(float(shown.stdout.split()[-1]), 2))


# --- lines and tables ----------------------------------------------------------------------


class Log:
    """Result lines of one file; knows which are there."""

    def __init__(self, path, where, minutes=math.inf):
        self.path, self.where = path, where
        self.asked = self.start = time.perf_counter()
        self.end, self.longest = self.start + 60.0 * minutes, 0.0
        self.seen = [self.key(line) for line in read_lines(path)]

    @staticmethod
    def key(line):
        names = "kind", "model", "batch", "method", "pair", "grows_with", "size"
        return [line.get(name) for name in ("backend", "device", *names)]

    def has(self, line):
        return self.key({**self.where, **line}) in self.seen

    def late(self):
        """Whether a round as long as the longest so far would not fit any more."""
        now = time.perf_counter()
        self.longest, self.asked = max(self.longest, now - self.asked), now
        return now + self.longest > self.end

    def add(self, line, **results):
        line = {**self.where, **line, **results}
        append(self.path, line)
        print(json.dumps({**line, **results}), flush=True)


def machine():
    import keras

    backend = keras.backend.backend()
    library = __import__({"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[backend])
    return {
        "backend": backend,
        "device": device_name(backend, library),
        "versions": {"keras": keras.__version__, backend: library.__version__,
                     "python": platform.python_version()},
    }  # fmt: skip


def device_name(backend, library):
    if backend == "torch" and library.cuda.is_available():
        return library.cuda.get_device_name(0)
    if backend == "jax" and library.default_backend() != "cpu":
        return library.devices()[0].device_kind
    if backend == "tensorflow" and (gpus := library.config.list_physical_devices("GPU")):
        return library.config.experimental.get_device_details(gpus[0])["device_name"]
    cores = len(os.sched_getaffinity(0))
    return f"CPU, {cores} core" + "s" * (cores > 1)


def write_tables(lines, page):
    results = read_lines(lines)
    for name, table in {
        "pairs": pair_table(results, "pair"),
        "whole": pair_table(results, "whole"),
        "pieces": piece_table(results),
        "import": import_table(results),
        "memory": memory_table(results),
    }.items():
        text = page.read_text(encoding="utf-8")
        begin, end = f"<!-- {name}: made by overhead.py -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        after = rest.split(end)[1]
        page.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")


def pair_table(results, kind):
    groups = {}
    for line in results:
        if line["kind"] == kind:
            key = line["device"], line["model"], line["batch"], line["method"], line["backend"]
            groups.setdefault(key, []).append(line)
    rows = []
    for (device, model, batch, method, backend), lines in sorted(groups.items()):
        ratios, processor = (
            sorted(line["with_ms"][i] / line["without_ms"][i] for line in lines) for i in (0, 1)
        )
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        without = statistics.median(line["without_ms"][0] for line in lines)
        mark = MARK.get(method, "")
        if kind == "whole":
            mark = WHOLE_MARK.get(model, WHOLE_MARK_OF_SMALL)
        trained = f"{model}, batch {batch}{steps_of(lines[0])}"
        rows.append([device, trained, method, backend, f"{without:.1f} ms",
                     f"{statistics.median(ratios):.3f}", f"{low:.3f} to {high:.3f}",
                     f"{statistics.median(processor):.3f}", len(lines),
                     f"≤ {mark}" if mark else ""])  # fmt: skip
    head = "device", "model", "callback", "backend", "step without", "with ÷ without"
    return markdown([*head, "quartiles", "in processor time", "pairs", "mark"], rows)


def steps_of(line):
    if "images" not in line:
        return ""
    return f", {line['epochs'] * math.ceil(line['images'] / line['batch'])} steps"


def piece_table(results):
    cells = {}
    for line in results:
        if line["kind"] == "piece":
            for piece, spent in line["microseconds"].items():
                key = line["grows_with"], line["size"], piece
                cells.setdefault(key, {})[line["backend"]] = spent
    backends = sorted({backend for cell in cells.values() for backend in cell})
    rows = [
        [f"{size:,} {name}" if name != "steps" else "a step", piece]
        + [f"{cell[b]:,.1f} µs" if b in cell else "" for b in backends]
        for (name, size, piece), cell in cells.items()
    ]
    return markdown(["size", "piece", *backends], rows)


def import_table(results):
    groups = {}
    for line in results:
        if line["kind"] == "import":
            groups.setdefault(line["backend"], []).append(line["milliseconds"])
    rows = [
        [backend, f"{statistics.median(spent):.1f} ms", f"{max(spent):.1f} ms", len(spent)]
        for backend, spent in sorted(groups.items())
    ]
    return markdown(["backend", "median", "longest", "processes"], rows)


def memory_table(results):
    rows = [
        [line["device"], f"{line['model']}, batch {line['batch']}", line["method"],
         line["backend"], f"{line['copy_mb']:.2f} MB", f"{line['median_copies']:.2f}",
         f"{line['most_copies']:.2f}", line["looks"], f"≤ {COPIES_MARK}"]
        for line in sorted(results, key=lambda line: line["backend"])
        if line["kind"] == "memory"
    ]  # fmt: skip
    head = "device", "model", "callback", "backend", "one copy", "median", "most", "looks", "mark"
    return markdown(head, rows)


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
