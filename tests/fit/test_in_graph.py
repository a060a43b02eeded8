"""Cycles that are compiled into the step: exact rates and momenta, nothing left behind."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import (
    blobs,
    classifier,
    collected_warnings,
    needs_multi_optimizer,
    one_weight,
    steps,
    unknown_length,
    weight,
)

import adaptlr
from adaptlr.bridge.compiled import InGraph
from adaptlr.schedules import (
    Cosine,
    CosineRestarts,
    Cyclical,
    CyclicalMomentum,
    Linear,
    OneCycle,
)

BACKEND = keras.backend.backend()
no_multi_step = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch"
)


def momentum_by_hand(rates, momenta):
    """SGD on a gradient of 1: v = m v - r, w += v."""
    velocity = position = 0.0
    for rate, momentum in zip(rates, momenta, strict=True):
        velocity = momentum * velocity - rate
        position += velocity
    return position


def one_cycle_by_hand(total_steps, count):
    cycle = OneCycle(1.0, total_steps)
    return momentum_by_hand(map(cycle, range(count)), map(CyclicalMomentum(cycle), range(count)))


def applied(callback, count=12, optimizer=None, **compile_arguments):
    model = one_weight(optimizer, **compile_arguments)
    model.fit(**steps(count), callbacks=[callback])
    return model


class TestRates:
    @no_multi_step
    @pytest.mark.parametrize("k", [2, 4, 5])
    def test_are_exact_in_steps_per_execution(self, k):
        model = applied(adaptlr.ScheduleLR(lambda s: 2.0**s), 8, steps_per_execution=k)
        assert weight(model) == -255.0

    @no_multi_step
    def test_of_data_of_unknown_length_stay_for_an_execution_and_it_is_told(self):
        model = one_weight(steps_per_execution=2)
        callback = adaptlr.ScheduleLR(lambda s: 2.0**s)
        with collected_warnings() as messages:
            model.fit(unknown_length(4), verbose=0, shuffle=False, callbacks=[callback])
        (message,) = [m for m in messages if "the data do not say how many steps" in m]
        assert "stays for the 2 steps" in message
        assert weight(model) == -(1.0 + 1.0 + 4.0 + 4.0)
        with collected_warnings() as messages:
            arguments = {"verbose": 0, "shuffle": False, "callbacks": [callback]}
            one_weight().fit(unknown_length(4), **arguments)
        assert not [m for m in messages if "the data do not say" in m]

    def test_are_exact_over_epochs_and_control_points(self):
        model = one_weight()
        model.fit(**steps(4), epochs=2, callbacks=[adaptlr.ScheduleLR(lambda s: 2.0**s)])
        assert weight(model) == -255.0

    def test_start_in_the_phase_of_the_initial_epoch(self):
        model, cycle = one_weight(), Cyclical(0.0, 1.0, 3)
        callback = adaptlr.CyclicalLR(0.0, 1.0, 3)
        model.fit(**steps(4), epochs=3, initial_epoch=1, callbacks=[callback])
        assert weight(model) == pytest.approx(-sum(map(cycle, range(4, 12))))

    def test_go_on_in_the_right_phase_after_a_restart(self, tmp_path):
        cycle = Cyclical(0.0, 1.0, 3)

        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 2 and not (tmp_path / "stopped").exists():
                    (tmp_path / "stopped").write_text("")
                    raise KeyboardInterrupt

        for attempt in range(2):
            model = one_weight()
            callbacks = [
                adaptlr.CyclicalLR(0.0, 1.0, 3),
                keras.callbacks.BackupAndRestore(tmp_path / "backup"),
                Stop(),
            ]
            if attempt == 0:
                with pytest.raises(KeyboardInterrupt):
                    model.fit(**steps(4), epochs=4, callbacks=callbacks)
            else:
                model.fit(**steps(4), epochs=4, callbacks=callbacks)
        assert weight(model) == pytest.approx(-sum(map(cycle, range(16))))

    def test_cosine_mode_restarts(self):
        model, cosine = one_weight(), CosineRestarts(1.0, 6, t_mul=1.0, alpha=0.1)
        model.fit(**steps(12), callbacks=[adaptlr.CyclicalLR(0.1, 1.0, 3, mode="cosine")])
        assert weight(model) == pytest.approx(-sum(map(cosine, range(12))))

    @pytest.mark.alike
    @pytest.mark.parametrize(
        "arguments",
        [
            {"step_size_down": 2},
            {"start_at_top": True},
            {"step_size_down": 1, "start_at_top": True, "mode": "triangular2"},
            {"mode": lambda step: 0.5**step},
        ],
        ids=["descent", "top", "both", "function"],
    )
    def test_of_other_triangles(self, arguments):
        model, cycle = one_weight(), Cyclical(0.0, 1.0, 3, **arguments)
        callback = adaptlr.CyclicalLR(0.0, 1.0, 3, **arguments)
        model.fit(**steps(4), epochs=5, callbacks=[callback])
        assert weight(model) == pytest.approx(-sum(map(cycle, range(20))))

    def test_of_three_phases(self):
        model, cycle = one_weight(), OneCycle(1.0, 12, three_phase=True)
        callback = adaptlr.OneCycleLR(1.0, momentum=None, three_phase=True)
        model.fit(**steps(4), epochs=3, callbacks=[callback])
        assert weight(model) == pytest.approx(-sum(map(cycle, range(12))))

    @needs_multi_optimizer
    def test_several_groups_keep_their_ratio(self):
        def total(share):
            left = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="left")
            right = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="right")
            x = keras.Input((1,))
            model = keras.Model(x, keras.layers.Add()([left(x), right(x)]))
            groups = keras.optimizers.OptimizerMap(default_optimizer=keras.optimizers.SGD(share))
            groups["right/.*"] = keras.optimizers.SGD(1.0)
            model.compile(
                keras.optimizers.MultiOptimizer(groups),
                loss=lambda y, p: keras.ops.mean(p, axis=-1),
            )
            model.fit(**steps(8), callbacks=[adaptlr.CyclicalLR(0.0, 1.0, 4)])
            return [w.item() for w in model.get_weights()]

        slow, fast = total(0.25)
        assert fast == pytest.approx(-sum(map(Cyclical(0.0, 1.0, 4), range(8))))
        assert slow == pytest.approx(fast / 4)

    def test_the_rate_is_in_the_variable_and_the_log_as_well(self):
        model, seen = one_weight(), []

        class Spy(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(logs["learning_rate"])

        callback, cycle = adaptlr.CyclicalLR(0.0, 1.0, 4), Cyclical(0.0, 1.0, 4)
        model.fit(**steps(3), epochs=2, callbacks=[callback, Spy()])
        assert seen == [cycle(2), cycle(5)]
        assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == cycle(5)


class TestMomentum:
    def test_of_sgd(self):
        cycle = Cyclical(0.1, 1.0, 4)
        momentum = CyclicalMomentum(cycle, 0.5, 0.9)
        callback = adaptlr.CyclicalLR(0.1, 1.0, 4, momentum=(0.9, 0.5))
        model = applied(callback, 12, keras.optimizers.SGD(1.0, momentum=0.7))
        expected = momentum_by_hand(map(cycle, range(12)), map(momentum, range(12)))
        assert weight(model) == pytest.approx(expected, rel=1e-5)

    @no_multi_step
    def test_of_sgd_in_steps_per_execution(self):
        cycle = OneCycle(1.0, 12)
        callback = adaptlr.OneCycleLR(1.0)
        model = applied(
            callback, 12, keras.optimizers.SGD(1.0, momentum=0.9), steps_per_execution=3
        )
        momenta = map(CyclicalMomentum(cycle), range(12))
        expected = momentum_by_hand(map(cycle, range(12)), momenta)
        assert weight(model) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.alike
    @pytest.mark.parametrize("name", ["Adam", "AdamW", "Nadam", "Adamax"])
    def test_of_adam_and_its_kin_changes_the_path(self, name):
        ends = []
        for momentum in (None, (0.95, 0.5)):
            optimizer = getattr(keras.optimizers, name)(1.0)
            callback = adaptlr.OneCycleLR(0.5, momentum=momentum)
            x = np.linspace(-1, 1, 16, dtype="float32")[:, None]
            model = one_weight(optimizer)
            model.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[callback])
            ends.append(weight(model))
        assert ends[0] != pytest.approx(ends[1], rel=1e-3)
        assert all(map(np.isfinite, ends))

    def test_of_adam_is_what_a_step_by_step_optimizer_does(self):
        """The same run with `beta_1` set as a number before each eager step."""
        cycle = OneCycle(0.5, 8)
        momentum = CyclicalMomentum(cycle)

        class ByHand(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                self.model.optimizer.learning_rate = cycle(batch)
                self.model.optimizer.beta_1 = momentum(batch)

        ends = []
        for callback, eager in ((ByHand(), True), (adaptlr.OneCycleLR(0.5), False)):
            x = np.linspace(-1, 2, 8, dtype="float32")[:, None]
            model = one_weight(keras.optimizers.Adam(1.0), run_eagerly=eager)
            model.fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[callback])
            ends.append(weight(model))
        assert ends[1] == pytest.approx(ends[0], rel=1e-4)

    @pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adagrad])
    def test_without_a_momentum_is_refused_with_the_mend(self, optimizer):
        with pytest.raises(ValueError, match=r"no momentum that could be cycled.*momentum=None"):
            one_weight(optimizer(0.1)).fit(**steps(4), callbacks=[adaptlr.OneCycleLR(0.1)])
        model = one_weight(optimizer(0.1))
        model.fit(**steps(4), callbacks=[adaptlr.OneCycleLR(0.1, momentum=None)])
        assert weight(model) < 0.0

    def test_is_back_at_what_was_compiled_when_training_ends(self):
        optimizer = keras.optimizers.SGD(1.0, momentum=0.7)
        applied(adaptlr.OneCycleLR(1.0), 8, optimizer)
        assert optimizer.momentum == 0.7
        assert isinstance(optimizer.get_config()["momentum"], float)

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    @pytest.mark.parametrize("total_steps", [8, 12, 20])
    def test_over_steps_that_were_given_where_the_data_do_not_say(self, total_steps):
        def batches():
            for _ in range(12):
                yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

        model = one_weight(keras.optimizers.SGD(1.0, momentum=0.9))
        callback = adaptlr.OneCycleLR(1.0, total_steps)
        model.fit(batches(), verbose=0, shuffle=False, callbacks=[callback])
        assert weight(model) == pytest.approx(one_cycle_by_hand(total_steps, 12), rel=1e-5)

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    def test_over_epochs_of_data_that_do_not_say(self):
        """TensorFlow counts a step more at the end of each."""
        tf = pytest.importorskip("tensorflow")
        ones = tf.data.Dataset.from_tensor_slices((np.ones((4, 1)), np.ones((4, 1)))).batch(1)
        model = one_weight(keras.optimizers.SGD(1.0, momentum=0.9))
        callback = adaptlr.OneCycleLR(1.0, total_steps=12)
        unknown = ones.filter(lambda x, y: True)
        model.fit(unknown, epochs=3, shuffle=False, verbose=0, callbacks=[callback])
        assert weight(model) == pytest.approx(one_cycle_by_hand(12, 12), rel=1e-5)


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is compiled in")
@pytest.mark.filterwarnings("ignore:.* below a thousandth of its highest rate")
@pytest.mark.parametrize(
    ("make", "length"),
    [
        (lambda: adaptlr.OneCycleLR(1.0, total_steps=10), 10),
        (lambda: adaptlr.ScheduleLR(Cosine(1.0, decay_steps=5)), 6),
        (lambda: adaptlr.ScheduleLR(Linear(1.0, decay_steps=5)), 6),
        (lambda: adaptlr.ScheduleLR(lambda step: 1.0), 48),
    ],
)
def test_tables_end_where_nothing_changes_any_more(make, length, monkeypatch):
    """A bound of many epochs would cost time and memory."""
    lengths = []

    class Table(InGraph):
        def __init__(self, *arguments):
            lengths.append(len(arguments[4]))
            super().__init__(*arguments)

    monkeypatch.setattr("adaptlr.loop.rates.InGraph", Table)
    one_weight(keras.optimizers.SGD(1.0, momentum=0.9)).fit(
        **steps(16), epochs=3, callbacks=[make()]
    )
    assert lengths == [length]


class TestNothingIsLeftBehind:
    def test_a_later_fit_runs_at_the_rate_of_the_optimizer(self):
        model = one_weight()
        model.fit(**steps(8), callbacks=[adaptlr.ScheduleLR(lambda s: 2.0**s)])
        model.optimizer.learning_rate = 0.5
        before = weight(model)
        model.fit(**steps(8))
        assert weight(model) == before - 4.0

    def test_also_when_the_fit_before_was_interrupted(self):
        class Interrupt(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 4:
                    raise KeyboardInterrupt

        model = one_weight(keras.optimizers.SGD(1.0, momentum=0.5))
        with pytest.raises(KeyboardInterrupt):
            model.fit(**steps(8), callbacks=[adaptlr.OneCycleLR(1.0), Interrupt()])
        model.set_weights([np.zeros((1, 1), "float32")])
        for variable in model.optimizer.variables:
            if "momentum" in variable.path:
                variable.assign(np.zeros(variable.shape, "float32"))
        model.optimizer.learning_rate = 0.5
        if BACKEND == "torch":
            model.optimizer.momentum = 0.5
        model.fit(**steps(8))
        expected = momentum_by_hand([0.5] * 8, [0.5] * 8)
        assert weight(model) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.alike
    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
    def test_what_is_saved_meanwhile_loads_in_plain_keras_with_its_slots(self, tmp_path, suffix):
        path = str(tmp_path / ("model" + suffix))
        x, y = blobs()
        model = classifier(keras.optimizers.SGD(0.1, momentum=0.9))
        saver = keras.callbacks.ModelCheckpoint(path, save_weights_only=suffix != ".keras")
        model.fit(x, y, epochs=2, verbose=0, callbacks=[adaptlr.OneCycleLR(0.1), saver])
        if suffix == ".keras":
            loaded = keras.models.load_model(path)
        else:
            loaded = classifier(keras.optimizers.SGD(0.1, momentum=0.9))
            loaded.optimizer.build(loaded.trainable_variables)
            loaded.load_weights(path)
        assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
        for ours, theirs in zip(
            model.optimizer.variables, loaded.optimizer.variables, strict=True
        ):
            if ours is not model.optimizer.learning_rate:  # which then had not ended its cycle
                np.testing.assert_allclose(
                    keras.ops.convert_to_numpy(theirs), keras.ops.convert_to_numpy(ours)
                )
        loaded.fit(x, y, verbose=0)


class TestOneCycleLR:
    def test_takes_the_steps_of_fit(self):
        model, cycle = one_weight(), OneCycle(1.0, 20)
        callback = adaptlr.OneCycleLR(1.0, momentum=None)
        model.fit(**steps(10), epochs=2, callbacks=[callback])
        assert weight(model) == pytest.approx(-sum(map(cycle, range(20))))

    def test_without_a_known_length_asks_for_one(self):
        def batches():
            while True:
                yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

        with pytest.raises(ValueError, match="Pass total_steps, or steps_per_epoch"):
            one_weight().fit(
                batches(), verbose=0, shuffle=False, callbacks=[adaptlr.OneCycleLR(1.0)]
            )

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: adaptlr.OneCycleLR(0.0), "max_lr"),
            (lambda: adaptlr.OneCycleLR(0.1, total_steps=0), "total_steps=0"),
            (lambda: adaptlr.OneCycleLR(0.1, pct_start=1.5), "pct_start=1.5"),
            (lambda: adaptlr.OneCycleLR(0.1, momentum=(0.8, 0.9)), r"momentum=\(0.8, 0.9\)"),
            (lambda: adaptlr.OneCycleLR(0.1, momentum=0.9), "momentum=0.9"),
            (
                lambda: adaptlr.CyclicalLR(0.1, 1.0, 5, mode="cosine", momentum=(0.9, 0.8)),
                "with mode='cosine'",
            ),
        ],
    )
    def test_bad_arguments_are_refused_at_construction(self, make, message):
        with pytest.raises((ValueError, TypeError), match=message):
            make()
