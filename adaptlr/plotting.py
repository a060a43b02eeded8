"""Figures of range tests and of runs."""

from adaptlr.range_test.figure import finder_curve
from adaptlr.runs.plotting import comparison

__all__ = ["comparison", "finder_curve"]
