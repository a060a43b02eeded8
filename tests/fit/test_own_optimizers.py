"""`optimizers=[...]`: a training step that has optimizers of its own is driven, ratios kept."""

from __future__ import annotations

import copy
import pickle

import keras
import numpy as np
import pytest
from models import Metrics, collected_warnings, needs_multi_optimizer, steps

import adaptlr
from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.bridge.snapshots import Snapshot
from adaptlr.schedules import Constant, Cosine
from adaptlr.writers import MemoryWriter

JAX = keras.backend.backend() == "jax"
SGD = keras.optimizers.SGD


class Two(keras.Model):
    """Two weights, each with an optimizer of its own, whose gradients are those given."""

    def __init__(self, updates=(1, 1)):
        super().__init__()
        self.first = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        self.second = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        self.tracker = keras.metrics.Mean(name="loss")
        self.updates = updates
        self.build((None, 1))

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)
        self.built = True

    def compile(self, optimizers, **arguments):
        # On JAX a compiled step holds what is no part of model.optimizer for constants.
        super().compile(run_eagerly=JAX, **arguments)
        self.a_optimizer, self.b_optimizer = optimizers
        if JAX:
            self.a_optimizer.build(self.first.trainable_variables)
            self.b_optimizer.build(self.second.trainable_variables)

    @property
    def own(self):
        return [self.a_optimizer, self.b_optimizer]

    @property
    def metrics(self):
        return [self.tracker]

    def call(self, x):
        return self.first(x) + self.second(x)

    def train_step(self, *arguments):
        _, y = arguments[-1]
        gradient = keras.ops.mean(y) * keras.ops.ones((1, 1))
        if JAX:
            return self.train_step_of_jax(arguments[0], gradient)
        for optimizer, layer, count in zip(self.own, self.layers, self.updates, strict=True):
            for _ in range(count):
                optimizer.apply([gradient], layer.trainable_variables)
        self.tracker.update_state(keras.ops.mean(y))
        return {"loss": self.tracker.result()}

    def train_step_of_jax(self, state, gradient):
        weights, others, slots, metrics = state
        new = []
        for optimizer, count, weight in zip(self.own, self.updates, weights, strict=True):
            for _ in range(count):
                values = [v.value for v in optimizer.variables]
                (weight,), values = optimizer.stateless_apply(values, [gradient], [weight])
                for variable, value in zip(optimizer.variables, values, strict=True):
                    variable.assign(value)
            new.append(weight)
        metrics = self.tracker.stateless_update_state(metrics, keras.ops.mean(gradient))
        logs = {"loss": self.tracker.stateless_result(metrics)}
        return logs, (new, others, slots, metrics)


def two(*optimizers, **arguments):
    model = Two(**arguments)
    # Keras 3.12 gives optimizers of one class the same name.
    model.compile(optimizers or [SGD(1.0, name="first"), SGD(0.25, name="second")])
    return model


def weights(model):
    return [float(w.item()) for w in model.get_weights()]


EVERY = {
    "AutoLR": lambda **k: adaptlr.AutoLR(monitor="loss", **k),
    "PlateauLR": lambda **k: adaptlr.PlateauLR("loss", 0.5, 1, min_delta=1e9, **k),
    "CyclicalLR": lambda **k: adaptlr.CyclicalLR(0.5, 1.0, 4, **k),
    "OneCycleLR": lambda **k: adaptlr.OneCycleLR(1.0, momentum=None, **k),
    "ScheduleLR": lambda **k: adaptlr.ScheduleLR(Cosine(1.0, 12), **k),
    "LRFinder": lambda **k: adaptlr.LRFinder(0.01, 1.0, num_steps=10, **k),
}
driving = {name: make for name, make in EVERY.items() if name != "LRFinder"}


@pytest.mark.alike
@pytest.mark.parametrize("name", driving)
def test_each_has_its_share_at_every_step(name):
    model = two()
    with collected_warnings() as messages:
        history = model.fit(
            **steps(6), epochs=4, callbacks=[EVERY[name](optimizers=model.own)]
        ).history
    assert messages == []
    first, second = (history[f"learning_rate_{x.name}"] for x in model.own)
    assert first[0] > 0.0
    assert len(set(first)) > 1
    np.testing.assert_allclose(second, np.multiply(first, 0.25), rtol=1e-6)
    if name != "AutoLR":  # which leaves an average
        np.testing.assert_allclose(weights(model)[1], 0.25 * weights(model)[0], rtol=1e-5)


def test_rates_are_those_of_the_first_at_each_step():
    model, rates = two(SGD(0.25), SGD(1.0)), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    schedule = adaptlr.ScheduleLR(lambda step: rates[step], optimizers=model.own)
    model.fit(**steps(3), epochs=2, callbacks=[schedule])
    np.testing.assert_allclose(weights(model), [-sum(rates), -4 * sum(rates)], rtol=1e-6)


@pytest.mark.parametrize("updates", [(5, 1), (1, 3)])
def test_several_updates_a_step_have_one_rate(updates):
    """A critic that is trained five times as often passes through the schedule no faster."""
    model, rates = two(updates=updates), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    schedule = adaptlr.ScheduleLR(lambda step: rates[min(step, 5)], optimizers=model.own)
    history = model.fit(**steps(3), epochs=2, callbacks=[schedule]).history
    np.testing.assert_allclose(history[f"learning_rate_{model.own[0].name}"], [0.3, 0.6])
    wanted = [-sum(rates) * updates[0], -0.25 * sum(rates) * updates[1]]
    np.testing.assert_allclose(weights(model), wanted, rtol=1e-6)


def test_one_of_them_is_driven_alone():
    model = two()
    cut = EVERY["PlateauLR"](optimizers=[model.b_optimizer])
    history = model.fit(**steps(2), epochs=3, callbacks=[cut]).history
    assert history["learning_rate"] == [0.25, 0.25, 0.125]
    assert float(model.a_optimizer.learning_rate) == 1.0


def test_two_of_one_name_are_told_apart():
    model = two(SGD(1.0, name="sgd"), SGD(0.25, name="sgd"))
    history = model.fit(**steps(2), callbacks=[EVERY["PlateauLR"](optimizers=model.own)]).history
    assert history["learning_rate_sgd_1"] == [1.0]
    assert history["learning_rate_sgd_2"] == [0.25]


def test_the_model_needs_no_other_optimizer():
    if JAX:
        pytest.skip("the trainer of Keras on JAX trains no model without an optimizer")
    model = Two()
    keras.Model.compile(model, optimizer=None)
    model.a_optimizer, model.b_optimizer = SGD(1.0), SGD(0.5)
    for name, make in driving.items():
        model.fit(**steps(4), epochs=2, callbacks=[make(optimizers=model.own)])
        assert np.isfinite(weights(model)).all(), name


class TestDivergence:
    @pytest.mark.parametrize("after", [0, 3], ids=["before any step", "between steps"])
    def test_slots_go_back_with_the_weights(self, after):
        """NaN in a slot would make NaN of all steps to come; those made since begin anew."""
        data = steps(10)
        data["y"] = data["y"].copy()
        data["y"][after] = np.nan
        model = two(keras.optimizers.Adagrad(1.0), SGD(0.25, momentum=0.9))
        callback = adaptlr.PlateauLR("loss", optimizers=model.own)
        model.fit(**data, epochs=1, callbacks=[callback])
        assert [r.rule for r in callback.decisions] == ["start", "diverged"]
        assert np.isfinite(weights(model)).all()
        for optimizer in model.own:
            assert all(
                np.isfinite(keras.ops.convert_to_numpy(v)).all() for v in optimizer.variables
            )
        third = [float(x.learning_rate) for x in model.own]
        np.testing.assert_allclose(third, [1 / 3, 0.25 / 3], rtol=1e-6)
        # As if training had begun where the guard went back to, with a third of the rate.
        accumulated = keras.ops.convert_to_numpy(model.a_optimizer.variables[-1]).item()
        assert accumulated == pytest.approx(0.1 + 9 - after)

    def test_a_finder_leaves_no_trace_of_them(self):
        model = two(SGD(1.0, momentum=0.9), SGD(0.25))
        finder = EVERY["LRFinder"](optimizers=model.own)
        finder.find(model, **{k: v for k, v in steps(20).items() if k != "verbose"})
        assert len(finder.learning_rates) == 10
        assert weights(model) == [0.0, 0.0]
        assert [int(keras.ops.convert_to_numpy(x._iterations)) for x in model.own] == [0, 0]
        assert [float(x.learning_rate) for x in model.own] == [1.0, 0.25]
        assert all(float(keras.ops.sum(v)) == 0.0 for v in model.own[0].variables[2:])


class Stop(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.mark.alike
@pytest.mark.parametrize("name", driving)
@pytest.mark.parametrize("freq", ["epoch", 2])
def test_a_run_is_continued(name, freq, tmp_path):
    def model_and_callbacks(directory):
        model = two(SGD(1.0, momentum=0.5), keras.optimizers.Adam(0.25))
        own = EVERY[name](optimizers=model.own, backup_dir=tmp_path / directory, backup_freq=freq)
        return model, [own]

    whole, callbacks = model_and_callbacks("whole")
    history = whole.fit(**steps(6), epochs=4, callbacks=callbacks).history
    model, callbacks = model_and_callbacks("parts")
    with pytest.raises(KeyboardInterrupt):
        model.fit(**steps(6), epochs=4, callbacks=[Stop(2, 5), *callbacks])
    model, callbacks = model_and_callbacks("parts")
    rest = model.fit(**steps(6), epochs=4, callbacks=callbacks).history
    assert weights(model) == weights(whole)
    for values, own in zip(model.own, whole.own, strict=True):
        assert rest[f"learning_rate_{values.name}"] == history[f"learning_rate_{own.name}"][2:]
        for one, other in zip(values.variables, own.variables, strict=True):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
            )


class TestCopies:
    def test_a_copy_drives_the_same(self):
        model = two()
        callback = copy.deepcopy(EVERY["ScheduleLR"](optimizers=model.own))
        model.fit(**steps(3), epochs=2, callbacks=[callback])
        again = copy.deepcopy(callback)
        model.fit(**steps(3), epochs=2, callbacks=[again])
        assert [float(x.learning_rate) for x in model.own] != [1.0, 0.25]
        assert repr(EVERY["PlateauLR"](optimizers=model.own)).endswith("optimizers=...)")

    @pytest.mark.parametrize("name", EVERY)
    def test_what_was_pickled_says_that_it_has_none(self, name):
        model = two()
        callback = pickle.loads(pickle.dumps(EVERY[name](optimizers=model.own)))
        match = rf"{name}\(optimizers=...\) was pickled.*make a new {name} with those of the model"
        with pytest.raises(ValueError, match=match):
            model.fit(**steps(2), callbacks=[callback])

    def test_a_subclass(self):
        class Mine(adaptlr.PlateauLR):
            def __init__(self, optimizers):
                super().__init__("loss", 0.5, 1, min_delta=1e9, optimizers=optimizers)

        model = two()
        model.fit(**steps(2), epochs=3, callbacks=[Mine(model.own)])
        assert [float(x.learning_rate) for x in model.own] == [0.25, 0.0625]


class TestRefused:
    @pytest.mark.parametrize("name", EVERY)
    @pytest.mark.parametrize("wrong", [[], "adam", ["adam"], SGD(0.1), [None]])
    def test_what_is_no_list_of_optimizers(self, name, wrong):
        match = rf"{name}\(optimizers=...\) must be a list of Keras optimizers, such as .*Received"
        with pytest.raises(TypeError, match=match):
            EVERY[name](optimizers=wrong)

    def test_one_that_stands_twice(self):
        inner = SGD(0.1)
        for twice in ([inner, inner], [inner, keras.optimizers.LossScaleOptimizer(inner)]):
            with pytest.raises(TypeError, match=r"PlateauLR.optimizers=.*stands twice"):
                adaptlr.PlateauLR(optimizers=twice)

    def test_the_losses_of_a_model_that_reports_none(self):
        model = two()
        model.tracker.name = "d_loss"
        with pytest.raises(ValueError, match=r"AutoLR\(optimizers=.*'loss'.*metrics=\['d_loss'\]"):
            model.fit(**steps(2), callbacks=[EVERY["AutoLR"](optimizers=model.own)])

    def test_a_momentum_that_is_compiled_in(self):
        model = two(SGD(1.0, momentum=0.9), keras.optimizers.Adam(0.25))
        callback = adaptlr.OneCycleLR(1.0, optimizers=model.own)
        if keras.backend.backend() == "torch":
            model.fit(**steps(4), callbacks=[callback])
            assert [model.own[0].momentum, model.own[1].beta_1] == [0.9, 0.9]
            return
        with pytest.raises(ValueError, match=r"OneCycleLR\(momentum=...\) must be None with opt"):
            model.fit(**steps(4), callbacks=[callback])

    @pytest.mark.skipif(not JAX, reason="on the other backends a step finds all variables")
    def test_what_a_compiled_step_of_jax_does_not_know(self):
        model = two()
        model.run_eagerly, model.jit_compile = False, True
        with pytest.raises(ValueError, match=r"ScheduleLR\(optimizers=...\) must be parts of mod"):
            model.fit(**steps(2), callbacks=[EVERY["ScheduleLR"](optimizers=model.own)])

    def test_those_that_train_nothing_are_named(self):
        model = two()
        idle = keras.optimizers.Adam(0.1)
        with collected_warnings() as messages:
            model.fit(
                **steps(2),
                epochs=2,
                callbacks=[EVERY["ScheduleLR"](optimizers=[model.a_optimizer, idle])],
            )
        (message,) = messages
        assert "ScheduleLR drives the learning rate of Adam, which has not trained any" in message
        assert "Others of this model: model.b_optimizer." in message


@needs_multi_optimizer
def test_parts_of_the_optimizer_of_compile_are_driven_where_the_step_is_compiled():
    groups = keras.optimizers.OptimizerMap(default_optimizer=SGD(1.0))
    groups[".*second.*"] = SGD(0.5)
    layers = [keras.layers.Dense(1, name=name) for name in ("one", "second")]
    model = keras.Sequential([keras.Input((1,)), *layers])
    model.compile(keras.optimizers.MultiOptimizer(groups), "mse")
    leaves = model.optimizer.optimizers
    schedule = adaptlr.ScheduleLR(lambda step: 0.01 / (1 + step), optimizers=leaves[::-1])
    model.fit(**steps(4), callbacks=[schedule])
    rates = sorted(float(leaf.learning_rate) for leaf in leaves)
    reference = float(leaves[1].learning_rate)
    assert reference == pytest.approx(0.0025)
    assert rates[1] / rates[0] == pytest.approx(2.0)


def test_the_log_names_them():
    model, writer = two(SGD(1.0), keras.optimizers.Adam(0.25)), MemoryWriter()
    callback = EVERY["ScheduleLR"](optimizers=model.own, writers=[writer])
    model.fit(**steps(4), epochs=2, callbacks=[Metrics("score", [1.0, 1.0]), callback])
    assert writer.run["optimizer"] == "SGD, Adam"
    assert "optimizers" not in writer.run
    assert callback.decisions[0].learning_rate == 1.0


def test_driven_by_hand_steps_are_the_updates_of_the_first():
    model = two()
    callback = adaptlr.ScheduleLR(Constant(0.5), optimizers=model.own)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        for _ in range(3):
            model.a_optimizer.apply([keras.ops.ones((1, 1))], model.first.trainable_variables)
        callback.on_epoch_end(epoch, {})
    callback.on_train_end()
    assert [float(x.learning_rate) for x in model.own] == [0.5, 0.125]


def test_a_snapshot_of_before_the_slots_comes_back_in_another_process():
    """Where `train_step` builds its optimizers, the first snapshot has none."""

    def trained():
        model = two(SGD(1.0, momentum=0.5), keras.optimizers.Adam(0.25))
        first = Snapshot(model, OptimizerRate(model, model.own)).save()
        model.fit(**steps(3))
        return model, first

    model, first = trained()
    assert max(map(abs, weights(model))) > 0.0
    Snapshot(model, OptimizerRate(model, model.own)).load(first).restore()
    assert weights(model) == [0.0, 0.0]
    for own in model.own:
        slots = [v for v in own.variables if v is not own.learning_rate]
        assert all(not keras.ops.convert_to_numpy(v).any() for v in slots)
