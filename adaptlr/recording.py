"""Recorded runs, read back."""

from adaptlr.runs.recording import read

__all__ = ["read"]
