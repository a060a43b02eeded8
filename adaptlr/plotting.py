"""Figures of range tests and of runs."""

from adaptlr.runs.plotting import comparison, finder_curve

__all__ = ["comparison", "finder_curve"]
