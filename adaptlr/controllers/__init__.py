"""Closed loop: `(state, observation) -> (state, decision)`, pure and replayable."""

from adaptlr.controllers.base import (
    Constant,
    ConstantState,
    Controller,
    Decision,
    Observation,
    Run,
)
from adaptlr.controllers.feedback import Feedback, FeedbackState
from adaptlr.controllers.guard import Divergence, DivergenceState
from adaptlr.controllers.plateau import Plateau, PlateauState
from adaptlr.controllers.range_finder import RangeFinder, RangeFinderState

__all__ = [
    "Constant",
    "ConstantState",
    "Controller",
    "Decision",
    "Divergence",
    "DivergenceState",
    "Feedback",
    "FeedbackState",
    "Observation",
    "Plateau",
    "PlateauState",
    "RangeFinder",
    "RangeFinderState",
    "Run",
]
