"""Snapshots of the training state: what there is to go back to."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.bridge.own_optimizers import begin_anew
from adaptlr.bridge.random_state import random_state, set_random_state
from adaptlr.bridge.variables import from_host, held, to_host, training_variables, write

__all__ = ["Snapshot", "Snapshots"]


class Snapshot:
    """The training state at one moment: weights, optimizer slots and counters, random state.

    It is kept in the host's memory: it is seldom written, hardly ever read, and would take two or
    three times as much of a GPU's memory as the weights do.

    Args:
        model: A compiled, built model.
        rate: The rates, which a restore must not touch, and the optimizers that have them.
    """

    def __init__(self, model: Any, rate: OptimizerRate) -> None:
        self._rate, leave = rate, rate.variables()
        every = training_variables(model, rate.optimizers)
        self._variables = [v for v in every if id(v) not in leave]
        self._values = to_host([held(v) for v in self._variables])
        self._random_state = random_state()

    @property
    def finite(self) -> bool:
        """Whether nothing in it is NaN or infinite; on the host that costs the device nothing."""
        return all(
            bool(np.isfinite(value).all())
            for variable, value in zip(self._variables, self._values, strict=True)
            if keras.backend.is_float_dtype(variable.dtype)
        )

    def restore(self) -> None:
        """Puts every variable back; the snapshot stays good for another time."""
        write(self._variables, from_host(self._values, self._variables))
        known = {id(variable) for variable in self._variables} | self._rate.variables()
        begin_anew(self._rate.optimizers, known)
        set_random_state(self._random_state)

    def save(self) -> dict[str, Any]:
        """Returns it as arrays for a file."""
        return {"values": self._values, "random": self._random_state}

    def load(self, saved: dict[str, Any]) -> None:
        """Becomes the snapshot that `save` has saved."""
        self._values, self._random_state = saved["values"], saved["random"]


class Snapshots:
    """The last good snapshot, the one before, and a state that was set aside.

    Args:
        rate: The rates, which a restore must not touch, and the optimizers that have them.
    """

    def __init__(self, rate: OptimizerRate) -> None:
        self._rate = rate
        self._last: Snapshot | None = None
        self._earlier: Snapshot | None = None
        self._aside: Snapshot | None = None

    def __bool__(self) -> bool:
        return self._last is not None

    def keep(self, model: Any, *, untrained: bool = False) -> bool:
        """Takes one of the present state, unless training has made NaN or infinities of it.

        Args:
            model: A compiled, built model.
            untrained: Whether NaN and infinities, if it is the first, are what it was built with.
        """
        # A loss is that of the step before: the last step may have made NaN of the weights unseen.
        snapshot = Snapshot(model, self._rate)
        good = snapshot.finite or (untrained and self._last is None)
        if good:
            self._earlier, self._last = self._last, snapshot
        return good

    def restore(self, *, earlier: bool = False) -> bool:
        """Goes back to the last, or if there is one to the one before; False without any."""
        if earlier and self._earlier is not None:
            self._last = self._earlier
        if self._last is None:
            return False
        self._last.restore()
        return True

    def set_aside(self, model: Any) -> None:
        """Keeps the present state apart from the snapshots."""
        self._aside = Snapshot(model, self._rate)

    def take_back(self) -> bool:
        """Goes on from what was set aside; False without any."""
        aside, self._aside = self._aside, None
        if aside is not None:
            aside.restore()
        return aside is not None

    def save(self) -> dict[str, Any]:
        """Returns all of them as arrays for a file."""
        kept = {"last": self._last, "earlier": self._earlier, "aside": self._aside}
        return {name: None if one is None else one.save() for name, one in kept.items()}

    def load(self, saved: dict[str, Any], model: Any) -> None:
        """Becomes the snapshots that `save` has saved, of a model alike."""
        self._last = self._loaded(saved["last"], model)
        self._earlier = self._loaded(saved["earlier"], model)
        self._aside = self._loaded(saved["aside"], model)

    def _loaded(self, saved: dict[str, Any] | None, model: Any) -> Snapshot | None:
        if saved is None:
            return None
        snapshot = Snapshot(model, self._rate)
        snapshot.load(saved)
        return snapshot
