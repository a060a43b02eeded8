"""A controller's state inside the files in which Keras saves a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

__all__ = ["CarriedState", "attach", "forget"]

_FORMAT = 3


class CarriedState(keras.losses.Loss):  # type: ignore[misc]
    """An attribute of a model whose content travels in `.keras` and `.weights.h5` files.

    Keras saves the attributes of a model that are losses together with its weights, and a model
    without this attribute passes over what it finds of it. As a loss it does nothing.
    """

    def __init__(self) -> None:
        super().__init__(name="adaptlr_state")
        self.source: Callable[[], dict[str, Any] | None] = lambda: self._loaded
        self._loaded: dict[str, Any] | None = None
        self.averaged = False  # whether a schedule-free optimizer's average is in the model
        # The callback of the last fit, and how many before it had one too, all of epoch 0 alone.
        self.single_epochs = ("", 0)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Zero; a Loss only so that Keras saves it."""
        return keras.ops.zeros(())

    def save_own_variables(self, store: Any) -> None:
        """Writes the state as text, if there is one."""
        if self.averaged:
            store["averaged"] = np.ones((), "uint8")
        content = self.source()
        if content is not None:
            text = json.dumps({"format": _FORMAT, **content})
            store["state"] = np.frombuffer(text.encode(), "uint8")

    def load_own_variables(self, store: Any) -> None:
        """Reads it.

        Raises:
            ValueError: If it is of another format.
        """
        self.averaged = "averaged" in store
        if "state" not in store:
            return
        content = json.loads(np.asarray(store["state"], "uint8").tobytes())
        version = content.pop("format", None)
        if version != _FORMAT:
            raise ValueError(
                f"the state of adaptlr in the file has format {version}, and this version reads "
                f"{_FORMAT}. Load the file before adaptlr is used on the model, which passes over "
                f"the state."
            )
        self._loaded = content

    @property
    def loaded(self) -> bool:
        """Whether a state was loaded and not yet taken."""
        return self._loaded is not None

    def take(self, epoch: int) -> dict[str, Any] | None:
        """Returns, once, a state that was loaded and stands at an epoch or in the one before.

        Epoch 0 is also where `fit` begins if it is not told anything: there, what was saved after
        that epoch is no more than the weights to begin a run with.
        """
        content, self._loaded = self._loaded, None
        if content is None or epoch not in (content["epoch"], content["epoch"] + 1):
            return None
        return None if epoch == 0 and content.get("over") else content


def attach(model: Any) -> CarriedState:
    """Lets a model's files carry a controller's state, and returns where it is kept.

    The callbacks of this package do this themselves when `fit` begins. Called before
    `model.load_weights`, it lets the next `fit` continue what the file carries, if that begins at
    the epoch in which the file was saved or the one after it, with `initial_epoch`. A `fit` from
    epoch 0 continues only a file that was saved in the middle of that epoch.

    Args:
        model: Any Keras model.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> attach(model) is attach(model)
        True
    """
    carried = getattr(model, "adaptlr_state", None)
    if not isinstance(carried, CarriedState):
        model.adaptlr_state = carried = CarriedState()
    return carried


def forget(model: Any) -> None:
    """Drops a state that was loaded with the weights of a model."""
    attach(model).take(-1)
