"""What the tests of real fits share."""

from __future__ import annotations

import keras
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
