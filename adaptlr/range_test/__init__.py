"""The learning-rate range test: the rates to try, what their losses show, and a figure of it."""

from adaptlr.range_test.ramp import RampState, RangeTest, Shape
from adaptlr.range_test.reading import (
    Curve,
    Reading,
    minimum,
    read_curve,
    read_rate,
    steepest,
    valley,
)

__all__ = [
    "Curve",
    "RampState",
    "RangeTest",
    "Reading",
    "Shape",
    "minimum",
    "read_curve",
    "read_rate",
    "steepest",
    "valley",
]
