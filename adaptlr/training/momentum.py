"""A momentum that changes from step to step, where the step is not compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptlr.training.optimizer import momentum_name

__all__ = ["CycledMomentum"]


class CycledMomentum:
    """Writes the momentum (`beta_1`) of optimizers for the length of one `fit`.

    As with `InGraph`, what is saved meanwhile shows the momentum that was compiled, and if `fit`
    is left by an exception, the next one, with or without a callback, has it back.

    Args:
        model: A compiled model.
        leaves: Its innermost optimizers.

    Raises:
        ValueError: If an optimizer has no momentum.
    """

    def __init__(self, model: Any, leaves: Sequence[Any]) -> None:
        self._model = model
        self._compiled = []
        for leaf in leaves:
            name = momentum_name(leaf)
            self._compiled.append((leaf, name, float(getattr(leaf, name))))
        for leaf, name, value in self._compiled:
            leaf.__dict__["get_config"] = _showing(leaf.get_config, name, value)
        build = model.make_train_function

        def build_with_compiled(force: bool = False) -> Any:
            self.remove()
            return build(force)

        model.__dict__["make_train_function"] = build_with_compiled

    def write(self, momentum: float) -> None:
        """Sets the momentum of the next step."""
        for leaf, name, _ in self._compiled:
            setattr(leaf, name, momentum)

    def remove(self) -> None:
        """Puts back what was compiled."""
        for leaf, name, value in self._compiled:
            setattr(leaf, name, value)
            leaf.__dict__.pop("get_config", None)
        self._model.__dict__.pop("make_train_function", None)


def _showing(get_config: Any, name: str, value: float) -> Any:
    return lambda: {**get_config(), name: value}
