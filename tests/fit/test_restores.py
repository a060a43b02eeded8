"""What the guard says it has done has happened: restores, cuts and the end."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import one_weight

import adaptlr
from adaptlr.schedules import Constant
from adaptlr.writers import MemoryWriter

EPOCH = 10  # steps, each of them a control point
EPOCHS = 5


def linear(y, p):
    """A loss whose gradient does not depend on the targets: infinite ones spoil no weights."""
    return keras.ops.mean(p, axis=-1) * 1e-3 + keras.ops.mean(y, axis=-1)


def model(loss, *, built, optimizer=None):
    layers = [keras.Input((2,))] if built else []
    network = keras.Sequential([*layers, keras.layers.Dense(3)])
    network.compile(keras.optimizers.SGD(0.5) if optimizer is None else optimizer, loss)
    return network


def fit(network, infinite, *callbacks):
    """Trains five epochs on targets of which those of some steps are infinite."""
    x = np.random.default_rng(0).normal(size=(EPOCH * EPOCHS, 2)).astype("float32")
    y = np.ones((len(x), 3), "float32")
    y[infinite] = np.inf
    return network.fit(
        x,
        y,
        batch_size=1,
        steps_per_epoch=EPOCH,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history


class Witness(keras.callbacks.Callback):
    """Listed after the callback under test: has each restore that was reported taken place?

    After one, the weights are to the bit what they were at a step before.
    """

    def __init__(self, watched):
        super().__init__()
        self.watched, self.told, self.seen = watched, 0, []
        self.reported, self.false = 0, []

    def look(self):
        if not self.model.built:
            return
        weights = self.model.get_weights()
        news, self.told = self.watched.decisions[self.told :], len(self.watched.decisions)
        for record in news:
            if "back to" in record.reason:
                self.reported += 1
                if not any(all(map(np.array_equal, weights, then)) for then in self.seen):
                    self.false.append(record)
        self.seen.append(weights)

    def on_train_batch_begin(self, batch, logs=None):
        self.look()

    def on_epoch_end(self, epoch, logs=None):
        self.look()


@pytest.mark.parametrize("built", [True, False], ids=["built", "unbuilt"])
class TestOneInfiniteLoss:
    """TensorFlow builds a Sequential without an Input in its first step, after `fit` began."""

    @pytest.mark.alike
    @pytest.mark.parametrize("step", [0, 4, 9, 14])
    @pytest.mark.parametrize("loss", [linear, "mse"], ids=["weights stay", "weights are spoilt"])
    def test_no_restore_is_reported_that_did_not_happen(self, built, loss, step):
        callback = adaptlr.PlateauLR("loss")
        witness = Witness(callback)
        fit(model(loss, built=built), [step], callback, witness)
        assert witness.false == []

    @pytest.mark.alike
    @pytest.mark.parametrize("step", [0, 4, 9, 14])
    def test_that_spoils_no_weights_ends_no_training(self, built, step):
        callback = adaptlr.PlateauLR("loss")
        history = fit(model(linear, built=built), [step], callback)
        assert len(history["loss"]) == EPOCHS
        assert [r.rule for r in callback.decisions].count("diverged") <= 1

    @pytest.mark.alike
    @pytest.mark.parametrize("step", [4, 9, 14])
    def test_that_spoils_the_weights_is_undone(self, built, step):
        """By then every model is built, so that there are weights to go back to."""
        network, callback = model("mse", built=built), adaptlr.PlateauLR("loss")
        history = fit(network, [step], callback)
        assert len(history["loss"]) == EPOCHS
        assert all(np.isfinite(w).all() for w in network.get_weights())
        assert [r.rule for r in callback.decisions].count("diverged") == 1


class TestRunningSums:
    """The loss since the last look is a difference of sums, in which an infinity stays."""

    def test_an_infinity_that_is_not_undone_hides_no_later_loss(self):
        """A loss scale skips the step, so nothing is restored and no sum is reset."""
        writer = MemoryWriter()
        callback = adaptlr.PlateauLR("loss", writers=[writer])
        scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5))
        fit(model(linear, built=True, optimizer=scaled), [3], callback)
        losses = dict(writer.series("loss"))
        seen = [step for step in range(1, EPOCH + 1) if np.isfinite(losses.get(step, np.nan))]
        assert seen == [1, 2, 3, 5, 6, 7, 8, 9, 10]
        assert losses[6] == pytest.approx(1.0, abs=0.01)

    def test_a_fault_after_an_infinity_is_seen_in_the_same_epoch(self):
        callback = adaptlr.PlateauLR("loss")
        network = model(linear, built=False)
        fit(network, [2, 6], callback)
        faults = [r.step for r in callback.decisions if r.rule == "diverged"]
        assert faults == [3, 7]


EVERY = {
    "AutoLR": lambda **k: adaptlr.AutoLR(monitor="loss", **k),
    "PlateauLR": lambda **k: adaptlr.PlateauLR("loss", **k),
    "CyclicalLR": lambda **k: adaptlr.CyclicalLR(0.1, 1.0, 3, **k),
    "OneCycleLR": lambda **k: adaptlr.OneCycleLR(1.0, momentum=None, **k),
    "ScheduleLR": lambda **k: adaptlr.ScheduleLR(Constant(0.1), **k),
}


class TestEndByNaN:
    @pytest.mark.alike
    @pytest.mark.parametrize("first", [3, 8, 13, 20])
    @pytest.mark.parametrize("name", EVERY)
    def test_is_logged_once(self, name, first):
        """Keras asks once more after a request to stop: at the end of the epoch."""
        writer = MemoryWriter()
        callback = EVERY[name](writers=[writer])
        ones = np.ones((100, 1), "float32")
        targets = np.where(np.arange(100)[:, None] < first, 1.0, np.nan).astype("float32")
        network = one_weight()
        network.compile(keras.optimizers.SGD(0.1), loss=linear)
        history = network.fit(
            ones,
            targets,
            batch_size=1,
            steps_per_epoch=20,
            epochs=5,
            verbose=0,
            shuffle=False,
            callbacks=[callback],
        ).history
        assert len(history["loss"]) < 5
        ends = [r.step for r in callback.decisions if "in vain" in r.reason]
        assert len(ends) == 1
        assert callback.decisions[-1].step == ends[0]
        assert [r.step for r in writer.decisions if "in vain" in r.reason] == ends
