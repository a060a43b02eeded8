"""AutoLR in real `fit` runs."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from models import blobs, classifier, collected_warnings, one_weight

import adaptlr
from adaptlr.bridge.variables import normalised
from adaptlr.writers import MemoryWriter


def fit(callback, optimizer=None, epochs=20, layers=(), samples=640, **arguments):
    x, y = blobs(samples)
    model = classifier(optimizer or keras.optimizers.Adam(1e-6), *layers)
    arguments.setdefault("validation_data", blobs(90, seed=0))
    history = model.fit(
        x, y, batch_size=32, epochs=epochs, verbose=0, callbacks=[callback], **arguments
    )
    return model, history.history


def rules(callback):
    return [record.rule for record in callback.decisions]


@functools.cache
def trained(optimizer=keras.optimizers.Adam, start=1e-6):
    """A run that several tests look at: its model, history and callback."""
    keras.utils.set_random_seed(0)
    callback = adaptlr.AutoLR()
    return *fit(callback, optimizer(start)), callback


def assert_equal(left, right):
    """Two lists of arrays, to the bit."""
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def normalising(*, trainable=True):
    base = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.SeparableConv2D(4, 3),
            keras.layers.BatchNormalization(),
        ]
    )
    base.trainable = trainable
    return [base, keras.layers.Flatten(), keras.layers.Dense(3)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (normalising(), True),
        (normalising(trainable=False), False),
        ([keras.layers.Flatten(), keras.layers.Dense(3)], False),
        ([keras.layers.BatchNormalization(), *normalising()[1:]], True),
        (
            [
                keras.layers.BatchNormalization(),
                keras.layers.Conv2D(4, 3),
                *(keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)),
            ],
            False,
        ),
        ([keras.layers.LayerNormalization(), *normalising()[1:]], False),
        ([keras.layers.Flatten(), keras.layers.BatchNormalization()], False),
    ],
    ids=["nested", "frozen", "none", "half", "input alone", "layer norm", "nothing else"],
)
def test_batch_normalisation_behind_most_kernels_is_seen(layers, expected):
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    assert normalised(model) is expected


@pytest.mark.parametrize("training", [None, True, False])
def test_a_base_that_is_called_in_inference_counts_as_none(training, tmp_path):
    base = keras.Sequential([keras.Input((8, 8, 1)), *normalising()[:2]])
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(3)(base(image, training=training)))
    expected = training is not False
    assert normalised(model) is expected
    model.save(tmp_path / "model.keras")
    assert normalised(keras.models.load_model(tmp_path / "model.keras")) is expected


@pytest.mark.parametrize("layers", [[], [keras.layers.BatchNormalization()]], ids=len)
def test_a_fit_tells_the_controller_of_batch_normalisation(layers):
    writer = MemoryWriter()
    fit(adaptlr.AutoLR(writers=[writer]), epochs=1, samples=96, layers=layers)
    assert writer.run.get("normalised", False) is bool(layers)


@pytest.mark.rest
def test_the_noise_gap_is_measured_on_the_same_batches_and_disturbs_nothing():
    held_out, outcomes = blobs(90, seed=0), []
    optimizer = keras.optimizers.SGD
    for writers in ([MemoryWriter()], []):  # without a log nothing is measured for it
        keras.utils.set_random_seed(5)
        callback = adaptlr.AutoLR(writers=writers)
        layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
        model, history = fit(
            callback, optimizer(0.01, momentum=0.92), layers=layers, validation_data=held_out
        )
        outcomes.append((model.get_weights(), history, callback.decisions, writers))
    (weights, *seen, written), (plain_weights, *plainly_seen, _) = outcomes
    assert seen == plainly_seen
    assert_equal(weights, plain_weights)
    rows = [values for _, values in written[0].scalars if "noise/gap" in values]
    assert len(rows) == len(history["loss"])
    first = model.evaluate(*(part[:32] for part in held_out), verbose=0)[0]  # of three batches
    assert min(abs(row["noise/averaged"] - first) for row in rows) < 1e-5
    for row in rows:
        assert row["noise/gap"] == abs(row["noise/raw"] - row["noise/averaged"])
    assert max(row["noise/gap"] for row in rows) > 1e-4


OPTIMIZERS = [
    lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    keras.optimizers.Adam,
    keras.optimizers.RMSprop,
    keras.optimizers.AdamW,
]


@pytest.mark.alike
@pytest.mark.parametrize(
    ("optimizer", "start"), list(zip(OPTIMIZERS, [1e-7, 10.0, 1e-7, 10.0], strict=True))
)
def test_learns_from_any_start_rate(optimizer, start):
    _, history, callback = trained(optimizer, start)
    assert max(history["val_accuracy"]) > 0.9
    assert rules(callback)[:3] == ["start", "begin", "warm"]
    assert 1e-4 < callback.learning_rate < 3.0


@pytest.mark.rest
def test_the_start_rate_plays_no_part_in_a_run_that_is_repeated():
    """All is the same, to the bit, but for the first line, which names the rate of the start."""
    model, history, callback = trained()
    again, repeated, other = trained(start=10.0)
    assert [run.decisions[0].learning_rate for run in (callback, other)] == [
        pytest.approx(1e-6),
        10.0,
    ]
    assert callback.decisions[1:] == other.decisions[1:]
    assert history == repeated
    assert_equal(model.get_weights(), again.get_weights())


def test_a_raise_that_is_not_better_leaves_no_trace_in_weights_slots_and_average():
    seen, x, y = {}, *blobs(640)

    class Spy(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            variables = [*self.model.variables, *self.model.optimizer.variables]
            values = [keras.ops.convert_to_numpy(v) for v in variables if "learning" not in v.name]
            seen[self.params["steps"] * self.epoch + batch] = values

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    callback = adaptlr.AutoLR()
    model = classifier(keras.optimizers.Adam())
    model.fit(x, y, batch_size=32, epochs=20, verbose=0, callbacks=[callback, Spy()],
              validation_data=(x, y))  # fmt: skip
    moves = [r for r in callback.decisions if r.rule in ("raise", "back")]
    back = next(i for i, r in enumerate(moves) if r.rule == "back")
    raised, undone = moves[back - 1].step, moves[back].step
    for before, after in zip(seen[raised], seen[undone], strict=True):
        np.testing.assert_array_equal(before, after)
    assert any(
        not np.array_equal(a, b) for a, b in zip(seen[raised], seen[undone - 1], strict=True)
    )


def test_the_model_ends_with_the_best_validated_weights():
    model, history, _ = trained()
    loss = model.evaluate(*blobs(90, seed=0), verbose=0)[0]
    assert loss == pytest.approx(min(history["val_loss"]), rel=0.02)


def test_validation_inside_fit_measures_averaged_weights_and_training_goes_on_from_raw_ones():
    pairs = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.averaged = self.model.get_weights()

        def on_epoch_begin(self, epoch, logs=None):
            if epoch > 5:
                pairs.append((self.averaged, self.model.get_weights()))

    x, y = blobs(640)
    model = classifier(keras.optimizers.Adam())
    model.fit(x, y, epochs=10, verbose=0, callbacks=[adaptlr.AutoLR(), Spy()],
              validation_data=(x, y))  # fmt: skip
    for averaged, raw in pairs:
        assert any(not np.array_equal(a, b) for a, b in zip(averaged, raw, strict=True))


@pytest.mark.alike
@pytest.mark.parametrize("epochs", [10, 20])
def test_batch_norm_validates_well_from_the_first_epochs(epochs):
    """Averaged statistics are those of the latest batches: finite, and of use at once."""
    _, history = fit(adaptlr.AutoLR(), layers=[keras.layers.BatchNormalization()], epochs=epochs)
    assert np.isfinite(history["val_loss"]).all()
    assert max(history["val_accuracy"][:5]) > 0.9


def test_own_validation_data_stands_in_for_that_of_fit():
    callback = adaptlr.AutoLR(validation_data=blobs(90, seed=0))
    _, history = fit(callback, validation_data=None)
    assert len(history["val_loss"]) == len(history["loss"])
    assert rules(callback)[-1] == "stop"


def test_a_look_between_epoch_ends_disturbs_nothing():
    """How many validation samples there are changes nothing before the first decision by them."""
    seen, x, y = {}, *blobs(640)
    for samples in (20, 90):
        keras.utils.set_random_seed(1)
        callback = adaptlr.AutoLR((x[:samples], y[:samples]))
        record = seen[samples] = []

        class Weights(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None, record=record, callback=callback):
                record.append(self.model.get_weights())
                self.model.stop_training = not {"raise", "wait"}.isdisjoint(rules(callback))

        model = classifier(keras.optimizers.SGD(), keras.layers.Dropout(0.2))
        model.fit(x, y, batch_size=8, epochs=21, verbose=0, callbacks=[callback, Weights()],
                  validation_data=(x[:90], y[:90]))  # fmt: skip
    assert len(seen[20]) == len(seen[90]) == callback.decisions[-1].step + 1
    for few, many in zip(seen[20], seen[90], strict=True):
        assert_equal(few, many)


def in_batches(x, y):
    """Validation data as each kind that `fit` takes and can be read again."""
    kinds = {"arrays": (x, y), "weighted": (x, y, np.ones(len(x), "float32"))}

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return x[30 * index : 30 * index + 30], y[30 * index : 30 * index + 30]

    kinds["PyDataset"] = Batches()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        kinds["tf.data"] = tf.data.Dataset.from_tensor_slices((x, y)).batch(30)
    if keras.backend.backend() == "torch":
        import torch

        rows = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
        kinds["DataLoader"] = torch.utils.data.DataLoader(rows, batch_size=30)
    return kinds


@pytest.mark.alike
@pytest.mark.parametrize("kind", in_batches(*blobs(90)))
def test_the_short_call_takes_the_validation_data_of_fit(kind):
    callback = adaptlr.AutoLR()
    fit(callback, validation_data=in_batches(*blobs(90, seed=0))[kind])
    assert {"raise", "keep"} <= set(rules(callback))
    assert callback._state.inner.limits.measurable


def test_the_short_call_takes_what_validation_split_splits_off():
    callback = adaptlr.AutoLR()
    fit(callback, validation_data=None, validation_split=0.2)
    assert callback._state.inner.limits.measurable


def test_a_look_takes_a_sample_that_the_size_of_validation_batches_does_not_change():
    class Counting(keras.Sequential):
        looks = ()

        def evaluate(self, x=None, *arguments, steps=None, **keywords):
            self.looks = (*self.looks, len(x)) if steps is None else self.looks
            return super().evaluate(x, *arguments, steps=steps, **keywords)

    (x, y), held_out = blobs(640), blobs(5000, seed=1)
    model = Counting([keras.Input((8,)), keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    sizes = {"batch_size": 16, "validation_batch_size": 1000}
    callback = adaptlr.AutoLR()
    model.fit(x, y, epochs=8, validation_data=held_out, callbacks=[callback], verbose=0, **sizes)
    between = [count for count in model.looks if count < 5000]
    assert between
    assert set(between) == {128}


def test_a_look_takes_a_sample_of_what_pandas_holds():
    """Of which Keras makes labels of another rank than of an array."""
    pandas = pytest.importorskip("pandas")
    x, y = blobs(960)
    data = pandas.DataFrame(x), pandas.Series(y)
    callback = adaptlr.AutoLR()
    fit(callback, validation_data=data)
    assert {"raise", "keep"} <= set(rules(callback))


def test_validation_data_that_can_be_read_once_are_left_to_fit():
    def forever():
        while True:
            yield blobs(90, seed=0)

    callback = adaptlr.AutoLR()
    with collected_warnings() as messages:
        _, history = fit(callback, validation_data=forever(), validation_steps=1)
    (message,) = messages
    assert "read only once" in message
    assert "AutoLR(validation_data=...)" in message
    assert not callback._state.inner.limits.measurable
    assert max(history["val_accuracy"]) > 0.9


def test_fit_validates_as_often_as_it_was_told():
    callback = adaptlr.AutoLR()
    _, history = fit(callback, validation_freq=5)
    assert len(history["val_loss"]) == len(history["loss"]) // 5


def test_a_model_with_its_own_class_of_optimizer_gets_a_rate_from_a_ramp(monkeypatch):
    monkeypatch.setattr("adaptlr.bridge.optimizer.CUSTOMARY", {})
    callback = adaptlr.AutoLR()
    with collected_warnings() as messages:
        _, history = fit(callback, keras.optimizers.Adam(10.0))
    (message,) = messages
    assert "nothing is known of this class of optimizer" in message
    assert "over 20 steps, to be undone" in message
    assert "this is Adam" in message
    assert rules(callback)[:3] == ["start", "probe", "settle"]
    assert max(history["val_accuracy"]) > 0.9


def test_too_few_steps_for_a_ramp_are_told_with_the_rate_that_is_held(monkeypatch):
    monkeypatch.setattr("adaptlr.bridge.optimizer.CUSTOMARY", {})
    callback = adaptlr.AutoLR()
    with collected_warnings() as messages:
        fit(callback, keras.optimizers.Adam(0.02), epochs=2, samples=128)
    (message,) = messages
    assert "its own rate 0.02 is held" in message
    assert "Train for 200 steps or more" in message
    assert rules(callback)[1] == "unprobed"


def test_data_of_unknown_length_are_told_with_the_price():
    def batches():
        for _ in range(8):
            yield blobs(64)

    model, callback = classifier("adam"), adaptlr.AutoLR(monitor="loss")
    with collected_warnings() as messages:
        model.fit(batches(), epochs=1, verbose=0, callbacks=[callback])
    (message,) = [message for message in messages if message.startswith("AutoLR")]
    assert "cooled down after a plateau only" in message
    assert "Pass steps_per_epoch to fit" in message


@pytest.mark.alike
@pytest.mark.parametrize("steps", [4, 40])
def test_short_runs_do_not_depend_on_the_compiled_rate(steps):
    weights = []
    for rate in (1e-6, 10.0):
        keras.utils.set_random_seed(3)
        callback = adaptlr.AutoLR()
        model, _ = fit(callback, keras.optimizers.Adam(rate), epochs=steps // 4, samples=128)
        weights.append(model.get_weights())
    for left, right in zip(*weights, strict=True):
        np.testing.assert_array_equal(left, right)


def test_without_validation_it_says_so_once_and_steers_on_the_training_loss():
    callback = adaptlr.AutoLR(horizon=None)
    with collected_warnings() as messages:
        _, history = fit(callback, epochs=150, validation_data=None)
    assert len(messages) == 1
    assert "the training loss decides about the rate" in messages[0]
    assert rules(callback)[-1] == "stop"
    assert len(history["loss"]) < 150
    assert history["accuracy"][-1] > 0.9


@pytest.mark.rest
def test_an_unknown_horizon_stops_by_itself():
    callback = adaptlr.AutoLR(horizon=None)
    _, history = fit(callback, epochs=200)
    assert rules(callback)[-2:] == ["cool", "stop"]
    assert len(history["loss"]) < 200
    assert max(history["val_accuracy"]) > 0.9


def test_nan_goes_back_and_cuts():
    class Poison(keras.callbacks.Callback):
        """Puts NaN into the weights once, after all searches."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 12:
                self.model.set_weights([w * np.nan for w in self.model.get_weights()])

    x, y = blobs(640)
    callback = adaptlr.AutoLR()
    model = classifier(keras.optimizers.Adam())
    history = model.fit(x, y, batch_size=32, epochs=20, verbose=0, validation_data=(x, y),
                        callbacks=[callback, Poison()]).history  # fmt: skip
    diverged = [r for r in callback.decisions if r.rule == "diverged"]
    assert len(diverged) == 1
    assert "the training loss became nan" in diverged[0].reason
    before = callback.decisions[callback.decisions.index(diverged[0]) - 1]
    assert diverged[0].learning_rate == pytest.approx(before.learning_rate / 3)
    assert history["val_accuracy"][-1] > 0.9
    assert all(np.isfinite(w).all() for w in model.get_weights())


class Begins(keras.callbacks.Callback):
    """The weight that each epoch begins with, un-averaged."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_epoch_begin(self, epoch, logs=None):
        self.weights.append(self.model.get_weights()[0].item())


def past_the_best(epochs):
    """The training loss falls for ever, the validation loss is lowest where the weight is -1."""

    def loss(y, p):
        return keras.ops.mean(keras.ops.where(y > 0.0, (p + 1.0) ** 2, p), axis=-1)

    model, ones = one_weight(), np.ones((20, 1), "float32")
    model.compile(keras.optimizers.SGD(0.01), loss)
    callback, begins = adaptlr.AutoLR(), Begins()
    data = {"x": ones, "y": 0.0 * ones, "batch_size": 1, "validation_data": (ones, ones)}
    history = model.fit(**data, epochs=epochs, verbose=0, callbacks=[callback, begins]).history
    return callback, begins, history


def test_a_held_rate_that_has_spoilt_the_weights_goes_back_to_those_it_began_with():
    callback, begins, _ = past_the_best(10)
    raised, held, look = (
        next(r for r in callback.decisions if r.rule == rule and part in r.reason)
        for rule, part in (("raise", "is tried"), ("keep", "is held"), ("lower", "spoils"))
    )
    assert look.learning_rate == pytest.approx(held.learning_rate / 4)
    # The gradient is 1, so the weight falls by the rate with each step.
    began = begins.weights[1] - (raised.step - 20) * raised.learning_rate / 2
    began -= (held.step - raised.step) * raised.learning_rate
    after = began - (60 - look.step) * look.learning_rate
    assert begins.weights[2] < began - 4 * held.learning_rate
    assert begins.weights[3] == pytest.approx(after, abs=1e-5)


def test_a_plateau_of_weights_that_got_worse_goes_back_to_the_best_ones():
    callback, begins, history = past_the_best(40)
    cut = next(r for r in callback.decisions if r.rule == "cut")
    best = int(np.argmin(history["val_loss"][: cut.epoch]))
    good = begins.weights[best + 1]
    assert abs(begins.weights[cut.epoch] + 1.0) > 2.0 * abs(good + 1.0)
    assert "the last snapshot comes back" in cut.reason
    assert begins.weights[cut.epoch + 1] == pytest.approx(good, abs=1e-6)


def test_what_comes_later_finds_the_weights_that_were_validated(tmp_path):
    """Also where the end of the epoch has put earlier ones back for the training to go on from."""

    class Seen(keras.callbacks.Callback):
        """Loss of the weights that the end of each epoch shows, computed by hand."""

        def on_train_begin(self, logs=None):
            self.losses = []

        def on_epoch_end(self, epoch, logs=None):
            self.losses.append((self.model.get_weights()[0].item() + 1.0) ** 2)

    def loss(y, p):
        return keras.ops.mean(keras.ops.where(y > 0.0, (p + 1.0) ** 2, p), axis=-1)

    model, ones = one_weight(), np.ones((20, 1), "float32")
    model.compile(keras.optimizers.SGD(0.01), loss)
    callback, seen = adaptlr.AutoLR(backup_dir=tmp_path), Seen()
    data = {"x": ones, "y": 0.0 * ones, "batch_size": 1, "validation_data": (ones, ones)}
    history = model.fit(**data, epochs=40, verbose=0, callbacks=[callback, seen]).history
    assert any("comes back" in record.reason for record in callback.decisions)
    assert seen.losses == pytest.approx(history["val_loss"], rel=1e-3)


def test_the_search_is_logged_with_its_reasons():
    writer = MemoryWriter()
    callback = adaptlr.AutoLR(writers=[writer])
    fit(callback, epochs=10)
    assert writer.decisions == callback.decisions
    assert all(record.reason for record in writer.decisions)


class Extended(keras.callbacks.SwapEMAWeights):
    """One of another name."""


@pytest.mark.parametrize("kind", [keras.callbacks.SwapEMAWeights, Extended])
def test_refuses_a_second_average_of_the_weights_beside_it(kind):
    x, y = blobs()
    model = classifier(keras.optimizers.SGD(0.1, use_ema=True))
    callbacks = [kind(swap_on_epoch=True), adaptlr.AutoLR()]
    with pytest.raises(ValueError, match="Leave SwapEMAWeights out"):
        model.fit(x, y, verbose=0, callbacks=callbacks)


def test_learning_rate_is_none_before_fit():
    assert adaptlr.AutoLR().learning_rate is None


KINDS = {
    "SGD": lambda kinds: kinds.SGD(),
    "momentum": lambda kinds: kinds.SGD(momentum=0.9),
    "accumulation": lambda kinds: kinds.SGD(momentum=0.9, gradient_accumulation_steps=4),
    "use_ema": lambda kinds: kinds.Adam(use_ema=True),
    "LossScale": lambda kinds: kinds.LossScaleOptimizer(kinds.Adam()),
    **{
        name: lambda kinds, name=name: getattr(kinds, name)()
        for name in (
            *("RMSprop", "Adam", "AdamW", "Nadam", "Adamax", "Adagrad", "Adadelta", "Adafactor"),
            *("Ftrl", "Lion", "Lamb", "Muon", "ScheduleFreeAdamW"),
        )
    },
}


@pytest.mark.alike
@pytest.mark.parametrize("name", KINDS)
def test_learns_with_every_optimizer_of_keras(name):
    """At their default rates Adagrad, Adadelta and Ftrl stay near a third, which is chance."""
    if not hasattr(keras.optimizers, name) and name[0].isupper() and name != "LossScale":
        pytest.skip(f"this release of Keras has no {name}")
    if name == "Muon" and keras.__version__.startswith("3.12."):
        pytest.skip("Muon of Keras 3.12 fails on TensorFlow, without a callback as well")
    x, y = blobs(192)
    model = classifier(KINDS[name](keras.optimizers))
    callback = adaptlr.AutoLR()
    arguments = {"batch_size": 8, "epochs": 5, "validation_data": (x, y), "verbose": 0}
    model.fit(x, y, **arguments, callbacks=[callback])
    assert callback.learning_rate > 0.0
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.7


class TestFineTuning:
    """Trained weights are not given up for worse ones."""

    @staticmethod
    def trained_to_the_end():
        keras.utils.set_random_seed(0)
        random = np.random.default_rng(0)

        def data(samples):  # a fifth of the labels is wrong, so that the loss stays above 0.5
            x, y = blobs(samples)
            wrong = random.random(samples) < 0.2
            return x, np.where(wrong, random.integers(0, 3, samples), y)

        train, validation = data(640), data(300)
        model = classifier(keras.optimizers.Adam(0.003))
        model.fit(*train, epochs=20, verbose=0)
        return model, train, validation

    @staticmethod
    def wrong(train):
        """Labels of which each one teaches what is not so."""
        x, y = train
        return x, (y + 1) % 3

    def test_the_weights_of_before_are_left_if_nothing_is_better(self):
        """No other weights of a linear model are as good as those of least squares."""
        random = np.random.default_rng(0)
        x, y = random.normal(size=(2, 320, 4)).astype("float32")
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, use_bias=False)])
        model.compile("adam", "mse")
        model.set_weights([np.linalg.lstsq(x, y, rcond=None)[0]])
        before, writer = model.get_weights(), MemoryWriter()
        score, callback = model.evaluate(x, y, verbose=0), adaptlr.AutoLR(writers=[writer])
        model.fit(x, y + x, epochs=8, validation_data=(x, y), verbose=0, callbacks=[callback])
        assert_equal(model.get_weights(), before)
        assert callback.decisions[-1].reason == (
            f"cooled down; val_loss was never better than the {score:.6g} of before: those "
            f"weights are left"
        )
        last = {name: value for _, row in writer.scalars for name, value in row.items()}
        assert last["end/val_loss"] == pytest.approx(score, rel=1e-5)  # by which runs are compared

    @pytest.mark.parametrize("case", ["no epoch", "interrupted", "accuracy", "other data"])
    def test_they_are_not_left_where_nothing_tells_that_they_are_better(self, case):
        model, train, validation = self.trained_to_the_end()
        before = model.get_weights()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

        class Stop(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if case == "interrupted" and batch == 12:
                    raise KeyboardInterrupt

        easy = (validation[0][:90], model.predict(validation[0][:90], verbose=0).argmax(1))
        own = easy if case == "other data" else None
        monitor = "val_accuracy" if case == "accuracy" else "val_loss"
        callback = adaptlr.AutoLR(own, monitor=monitor)
        try:
            model.fit(
                *(train if case == "interrupted" else self.wrong(train)),
                epochs=5,
                validation_data=validation,
                validation_freq=9 if case == "no epoch" else 1,
                verbose=0,
                callbacks=[callback, Stop()],
            )
        except KeyboardInterrupt:
            callback.use_best_weights()
        assert not np.array_equal(model.get_weights()[0], before[0])
        assert "never better" not in callback.decisions[-1].reason

    def test_a_run_that_goes_on_from_a_file_knows_of_none(self, tmp_path):
        model, train, validation = self.trained_to_the_end()
        path = tmp_path / "{epoch}.weights.h5"
        saves = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        given = {"validation_data": validation, "verbose": 0, "epochs": 8}
        model.fit(*self.wrong(train), callbacks=[adaptlr.AutoLR(), saves], **given)
        model.load_weights(tmp_path / "4.weights.h5")
        callback = adaptlr.AutoLR()
        model.fit(*self.wrong(train), initial_epoch=4, callbacks=[callback], **given)
        assert callback.decisions[-1].rule == "stop"
        assert "never better" not in callback.decisions[-1].reason

    def test_arrays_are_measured_as_fit_measures_them(self):
        """Told a number of batches alone, it makes them of all samples there are."""
        model, train, validation = self.trained_to_the_end()
        score = model.evaluate(*validation, verbose=0)[0]
        model.compile("adam", "sparse_categorical_crossentropy")
        writer = MemoryWriter()
        model.fit(
            *train,
            validation_data=validation,
            validation_steps=2,
            verbose=0,
            callbacks=[adaptlr.AutoLR(writers=[writer])],
        )
        first = next(row for _, row in writer.scalars if "end/val_loss" in row)
        assert first["end/val_loss"] == pytest.approx(score, rel=1e-5)

    @pytest.mark.parametrize("epochs", [5, 15, 40])
    def test_a_search_that_only_finds_worse_ends(self, epochs):
        """The average of good weights may rise at any rate, while it catches up with them."""
        random = np.random.default_rng(0)
        x = random.normal(size=(1300, 20)).astype("float32")
        y = (x[:, :5].sum(1) + 2 * random.normal(size=1300) > 0).astype("float32")
        train, validation = (x[:900], y[:900]), (x[900:], y[900:])
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(1, "sigmoid")]
        model = keras.Sequential([keras.Input((20,)), *layers])
        model.compile("adam", "binary_crossentropy")
        model.fit(*train, epochs=epochs, verbose=0)
        model.compile("adam", "binary_crossentropy")
        before, callback = model.evaluate(*validation, verbose=0), adaptlr.AutoLR()
        model.fit(*train, epochs=12, validation_data=validation, verbose=0, callbacks=[callback])
        assert rules(callback).count("lower") <= 5  # twice at first, then once in each search
        assert rules(callback)[-1] == "stop"
        assert model.evaluate(*validation, verbose=0) <= before * 1.00001

    def test_what_is_said_at_the_end_is_true_of_what_is_left(self):
        model, data, validation = self.trained_to_the_end()
        callback = adaptlr.AutoLR()
        history = model.fit(
            *data, epochs=20, validation_data=validation, verbose=0, callbacks=[callback]
        ).history["val_loss"]
        left = model.evaluate(*validation, verbose=0)[0]
        reason = callback.decisions[-1].reason
        assert f"{min(history):.6g}" in reason or "never better" in reason
        assert f"{left:.6g}"[:-1] in reason


@pytest.mark.parametrize("kind", [adaptlr.AutoLR, adaptlr.PlateauLR, adaptlr.LRFinder])
def test_a_model_that_is_frozen_whole_is_refused(kind):
    model = classifier("sgd")
    model.trainable = False
    with pytest.raises(ValueError, match=f"{kind.__name__} has nothing to drive: all layers"):
        model.fit(*blobs(), validation_data=blobs(), verbose=0, callbacks=[kind()])


def test_the_rate_of_before_is_left_and_not_the_end_of_the_cool_down(tmp_path):
    model, history = fit(adaptlr.AutoLR(), keras.optimizers.Adam(0.25), epochs=10)
    assert history["learning_rate"][-1] < 1e-3
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == 0.25
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    callback = adaptlr.PlateauLR("loss")
    again.fit(*blobs(), verbose=0, callbacks=[callback])
    assert callback.decisions[0].learning_rate == 0.25
