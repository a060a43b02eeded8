"""Who is compared: each method makes an optimizer's rate and callbacks for one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

import adaptlr
from adaptlr.callbacks.base import LearningRateCallback, arguments_of
from adaptlr.controllers import Constant, Controller, Divergence, Feedback
from adaptlr.loop.plan import Plan, whatever_the_run
from adaptlr.monitor import Monitor

START_RATES = (1e-6, 1e-4, 1e-2, 1.0)
# Seven rates a factor of two apart, from half the standard rate: the best of every task of the
# first tries lies inside.
ORACLE_FACTORS = tuple(2.0**k for k in range(-1, 6))
# Seven rates a factor of three apart, around what is usual.
FACTORS = tuple(3.0**k for k in range(-2, 5))
# Of optax, on JAX alone: see peers.py.
PEERS = ("Prodigy", "D-Adaptation", "DoG", "Mechanic", "MoMo", "NadamW, AlgoPerf")


@dataclass(frozen=True)
class Run:
    """What a method may know before it begins."""

    standard: float
    epoch_steps: int
    epochs: int
    control: tuple[Any, np.ndarray]
    train: Any
    build: Callable[[Any], keras.Model]
    log_dir: Path | None = None
    backup_dir: Path | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epoch_steps * self.epochs

    @property
    def backups(self) -> list[keras.callbacks.Callback]:
        """Keras' own, for a method whose callbacks keep nothing."""
        return [keras.callbacks.BackupAndRestore(self.backup_dir)] if self.backup_dir else []


@dataclass(frozen=True)
class Start:
    """The rate to compile with, the callbacks, and the steps that were spent beforehand."""

    rate: Any
    callbacks: Sequence[keras.callbacks.Callback] = ()
    spent: int = 0
    settings: dict[str, Any] = field(default_factory=dict)  # of the optimizer
    kind: Callable[..., keras.optimizers.Optimizer] | None = None  # in place of the task's own
    prepare: Callable[[keras.Model], None] = lambda model: None  # once it is compiled


@dataclass(frozen=True)
class Method:
    """A way to set the rate.

    Args:
        name: As it stands in tables.
        start: What to train with.
        rates: Variants, each a run of its own: rates or factors, whatever `start` makes of them.
        epochs: Multiple of the task's epochs that `fit` is given.
        if_named: Whether to run it only where `--methods` names it.
        resumes: Whether it saves what a run needs to go on, in `Run.backup_dir`.
        of_standard: Whether `rates` are multiples of the optimizer's standard rate.
    """

    name: str
    start: Callable[[Run, float | None], Start]
    rates: tuple[float | None, ...] = (None,)
    epochs: float = 1.0
    if_named: bool = False
    resumes: bool = False
    of_standard: bool = False

    def rates_for(self, standard: float) -> tuple[float | None, ...]:
        """Its variants for an optimizer with this standard rate."""
        if not self.of_standard:
            return self.rates
        return tuple(float(f"{(rate or 1.0) * standard:.6g}") for rate in self.rates)


def constant(run: Run, _: float | None) -> Start:
    """The optimizer's standard rate, which is what most people train with."""
    return Start(run.standard, run.backups)


def reduce_on_plateau(run: Run, _: float | None) -> Start:
    """Keras' callback; its default patience of ten epochs would be two thirds of a run."""
    return Start(run.standard, [keras.callbacks.ReduceLROnPlateau(patience=3)])


def cosine(run: Run, rate: float | None) -> Start:
    """Keras' cosine decay after 5 % warm-up, to and from zero, at the standard rate or another."""
    warm = max(1, run.steps // 20)
    return Start(
        keras.optimizers.schedules.CosineDecay(
            0.0, run.steps - warm, warmup_target=rate or run.standard, warmup_steps=warm
        ),
        run.backups,
    )


def schedule_free(run: Run, factor: float | None) -> Start:
    """Keras' own around its default rate; a schedule that is constant validates its averages."""
    rate = 0.0025 * (factor or 1.0)
    held = adaptlr.ScheduleLR(adaptlr.schedules.Constant(rate), backup_dir=run.backup_dir)
    return Start(rate, [held], kind=keras.optimizers.ScheduleFreeAdamW)


def plateau(run: Run, _: float | None) -> Start:
    """PlateauLR with Keras' factor, at the same patience as Keras' callback."""
    return Start(run.standard, [adaptlr.PlateauLR(patience=3, backup_dir=run.backup_dir)])


def cyclical(run: Run, _: float | None) -> Start:
    """Triangular2 over a decade around the standard rate, half a cycle in two epochs."""
    low, high = run.standard * 10**-0.5, run.standard * 10**0.5
    size = 2 * run.epoch_steps
    cycle = adaptlr.CyclicalLR(low, high, size, mode="triangular2", backup_dir=run.backup_dir)
    return Start(run.standard, [cycle])


def one_cycle(run: Run, _: float | None) -> Start:
    """One cycle up to the rate that a range test of 100 steps on a copy suggests.

    Where the optimizer has no momentum (RMSprop), the rate is cycled alone.
    """
    finder, copy = adaptlr.LRFinder(), run.build(run.standard)
    finder.find(copy, run.train, verbose=0)
    peak = finder.suggestion or run.standard
    has_momentum = getattr(copy.optimizer, "momentum", 1.0) != 0.0
    momentum = (0.95, 0.85) if has_momentum else None
    cycle = adaptlr.OneCycleLR(peak, momentum=momentum, backup_dir=run.backup_dir)
    return Start(peak, [cycle], spent=len(finder.losses))


def greedy(run: Run, _: float | None) -> Start:
    """GreedyLR (arXiv 2512.14527) on every epoch's validation loss, from the standard rate."""
    return Start(run.standard, [GreedyLR()])


def swap_ema(run: Run, _: float | None) -> Start:
    """Constant standard rate, validated and left with Keras' exponential average."""
    return Start(run.standard, [keras.callbacks.SwapEMAWeights()], settings={"use_ema": True})


def decay(run: Run, factor: float | None) -> Start:
    """Linear to zero after 5 % warm-up; the best of seven such runs is the oracle."""
    peak, warm = run.standard * (factor or 1.0), max(1, run.steps // 20)
    schedule = adaptlr.schedules.WarmupStableDecay(peak, warm, 0, run.steps - warm, shape="linear")
    return Start(peak, [adaptlr.ScheduleLR(schedule, backup_dir=run.backup_dir)])


def auto(run: Run, rate: float | None) -> Start:
    """AutoLR, from a rate that it does not use."""
    writers = [adaptlr.writers.JSONLinesWriter(run.log_dir / "run.jsonl")] if run.log_dir else []
    given = {"log_dir": run.log_dir, "writers": writers, "backup_dir": run.backup_dir}
    return Start(rate, [adaptlr.AutoLR(**given)])


def schedule_free_auto(run: Run, rate: float | None) -> Start:
    """AutoLR around it."""
    return replace(auto(run, rate), kind=keras.optimizers.ScheduleFreeAdamW)


def peer(name: str) -> Callable[[Run, float | None], Start]:
    """One that needs no rate, in place of the task's optimizer; DoG is judged by its average."""

    def start(run: Run, _: float | None) -> Start:
        if keras.backend.backend() != "jax":
            raise SystemExit(f"{name} runs with KERAS_BACKEND=jax and optax (extra `peers`)")
        from peers import PEERS, gives_loss

        callbacks = [keras.callbacks.SwapEMAWeights()] if name == "DoG" else []
        begun = Start(None, callbacks, kind=lambda rate: PEERS[name](run.steps))
        return replace(begun, prepare=gives_loss) if name == "MoMo" else begun

    return start


def auto_unbounded(run: Run, rate: float | None) -> Start:
    """AutoLR without a known horizon: a plateau ends the training."""
    return Start(rate, [adaptlr.AutoLR(horizon=None)])


class Ablated(LearningRateCallback):
    """What `AutoLR` is made of, with a part of it left out or exchanged."""

    def __init__(
        self, controller: Controller, rate: float = 1.0, averaging: bool = True, data: Any = None
    ) -> None:
        given = arguments_of(Ablated, locals())
        schedule = whatever_the_run(adaptlr.schedules.Constant(rate))
        plan = Plan(controller, schedule, averaging=averaging, validation_data=data)
        super().__init__(plan, given)


def without(*, averaging: bool = True, **settings: Any) -> Callable[[Run, float | None], Start]:
    """AutoLR with other settings of its controller, or without a part."""
    monitor = Monitor("val_loss", min_delta=0.5, threshold="noise")
    controller = Divergence(Feedback(monitor, **settings))

    def start(run: Run, rate: float | None) -> Start:
        return Start(rate, [Ablated(controller, averaging=averaging, data=run.control)])

    return start


def constant_averaged(run: Run, _: float | None) -> Start:
    """The standard rate, with AutoLR's running average."""
    return Start(run.standard, [Ablated(Constant(), run.standard)])


class GreedyLR(keras.callbacks.Callback):
    """Raises the rate after two improvements in a row, lowers it after two that were none."""

    factor, patience = 0.75, 1

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.best, self.good, self.bad = float("inf"), 0, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {})["val_loss"]
        self.good, self.bad = (self.good + 1, 0) if loss < self.best else (0, self.bad + 1)
        self.best = min(self.best, loss)
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if self.good > self.patience:
            self.model.optimizer.learning_rate, self.good = rate / self.factor, 0
        elif self.bad > self.patience:
            self.model.optimizer.learning_rate, self.bad = rate * self.factor, 0


METHODS = [
    Method("constant", constant, resumes=True),
    Method("ReduceLROnPlateau", reduce_on_plateau),
    Method("CosineDecay", cosine, resumes=True),
    Method("SwapEMAWeights", swap_ema),
    Method("GreedyLR", greedy),
    Method("PlateauLR", plateau, resumes=True),
    Method("CyclicalLR", cyclical, resumes=True),
    Method("OneCycleLR", one_cycle, resumes=True),
    Method("decay", decay, ORACLE_FACTORS, resumes=True),
    Method("AutoLR", auto, START_RATES, resumes=True),
    Method("ScheduleFreeAdamW", schedule_free, if_named=True, resumes=True),
    Method("ScheduleFreeAdamW at", schedule_free, FACTORS, if_named=True, resumes=True),
    Method("ScheduleFreeAdamW, AutoLR", schedule_free_auto, (1e-2,), if_named=True, resumes=True),
    *(Method(name, peer(name), if_named=True) for name in PEERS),
    # With Adam these are ARC's start rates, for the published figures of the suite `cifar`.
    Method(
        "CosineDecay at", cosine, (0.1, 1.0, 10.0), if_named=True, resumes=True, of_standard=True
    ),
    # 200 epochs where 15 are planned, and a plateau to end them.
    Method("AutoLR, horizon=None", auto_unbounded, (1e-2,), epochs=200 / 15, if_named=True),
    # The whole plan in less time, against the constant rate in all of it.
    Method("AutoLR, half the epochs", auto, (1e-2,), epochs=1 / 2, if_named=True, resumes=True),
    Method(
        "AutoLR, a third of the epochs", auto, (1e-2,), epochs=1 / 3, if_named=True, resumes=True
    ),
    Method("constant, averaged", constant_averaged, if_named=True),
    Method("without averaging", without(averaging=False), (1e-2,), if_named=True),
    Method("without trials", without(search_share=0.0, look_at=()), (1e-2,), if_named=True),
    Method("without warm-up", without(warm_share=0.0), (1e-2,), if_named=True),
    Method("without comparing", without(usual=1e6), (1e-2,), if_named=True),
    Method(
        "without cool-down",
        without(cool_share=1e-9, patience=10**6, look_at=(0.25, 0.45, 1.0)),  # no look is the last
        (1e-2,),
        if_named=True,
    ),
]
