"""The private names of Keras that are touched, and what is believed of each.

A new release of Keras that breaks a belief fails here by name, and not in a user's run.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import keras
import pytest
from models import blobs, classifier, needs_multi_optimizer, one_weight, steps, weight

import adaptlr
from adaptlr.bridge.carried_state import attach

BACKEND = keras.backend.backend()
PACKAGE = Path(adaptlr.__file__).parent
OURS = {"_adaptlr_rate"}

# What is not a private name of Keras, though it looks like one.
NOT_KERAS = {
    "_num_workers",  # of tf.distribute: absent means one
    "_count",  # of our own dataclass
    "_repr_png_",  # of IPython, which asks an object for its picture
}


def fitted(*callbacks, **arguments):
    model = classifier(keras.optimizers.SGD(0.1, momentum=0.9))
    x, y = blobs()
    model.fit(x, y, batch_size=16, verbose=0, callbacks=list(callbacks), **arguments)
    return model


def direction_of_metrics():
    """Metrics know whether higher is better, as "up" or "down"."""
    assert keras.metrics.MeanAbsoluteError()._direction == "down"
    assert keras.metrics.AUC()._direction == "up"


def the_rate_of_a_step():
    """Optimizers ask this method for the rate, at every step, once a step is traced."""
    model = one_weight(keras.optimizers.SGD(0.5))
    assert float(keras.ops.convert_to_numpy(model.optimizer._get_current_learning_rate())) == 0.5
    vars(model.optimizer)["_get_current_learning_rate"] = lambda: keras.ops.convert_to_tensor(2.0)
    model.fit(**steps(3))
    assert weight(model) == -6.0


def where_a_schedule_stands():
    """A schedule that was compiled stays here, for the message that refuses it."""
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert keras.optimizers.SGD(schedule)._learning_rate is schedule
    plain = keras.optimizers.SGD(0.5)
    assert plain._learning_rate is plain.learning_rate
    plain.learning_rate = 0.25
    assert plain._learning_rate is plain.learning_rate


def the_counter_of_calls():
    """Counts calls of the step, also those in which gradients are only accumulated."""
    model = one_weight(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    model.fit(**steps(4))
    assert int(keras.ops.convert_to_numpy(model.optimizer._iterations)) == 4
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 2


def all_layers_inside():
    """Goes through layers inside layers, without the model itself."""
    inner = keras.Sequential([keras.Input((8,)), keras.layers.BatchNormalization()])
    model = keras.Sequential([keras.Input((8,)), inner, keras.layers.Dense(1)])
    found = list(model._flatten_layers(include_self=False))
    assert model not in found
    assert {"BatchNormalization", "Dense"} <= {type(layer).__name__ for layer in found}


def how_a_layer_is_called():
    """A node for each call of a layer in a functional model, with what it was given."""
    image, layer = keras.Input((2,)), keras.layers.BatchNormalization()
    layer(image, training=False)
    layer(image)
    given = [node.arguments.kwargs.get("training") for node in layer._inbound_nodes]
    assert given == [False, None]


def weights_whether_frozen_or_not():
    """Holds a layer's own weights also while `trainable` is False."""
    layer = keras.layers.Dense(1)
    layer.build((None, 8))
    layer.trainable = False
    assert layer.trainable_variables == []
    assert [v.name for v in layer._trainable_variables] == ["kernel", "bias"]


def where_a_schedule_free_optimizer_is():
    """Its z lie in the order of the variables; the weights are a mixture of z and the average."""
    if not hasattr(keras.optimizers, "ScheduleFreeAdamW"):
        return
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            z = keras.ops.convert_to_numpy(self.model.optimizer._momentums[0].value)
            seen.append((weight(self.model), z.item()))

    model = one_weight(keras.optimizers.ScheduleFreeAdamW(0.1, beta_1=0.5))
    model.fit(**steps(1), epochs=3, callbacks=[Seen()])
    assert [z for _, z in seen] == pytest.approx([-0.1, -0.2, -0.3], rel=1e-5)
    average, mixed = [-0.1, -0.15, -0.2], [-0.1, -0.175, -0.25]
    assert [y for y, _ in seen] == pytest.approx(mixed if BACKEND == "jax" else average, rel=1e-5)


class _First(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_train_begin(self, logs=None):
        self.model._initial_epoch = 2

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)
        self.model._initial_epoch = None


def the_first_epoch():
    """`fit` reads it after `on_train_begin`, and takes it before its own `initial_epoch`."""
    first = _First()
    fitted(first, epochs=4)
    assert first.epochs == [2, 3]


class _State(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if BACKEND == "jax":
            held = getattr(self._model, "_jax_state", None)
            assert {"trainable_variables", "optimizer_variables"} <= held.keys()
            assert self._model._jax_state_synced is False
            assert self.model._jax_state_synced is True
            assert all(v._value is not None for v in self.model.variables)


def the_state_on_jax():
    """Inside an epoch values live in a dict on the model; the getter `model` syncs them."""
    model = fitted(_State(), epochs=1)
    assert getattr(model, "_jax_state", None) is None


def building_without_a_step():
    """On TensorFlow and JAX it makes the variables of the metrics from one batch."""
    assert callable(keras.Model._symbolic_build)
    assert "data_batch" in inspect.signature(keras.Model._symbolic_build).parameters


def the_value_of_a_variable():
    """Exists once a variable is initialised, and `value` is a property that may be overridden."""
    assert hasattr(keras.Variable(1.0), "_value")
    assert isinstance(inspect.getattr_static(keras.Variable, "value"), property)


def the_model_of_a_callback():
    """The attribute behind the property `model`."""
    callback = keras.callbacks.Callback()
    callback.set_model("model")
    assert callback._model == "model"


def metrics_of_compile():
    """What `compile` was given, and whether the metrics are built of it."""
    metric = keras.metrics.MeanAbsoluteError()
    model = one_weight(metrics=[metric])
    compiled = model._compile_metrics
    assert compiled.built is False
    assert metric in keras.tree.flatten(compiled._user_metrics)
    assert not compiled._user_weighted_metrics
    model.fit(**steps(2))
    assert model._compile_metrics.built is True


BELIEFS = {
    "_compile_metrics": metrics_of_compile,
    "_direction": direction_of_metrics,
    "_flatten_layers": all_layers_inside,
    "_inbound_nodes": how_a_layer_is_called,
    "_get_current_learning_rate": the_rate_of_a_step,
    "_initial_epoch": the_first_epoch,
    "_iterations": the_counter_of_calls,
    "_jax_state": the_state_on_jax,
    "_jax_state_synced": the_state_on_jax,
    "_learning_rate": where_a_schedule_stands,
    "_model": the_model_of_a_callback,
    "_momentums": where_a_schedule_free_optimizer_is,
    "_symbolic_build": building_without_a_step,
    "_trainable_variables": weights_whether_frozen_or_not,
    "_value": the_value_of_a_variable,
}


@pytest.mark.parametrize("name", sorted(BELIEFS))
def test_what_is_believed_of_a_private_name(name):
    BELIEFS[name]()


def test_no_other_private_name_is_touched():
    """Attributes of what is not `self`, and names that are looked up as strings."""
    touched = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        own |= {a.attr for a in ast.walk(tree) if isinstance(a, ast.Attribute) and _of_self(a)}
        for node in ast.walk(tree):
            name = getattr(node, "attr", None) if isinstance(node, ast.Attribute) else None
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                name = getattr(node.args[1], "value", None)
            private = isinstance(name, str) and name.startswith("_") and name[1:2] != "_"
            if private and not (isinstance(node, ast.Attribute) and _of_self(node)):
                touched |= {name} - own
    # Two are overridden and not looked up.
    overridden = {"_model", "_get_current_learning_rate"}
    assert touched - NOT_KERAS - OURS == set(BELIEFS) - overridden


def _of_self(node):
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


# What is public, and on which more rests than Keras promises.


def test_the_train_function_is_built_before_training_begins_and_kept():
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(self.model.train_function)

        def on_train_batch_begin(self, batch, logs=None):
            seen.append(self.model.train_function)

    fitted(Look(), epochs=1)
    assert seen[0] is not None
    assert all(one is seen[0] for one in seen)


def test_losses_of_a_model_are_saved_with_it_and_passed_over_by_others(tmp_path):
    model = one_weight()
    attach(model).source = lambda: {"epoch": 1}
    model.save_weights(tmp_path / "one.weights.h5")
    one_weight().load_weights(tmp_path / "one.weights.h5")
    again = one_weight()
    carried = attach(again)
    again.load_weights(tmp_path / "one.weights.h5")
    assert carried.take(1) == {"epoch": 1}


@needs_multi_optimizer
def test_a_multi_optimizer_shows_its_optimizers():
    optimizer = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1), {"kernel": keras.optimizers.Adam()}
        )
    )
    assert {type(leaf).__name__ for leaf in optimizer.optimizers} == {"SGD", "Adam"}
