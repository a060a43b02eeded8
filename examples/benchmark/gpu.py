"""What gpu.sh runs on the machine with the GPU, each part in a process of its own.

    python examples/benchmark/gpu.py --data cifar10.npz --out out --minutes 8

One tiny fit with each callback on each backend, steps in pairs with and without, then the suite
`cifar`, the most telling runs first. What has its line in the folder `--out` is not run again,
and nothing outlasts `--minutes`. `--rehearse N` tries it at tiny size, with N runs of the suite.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lines import append, read_lines

HERE = Path(__file__).parent
CALLBACKS = ("AutoLR", "PlateauLR", "CyclicalLR", "OneCycleLR", "ScheduleLR", "LRFinder",
             "KerasSchedule", "SwapScheduleFreeWeights")  # fmt: skip
PAIRS, PAIR_METHODS = 5, ("AutoLR", "CyclicalLR")
PAIR_MINUTES = 1.5  # no round is begun after it, and a backend's first always
REHEARSAL = ("--images", "500", "--epochs", "2")
ENOUGH = 0.25  # minutes; with less nothing is begun


def main() -> int:
    options = parse()
    if options.part:
        return PARTS[options.part](options)
    end = time.monotonic() + 60.0 * options.minutes
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {now()}", flush=True)
    failed = []
    for part, backend in todo(options):
        left = end - time.monotonic()
        if left < 60.0 * ENOUGH:
            print("the time is up: the same command goes on with it")
            break
        print(f"\n{part} on {backend}, {left / 60:.1f} minutes left", flush=True)
        if not finished(part, backend, options, left):
            failed.append(f"{part} on {backend}")
    summary(options.out)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--backends", nargs="+", default=["jax", "torch"], help="suite: the first")
    parser.add_argument("--rehearse", type=int, metavar="N", help="tiny, and N runs of the suite")
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


def todo(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Parts that are not done, as part and backend."""
    for backend in options.backends:
        lines = read(options.out / "fits.jsonl", backend)
        if {line["callback"] for line in lines if "error" not in line} < set(CALLBACKS):
            yield "fits", backend
    yield from pairs(options, 1)
    yield "suite", options.backends[0]
    yield from (("other", backend) for backend in options.backends[1:])
    yield from pairs(options, PAIRS)
    if not options.rehearse:
        yield "rest", options.backends[0]


def pairs(options: argparse.Namespace, wanted: int) -> Iterator[tuple[str, str]]:
    """Backends with fewer pairs than are wanted; one is enough to go on with the suite."""
    for backend in options.backends:
        lines = read(options.out / "overhead.jsonl", backend)
        found = sum(line["kind"] == "pair" for line in lines)
        if found < (1 if options.rehearse else wanted) * len(PAIR_METHODS):
            yield "pairs", backend


def read(path: Path, backend: str | None = None) -> list[dict[str, Any]]:
    """Result lines, of one backend or all."""
    return [line for line in read_lines(path) if backend in (None, line.get("backend"))]


def finished(part: str, backend: str, options: argparse.Namespace, left: float) -> bool:
    """Runs a part until it ends or the time does; whether nothing went wrong."""
    minutes = left / 60.0
    common = ["--data", str(options.data), "--out", str(options.out), "--minutes", str(minutes)]
    if options.rehearse:
        common += ["--rehearse", str(options.rehearse)]
    if part == "pairs":
        command = [HERE / "overhead.py", *pair_options(options, min(minutes, PAIR_MINUTES))]
    else:
        command = [HERE / "gpu.py", *common, "--part", part]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    try:
        ran = subprocess.run([sys.executable, *command], env=environment, timeout=left)
    except subprocess.TimeoutExpired:
        print("the time is up in the middle of a run: the same command begins it anew")
        return True
    return ran.returncode == 0


def pair_options(options: argparse.Namespace, minutes: float) -> list[str]:
    """The command line of overhead.py; the size of one piece takes seconds on a GPU."""
    size = ["--pairs", str(PAIRS), "--batch", "128", "--parts", "pairs", "pieces"]
    if options.rehearse:
        size = ["--pairs", "1", "--batch", "2", "--epoch", "4", "--parts", "pairs"]
    return [*size, "--models", "resnet20", "--methods", *PAIR_METHODS, "--minutes", str(minutes),
            "--lines", str(options.out / "overhead.jsonl")]  # fmt: skip


# --- the parts, with Keras ------------------------------------------------------------------


def fits(options: argparse.Namespace) -> int:
    """A tiny fit with each callback; one that fails says why, and the next is tried."""
    import keras
    import run

    backend = keras.backend.backend()
    print(run.made_by())
    if run.device(backend) == "CPU":
        print(f"{backend} finds no GPU: all figures are those of the processor")
    data, path = images(options.data), options.out / "fits.jsonl"
    done = {line["callback"] for line in read(path, backend) if "error" not in line}
    failed = False
    for name in (name for name in CALLBACKS if name not in done):
        line = {"backend": backend, "callback": name, "made_by": run.made_by()}
        try:
            line |= fit(name, *data)
        except Exception as error:
            traceback.print_exc()
            line["error"], failed = repr(error), True
        append(path, line)
        print(json.dumps(line), flush=True)
    return int(failed)


def images(path: Path) -> tuple[Any, Any]:
    """A few images of the archive, in the network's scale, and their labels."""
    from tasks import read_cifar, scaled

    x, y = read_cifar(path)[0]
    return scaled(x[:256]), y[:256].ravel().astype("int32")


def fit(name: str, x: Any, y: Any) -> dict[str, Any]:
    """Trains for three epochs of eight steps, with event files; the first and last loss."""
    import keras
    from tasks import conv_net

    keras.utils.set_random_seed(0)
    model = conv_net((8, 16), True)(x.shape[1:])
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        optimizer, callbacks = trained_with(name, folder)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
        history = model.fit(
            x, y, validation_data=(x, y), epochs=3, batch_size=32, verbose=0, callbacks=callbacks
        )
        written = sum(path.stat().st_size for path in Path(folder).rglob("*tfevents*"))
    losses = [round(value, 4) for value in history.history["loss"]]
    return {"losses": losses, "event_bytes": written,
            "seconds": round(time.perf_counter() - started, 1)}  # fmt: skip


def trained_with(name: str, folder: str) -> tuple[Any, list[Any]]:
    """The optimizer and the callbacks of a tiny fit."""
    import keras

    import adaptlr

    cosine = adaptlr.schedules.Cosine(1e-2, 24)
    if name == "KerasSchedule":
        return keras.optimizers.Adam(adaptlr.KerasSchedule(cosine, 24)), []
    if name == "SwapScheduleFreeWeights":
        return keras.optimizers.ScheduleFreeAdamW(), [adaptlr.SwapScheduleFreeWeights()]
    if name == "LRFinder":
        return keras.optimizers.Adam(), [adaptlr.LRFinder(num_steps=20, log_dir=folder)]
    make = {
        "AutoLR": adaptlr.AutoLR,
        "PlateauLR": adaptlr.PlateauLR,
        "CyclicalLR": lambda **more: adaptlr.CyclicalLR(1e-4, 1e-2, 8, **more),
        "OneCycleLR": lambda **more: adaptlr.OneCycleLR(1e-2, **more),
        "ScheduleLR": lambda **more: adaptlr.ScheduleLR(cosine, **more),
    }
    return keras.optimizers.Adam(), [make[name](log_dir=folder)]


def suite(options: argparse.Namespace) -> int:
    """Runs what the pieces of a part ask `run.py` for, one after another, as the time goes."""
    import run

    small = REHEARSAL if options.rehearse else ()
    name = "benchmark.jsonl"
    if options.part == "other":
        name = f"benchmark_{os.environ['KERAS_BACKEND']}.jsonl"
    chosen = [run.parse(["cifar", *piece, *small]) for piece in pieces(options.part, options.out)]
    jobs = [job for each in chosen for job in run.jobs(each)][: options.rehearse]
    if run.run_all(jobs, options.data, options.out / name, options.minutes):
        print(f"all {len(jobs)} runs are done")
    return 0


def pieces(part: str, out: Path) -> list[list[str]]:
    """Command lines of `run.py`; AutoLR uses no start rate, so one of four is enough.

    Args:
        part: `suite`, ResNet-20 with AutoLR, at the constant rate and with cosine at three rates;
            `other`, the first two of them, for another backend; `rest`, all else.
        out: Folder of all results. AutoLR's first run has event files there.
    """
    log = ["--log-dir", str(out / "tensorboard")]
    auto, constant = ["--methods", "AutoLR", "--rates", "0.01"], ["--methods", "constant"]
    adam, sgd = (
        ["--tasks", "resnet20", "--seeds", "0", "--optimizers", name] for name in ("adam", "sgd")
    )
    cosine = ["--methods", "CosineDecay at"]
    if part == "other":
        return [[*adam, *auto], [*adam, *constant]]
    if part == "suite":
        return [[*adam, *auto, *log], [*adam, *constant], [*adam, *cosine],
                [*sgd, *auto], [*sgd, *constant], [*sgd, *cosine]]  # fmt: skip
    return [
        ["--tasks", task, "--seeds", seed, *methods]
        for seed, task in itertools.product("012", ("resnet20", "resnet18"))
        for methods in (auto, [*constant, "CosineDecay at"], ["--methods", *others()])
    ]


def others() -> list[str]:
    """The methods that no piece before names."""
    from methods import METHODS

    named = ("AutoLR", "constant")
    return [method.name for method in METHODS if not method.if_named and method.name not in named]


PARTS = {"fits": fits, "suite": suite, "other": suite, "rest": suite}


# --- what came of it ------------------------------------------------------------------------


def summary(out: Path) -> None:
    """Steps per second with and without: of the pairs, and of whole runs, compiling included."""
    print(f"\nin {out}, {now()}, whole runs with compiling and validation:")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in read(out / "overhead.jsonl"):
        if line["kind"] == "pair":
            key = line["device"], line["backend"], line["method"]
            groups.setdefault(key, []).append(line)
    for (device, backend, method), lines in sorted(groups.items()):
        without, using = (1e3 / statistics.median(line[f"{name}_ms"][0] for line in lines)
                          for name in ("without", "with"))  # fmt: skip
        print(f"{device}, {backend}: {without:.1f} steps/s without, {using:.1f} with {method} "
              f"({len(lines)} pairs)")  # fmt: skip
    for path in sorted(out.glob("benchmark*.jsonl")):
        for line in read(path):
            rate = "" if line["rate"] is None else f" {line['rate']:g}"
            print(f"{path.stem}: {line['task']} {line['optimizer']} {line['method']}{rate} seed "
                  f"{line['seed']}: {line['test_accuracy']:.2%}, "
                  f"{line['steps'] / max(line['seconds'], 0.1):.1f} steps/s")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
