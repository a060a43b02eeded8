"""What Keras prints and records for an epoch holds nothing of the steps that were undone."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import pytest
from models import blobs, classifier, collected_warnings, one_weight, steps, weight

import adaptlr
from adaptlr.controllers import Decision
from adaptlr.schedules import Constant


class Plain(keras.optimizers.Optimizer):
    """Gradient descent of a class of which nothing is customary: AutoLR begins with a probe."""

    def __init__(self, learning_rate, name="plain"):
        super().__init__(learning_rate, name=name)

    def update_step(self, gradient, variable, learning_rate):
        rate = keras.ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, keras.ops.multiply(rate, gradient))


class Weights(keras.callbacks.Callback):
    """The weight before each step of each epoch: with `one_weight` it is the loss of that step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append([])

    def on_train_batch_begin(self, batch, logs=None):
        self.seen[-1].append(weight(self.model))


def run(tmp_path, steps_per_epoch, epochs, verbose):
    callback, weights = adaptlr.AutoLR(), Weights()
    ones = np.ones((4, 1), "float32")
    model = one_weight(Plain(0.125))
    arguments = {**steps(steps_per_epoch), "verbose": verbose}
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    with collected_warnings() as messages:
        model.fit(
            **arguments,
            epochs=epochs,
            validation_data=(ones, ones),
            callbacks=[callback, weights, log],
        )
    assert any("nothing is known of this class of optimizer" in text for text in messages)
    (settled,) = [record.step for record in callback.decisions if record.rule == "settle"]
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    return callback, weights.seen, model.history.history, rows, settled


@pytest.mark.alike
@pytest.mark.parametrize("verbose", [1, 2])
def test_an_epoch_that_begins_with_a_probe(tmp_path, capsys, verbose):
    callback, seen, history, rows, settled = run(tmp_path, 40, 10, verbose)
    assert 0 < settled < 40
    assert min(seen[0]) < -1.0  # the probe came far
    expected = np.mean(seen[0][settled:])
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)
    assert abs(expected - np.mean(seen[0])) > 0.1 * abs(expected)
    # A search may undo steps in the middle of an epoch; where nothing was decided, all count.
    moved = {record.step // 40 for record in callback.decisions}
    calm = set(range(1, 10)) - moved
    assert len(calm) > 2
    for epoch in calm:
        assert history["loss"][epoch] == pytest.approx(np.mean(seen[epoch]), rel=1e-4)
    assert 0.0 < history["learning_rate"][0] <= callback.learning_rate * 1.001
    for name in ("loss", "val_loss", "learning_rate"):
        assert [float(row[name]) for row in rows] == pytest.approx(history[name])
    printed = re.sub(r"[\b\r]|\x1b\[\d+m", "\n", capsys.readouterr().out)
    last = [
        re.search(r" loss: (\S+)", line) for line in printed.splitlines() if "val_loss" in line
    ]
    assert [float(found[1]) for found in last] == pytest.approx(history["loss"], rel=1e-2)


@pytest.mark.alike
@pytest.mark.parametrize(("steps_per_epoch", "undone"), [(7, 3), (10, 2)])
def test_an_epoch_that_is_undone_whole(tmp_path, steps_per_epoch, undone):
    """Its figures are those of the weights that are gone back to."""
    _, seen, history, rows, settled = run(tmp_path, steps_per_epoch, 40, 0)
    assert settled == 21
    assert min(map(min, seen[:undone])) < -1e-3
    assert history["loss"][:undone] == [0.0] * undone
    assert history["val_loss"][:undone] == [0.0] * undone
    assert history["learning_rate"][:undone] == [0.125] * undone
    assert [float(row["loss"]) for row in rows] == pytest.approx(history["loss"])
    rest = seen[undone][settled - undone * steps_per_epoch :]
    assert history["loss"][undone] == pytest.approx(np.mean(rest), rel=1e-4)


@dataclass(frozen=True)
class Nothing:
    """The state of a controller that remembers nothing."""


@dataclass(frozen=True)
class Script:
    """Has effects carried out at given steps."""

    moves: tuple[tuple[int, tuple[str, ...]], ...]
    monitor: ClassVar[None] = None

    def init(self, run):
        return Nothing()

    def update(self, state, observation):
        effects = dict(self.moves).get(observation.step, ())
        step = observation.step + 1
        return state, Decision(1.0, next_step=step, effects=effects, rate_is="trial")


BACK = ("set aside", "restore")


@pytest.mark.alike
@pytest.mark.parametrize(
    ("moves", "kept"),
    [
        # Steps of the second epoch, which begins at step 10, that led to its last weights.
        ([(13, ("snapshot",)), (17, ("restore",))], [0, 1, 2, 7, 8, 9]),
        ([(8, ("snapshot",)), (14, ("restore",))], [4, 5, 6, 7, 8, 9]),
        ([(12, ("snapshot",)), (15, BACK), (18, ("take back",))], [0, 1, 2, 3, 4, 8, 9]),
        ([(8, ("snapshot",)), (12, BACK), (15, ("take back",))], [0, 1, 5, 6, 7, 8, 9]),
        ([(6, ("snapshot",)), (8, BACK), (13, ("take back",))], [3, 4, 5, 6, 7, 8, 9]),
        ([(13, ("snapshot",)), (15, ("restore",)), (18, ("restore",))], [0, 1, 2, 8, 9]),
    ],
    ids=["within", "from before", "taken back", "both", "taken back from before", "twice"],
)
def test_an_epoch_keeps_what_was_not_undone(moves, kept):
    """Its loss is the mean over the steps that led to its last weights, as far as they are in it.

    That of each step here is the weight before it.
    """
    weights, model = Weights(), one_weight(keras.optimizers.SGD(0.125))
    callback = adaptlr.ScheduleLR(Constant(0.125), Script(tuple(moves)))
    model.fit(**steps(10), epochs=3, callbacks=[callback, weights])
    loss = model.history.history["loss"]
    assert loss[1] == pytest.approx(np.mean([weights.seen[1][step] for step in kept]), rel=1e-5)
    assert loss[2] == pytest.approx(np.mean(weights.seen[2]), rel=1e-5)


def test_the_controller_is_told_the_loss_since_the_restore():
    told = []

    class Listens(Script):
        def update(self, state, observation):
            told.append((observation.step, observation.loss))
            return super().update(state, observation)

    weights, model = Weights(), one_weight(keras.optimizers.SGD(0.125))
    script = Listens(((3, ("snapshot",)), (7, ("restore",))))
    model.fit(**steps(10), callbacks=[adaptlr.ScheduleLR(Constant(0.125), script), weights])
    losses = {step: loss for step, loss in told if loss is not None}
    for step in range(1, 10):
        assert losses[step] == pytest.approx(weights.seen[0][step - 1], abs=1e-5)


def test_the_first_epoch_counts_no_sample_of_validation():
    """On TensorFlow metrics are built by the first evaluation, which comes before any step."""
    seen = []

    class Counts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                seen.append(logs["accuracy"])

    x, _ = blobs(64)
    model = classifier("sgd")
    right = model.predict(x[:8], verbose=0).argmax(1)
    wrong = (model.predict(x, verbose=0).argmax(1) + 1) % 3
    callbacks = [Counts(), adaptlr.AutoLR()]
    model.fit(
        np.tile(x[:8], (8, 1)),
        np.tile(right, 8),
        batch_size=8,
        validation_data=(x, wrong),
        verbose=0,
        callbacks=callbacks,
    )
    assert float(seen[0]) == 1.0
