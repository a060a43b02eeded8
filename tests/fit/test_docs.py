"""Every Python block in README and docs runs."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import adaptlr

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def prepared():
    """What a page may take for granted: a compiled model, and data."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 640)
    x = (y[:, None] + random.normal(0, 0.5, (640, 8))).astype("float32")
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    )
    model.compile(keras.optimizers.SGD(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return {
        "adaptlr": adaptlr,
        "keras": keras,
        "model": model,
        "x": x[:480],
        "y": y[:480],
        "xv": x[480:],
        "yv": y[480:],
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_another(page, tmp_path, monkeypatch):
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    reference = ROOT / "tensorboard_logs" / "reference"
    if any("tensorboard_logs/reference" in block for block in blocks):
        if not reference.exists():
            pytest.skip("the reference run is not part of this checkout")
        (tmp_path / "tensorboard_logs").mkdir()
        (tmp_path / "tensorboard_logs" / "reference").symlink_to(reference)
    if any("group_optimizer" in b for b in blocks) and not hasattr(
        keras.optimizers, "OptimizerMap"
    ):
        pytest.skip("this release of Keras has no groups of optimizers")
    monkeypatch.chdir(tmp_path)
    names = prepared()
    with warnings.catch_warnings():
        # Keras, where it loads weights into an optimizer that is built already.
        warnings.filterwarnings(
            "ignore", message="Skipping variable loading", category=UserWarning
        )
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
    assert blocks or "```python" not in page.read_text(encoding="utf-8")
