"""Runs a suite of the benchmark; every run appends one JSON line, and what is there is not rerun.

    python examples/benchmark/run.py digits
    python examples/benchmark/run.py cifar-small --data cifar10.npz --seeds 0 1 2 --shard 0/2

Two processes with `--shard 0/2` and `--shard 1/2` share the work. With `--minutes` no run is begun
that would not fit into the time left, and the same command goes on with it later. With `--backup`
a run that is cut off goes on at its last epoch; `--left` says what is left and how long it takes.
The suite `cifar` is for a GPU, on any backend; a processor takes hours for each run. The same in
16 bits, `cifar-bfloat16`, takes 45 minutes on PyTorch and a processor that computes in them, and
`pictures-large` half an hour on PyTorch.
`tables.py` makes the tables of docs/benchmarks.md from the lines.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
from lines import append, read_lines
from methods import METHODS, Method, Run
from rich.console import Console
from tasks import OPTIMIZERS, TASKS, Batches, Split, Task, build

import adaptlr

LINES = Path(__file__).parents[2] / "docs" / "data" / "benchmark.jsonl"
CONTROL_BATCH = 1000
# What other work on the machine disturbs, and what it disturbs less.
CLOCKS = {"seconds": time.perf_counter, "processor_seconds": time.process_time}


@dataclass(frozen=True)
class Job:
    """One run: what identifies its line."""

    task: Task
    optimizer: str
    method: Method
    rate: float | None
    seed: int
    log_dir: Path | None = None
    backup: Path | None = None

    @property
    def key(self) -> dict[str, Any]:
        """The fields by which a line is found again."""
        return {
            "suite": self.task.suite,
            "task": self.task.name,
            "optimizer": self.optimizer,
            "method": self.method.name,
            "rate": self.rate,
            "seed": self.seed,
            "planned_epochs": self.task.epochs,
        }

    @property
    def epochs(self) -> int:
        """Epochs of `fit`."""
        return round(self.method.epochs * self.task.epochs)

    @property
    def record(self) -> Path | None:
        """Where the epochs that are trained are kept, if they are."""
        return self.backup and self.backup / "epochs.json"

    @property
    def trained(self) -> int:
        """Epochs that an earlier process has trained and saved."""
        saved = self.record is not None and self.record.exists()
        return len(json.loads(self.record.read_text())["epochs"]) if saved else 0


class CutBetweenError(Exception):
    """The saved model and the record beside it are not of the same epoch."""


class Recorder(keras.callbacks.Callback):
    """Keeps step, metrics and seconds at the end of each epoch, on disk too if there is a path.

    Put it last among the callbacks: it keeps what the others put into the logs. A run that goes
    on at an epoch has the batches of that epoch, in the order that Python's generator gives.
    """

    def __init__(self, batches: Batches, spent: int, path: Path | None) -> None:
        super().__init__()
        known = json.loads(path.read_text()) if path is not None and path.exists() else {}
        self.epochs: list[dict[str, float]] = known.get("epochs", [])
        # Until the end of the last epoch, of all processes together.
        before = {name: known.get(name, 0.0) for name in CLOCKS}
        self._began = {name: clock() - before[name] for name, clock in CLOCKS.items()}
        self._random: Any = known.get("random")
        self._batches, self._spent, self._path = batches, spent, path
        if self.epochs:
            batches.skip(len(self.epochs))

    @property
    def seconds(self) -> dict[str, float]:
        """Since the run began, in all processes that it took, by each clock."""
        return {name: round(clock() - self._began[name], 1) for name, clock in CLOCKS.items()}

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch != len(self.epochs):
            raise CutBetweenError
        if self._random is not None:
            version, words, gauss = self._random
            random.setstate((version, tuple(words), gauss))
            self._random = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        step = self._spent + (epoch + 1) * len(self._batches)
        said = {k: v for k, v in (logs or {}).items() if k == "loss" or k.startswith("val_")}
        row = {k: float(f"{v:.6g}") for k, v in said.items()}
        self.epochs.append({"step": step, **row})
        if self._path is not None:
            kept = {"epochs": self.epochs, "random": random.getstate(), **self.seconds}
            self._path.with_suffix(".new").write_text(json.dumps(kept))
            self._path.with_suffix(".new").replace(self._path)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if (
            self._random is not None
        ):  # no epoch was left, and whether all were recorded is not known
            raise CutBetweenError


def train(job: Job, splits: tuple[Split, Split, Split]) -> dict[str, Any]:
    """Trains once and evaluates the test split once."""
    train_split, control, test = splits
    keras.backend.clear_session()
    keras.utils.set_random_seed(job.seed)
    batches = Batches(train_split, job.task, job.seed)
    shape = train_split.x.shape[1:]
    known = Run(
        standard=OPTIMIZERS[job.optimizer][1],
        epoch_steps=len(batches),
        epochs=job.task.epochs,
        control=job.task.as_they_are(control),
        train=Batches(train_split, job.task, job.seed),
        build=lambda rate: build(job.task, job.optimizer, shape, rate),
        log_dir=job.log_dir,
        backup_dir=job.backup and job.backup / "model",
    )
    start = job.method.start(known, job.rate)
    keras.utils.set_random_seed(job.seed)  # the same weights, whatever the method drew
    model = build(job.task, job.optimizer, shape, start.rate, start.kind, **start.settings)
    start.prepare(model)
    recorder = Recorder(batches, start.spent, job.record)
    model.fit(
        batches,
        validation_data=job.task.as_they_are(control),
        validation_batch_size=CONTROL_BATCH,
        epochs=job.epochs,
        callbacks=[*start.callbacks, recorder],
        verbose=0,
    )
    seconds = recorder.seconds
    tested = model.evaluate(
        *job.task.as_they_are(test), CONTROL_BATCH, verbose=0, return_dict=True
    )
    return {
        **job.key,
        "steps": recorder.epochs[-1]["step"],
        "epoch_steps": len(batches),
        **seconds,
        "test_accuracy": round(tested["accuracy"], 6),
        "test_loss": float(f"{tested['loss']:.6g}"),
        "epochs": recorder.epochs,
        "decisions": decisions(start.callbacks),
        "made_by": made_by(),
    }


def decisions(callbacks: Sequence[keras.callbacks.Callback]) -> list[list[Any]]:
    """Step, rate, rule and reason of each decision that was taken."""
    return [
        [d.step, float(f"{d.learning_rate:.6g}"), d.rule, d.reason]
        for callback in callbacks
        for d in getattr(callback, "decisions", [])
    ]


def made_by() -> str:
    """Versions and hardware, for the notes under a table."""
    backend = keras.backend.backend()
    version = __import__(backend).__version__
    return (
        f"adaptlr {adaptlr.__version__}, Keras {keras.__version__}, {backend} {version}, "
        f"Python {platform.python_version()}, {device(backend)}"
    )


def device(backend: str) -> str:
    """What the training ran on."""
    library = __import__(backend)
    if backend == "torch" and library.cuda.is_available():
        return str(library.cuda.get_device_name(0))
    if backend == "jax" and library.default_backend() != "cpu":
        return str(library.devices()[0].device_kind)
    if backend == "tensorflow" and (gpus := library.config.list_physical_devices("GPU")):
        return str(library.config.experimental.get_device_details(gpus[0])["device_name"])
    return "CPU"


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs asked for, the cheap questions first: a seed of every method before the next."""
    for seed in options.seeds:
        for task in TASKS:
            if task.suite != options.suite or (options.tasks and task.name not in options.tasks):
                continue
            epochs = options.epochs or task.epochs
            few = options.images is not None
            task = task.few(options.images, epochs) if few else replace(task, epochs=epochs)
            for optimizer in options.optimizers or task.optimizers:
                for method in METHODS:
                    named = method.name in (options.methods or ())
                    if (options.methods or method.if_named) and not named:
                        continue
                    for rate in method.rates_for(OPTIMIZERS[optimizer][1]):
                        if options.rates is None or rate is None or rate in options.rates:
                            job = Job(task, optimizer, method, rate, seed)
                            log = options.log_dir if method.name == "AutoLR" else None
                            parent = options.backup if method.resumes else None
                            if parent is not None:  # of another size is another run
                                size = f"{options.images or 'all'}-{epochs}"
                                parent = parent / f"{options.suite}-{size}"
                            backup = folder_of(job, parent, method.name)
                            yield replace(job, log_dir=folder_of(job, log), backup=backup)


def folder_of(job: Job, parent: Path | None, method: str = "") -> Path | None:
    """Where the run is logged or saved, if it is to be."""
    if parent is None:
        return None
    rate = "" if job.rate is None else f"-{job.rate:g}"
    method = method and f"-{method.replace(' ', '_')}"
    return parent / f"{job.task.name}-{job.optimizer}{method}{rate}-seed{job.seed}"


def is_done(job: Job, lines: Iterable[dict[str, Any]]) -> bool:
    """Whether one of the lines is that of the job."""
    return any(all(line.get(k) == v for k, v in job.key.items()) for line in lines)


def expected(job: Job, lines: Iterable[dict[str, Any]]) -> float:
    """Seconds that the longest run of the same task took here; 0 if there was none."""
    like = {k: job.key[k] for k in ("suite", "task", "planned_epochs")} | {"made_by": made_by()}
    found = (x["seconds"] for x in lines if all(x.get(k) == v for k, v in like.items()))
    return max(found, default=0.0)


def run_all(todo: Sequence[Job], data: Path | None, out: Path, minutes: float) -> bool:
    """Runs what has no line yet, and returns whether the time was enough for all."""
    console, loaded = Console(width=110), {}
    end = time.perf_counter() + 60.0 * minutes
    for number, job in enumerate(todo, 1):
        done = read_lines(out)
        if is_done(job, done):
            continue
        if time.perf_counter() + remaining(job, done) > end:
            console.print(f"at {number}/{len(todo)}: the same command goes on with it")
            return False
        if job.task.name not in loaded:
            loaded = {job.task.name: job.task.splits(data)}
        line = run_once(job, loaded[job.task.name])
        append(out, line)
        if job.backup is not None:
            shutil.rmtree(job.backup)
        rate = "" if job.rate is None else f" {job.rate:g}"
        console.print(
            f"{number}/{len(todo)} {job.task.name} {job.optimizer} {job.method.name}{rate} "
            f"seed {job.seed}: test {line['test_accuracy']:.2%}, {line['seconds']:.0f} s",
            highlight=False,
        )
    return True


def run_once(job: Job, splits: tuple[Split, Split, Split]) -> dict[str, Any]:
    """The line of a run, which goes on where an earlier process has left it if that can be."""
    try:
        return train(cleared(job, anew=not job.trained), splits)
    except (CutBetweenError, OSError):  # what Keras was about to write is no file that it can read
        return train(cleared(job, anew=True), splits)


def cleared(job: Job, *, anew: bool) -> Job:
    """The same, once what a run that was cut off has left is gone, if it is to begin anew."""
    for folder in (job.log_dir, job.backup) if anew else ():
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    if job.backup is not None:
        job.backup.mkdir(parents=True, exist_ok=True)
    return job


def remaining(job: Job, lines: Iterable[dict[str, Any]]) -> float:
    """Seconds that it takes to the end by what like runs took here; 0 if there was none."""
    return expected(job, lines) * (1.0 - job.trained / job.epochs)


def say_left(todo: Sequence[Job], out: Path) -> None:
    """What has no line yet, and how long it takes by what like runs took here."""
    done = read_lines(out)
    left = [job for job in todo if not is_done(job, done)]
    seconds = [remaining(job, done) for job in left]
    for job, each in zip(left, seconds, strict=True):
        rate = "" if job.rate is None else f" {job.rate:g}"
        print(
            f"{job.task.name} {job.optimizer} {job.method.name}{rate} seed {job.seed}: "
            f"epoch {job.trained} of {job.epochs}, "
            + (f"{each / 60:.0f} min" if each else "no like run yet")
        )
    more = "" if all(seconds) else " and more"
    print(f"{len(left)} of {len(todo)} left, {sum(seconds) / 60:.0f} min{more}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, or a list as it would stand there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=sorted({task.suite for task in TASKS}))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", help="names of tasks; all of the suite without")
    parser.add_argument("--optimizers", nargs="+", choices=sorted(OPTIMIZERS))
    parser.add_argument("--methods", nargs="+", choices=[method.name for method in METHODS])
    parser.add_argument("--rates", type=float, nargs="+", help="start rates and factors")
    parser.add_argument("--epochs", type=int, help="instead of the task's own")
    parser.add_argument("--images", type=int, help="of each split; fewer for a trial only")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as .npz; downloaded without")
    parser.add_argument("--out", type=Path, default=LINES)
    parser.add_argument("--log-dir", type=Path, help="for TensorBoard; each AutoLR a folder in it")
    parser.add_argument("--backup", type=Path, help="folder in which a run saves each epoch")
    parser.add_argument("--left", action="store_true", help="say what is left, and run nothing")
    parser.add_argument("--shard", default="0/1", help="K/N: every N-th run, from the K-th")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    part, parts = map(int, options.shard.split("/"))
    todo = list(jobs(options))[part::parts]
    if options.left:
        say_left(todo, options.out)
        return
    run_all(todo, options.data, options.out, options.minutes)


if __name__ == "__main__":
    main()
