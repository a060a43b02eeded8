"""Learning-rate control for Keras 3: found, adjusted and explained while the model trains."""

from adaptlr import batch_size, controllers, plotting, schedules, writers
from adaptlr.callbacks import AutoLR, CyclicalLR, LRFinder, OneCycleLR, PlateauLR, ScheduleLR
from adaptlr.training import groups

__version__ = "0.1.0.dev0"

__all__ = [
    "AutoLR",
    "CyclicalLR",
    "LRFinder",
    "OneCycleLR",
    "PlateauLR",
    "ScheduleLR",
    "__version__",
    "batch_size",
    "controllers",
    "groups",
    "plotting",
    "schedules",
    "writers",
]
