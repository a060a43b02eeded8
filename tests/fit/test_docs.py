"""Every Python block in README and docs runs when it is pasted."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = 94
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("[!_]*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
INCLUDE = re.compile(r"^```\{include\} (\w\S*)\n```$", re.MULTILINE)
TENSORFLOW_ONLY = re.compile(r"^<!-- tensorflow only -->\n```python\n.*?^```", re.S | re.M)


def shown(page):
    """The text of a page, with what it includes, for what is installed here."""
    text = page.read_text(encoding="utf-8")
    text = INCLUDE.sub(lambda match: (page.parent / match[1]).read_text(encoding="utf-8"), text)
    installed = importlib.util.find_spec("tensorflow")
    return text if installed else TENSORFLOW_ONLY.sub("", text)


def prepared():
    """What the reader of README has, whose `fit` is shown there: a compiled model, and data."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 640)
    x = (y[:, None] + random.normal(0, 0.5, (640, 8))).astype("float32")
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    )
    model.compile(keras.optimizers.SGD(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return {
        "model": model,
        "x": x[:480],
        "y": y[:480],
        "xv": x[480:],
        "yv": y[480:],
    }


@pytest.mark.alike
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_another(page, tmp_path, monkeypatch):
    blocks = BLOCK.findall(shown(page))
    if any("from sklearn" in block for block in blocks):
        pytest.importorskip("sklearn")
    if any("group_optimizer" in b for b in blocks) and not hasattr(
        keras.optimizers, "OptimizerMap"
    ):
        pytest.skip("this release of Keras has no groups of optimizers")
    if "ScheduleFreeAdamW(" in shown(page) and not hasattr(keras.optimizers, "ScheduleFreeAdamW"):
        pytest.skip("this release of Keras has no schedule-free optimizer")
    monkeypatch.chdir(tmp_path)
    names = prepared() if page.name == "README.md" else {}
    with warnings.catch_warnings():
        # Keras, where it loads weights into an optimizer that is built already.
        warnings.filterwarnings(
            "ignore", message="Skipping variable loading", category=UserWarning
        )
        # Keras, where it is given a tf.data.Dataset: `shuffle=True` is its own default.
        warnings.filterwarnings(
            "ignore", message="`shuffle=True` was passed", category=UserWarning
        )
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
    assert blocks or "```python" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_code_fits_beside_the_sidebars(page):
    """At a window of 1280 pixels; a longer line is cut off on the right."""
    fences = re.findall(
        r"^```(?:python|bash|text)\n(.*?)^```", shown(page), re.DOTALL | re.MULTILINE
    )
    lines = [line for fence in fences for line in fence.splitlines()]
    assert [line for line in lines if len(line) > COLUMNS] == []
