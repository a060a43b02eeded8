"""Learning-rate control for Keras 3: found, adjusted and explained while the model trains."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptlr import (
        batch_size,
        controllers,
        groups,
        plotting,
        recording,
        replay,
        schedules,
        writers,
    )
    from adaptlr.bridge.keras_schedule import KerasSchedule
    from adaptlr.callbacks import (
        AutoLR,
        CyclicalLR,
        LRFinder,
        OneCycleLR,
        PlateauLR,
        ScheduleLR,
        SwapScheduleFreeWeights,
    )

__version__ = "0.2.0.dev0"

__all__ = [
    "AutoLR",
    "CyclicalLR",
    "KerasSchedule",
    "LRFinder",
    "OneCycleLR",
    "PlateauLR",
    "ScheduleLR",
    "SwapScheduleFreeWeights",
    "__version__",
    "batch_size",
    "controllers",
    "groups",
    "plotting",
    "recording",
    "replay",
    "schedules",
    "writers",
]


def __getattr__(name: str) -> Any:
    """Imports at first use: reading a recorded run must not wait for Keras, nor need a backend."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "KerasSchedule":
        return import_module("adaptlr.bridge.keras_schedule").KerasSchedule
    if name == "groups":
        return import_module("adaptlr.groups")
    if name[0].isupper():
        return getattr(import_module("adaptlr.callbacks"), name)
    return import_module(f"adaptlr.{name}")


def __dir__() -> list[str]:
    return __all__
