"""Learning-rate control for Keras 3: found, adjusted and explained while the model trains."""

from adaptlr import controllers, schedules, writers
from adaptlr.callbacks import AutoLR, CyclicalLR, OneCycleLR, PlateauLR, ScheduleLR

__version__ = "0.1.0.dev0"

__all__ = [
    "AutoLR",
    "CyclicalLR",
    "OneCycleLR",
    "PlateauLR",
    "ScheduleLR",
    "__version__",
    "controllers",
    "schedules",
    "writers",
]
