"""What all tests share; nothing here may import Keras."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A slow machine is no fault of the code. In CI every run draws the same examples, so that it says
# something about the change; elsewhere each run draws new ones, and fewer of them.
settings.register_profile(
    "adaptlr",
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=100 if "CI" in os.environ else 25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("adaptlr")
