"""Runs the suite of small jobs; every run appends one JSON line, and what is there is not rerun.

    KERAS_BACKEND=jax python examples/benchmark/run_small.py --data cifar10.npz
    KERAS_BACKEND=jax python examples/benchmark/run_small.py --methods constant AutoLR --part tuned

A model is compiled once a job and begins anew, weights and optimizer, for every run, so that a run
costs about a second. `tables_small.py` makes the tables of docs/benchmarks.md from the lines.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
from lines import append, read_lines
from methods import FACTORS
from run import made_by
from small import JOBS, Data, Job

import adaptlr

LINES = Path(__file__).parents[2] / "docs" / "data" / "small.jsonl"
SEEDS = (0, 1, 2, 3, 4)
# More for the question how often a run goes wrong; no rule was chosen by the last five.
TEN = tuple(range(10))
# Rates a factor of two apart for the jobs whose best constant rate is looked for: optimizers with
# rates of their own kind, and accumulated gradients.
FINE = tuple(2.0**k for k in range(-3, 9))
UNUSUAL = ("Lion", "Lamb", "Muon", "Ftrl", "accumulation")


class Held(keras.callbacks.Callback):
    """One rate from the first step to the last."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Writes it."""
        self.model.optimizer.learning_rate = self._rate


class LinearDecay(keras.callbacks.Callback):
    """From zero to a peak over 5 % of the steps, and back to zero over the rest."""

    def __init__(self, peak: float) -> None:
        super().__init__()
        self._peak, self._step = peak, 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the rate of the step about to be trained."""
        steps = self.params["epochs"] * self.params["steps"]
        warm = max(1, steps // 20)
        up, down = (self._step + 1) / warm, (steps - self._step) / (steps - warm)
        self.model.optimizer.learning_rate = self._peak * min(1.0, up, down)
        self._step += 1


@dataclass(frozen=True)
class Method:
    """A way to train: factors of the centre's rate to try, callbacks, and maybe an optimizer.

    Args:
        name: As it stands in tables.
        callbacks: Job, its data and a factor → callbacks.
        factors: Variants, each a run of its own.
        optimizer: Job and steps of the run → an optimizer in place of the job's own.
        seeds: Seeds to run it with at most.
        jobs: Parts of the names of the jobs that it is for; all without.
        needs_loss: Whether its optimizer is to see the loss of the batch.
        if_named: Whether to run it only where `--methods` names it.
    """

    name: str
    callbacks: Callable[[Job, Data, float | None], Sequence[keras.callbacks.Callback]]
    factors: tuple[float | None, ...] = (None,)
    optimizer: Callable[[Job, int], keras.optimizers.Optimizer] | None = None
    seeds: Sequence[int] = SEEDS
    jobs: Sequence[str] = ()
    needs_loss: bool = False
    if_named: bool = False

    def fits(self, job: Job, seed: int) -> bool:
        """Whether it is for this job and seed."""
        return seed in self.seeds and (not self.jobs or any(x in job.name for x in self.jobs))


def one_cycle(job: Job, data: Data, _: float | None) -> Sequence[keras.callbacks.Callback]:
    """One cycle up to the rate that a range test on a copy suggests."""
    finder, copy = adaptlr.LRFinder(), job.build()
    finder.find(copy, *data.train, batch_size=job.batch_size, verbose=0)
    momentum = any(getattr(copy.optimizer, name, 0.0) for name in ("beta_1", "momentum"))
    pair = (0.95, 0.85) if momentum else None
    return [adaptlr.OneCycleLR(finder.suggestion or job.centre, momentum=pair)]


def schedule_free(job: Job, steps: int) -> keras.optimizers.Optimizer:
    """Keras' own, at its default rate."""
    return keras.optimizers.ScheduleFreeAdamW()


def schedule_free_at(
    job: Job, data: Data, factor: float | None
) -> Sequence[keras.callbacks.Callback]:
    """A rate around its default, and the averages validated and left."""
    return [Held(0.0025 * (factor or 1.0)), adaptlr.SwapScheduleFreeWeights()]


def on_jax() -> list[Method]:
    """The peers of optax, where it is installed, and what was tried in the compiled step."""
    if keras.backend.backend() != "jax" or find_spec("optax") is None:
        return []
    from interpolated import KINDS, Interpolated
    from peers import PEERS

    def peer(name: str) -> Method:
        average = name == "DoG"
        return Method(
            name,
            lambda job, data, factor: [keras.callbacks.SwapEMAWeights()] if average else [],
            optimizer=lambda job, steps: PEERS[name](steps),
            needs_loss=name == "MoMo",
        )

    def interpolated(weighted: bool) -> Method:
        ours = [job.name for job in JOBS if type(job.optimizer()).__name__ in KINDS]
        return Method(
            "AutoLR, interpolated by rate" if weighted else "AutoLR, interpolated",
            lambda job, data, factor: [adaptlr.AutoLR(monitor=job.monitor)],
            optimizer=lambda job, steps: Interpolated(job.optimizer(), weighted),
            jobs=[name for name in ours if "accumulation" not in name],
            if_named=True,
        )

    return [*map(peer, PEERS), interpolated(False), interpolated(True)]


METHODS = [
    Method("constant", lambda job, data, factor: [], seeds=TEN),
    Method("AutoLR", lambda job, data, factor: [adaptlr.AutoLR(monitor=job.monitor)], seeds=TEN),
    Method(
        "decay",
        lambda job, data, factor: [LinearDecay((factor or 1.0) * job.centre)],
        FACTORS,
    ),
    Method(
        "ReduceLROnPlateau",
        lambda job, data, factor: [keras.callbacks.ReduceLROnPlateau(patience=3)],
    ),
    Method(
        "ScheduleFreeAdamW",
        lambda job, data, factor: [],
        optimizer=schedule_free,
    ),
    Method(
        "ScheduleFreeAdamW, averages",
        lambda job, data, factor: [adaptlr.SwapScheduleFreeWeights()],
        optimizer=schedule_free,
    ),
    Method(
        "ScheduleFreeAdamW, AutoLR",
        lambda job, data, factor: [adaptlr.AutoLR(monitor=job.monitor)],
        optimizer=schedule_free,
    ),
    Method("OneCycleLR", one_cycle),
    Method(
        "constant at",
        lambda job, data, factor: [Held((factor or 1.0) * job.centre)],
        FINE,
        seeds=(0, 1, 2),
        jobs=UNUSUAL,
    ),
    Method(
        "ScheduleFreeAdamW at",
        schedule_free_at,
        FACTORS,
        optimizer=schedule_free,
        seeds=(0, 1),
    ),
    *on_jax(),
]


@dataclass
class Bench:
    """Compiled models by job and optimizer, each begun anew for every run."""

    path: Path | None
    _data: dict[str, Data] = field(default_factory=dict)
    _models: dict[tuple[str, Any], keras.Model] = field(default_factory=dict)

    def run(self, job: Job, method: Method, factor: float | None, seed: int) -> dict[str, Any]:
        """Trains once and evaluates the test split once."""
        if job.name not in self._data:  # jobs come one after another, and compiled ones are large
            self._data.clear()
            self._models.clear()
            gc.collect()
            if keras.backend.backend() == "jax":
                importlib.import_module("jax").clear_caches()
        data = self._data.get(job.name) or self._data.setdefault(job.name, job.data(self.path))
        steps = -(-len(data.train[0]) // job.batch_size)
        model = self._fresh(job, method, seed, steps * job.epochs)
        callbacks = method.callbacks(job, data, factor)
        keras.utils.set_random_seed(seed)
        began = time.perf_counter()
        history = model.fit(
            *data.train,
            batch_size=job.batch_size,
            epochs=job.epochs,
            validation_data=data.validation,
            callbacks=list(callbacks),
            verbose=0,
        ).history
        seconds = time.perf_counter() - began
        size = {"batch_size": 500, "verbose": 0, "return_dict": True}
        held_out, tested = (model.evaluate(*x, **size) for x in (data.validation, data.test))
        line: dict[str, Any] = {"job": job.name, "method": method.name}
        if factor is not None:
            line["factor"] = round(factor, 4)
        line |= {
            "seed": seed,
            "test": short(tested[job.score]),
            "validation": short(held_out[job.monitor.removeprefix("val_")]),
            "steps": steps * len(history["loss"]),
            "seconds": round(seconds, 2),
            "epochs": [short(value) for value in history[job.monitor]],
        }
        held = getattr(callbacks[0], "learning_rate", None) if callbacks else None
        return line | ({"held": short(held)} if isinstance(held, float) else {})

    def _fresh(self, job: Job, method: Method, seed: int, steps: int) -> keras.Model:
        """The compiled model as one that was built anew after this seed."""
        keras.utils.set_random_seed(seed)
        kind = method.optimizer
        new = job.build(None if kind is None else kind(job, steps))
        model = self._models.setdefault((job.name, kind), new)
        if model is new and method.needs_loss:
            importlib.import_module("peers").gives_loss(model)
        if model is not new:
            both = [(m.variables, m.optimizer.variables) for m in (model, new)]
            for mine, its in zip(*(itertools.chain(*groups) for groups in both), strict=True):
                mine.assign(its)
            vars(model.optimizer).pop("_adaptlr_rate", None)  # of the run before
        return model


def short(value: Any) -> float:
    """Five digits."""
    return float(f"{float(value):.5g}")


def jobs(options: argparse.Namespace) -> Iterator[tuple[Job, Method, float | None, int]]:
    """All runs asked for, job by job, so that each is compiled once."""
    for job in JOBS:
        if options.part not in ("all", "kept-out" if job.kept_out else "tuned"):
            continue
        if options.jobs and not any(part in job.name for part in options.jobs):
            continue
        for seed, method in itertools.product(options.seeds, METHODS):
            named = method.name in (options.methods or ())
            asked = named or not (options.methods or method.if_named)
            if asked and method.fits(job, seed):
                for factor in method.factors:
                    yield job, method, factor, seed


def done_before(lines: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """What identifies each run that has a line."""
    return {(x["job"], x["method"], x.get("factor"), x["seed"]) for x in lines if "job" in x}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=[method.name for method in METHODS])
    parser.add_argument("--jobs", nargs="+", help="parts of their names; all without")
    parser.add_argument("--part", choices=["tuned", "kept-out", "all"], default="all")
    parser.add_argument("--seeds", type=int, nargs="+", default=TEN)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as .npz; downloaded without")
    parser.add_argument("--out", type=Path, default=LINES)
    options = parser.parse_args()
    bench, lines = Bench(options.data), read_lines(options.out)
    done = done_before(lines)
    by = [line["made_by"] for line in lines if "made_by" in line][-1:]
    if by != [made_by()]:
        append(options.out, {"made_by": made_by()})
    for job, method, factor, seed in jobs(options):
        rounded = None if factor is None else round(factor, 4)
        if (job.name, method.name, rounded, seed) in done:
            continue
        line = bench.run(job, method, factor, seed)
        append(options.out, line)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
