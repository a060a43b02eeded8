"""What must not grow, what must not be imported, and the tables that say what the rest costs."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import keras
import programs
import pytest
from models import blobs, classifier

import adaptlr
from adaptlr.bridge.average import RunningAverage
from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.bridge.snapshots import Snapshot
from adaptlr.controllers import Decision
from adaptlr.loop.effects import Effects

ROOT = Path(__file__).parents[2]


def drive(callback, steps, first=0):
    for batch in range(first, first + steps):
        callback.on_train_batch_begin(batch)
        callback.on_train_batch_end(batch)


@pytest.mark.rest
@pytest.mark.parametrize(
    "make",
    [
        lambda: adaptlr.PlateauLR("loss"),
        lambda: adaptlr.CyclicalLR(1e-3, 1e-1, 100),
        lambda: adaptlr.ScheduleLR(lambda step: 0.1),
    ],
)
def test_a_long_run_grows_by_nothing(make):
    """The hooks of thousands of steps: 300,000 where a step is a comparison, 6,000 elsewhere."""
    x, y = blobs()
    model, callback = classifier("sgd"), make()
    model.fit(x, y, verbose=0)
    callback.set_model(model)
    callback.set_params({"epochs": 1, "steps": None, "verbose": 0})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    steps = 1_000 if isinstance(callback, adaptlr.CyclicalLR | adaptlr.ScheduleLR) else 50_000
    tracemalloc.start()
    sizes = []
    for window in range(6):
        drive(callback, steps, first=window * steps)
        gc.collect()  # arrays of JAX are in circles
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    callback.on_train_end()
    # A number kept at each control point is 32 bytes, and each window has 500 of them or a
    # thousand steps; what TensorFlow keeps of recent numbers grows less from window to window.
    assert min(after - before for before, after in pairwise(sizes)) < 8_000, sizes


def test_an_average_and_a_snapshot_are_one_copy_each():
    model = classifier("adam", keras.layers.BatchNormalization())
    model.optimizer.build(model.trainable_variables)
    weights, slots = len(model.weights), len(model.optimizer.variables)
    average = RunningAverage(model, 0)
    for step in range(1, 50):
        average.update(step)
    # Moving mean and variance also as they were at the last update.
    assert len(average._cells.arrays) == weights + 2
    assert average._raw is None
    assert average._best is None
    # But for the rate, which a restore leaves as it is.
    assert len(Snapshot(model, OptimizerRate(model))._values) == weights + slots - 1


def test_what_was_set_aside_is_let_go_of_where_the_comparison_ends(monkeypatch):
    model = classifier("adam")
    model.optimizer.build(model.trainable_variables)
    effects = Effects(model, OptimizerRate(model), averaging=True, step=0, epoch_steps=10)
    effects.take_average(1)
    effects.carry_out(Decision(0.1, effects=("snapshot",), rate_is="trial"), 1)
    effects.carry_out(Decision(0.1, effects=("set aside", "restore"), rate_is="trial"), 2)
    effects.carry_out(Decision(0.1, rate_is="trial"), 3)
    assert set(effects.save()["snapshots"]) == {"last", "aside"}
    held, keep = [], effects._snapshots.keep

    def counted(*arguments, **settings):
        held.append(set(effects.save()["snapshots"]))
        return keep(*arguments, **settings)

    monkeypatch.setattr(effects._snapshots, "keep", counted)
    effects.carry_out(Decision(0.1, effects=("snapshot",)), 4)
    assert held == [{"last"}]  # so that the new one takes its place
    assert set(effects.save()["snapshots"]) == {"last", "earlier"}


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX says what its devices hold")
def test_a_device_holds_one_average_beside_the_model():
    """While it trains; the snapshot and the best average are in the host's memory."""
    import jax

    def held():
        gc.collect()
        # The view that a conversion to NumPy leaves behind is an array of the same buffer.
        arrays = {a.unsafe_buffer_pointer(): a for a in jax.live_arrays()}
        return sum(a.nbytes for a in arrays.values() if a.nbytes > 10_000)

    class Look(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.training, self.validating = [], []

        def on_test_batch_begin(self, batch, logs=None):
            if batch == 5:
                self.validating.append(held() - others)

        def on_train_batch_begin(self, batch, logs=None):
            if batch == 31:
                self.training.append(held() - others)

    def peaks(*callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(1000, activation="relu"),
                keras.layers.Dense(500),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        look = Look()
        x, y = blobs(8 * 40)
        model.fit(
            x, y, batch_size=8, epochs=6, validation_data=(x, y), verbose=0,
            callbacks=[look, *callbacks],
        )  # fmt: skip
        return look, sum(w.nbytes for w in model.get_weights() if w.nbytes > 10_000)

    others = held()
    plain, copy = peaks()
    others = held()
    with_auto, _ = peaks(adaptlr.AutoLR())
    more = [a - b for a, b in zip(with_auto.training, plain.training, strict=True)]
    assert 0.9 * copy <= max(more) <= 1.1 * copy
    # The raw weights too, which Keras' `fit` holds on to until its next step.
    more = [a - b for a, b in zip(with_auto.validating, plain.validating, strict=True)]
    assert 1.9 * copy <= max(more) <= 2.1 * copy


def test_import_waits_for_nothing_heavy():
    """Keras itself imports TensorFlow where it is installed; see what of that is ours."""
    code = (
        "import sys, keras.callbacks; before = set(sys.modules); import adaptlr.callbacks; "
        "print([n for n in set(sys.modules) - before if n.split('.')[0] != 'adaptlr'])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout  # fmt: skip
    imported = eval(shown.splitlines()[-1])
    heavy = ("tensorboard", "matplotlib", "tensorflow", "torch", "jax", "scipy")
    assert not [name for name in imported if name.split(".")[0] in heavy]


def test_tables_are_made_from_the_lines(tmp_path):
    shared = {"backend": "torch", "device": "CPU", "versions": {}}
    pair = {**shared, "kind": "pair", "model": "cnn", "batch": 64, "method": "AutoLR"}
    lines = [
        {**pair, "pair": i, "without_ms": [10.0, 10.0], "with_ms": [10.0 + i, 12.0]}
        for i in range(3)
    ]
    lines.append({**shared, "kind": "import", "pair": 0, "milliseconds": 7.0})
    lines.append(
        {**shared, "kind": "piece", "grows_with": "groups", "size": 4, "microseconds": {"w": 3.0}}
    )
    whole = {**pair, "kind": "whole", "pair": 0, "without_ms": [8.0, 8.0], "with_ms": [8.4, 8.8]}
    lines.append(whole)
    lines.append({**whole, "model": "resnet20", "batch": 32, "images": 100, "epochs": 3})
    copies = {"copy_mb": 3.2, "median_copies": 3.0, "most_copies": 4.7, "looks": 9}
    lines.append({**pair, "kind": "memory", "model": "resnet20", "pair": 0, **copies})
    record, page = tmp_path / "lines.jsonl", tmp_path / "page.md"
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    script = ROOT / "examples" / "benchmark" / "overhead.py"
    for _ in range(2):  # a second time it replaces what it wrote
        programs.run(script, "--lines", record, "--table", page)
    text = page.read_text()
    assert text.count("| 1.100 | 1.000 to 1.200 | 1.200 | 3 | ≤ 1.02 |") == 1
    assert text.count("| 1.050 | 1.050 to 1.050 | 1.100 | 1 | ≤ 1.06 |") == 1
    assert text.count("| resnet20, batch 32, 12 steps | AutoLR | torch | 8.0 ms | 1.050 |") == 1
    assert text.count("| 1.100 | 1 | ≤ 1.03 |") == 1
    assert text.count("| torch | 3.20 MB | 3.00 | 4.70 | 9 | ≤ 3 |") == 1
    assert text.count("| 4 groups | w | 3.0 µs |") == 1
    assert text.count("| torch | 7.0 ms | 7.0 ms | 1 |") == 1
