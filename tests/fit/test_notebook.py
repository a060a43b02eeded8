"""What a notebook shows, by a real kernel: figures and finders as pictures, callbacks as text."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
import sys

import pytest

pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

CELLS = {
    "made": """
import keras
import numpy as np
import adaptlr
from adaptlr.plotting import comparison

keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
y = np.arange(256) % 3
x = (random.normal(size=(3, 8))[y] * 2.0 + random.normal(size=(256, 8))).astype("float32")
model = keras.Sequential(
    [keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3, "softmax")]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
finder = adaptlr.LRFinder(num_steps=40)
finder
""",
    "found": "finder.find(model, x, y, batch_size=32)",
    "plot": "finder.plot()",
    "new": "log = adaptlr.writers.MemoryWriter()\nauto = adaptlr.AutoLR(writers=[log])\nauto",
    "used": """
_ = model.fit(x, y, batch_size=8, epochs=12, validation_data=(x, y), callbacks=[auto], verbose=0)
auto
""",
    "truth": "auto.learning_rate, min(v for _, v in log.series('epoch/val_loss')), "
    "len(auto.decisions)",
    "runs": "comparison({'auto': log})",
}

# In a process of its own: here warnings are errors, and one raised in a task of the client leaves
# it waiting for ever.
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=500, kernel_name="here").execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What each cell shows, by MIME type, run by a kernel of this interpreter and backend."""
    folder = tmp_path_factory.mktemp("jupyter")
    kernel = folder / "kernels" / "here"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": command, "display_name": "here", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(about))
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.values()]
    path = folder / "first-hour.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    environment = {**os.environ, "JUPYTER_PATH": str(folder)}
    command = [sys.executable, "-c", RUN, str(path)]
    subprocess.run(command, env=environment, check=True, timeout=550)
    notebook = nbformat.read(path, as_version=4)
    results = {}
    for name, cell in zip(CELLS, notebook.cells, strict=True):
        (output,) = [x for x in cell.outputs if x.output_type == "execute_result"]
        results[name] = output.data
    return results


def picture(data):
    """Width and height of the picture in what a cell shows."""
    content = base64.b64decode(data["image/png"])
    assert content.startswith(b"\x89PNG")
    return struct.unpack(">II", content[16:24])


@pytest.mark.slow
class TestANotebook:
    def test_shows_figures(self, shown):
        assert picture(shown["plot"]) == (800, 500)
        assert picture(shown["runs"]) == (900, 620)

    def test_shows_the_curve_of_a_finder_that_has_run(self, shown):
        assert shown["made"] == {"text/plain": "LRFinder(num_steps=40)"}
        assert picture(shown["found"]) == (800, 500)
        assert re.fullmatch(
            r"<LRFinder\(num_steps=40\): suggestion 0\.\d+, 3 decisions>",
            shown["found"]["text/plain"],
        )

    def test_says_what_a_callback_did_once_it_has(self, shown):
        assert shown["new"]["text/plain"] == "AutoLR(writers=...)"
        rate, loss, count = map(float, re.findall(r"[\d.e-]+", shown["truth"]["text/plain"]))
        assert shown["used"] == {
            "text/plain": f"<AutoLR(writers=...): rate held {rate:.3g}, "
            f"best val_loss {loss:.4g}, {count:.0f} decisions>"
        }
