"""What a user lists in `fit(callbacks=[...])`."""

from adaptlr.callbacks.auto import AutoLR
from adaptlr.callbacks.base import LearningRateCallback
from adaptlr.callbacks.cyclical import CyclicalLR, OneCycleLR
from adaptlr.callbacks.finder import LRFinder
from adaptlr.callbacks.plateau import PlateauLR
from adaptlr.callbacks.schedule import ScheduleLR
from adaptlr.callbacks.schedule_free import SwapScheduleFreeWeights

__all__ = [
    "AutoLR",
    "CyclicalLR",
    "LRFinder",
    "LearningRateCallback",
    "OneCycleLR",
    "PlateauLR",
    "ScheduleLR",
    "SwapScheduleFreeWeights",
]
