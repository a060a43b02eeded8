"""Open loop: the learning rate as a pure function of the step."""

from adaptlr.schedules.base import Constant, Schedule
from adaptlr.schedules.combined import Clipped, Joined, Scaled, Warmup
from adaptlr.schedules.cycles import CosineRestarts, Cyclical, CyclicalMomentum, OneCycle
from adaptlr.schedules.decays import (
    Cosine,
    Exponential,
    InverseSquareRoot,
    InverseTime,
    Linear,
    Polynomial,
    WarmupStableDecay,
)
from adaptlr.schedules.steps import ByEpoch, MultiStep, Piecewise, StepDecay

__all__ = [
    "ByEpoch",
    "Clipped",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclical",
    "CyclicalMomentum",
    "Exponential",
    "InverseSquareRoot",
    "InverseTime",
    "Joined",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "Scaled",
    "Schedule",
    "StepDecay",
    "Warmup",
    "WarmupStableDecay",
]
