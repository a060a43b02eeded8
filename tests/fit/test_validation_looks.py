"""What AutoLR measures on between and at the ends of epochs: batches as `fit` would make them."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
from models import blobs, classifier, collected_warnings

import adaptlr
from adaptlr.bridge.evaluation import endless, few, sample, size

BACKEND = keras.backend.backend()
X, Y = blobs(400)


def looks(callback):
    """How often it measured between epoch ends."""
    return len([d for d in callback.decisions if d.rule in ("raise", "back", "wait", "keep")])


def fit(model, x, y, validation, batch=10, **arguments):
    callback = arguments.pop("callback", None) or adaptlr.AutoLR()
    model.fit(
        x, y, batch, 4, validation_data=validation, callbacks=[callback], verbose=0, **arguments
    )
    assert looks(callback) > 0
    return callback


def stateful(**arguments):
    """A recurrent network that keeps its state from batch to batch, of ten samples each."""
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(10, 8, 1)),
            keras.layers.SimpleRNN(4, stateful=True),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", **arguments)
    return model


@pytest.mark.parametrize("logged", [False, True])
def test_are_whole_batches_where_a_layer_keeps_its_state(logged):
    writers = [adaptlr.writers.MemoryWriter()] if logged else []
    x = X[:, :, None]
    fit(stateful(), x, Y, (x[:390], Y[:390]), callback=adaptlr.AutoLR(writers=writers))


class States(keras.callbacks.Callback):
    """What a recurrent layer holds after each step and before the next."""

    def __init__(self):
        super().__init__()
        self.after, self.pairs = None, []

    def read(self):
        return keras.ops.convert_to_numpy(self.model.layers[0].states[0]).copy()

    def on_train_batch_begin(self, batch, logs=None):
        if batch and self.after is not None:
            self.pairs.append((self.after, self.read()))

    def on_train_batch_end(self, batch, logs=None):
        self.after = self.read()


@pytest.mark.skipif(BACKEND == "jax", reason="inside an epoch its variables hold no values")
def test_leave_a_layer_the_state_that_it_carries():
    x, states, callback = X[:, :, None], States(), adaptlr.AutoLR()
    stateful().fit(
        x, Y, 10, 3, validation_data=(x, Y), callbacks=[callback, states], verbose=0, shuffle=False
    )
    assert looks(callback) > 0
    for number, (after, before) in enumerate(states.pairs):
        np.testing.assert_array_equal(after, before, err_msg=str(number))


def test_of_arrays_are_few_rows_or_whole_batches():
    some, steps = sample((X, Y), 128)
    assert len(some[0]) == len(some[1]) == 128
    assert steps is None
    assert len(sample((X, Y), 101, 10)[0][0]) == 110
    assert sample((X, Y), 395, 10)[0][0] is X


def test_of_arrays_whose_rows_cannot_be_picked_are_the_first_batches():
    text = np.array(["a b", "b c"] * 200, dtype=object)
    data = (text, Y)
    assert size(data) == 400
    assert sample(data, 128) == (data, 4)
    assert sample(data, 128, 50) == (data, 3)
    assert few((X, Y), 100) == 4
    assert few((X, Y)) == 10


@pytest.mark.parametrize("kind", ["csr_matrix", "coo_matrix"])
@pytest.mark.skipif(BACKEND == "torch", reason="Keras takes no sparse arrays there")
def test_of_sparse_arrays(kind):
    sparse = pytest.importorskip("scipy.sparse")
    x = getattr(sparse, kind)(X)
    fit(classifier("adam"), x, Y, (x, Y), shuffle=False)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="text is TensorFlow's")
def test_of_text_and_of_sparse_tensors():
    tf = importlib.import_module("tensorflow")
    text = np.array(["a b c", "b c d"] * 200)
    words = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=4)
    words.adapt(text)
    model = keras.Sequential(
        [
            keras.Input((), dtype="string"),
            words,
            keras.layers.Embedding(9, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    fit(model, tf.constant(text), Y, (tf.constant(text), Y))
    x = tf.sparse.from_dense(X)
    fit(classifier("adam"), x, Y, (x, Y))


def test_of_inputs_alone():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(8)(inputs))
    model.compile("adam", loss=lambda y, p: keras.ops.mean(p**2, axis=-1))
    fit(model, X, X, (X, X))

    class Own(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.mean(inputs**2))
            return inputs

    model = keras.Model(inputs, Own()(keras.layers.Dense(8)(inputs)))
    model.compile("adam")
    fit(model, X, None, (X,))


class TestTheLastEpoch:
    """Its weights are those of the whole cool-down, whether `fit` validates it or not."""

    @pytest.mark.parametrize(("epochs", "often"), [(7, 4), (9, 10)])
    def test_is_validated_in_any_case(self, epochs, often):
        model, callback = classifier("adam"), adaptlr.AutoLR()
        history = model.fit(
            X, Y, 20, epochs, validation_data=(X, Y), validation_freq=often, verbose=0,
            callbacks=[callback],
        ).history  # fmt: skip
        assert len(history["val_loss"]) == epochs // often + 1
        left = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
        assert left == pytest.approx(history["val_loss"][-1], rel=1e-4)
        assert f"best val_loss {history['val_loss'][-1]:.6g}"[:-2] in callback.decisions[-1].reason

    @pytest.mark.filterwarnings("ignore:AutoLR leaves the weights of epoch")  # of random labels
    def test_is_told_by_the_rule_where_it_stops_before(self):
        model, callback = classifier("adam"), adaptlr.AutoLR(horizon=None)
        random = np.random.default_rng(0).permutation(Y)
        history = model.fit(
            X, random, 20, 300, validation_data=(X[:60], random[::-1][:60]), validation_freq=4,
            callbacks=[callback], verbose=0,
        ).history  # fmt: skip
        assert callback.decisions[-1].rule == "stop"
        epochs = len(history["loss"])
        assert len(history["val_loss"]) == epochs // 4 + (epochs % 4 > 0)

    def test_takes_as_many_steps_as_fit_was_told(self):
        model = classifier("adam")
        history = model.fit(
            X, Y, 20, 3, validation_data=(X, Y), validation_freq=2, validation_steps=2,
            callbacks=[adaptlr.AutoLR()], verbose=0, validation_batch_size=20,
        ).history  # fmt: skip
        assert len(history["val_loss"]) == 2
        found = model.evaluate(X[:40], Y[:40], verbose=0, return_dict=True)["loss"]
        assert history["val_loss"][-1] == pytest.approx(found, rel=1e-4)


class TestAMonitor:
    @pytest.mark.parametrize("name", ["accuracy", "loss"])
    def test_of_the_training_data_is_told_beside_validation_data(self, name):
        model = classifier("adam")
        with collected_warnings() as messages:
            callback = adaptlr.AutoLR(monitor=name)
            model.fit(X, Y, validation_data=(X, Y), callbacks=[callback], verbose=0)
        assert [m for m in messages if f"Pass AutoLR(monitor='val_{name}')" in m]

    def test_of_the_training_data_alone_is_not(self):
        with collected_warnings() as messages:
            callback = adaptlr.AutoLR(monitor="loss")
            classifier("adam").fit(X, Y, callbacks=[callback], verbose=0)
        assert not [m for m in messages if "Pass AutoLR(monitor=" in m]


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return X[:10], Y[:10]


def test_data_without_an_end_are_refused_at_once():
    with pytest.raises(TypeError, match=r"AutoLR\(validation_data=...\) must be data that end"):
        adaptlr.AutoLR(Endless())
    assert not endless((X, Y))
    if BACKEND == "tensorflow":
        tf = importlib.import_module("tensorflow")
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)
        with pytest.raises(TypeError, match="leave out repeat"):
            adaptlr.LRFinder(validation_data=data.repeat())
        assert not endless(data.repeat(2))
        assert not endless(data.filter(lambda x, y: True))
