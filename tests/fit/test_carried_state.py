"""State inside `.keras` and `.weights.h5` files."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from models import Metrics, collected_warnings, steps

import adaptlr
from adaptlr.bridge.carried_state import attach, forget


def small():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.compile(keras.optimizers.Adam(0.01), "mse")
    network.optimizer.build(network.trainable_variables)
    return network


def plateau(**arguments):
    return adaptlr.PlateauLR("worse", mode="min", factor=0.5, patience=3, **arguments)


def train(network, callback, *others, first=0, epochs=8):
    metrics = Metrics("worse", [1.0] * epochs)
    history = network.fit(
        **steps(4), initial_epoch=first, epochs=epochs, callbacks=[metrics, callback, *others]
    )
    return history.history.get("learning_rate")


class Save(keras.callbacks.Callback):
    def __init__(self, epoch, path):
        super().__init__()
        self.epoch, self.path = epoch, path

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            save = self.model.save if self.path.suffix == ".keras" else self.model.save_weights
            save(self.path)


@pytest.fixture(params=["run.keras", "run.weights.h5"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_a_fit_continues_what_the_weights_carry(path):
    expected = train(small(), plateau())
    train(small(), plateau(), Save(4, path), epochs=5)
    network, callback = small(), plateau()
    attach(network)
    network.load_weights(path)
    assert train(network, callback, first=5) == expected[5:]
    assert [r.rule for r in callback.decisions] == ["start", "plateau", "plateau"]


def test_without_it_the_waiting_begins_anew(path):
    train(small(), plateau(), Save(4, path), epochs=5)
    network = small()
    network.load_weights(path)  # passes over the state
    assert train(network, plateau(), first=5) != train(small(), plateau())[5:]


def test_files_load_where_there_is_no_adaptlr(tmp_path):
    """Without a warning, and with the optimizer's slots."""
    network = small()
    paths = [tmp_path / "run.keras", tmp_path / "run.weights.h5"]
    train(network, plateau(), *(Save(4, path) for path in paths), epochs=5)
    script = """
import sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="__array__ implementation")
import keras, numpy as np
whole, weights = sys.argv[1:]
loaded = keras.models.load_model(whole)
built = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
built.compile(keras.optimizers.Adam(0.01), "mse")
built.optimizer.build(built.trainable_variables)
built.load_weights(weights)
assert "adaptlr" not in sys.modules
for model in (loaded, built):
    print(int(model.optimizer.iterations), model.get_weights()[0].item())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.split() == ["20", str(network.get_weights()[0].item())] * 2


def test_a_file_without_state_loads_where_there_is_one(path):
    network = small()
    Save(0, path).set_model(network)
    save = Save(0, path)
    save.set_model(network)
    save.on_epoch_end(0)
    again = small()
    attach(again)
    again.load_weights(path)
    assert again.get_weights()[0] == network.get_weights()[0]
    assert len(train(again, plateau(), first=1, epochs=3)) == 2


def test_a_finished_run_carries_nothing(path):
    network = small()
    train(network, plateau(), epochs=2)
    network.save_weights(path.with_suffix(".weights.h5"))
    again = small()
    carried = attach(again)
    again.load_weights(path.with_suffix(".weights.h5"))
    assert carried.take(1) is None


def test_another_epoch_begins_anew(path):
    train(small(), plateau(), Save(2, path), epochs=5)
    network, callback = small(), plateau()
    attach(network)
    network.load_weights(path)
    train(network, callback, first=0, epochs=2)
    assert callback.decisions[0].step == 0
    assert len(callback.decisions) == 1


@pytest.mark.parametrize("saved", ["after the callback", "before the callback"])
def test_a_run_from_epoch_0_takes_the_weights_of_an_epoch_and_no_more(path, saved):
    """It is continued from epoch 1, though."""
    network = small()
    callbacks = [plateau(), Save(0, path)]
    train(
        network, *(callbacks if saved == "after the callback" else reversed(callbacks)), epochs=3
    )
    network.load_weights(path)
    callback = plateau()
    train(network, callback, first=1, epochs=2)
    assert [(r.rule, r.step) for r in callback.decisions] == [("start", 0)]
    network.load_weights(path)
    network.compile(keras.optimizers.SGD(0.5), "mse")
    callback = adaptlr.PlateauLR("worse", mode="min")
    train(network, callback, first=0, epochs=2)
    assert [(r.rule, r.learning_rate) for r in callback.decisions] == [("start", 0.5)]


def test_a_file_of_the_middle_of_epoch_0_is_continued(tmp_path):
    class SaveInside(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.save_weights(tmp_path / "inside.weights.h5")

    train(small(), plateau(warmup_steps=8), SaveInside(), epochs=1)
    network = small()
    attach(network)
    network.load_weights(tmp_path / "inside.weights.h5")
    assert train(network, plateau(warmup_steps=8), epochs=3)[-1] == np.float32(0.01)


def test_another_run_is_refused_and_can_be_forgotten(path):
    train(small(), plateau(), Save(2, path), epochs=5)
    network = small()
    attach(network)
    network.load_weights(path)
    with pytest.raises(ValueError, match=r"loaded with the weights is of another run: its co"):
        train(network, adaptlr.PlateauLR("worse", mode="min"), first=3, epochs=5)
    network.load_weights(path)
    forget(network)
    train(network, adaptlr.PlateauLR("worse", mode="min"), first=3, epochs=5)


def test_another_format_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "run.weights.h5"
    monkeypatch.setattr("adaptlr.bridge.carried_state._FORMAT", 0)
    train(small(), plateau(), Save(2, path), epochs=3)
    monkeypatch.undo()
    network = small()
    attach(network)
    with pytest.raises(ValueError, match=r"has format 0, and this version reads \d+"):
        network.load_weights(path)


def test_beside_backup_and_restore_without_a_backup_of_our_own(tmp_path):
    """Keras restores the weights, and with them the state."""
    expected = train(small(), plateau())

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 5:
                raise KeyboardInterrupt

    for first in (True, False):
        directory = tmp_path / str(first)
        theirs = [keras.callbacks.BackupAndRestore(directory) for _ in range(2)]
        with pytest.raises(KeyboardInterrupt):
            train(small(), plateau(), theirs[0], Kill())
        assert train(small(), plateau(), theirs[1]) == expected[5:]


def test_averages_begin_with_the_weights_that_were_loaded(tmp_path):
    path = tmp_path / "run.weights.h5"
    x = np.random.default_rng(0).normal(size=(320, 1)).astype("float32")

    def run(network, callback, *others, first=0, epochs=6):
        return network.fit(
            x,
            2 * x,
            batch_size=8,
            initial_epoch=first,
            epochs=epochs,
            verbose=0,
            validation_data=(x, 2 * x),
            callbacks=[callback, *others],
        )

    run(small(), adaptlr.AutoLR(), Save(2, path))
    network, callback = small(), adaptlr.AutoLR()
    attach(network)
    network.load_weights(path)
    loaded = network.evaluate(x, 2 * x, verbose=0)
    with collected_warnings() as messages:
        history = run(network, callback, first=3).history
    assert messages == []
    rules = [record.rule for record in callback.decisions]
    assert rules.count("begin") == rules.count("warm") == 1
    assert history["val_loss"][-1] <= loaded
    json.dumps(callback.decisions[0].__dict__)


def test_a_file_of_weights_has_no_snapshot_whose_loss_would_be_known(tmp_path):
    """A look must not go back to weights that are not those it compares with."""
    x = np.random.default_rng(0).normal(size=(320, 1)).astype("float32")
    data = {"x": x, "y": 2 * x, "batch_size": 8, "verbose": 0, "validation_data": (x, 2 * x)}

    class Phase(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            phases.append(callback._present_state.inner.phase)

    phases, callback = [], adaptlr.AutoLR()
    saves = [Save(epoch, tmp_path / f"{epoch}.weights.h5") for epoch in range(8)]
    small().fit(**data, epochs=8, callbacks=[callback, Phase(), *saves])
    first, before = next(
        (epoch, phase) for epoch, phase in enumerate(phases)
        if phase.kind == "hold" and phase.snapshot_loss is not None
    )  # fmt: skip
    network, callback, phases = small(), adaptlr.AutoLR(), []
    attach(network)
    network.load_weights(tmp_path / f"{first - 1}.weights.h5")
    network.fit(**data, initial_epoch=first, epochs=8, callbacks=[callback, Phase()])
    assert (phases[0].kind, phases[0].rate) == ("hold", before.rate)
    assert phases[0].snapshot_loss is None
