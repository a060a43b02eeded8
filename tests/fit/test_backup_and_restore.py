"""Beside keras.callbacks.BackupAndRestore: what its own tests try, with each of our callbacks."""

from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
from models import collected_warnings, one_weight, steps, weight

import adaptlr
from adaptlr.bridge.carried_state import attach, forget

EVERY = {
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
    "PlateauLR": lambda: adaptlr.PlateauLR("loss"),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 1.0, 3),
    "OneCycleLR": lambda: adaptlr.OneCycleLR(1.0, momentum=None),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(lambda step: 1.0 / (1 + step)),
}
every_callback = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


class Interrupt(keras.callbacks.Callback):
    def __init__(self, step=None, epoch=None):
        super().__init__()
        self.step, self.epoch, self.steps, self.epochs = step, epoch, 0, 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.step:
            raise RuntimeError("interrupted")

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        if self.epochs == self.epoch:
            raise RuntimeError("interrupted")


class Counting(keras.layers.Layer):
    """Counts the steps that were trained, in a weight that is saved."""

    def __init__(self):
        super().__init__()
        self.counter = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.counter.assign_add(1)
        return x


def counting():
    model = keras.Sequential([keras.Input((3,)), Counting(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mse"])
    return model


DATA = {
    "x": np.random.default_rng(0).random((10, 3)),
    "y": np.random.default_rng(1).random((10, 1)),
    "batch_size": 4,
    "verbose": 0,
}


@pytest.mark.alike
@every_callback
@pytest.mark.parametrize(
    ("freq", "interrupt", "epochs", "total"),
    [(1, Interrupt(step=2), 2, 17), ("epoch", Interrupt(epoch=2), 6, 15)],
    ids=["step", "epoch"],
)
def test_situations_of_the_tests_of_keras(make, freq, interrupt, epochs, total, tmp_path):
    """With other numbers of epochs before and after."""
    interrupt.steps = interrupt.epochs = 0
    model, backup = counting(), keras.callbacks.BackupAndRestore(tmp_path / "b", save_freq=freq)
    with pytest.raises(RuntimeError, match="interrupted"):
        model.fit(**DATA, epochs=epochs, callbacks=[backup, make(), interrupt])
    with collected_warnings() as messages:
        history = model.fit(**DATA, epochs=5, callbacks=[backup, make()])
    assert all("plans by the number of epochs" in m or "enters it at" in m for m in messages)
    assert history.epoch[-1] == 4
    # AutoLR leaves its best average, of this weight too, and undoes what its search has tried.
    least = 1 if isinstance(make(), adaptlr.AutoLR) else total
    assert least <= float(keras.ops.convert_to_numpy(model.layers[0].counter)) <= total


@pytest.mark.alike
@every_callback
def test_a_backup_that_is_torn_goes_back_to_the_one_before(make, tmp_path):
    """With `double_checkpoint`: ours goes on from there too, or begins anew, and says so."""
    backup = keras.callbacks.BackupAndRestore(tmp_path / "b", double_checkpoint=True)
    model = counting()
    with pytest.raises(RuntimeError, match="interrupted"):
        model.fit(**DATA, epochs=6, callbacks=[backup, make(), Interrupt(epoch=3)])
    with open(backup._weights_path, "w") as file:
        file.write("0")
    again, callback, model = (
        keras.callbacks.BackupAndRestore(tmp_path / "b", double_checkpoint=True),
        make(),
        counting(),
    )
    with collected_warnings() as messages:
        history = model.fit(**DATA, epochs=6, callbacks=[again, callback])
    assert all("plans by the number of epochs" in m or "enters it at" in m for m in messages)
    assert history.epoch[-1] == 5
    assert history.epoch[0] in (1, 2)
    assert [r.rule for r in callback.decisions].count("start") == 1
    least = 1 if isinstance(callback, adaptlr.AutoLR) else 18
    assert least <= float(keras.ops.convert_to_numpy(model.layers[0].counter)) <= 18


EXPLICIT = {
    "CyclicalLR": lambda **k: adaptlr.CyclicalLR(0.1, 1.0, 3, **k),
    "OneCycleLR": lambda **k: adaptlr.OneCycleLR(1.0, total_steps=32, momentum=None, **k),
    "ScheduleLR": lambda **k: adaptlr.ScheduleLR(lambda step: 1.0 / (1 + step), **k),
    "PlateauLR": lambda **k: adaptlr.PlateauLR("loss", patience=50, **k),
}


@pytest.mark.alike
@pytest.mark.parametrize("by", ["BackupAndRestore", "backup_dir"])
@pytest.mark.parametrize("name", EXPLICIT)
def test_an_explicit_schedule_goes_on_for_more_epochs(name, by, tmp_path):
    """Interrupted after three of four epochs, continued to eight, as if there had been eight."""

    def fit(model, epochs, *more):
        if by == "backup_dir":
            callbacks = [EXPLICIT[name](backup_dir=tmp_path / "b")]
        else:
            backup = keras.callbacks.BackupAndRestore(tmp_path / "b")
            callbacks = [EXPLICIT[name](), backup]
        model.fit(**steps(4), epochs=epochs, callbacks=[*callbacks, *more])

    whole, model = one_weight(), one_weight()
    fit(whole, 8)
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(model, 4, Interrupt(step=13))
    again = one_weight()
    fit(again, 8)
    assert weight(again) == pytest.approx(weight(whole), rel=1e-6)


@pytest.mark.parametrize("loaded", ["inside fit", "before"])
def test_the_remedy_of_a_refusal_works_where_it_is_met(loaded, tmp_path):
    model, path = one_weight(), tmp_path / "a.weights.h5"
    backup = keras.callbacks.BackupAndRestore(tmp_path / "b")
    save = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    one = adaptlr.ScheduleLR(lambda step: 0.5)
    with pytest.raises(RuntimeError, match="interrupted"):
        model.fit(**steps(4), epochs=3, callbacks=[one, backup, save, Interrupt(epoch=2)])
    other, callbacks = adaptlr.PlateauLR("loss"), []
    model = one_weight()
    if loaded == "before":
        attach(model)
        model.load_weights(path)
    else:
        callbacks = [backup]
    remedy = r"forget\(model\)" if loaded == "before" else r"backup_dir of .*BackupAndRestore"

    def go_on():
        model.fit(**steps(4), initial_epoch=1, epochs=3, callbacks=[other, *callbacks])

    with pytest.raises(ValueError, match=rf"is of another run: .*{remedy}"):
        go_on()
    if loaded == "before":
        attach(model)
        model.load_weights(path)
        forget(model)
    else:
        shutil.rmtree(tmp_path / "b")
    go_on()
    assert other.decisions[0].rule == "start"
