"""The training state at one moment: snapshots, and the random state outside of a model."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np

from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.bridge.own_optimizers import begin_anew
from adaptlr.bridge.variables import from_host, held, to_host, training_groups, unique, write


class Snapshot:
    """The training state at one moment: weights, optimizer slots and counters, random state.

    It is kept in the host's memory: it is seldom written, hardly ever read, and would take two or
    three times as much of a GPU's memory as the weights do.

    Args:
        model: A compiled, built model.
        rate: The rates, which a restore must not touch, and the optimizers that have them.

    Attributes:
        average: The running average at that moment (see `RunningAverage.mark`), or None.
        metrics: The sums behind the training metrics of the epoch, or None once that is over.
    """

    def __init__(self, model: Any, rate: OptimizerRate) -> None:
        self.average: tuple[int, list[Any]] | None = None
        self.metrics: list[Any] | None = to_host(model.metrics_variables)
        self._model = model
        self._rate = rate
        self._take([len(group) for group in training_groups(model, rate.optimizers)])
        self._values = to_host([held(v) for v in self._variables])
        self._random_state = random_state()

    def _take(self, counts: list[int]) -> None:
        """Takes the first variables of the model and of each optimizer: slots are made later."""
        groups, leave = training_groups(self._model, self._rate.optimizers), self._rate.variables()
        first = [v for group, count in zip(groups, counts, strict=True) for v in group[:count]]
        self._counts, self._variables = counts, [v for v in unique(first) if id(v) not in leave]

    @property
    def infinite(self) -> set[int]:
        """Ids of the variables that hold NaN or infinities; the device is not asked."""
        return {
            id(variable)
            for variable, value in zip(self._variables, self._values, strict=True)
            if keras.backend.is_float_dtype(variable.dtype) and not np.isfinite(value).all()
        }

    def restore(self) -> None:
        """Puts every variable back; the snapshot stays good for another time."""
        write(self._variables, from_host(self._values, self._variables))
        known = {id(variable) for variable in self._variables} | self._rate.variables()
        begin_anew(self._rate.optimizers, known)
        set_random_state(self._random_state)

    def restore_metrics(self) -> None:
        """Takes what was trained since out of the epoch's training metrics, NaN included."""
        variables, kept = self._model.metrics_variables, self.metrics
        self._model.reset_metrics()
        if kept is None or len(kept) != len(variables):  # TensorFlow builds them in the first step
            return
        if all(bool(np.isfinite(value).all()) for value in kept):
            for variable, value in zip(variables, kept, strict=True):
                variable.assign(value)

    def save(self) -> dict[str, Any]:
        """Returns it as arrays for a file."""
        return {
            "values": self._values,
            "counts": self._counts,
            "random": self._random_state,
            "average": self.average,
            "metrics": self.metrics,
        }

    def load(self, saved: dict[str, Any]) -> Snapshot:
        """Becomes the snapshot that `save` has saved, maybe before optimizers had slots."""
        self._values, self._random_state = saved["values"], saved["random"]
        self._take(saved["counts"])
        self.average, self.metrics = saved["average"], saved["metrics"]
        return self


class Snapshots:
    """The last good snapshot, the one before, and a state that was set aside.

    Args:
        rate: The rates, which a restore must not touch, and the optimizers that have them.

    Attributes:
        infinite: Ids of the variables that held NaN or infinities before anything was trained.
    """

    def __init__(self, rate: OptimizerRate) -> None:
        self.infinite: set[int] = set()
        self._rate = rate
        self._kept: dict[str, Snapshot] = {}

    def __bool__(self) -> bool:
        return "last" in self._kept

    def keep(self, model: Any, *, untrained: bool = False) -> Snapshot | None:
        """Takes one of the present state, unless training has made NaN or infinities of it.

        Args:
            model: A compiled, built model.
            untrained: Whether NaN and infinities, if it is the first, are what it was built with.
        """
        # A loss is that of the step before: the last step may have made NaN of the weights unseen.
        snapshot = Snapshot(model, self._rate)
        if untrained and not self:
            self.infinite = snapshot.infinite
        if not snapshot.infinite <= self.infinite:
            return None
        if self:
            self._kept["earlier"] = self._kept["last"]
        self._kept["last"] = snapshot
        return snapshot

    def restore(self, *, earlier: bool = False) -> Snapshot | None:
        """Goes back to the last, or if there is one to the one before; None without any."""
        if earlier and "earlier" in self._kept:
            self._kept["last"] = self._kept["earlier"]
        return _restored(self._kept.get("last"))

    def set_aside(self, model: Any) -> Snapshot:
        """Keeps the present state apart from the snapshots."""
        self._kept["aside"] = Snapshot(model, self._rate)
        return self._kept["aside"]

    def take_back(self) -> Snapshot | None:
        """Goes on from what was set aside; None without any."""
        return _restored(self._kept.pop("aside", None))

    def let_go(self) -> None:
        """Frees what was set aside, if anything was."""
        self._kept.pop("aside", None)

    def end_epoch(self) -> None:
        """Lets none of them bring back the sums of an epoch that is over."""
        for snapshot in self._kept.values():
            snapshot.metrics = None

    def save(self) -> dict[str, Any]:
        """Returns all of them as arrays for a file."""
        return {name: snapshot.save() for name, snapshot in self._kept.items()}

    def load(self, saved: dict[str, Any], model: Any) -> None:
        """Becomes the snapshots that `save` has saved, of a model alike."""
        self._kept = {name: Snapshot(model, self._rate).load(one) for name, one in saved.items()}
        self.infinite = self._kept["last"].infinite if self else set()


def _restored(snapshot: Snapshot | None) -> Snapshot | None:
    if snapshot is not None:
        snapshot.restore()
    return snapshot


def random_state() -> list[Any] | None:
    """Returns the state of the backend's own generators as arrays, or None where it has none.

    TensorFlow and JAX draw from seed-generator variables, which are part of the model.
    """
    if keras.backend.backend() != "torch":
        return None
    import torch

    return [state.numpy() for state in (torch.get_rng_state(), *torch.cuda.get_rng_state_all())]


def set_random_state(state: list[Any] | None) -> None:
    """Puts back what `random_state` returned."""
    if state is None:
        return
    import torch

    cpu, *devices = (torch.from_numpy(array.copy()) for array in state)
    torch.set_rng_state(cpu)
    torch.cuda.set_rng_state_all(devices)


def data_state() -> dict[str, Any]:
    """Copies all generators that data may be shuffled by: Python's, NumPy's and the backend's."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "backend": random_state(),
    }


def set_data_state(saved: dict[str, Any]) -> None:
    """Puts back what `data_state` returned, also after it was read from a file."""
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(saved["numpy"])
    set_random_state(saved["backend"])
