"""A run that is killed and started again ends as if nothing had happened, to the bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from faults import Faults
from models import blobs, collected_warnings, steps
from resuming import (
    STEPS,
    Kill,
    KilledError,
    auto,
    cyclical,
    final,
    fit,
    model,
    one_cycle,
    plateau,
    points,
)

import adaptlr

REFERENCES = {}


def interrupt(callback, *kill, **arguments):
    with pytest.raises(KilledError):
        fit(model(), callback, Kill(*kill), **arguments)
    for writer in callback._writers:  # the end of a process would close its files
        writer.close()


def reference(make, tmp_path_factory):
    if make not in REFERENCES:
        log = tmp_path_factory.mktemp("reference")
        network, callback = model(), make(log_dir=log)
        history = fit(network, callback).history
        REFERENCES[make] = (*final(network, callback), history, points(log))
    return REFERENCES[make]


@pytest.mark.alike
@pytest.mark.parametrize(
    ("make", "frequency", "kills"),
    [
        (plateau, 9, [(0, 20), (3, 0)]),
        (cyclical, 7, [(2, 22)]),
        (one_cycle, "epoch", [(1, 1), (4, None)]),
        (auto, 7, [(0, 12), (2, 22), (4, 33)]),  # in the probe, while it holds, while it cools
        (auto, "epoch", [(0, 30), (2, None), (4, None)]),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_continues_to_the_same_bits(make, frequency, kills, tmp_path, tmp_path_factory):
    weights, decisions, history, logged = reference(make, tmp_path_factory)
    where = {"log_dir": tmp_path / "log", "backup_dir": tmp_path / "backup"}
    for kill in kills:
        interrupt(make(backup_freq=frequency, **where), *kill)
    network, callback = model(), make(backup_freq=frequency, **where)
    resumed = fit(network, callback)
    assert callback.decisions == decisions
    assert final(network, callback)[0] == weights
    done = len(resumed.epoch)
    assert resumed.history == ({k: v[len(v) - done :] for k, v in history.items()} if done else {})
    assert points(tmp_path / "log") == logged
    assert not (tmp_path / "backup").exists()


class Spoil(keras.callbacks.Callback):
    """Makes NaN of all weights when the second epoch begins."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.set_weights([w * np.nan for w in self.model.get_weights()])


@pytest.mark.rest
def test_continues_with_the_cut_of_a_schedule_that_diverged(tmp_path):
    def run(*others, **where):
        network, callback = model(), cyclical(**where)
        fit(network, callback, *others)
        return (*final(network, callback),)

    weights, decisions = run(Spoil())
    assert [r.rule for r in decisions] == ["start", "diverged", "released"]
    for others in [Spoil(), Kill(1, 20)], [Kill(3, 5)], [Kill(4, 30)]:
        with pytest.raises(KilledError):
            run(*others, backup_dir=tmp_path, backup_freq=7)
    assert run(backup_dir=tmp_path, backup_freq=7) == (weights, decisions)


def small(units=1, learning_rate=0.1, optimizer=keras.optimizers.SGD, **arguments):
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(units, use_bias=False)])
    network.compile(optimizer(learning_rate), "mse", **arguments)
    return network


def steady(directory, **arguments):
    return adaptlr.PlateauLR("loss", backup_dir=directory, **arguments)


def small_fit(network, callback, *others, count=4, epochs=3, **arguments):
    return network.fit(
        **steps(count), epochs=epochs, callbacks=[callback, *others], **arguments
    ).epoch


def leave(callback, *kill, network=None, **arguments):
    with pytest.raises(KilledError):
        small_fit(network or small(), callback, Kill(*kill), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"callback": {"patience": 3}},
            r"controller is Divergence\(inner=Plateau\(.*patience=10.*, that of this",
        ),
        ({"callback": {"warmup_steps": 9}}, "controller is Divergence"),
        ({"fit": {"count": 5}}, "number of steps in an epoch is 4, that of this run 5"),
        ({"model": {"units": 2}}, r"of another model: shape \(1, 1\) where .* has \(1, 2\)"),
        ({"model": {"optimizer": keras.optimizers.Adam}}, r"2 variables|3 variables"),
    ],
    ids=lambda value: "",
)
def test_what_is_of_another_run_is_refused_by_name(change, message, tmp_path):
    leave(steady(tmp_path / "b"), 1, 2)
    network = small(**change.get("model", {}))
    before = network.get_weights()[0].tolist()
    with pytest.raises(ValueError, match=message) as raised:
        small_fit(
            network, steady(tmp_path / "b", **change.get("callback", {})), **change.get("fit", {})
        )
    assert "latest.adaptlr" in str(raised.value)
    assert "to begin anew" in str(raised.value)
    assert network.get_weights()[0].tolist() == before


def test_another_callback_schedule_and_backend_are_refused(tmp_path, monkeypatch):
    leave(adaptlr.CyclicalLR(0.1, 0.2, 5, backup_dir=tmp_path), 1, 2)
    for other, message in (
        (steady(tmp_path), "callback is CyclicalLR, that of this run PlateauLR"),
        (adaptlr.CyclicalLR(0.1, 0.3, 5, backup_dir=tmp_path), r"schedule is .*0\.2"),
    ):
        with pytest.raises(ValueError, match=message):
            small_fit(small(), other)
    monkeypatch.setattr(keras.backend, "backend", lambda: "other")
    with pytest.raises(ValueError, match="where this is other"):
        small_fit(small(), adaptlr.CyclicalLR(0.1, 0.2, 5, backup_dir=tmp_path))


def test_plateaus_may_be_given_more_epochs(tmp_path):
    leave(steady(tmp_path), 2, 1)
    assert small_fit(small(), steady(tmp_path), epochs=6) == [2, 3, 4, 5]


def test_fewer_epochs_than_were_trained_are_refused(tmp_path):
    leave(steady(tmp_path), 2, 1)
    with pytest.raises(ValueError, match="it has come to epoch 3, and this one has 1"):
        small_fit(small(), steady(tmp_path), epochs=1)


@pytest.mark.alike
@pytest.mark.parametrize("kill", [(3, 2), (4, 1)])
@pytest.mark.parametrize("frequency", ["epoch", 2])
@pytest.mark.parametrize("epochs", [3, 5])
def test_a_fit_does_not_continue_the_one_after_it(epochs, frequency, kill, tmp_path):
    """The first of two in one script; it may have been stopped before all its epochs."""
    arguments = {"backup_freq": frequency}
    leave(steady(tmp_path, **arguments), *kill, initial_epoch=3, epochs=6)
    network = small()
    if kill == (3, 2) and frequency == "epoch":  # before its first backup
        assert small_fit(network, steady(tmp_path, **arguments)) == [0, 1, 2]
        return
    with pytest.raises(ValueError, match=r"began at epoch 4, and this one at epoch 1. Give each"):
        small_fit(network, steady(tmp_path, **arguments), epochs=epochs)
    assert network._initial_epoch is None
    done = small_fit(network, steady(tmp_path, **arguments), initial_epoch=3, epochs=6)
    assert done == list(range(kill[0], 6))


def test_a_finished_run_leaves_nothing_and_the_next_begins_anew(tmp_path):
    network, callback = small(), steady(tmp_path / "b")
    leave(callback, 1, 1, network=network)
    assert small_fit(network, callback) == [1, 2]
    assert not (tmp_path / "b").exists()
    assert small_fit(network, callback) == [0, 1, 2]


def test_a_kill_before_the_first_backup_begins_anew(tmp_path):
    leave(steady(tmp_path), 0, 3)
    assert small_fit(small(), steady(tmp_path)) == [0, 1, 2]


def test_a_run_that_was_stopped_is_not_trained_on(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    network = small()
    with pytest.raises(KilledError):
        network.fit(**steps(4), epochs=5, callbacks=[Stop(), steady(tmp_path), Kill(1)])
    assert small_fit(small(), steady(tmp_path), epochs=5) == []
    assert small_fit(small(), steady(tmp_path), epochs=5) == [0, 1, 2, 3, 4]


def test_data_that_end_before_the_batch_are_refused(tmp_path):
    def batches(count):
        def generate():
            for _ in range(count):
                yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

        return generate()

    callback = steady(tmp_path, backup_freq=3)
    with pytest.raises(KilledError):
        small().fit(
            batches(9), epochs=2, verbose=0, shuffle=False, callbacks=[callback, Kill(0, 7)]
        )
    network = small()
    with (
        collected_warnings(),
        pytest.raises(RuntimeError, match=r"at batch 7 of epoch 1, and"),
    ):
        network.fit(
            batches(4),
            epochs=1,
            verbose=0,
            shuffle=False,
            callbacks=[steady(tmp_path, backup_freq=3)],
        )
    with collected_warnings():  # the model trains again
        before = network.get_weights()[0].item()
        network.fit(batches(4), epochs=1, verbose=0, shuffle=False)
    assert network.get_weights()[0].item() != before


def test_an_interrupted_skip_leaves_the_model_trainable(tmp_path):
    leave(steady(tmp_path, backup_freq=3), 0, 3)
    network = small()
    leave(steady(tmp_path, backup_freq=3), 0, 1, network=network)
    before = network.get_weights()[0].item()
    small_fit(network, keras.callbacks.Callback(), epochs=1)
    assert network.get_weights()[0].item() != before


def test_batches_before_the_backup_are_read_and_not_trained(tmp_path):
    leave(steady(tmp_path, backup_freq=3), 1, 3)  # the last backup: step 6, batch 2 of epoch 1
    kill = Kill(9)
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda b, logs: seen.append(logs["loss"])
    )
    network = small()
    small_fit(network, steady(tmp_path, backup_freq=3), kill, spy, epochs=2)
    assert kill.batches == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert int(network.optimizer.iterations) == 8
    assert seen[0] == seen[1]


@pytest.mark.parametrize("frequency", [0, -1, 1.5, True, "batch", None])
def test_a_frequency_that_is_none_is_refused(frequency, tmp_path):
    with pytest.raises((ValueError, TypeError), match=r"PlateauLR\(backup_freq=...\) must be 'ep"):
        steady(tmp_path, backup_freq=frequency)


def test_a_model_that_is_not_built_is_refused(tmp_path):
    network = keras.Sequential([keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the others build it before training begins")
    with pytest.raises(ValueError, match=r"has no weights yet .* keras.Input"):
        small_fit(network, steady(tmp_path))


@pytest.mark.alike
@pytest.mark.parametrize("first", [1, 2, 5, 9, 14, 20])
def test_training_goes_on_when_nothing_can_be_saved(first, tmp_path, monkeypatch):
    leave(steady(tmp_path / "reference"), 5, 1, epochs=8)
    with pytest.MonkeyPatch.context() as patch, collected_warnings() as messages:
        Faults(patch, first, OSError(28, "No space left on device"), lasting=True)
        leave(steady(tmp_path / "b"), 5, 1, epochs=8)
    assert len(messages) == 1
    assert "cannot save a backup, and the training goes on" in messages[0]
    # What was good before the fault continues, and nothing else.
    with collected_warnings():
        done = small_fit(small(), steady(tmp_path / "b"), epochs=8)
    assert done == list(range(done[0], 8))
    assert done[0] <= 5


@pytest.mark.alike
@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_backup_and_restore(ours_first, tmp_path):
    def callbacks():
        theirs = keras.callbacks.BackupAndRestore(tmp_path / "theirs")
        pair = [steady(tmp_path / "ours"), theirs]
        return pair if ours_first else pair[::-1]

    for kill in ((1, 2), (2, 0)):
        with pytest.raises(KilledError):
            small().fit(**steps(4), epochs=5, callbacks=[*callbacks(), Kill(*kill)])
    network = small()
    assert network.fit(**steps(4), epochs=5, callbacks=callbacks()).epoch == [2, 3, 4]
    assert int(network.optimizer.iterations) == 20
    assert small_fit(network, keras.callbacks.Callback()) == [0, 1, 2]  # Keras alone: none


def test_backup_and_restore_of_another_epoch_is_refused(tmp_path):
    """Killed between the two backups of one epoch."""

    class Between(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KilledError

    def callbacks():
        theirs = keras.callbacks.BackupAndRestore(tmp_path / "theirs")
        return steady(tmp_path / "ours"), Between(), theirs

    with pytest.raises(KilledError):
        small().fit(**steps(4), epochs=5, callbacks=list(callbacks()))
    ours, _, theirs = callbacks()
    with pytest.raises(RuntimeError, match=r"continues at epoch 4, and fit began at epoch 3"):
        small().fit(**steps(4), epochs=5, callbacks=[ours, theirs])
    ours, _, theirs = callbacks()
    assert small().fit(**steps(4), epochs=5, callbacks=[theirs, ours]).epoch == [3, 4]


class Slices(keras.utils.PyDataset):
    """Batches with noise from NumPy's generator."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        x = np.full((4, 1), index, "float32")
        return x + np.random.normal(size=x.shape).astype("float32"), x


def _arrays(**arguments):
    x = np.arange(24, dtype="float32").reshape(24, 1) / 24
    return {"x": x, "y": x[::-1].copy(), "batch_size": 4, **arguments}


def _tf_data():
    import tensorflow as tf

    arrays = _arrays()
    data = tf.data.Dataset.from_tensor_slices((arrays["x"], arrays["y"]))
    return {
        "x": data.shuffle(24, seed=1, reshuffle_each_iteration=False).batch(4),
        "shuffle": False,
    }


def _data_loader(workers):
    import torch

    arrays = _arrays()
    data = torch.utils.data.TensorDataset(*map(torch.from_numpy, (arrays["x"], arrays["y"])))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, num_workers=workers)
    return {"x": loader, "shuffle": False}


DATA = {
    "arrays": lambda: _arrays(shuffle=False),
    "arrays, shuffled": _arrays,
    "PyDataset": lambda: {"x": Slices()},
}
if keras.backend.backend() == "tensorflow":
    DATA["tf.data"] = _tf_data
if keras.backend.backend() == "torch":
    DATA["DataLoader"] = lambda: _data_loader(0)
else:
    DATA["arrays, batches shuffled"] = lambda: _arrays(shuffle="batch")


@pytest.mark.alike
@pytest.mark.parametrize("frequency", ["epoch", 4])
@pytest.mark.parametrize("data", DATA)
def test_data_in_the_same_order_lead_to_the_same_bits(data, frequency, tmp_path):
    def train(kill, **arguments):
        keras.utils.set_random_seed(3)
        network = keras.Sequential([keras.Input((1,)), keras.layers.Dropout(0.5)])
        network.add(keras.layers.Dense(1))
        network.compile("adam", "mse")
        callbacks = [adaptlr.PlateauLR("loss", **arguments), kill]
        network.fit(**DATA[data](), epochs=3, verbose=0, callbacks=callbacks)
        return [value.tolist() for value in network.get_weights()]

    expected = train(Kill(9))
    backup = {"backup_dir": tmp_path, "backup_freq": frequency}
    with pytest.raises(KilledError):
        train(Kill(1, 3), **backup)
    assert train(Kill(9), **backup) == expected


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch takes one step at a time")
def test_several_steps_in_one_execution(tmp_path):
    def train(kill, **arguments):
        keras.utils.set_random_seed(3)
        network = small(optimizer=keras.optimizers.Adam, steps_per_execution=3)
        callbacks = [adaptlr.OneCycleLR(0.1, **arguments), kill]
        network.fit(**_arrays(), epochs=3, verbose=0, callbacks=callbacks)
        return network.get_weights()[0].item()

    expected = train(Kill(9))
    backup = {"backup_dir": tmp_path, "backup_freq": 4}
    with pytest.raises(KilledError):
        train(Kill(1, 3), **backup)
    kill = Kill(9)
    assert train(kill, **backup) == expected
    assert kill.batches == [(1, 0), (1, 3), (2, 0), (2, 3)]


@pytest.mark.slow
def test_survives_kills_of_real_processes():
    """A few; `python tests/kill.py 30` is the long one."""
    from kill import kill

    for case in (("auto", 7), ("cyclical", "epoch")):
        assert kill([case], 1, seed=5)["runs"] >= 1


@pytest.mark.parametrize("make", [auto, plateau])
def test_a_metric_with_several_values_is_saved_in_the_middle_of_an_epoch(make, tmp_path):
    """Keras' F1Score has one for each class, and a callback is told of them again."""
    told = []

    class Told(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            told.append(np.asarray(keras.ops.convert_to_numpy(logs["f1_score"])).shape)

    def scored():
        network = model()
        metrics = [keras.metrics.F1Score()]
        network.compile("adam", "categorical_crossentropy", metrics=metrics)
        return network

    labels = keras.utils.to_categorical(blobs(8 * STEPS + 48)[1])
    data = {"y": labels[:-48], "validation_data": (blobs(48)[0], labels[-48:])}
    whole, callback = scored(), make()
    fit(whole, callback, epochs=2, **data)
    with pytest.raises(KilledError):
        fit(scored(), make(backup_dir=tmp_path, backup_freq=7), Kill(1, 12), epochs=2, **data)
    again, other = scored(), make(backup_dir=tmp_path, backup_freq=7)
    fit(again, other, Told(), epochs=2, **data)
    assert final(again, other) == final(whole, callback)
    assert set(told) == {(3,)}
