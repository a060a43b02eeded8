"""What Keras' logs say: which values are numbers, and what to tell where one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["number", "why_missing"]


def number(value: Any) -> float | None:
    """Returns a metric as a float: a number, or a 0-d array of any library; None for the rest."""
    if isinstance(value, str | bytes) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def why_missing(name: str, logs: Mapping[str, Any], epoch: int, meanwhile: str) -> str:
    """Says why there is no number named `name` in the logs of an epoch, and what happens."""
    if name in logs:
        return (
            f"at the end of epoch {epoch + 1} this metric is no number; monitor one that is. "
            f"Received: {name}={str(logs[name])[:60]} ({type(logs[name]).__name__})"
        )
    hint = ""
    if name.startswith("val_") and not any(key.startswith("val_") for key in logs):
        hint = " (nothing was validated in this epoch: pass validation_data to fit)"
    return (
        f"there is no such metric at the end of epoch {epoch + 1}{hint}; until there is, "
        f"{meanwhile}. Metrics: {', '.join(sorted(logs))}"
    )
