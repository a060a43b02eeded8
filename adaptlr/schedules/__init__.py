"""Open loop: the learning rate as a pure function of the step."""

from adaptlr.schedules.base import Schedule
from adaptlr.schedules.combined import Clipped, Joined, Scaled, Warmup
from adaptlr.schedules.cycles import Cyclical, CyclicalMomentum, OneCycle
from adaptlr.schedules.decays import Cosine, Exponential, InverseTime, Linear, Polynomial
from adaptlr.schedules.epochs import ByEpoch
from adaptlr.schedules.phases import InverseSquareRoot, WarmupStableDecay
from adaptlr.schedules.restarts import CosineRestarts
from adaptlr.schedules.steps import Constant, MultiStep, Piecewise, StepDecay

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
