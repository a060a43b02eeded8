"""Real `fit` runs, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import (
    Metrics,
    blobs,
    classifier,
    collected_warnings,
    needs_multi_optimizer,
    one_weight,
    steps,
    weight,
)

import adaptlr
from adaptlr.controllers import Decision, Plateau
from adaptlr.monitor import Monitor
from adaptlr.schedules import Constant, Cyclical, Warmup
from adaptlr.writers import MemoryWriter


def powers_of_two(step):
    """Each step has a rate of its own, so a sum of rates says which ones were applied."""
    return 2.0**step


class Scripted:
    """A controller that gives the scales of a list, a control point a step."""

    monitor = None

    def __init__(self, scales):
        self.scales = scales

    def init(self, run):
        return 0

    def update(self, state, observation):
        scale = self.scales[min(observation.step, len(self.scales) - 1)]
        return state, Decision(scale, next_step=observation.step + 1)


class TestRatesReachTheOptimizer:
    """A rate set at step k is the rate that the optimizer applies at step k."""

    @pytest.mark.parametrize("mode", [{}, {"run_eagerly": True}, {"jit_compile": True}])
    @pytest.mark.parametrize("bare", [False, True])
    def test_schedule(self, mode, bare):
        if mode.get("jit_compile") and keras.backend.backend() == "torch":
            pytest.skip("torch.compile needs a C++ toolchain that CI machines may lack")
        model = one_weight(**mode)
        callback = adaptlr.ScheduleLR(powers_of_two)
        model.fit(**steps(8), callbacks=callback if bare else [callback])
        assert weight(model) == -255.0

    def test_controller(self):
        model = one_weight()
        scales = [2.0**k for k in range(8)]
        model.fit(**steps(8), callbacks=[adaptlr.ScheduleLR(Constant(1.0), Scripted(scales))])
        assert weight(model) == -255.0

    def test_schedule_times_scale(self):
        model = one_weight()
        callback = adaptlr.ScheduleLR(powers_of_two, Scripted([1.0, 1.0, 0.5, 0.5, 0.25]))
        model.fit(**steps(5), callbacks=[callback])
        assert weight(model) == -(1 + 2 + 4 / 2 + 8 / 2 + 16 / 4)

    def test_across_epochs(self):
        model = one_weight()
        model.fit(**steps(4), epochs=2, callbacks=[adaptlr.ScheduleLR(powers_of_two)])
        assert weight(model) == -255.0

    def test_from_an_initial_epoch(self):
        model = one_weight()
        callback = adaptlr.ScheduleLR(powers_of_two)
        model.fit(**steps(4), initial_epoch=1, epochs=2, callbacks=[callback])
        assert weight(model) == -(16 + 32 + 64 + 128)

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    def test_from_a_generator_of_unknown_length(self):
        def batches():
            for _ in range(8):
                yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

        model = one_weight()
        model.fit(
            batches(), verbose=0, shuffle=False, callbacks=[adaptlr.ScheduleLR(powers_of_two)]
        )
        assert weight(model) == -255.0

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    def test_from_a_dataset_of_unknown_length_over_epochs(self):
        tf = pytest.importorskip("tensorflow")
        ones = tf.data.Dataset.from_tensor_slices((np.ones((4, 1)), np.ones((4, 1)))).batch(1)
        model = one_weight()
        callback = adaptlr.ScheduleLR(powers_of_two)
        unknown = ones.filter(lambda x, y: True)
        model.fit(unknown, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
        assert weight(model) == -255.0

    def test_under_a_loss_scale(self):
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(1.0), initial_scale=2.0
        )
        model = one_weight(optimizer)
        model.fit(**steps(8), callbacks=[adaptlr.ScheduleLR(powers_of_two)])
        assert weight(model) == -255.0

    @needs_multi_optimizer
    def test_several_optimizers_keep_their_ratio(self):
        slow, fast = keras.layers.Dense(1, use_bias=False), keras.layers.Dense(1, use_bias=False)
        model = keras.Sequential([keras.Input((1,)), slow, fast])
        groups = keras.optimizers.OptimizerMap(default_optimizer=keras.optimizers.SGD(0.1))
        groups[f".*{fast.name}.*"] = keras.optimizers.SGD(1.0)
        optimizer = keras.optimizers.MultiOptimizer(groups)
        model.compile(optimizer, "mse")
        history = model.fit(**steps(8), callbacks=[adaptlr.ScheduleLR(Constant(0.5))]).history
        names = [f"learning_rate_{inner.name}" for inner in optimizer.optimizers]
        assert sorted(history[name][0] for name in names) == pytest.approx([0.05, 0.5])

    def test_a_keras_schedule_object(self):
        model = one_weight()
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [1.0, 2.0, 4.0])
        model.fit(**steps(5), callbacks=[adaptlr.ScheduleLR(schedule)])
        assert weight(model) == -(1 + 1 + 2 + 2 + 4)

    def test_cyclical(self):
        model, cycle = one_weight(), Cyclical(0.0, 1.0, step_size=4)
        model.fit(**steps(16), callbacks=[adaptlr.CyclicalLR(0.0, 1.0, step_size=4)])
        assert weight(model) == pytest.approx(-sum(cycle(step) for step in range(16)))


class TestPlateauLR:
    def rates(self, make, sequences):
        """Rates after each epoch, the hooks of `fit` called without training."""
        model, seen = one_weight(), []
        model.optimizer.build(model.trainable_variables)
        for values in sequences:
            # A callback each: that of Keras 3.12 does not forget its best value between fits.
            hooks = keras.callbacks.CallbackList([make()], model=model, epochs=30, steps=1)
            model.optimizer.learning_rate = 1.0
            hooks.on_train_begin()
            for epoch, value in enumerate(values):
                hooks.on_epoch_begin(epoch)
                hooks.on_train_batch_begin(0)
                hooks.on_epoch_end(epoch, {"score": value})
                seen.append(float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)))
            hooks.on_train_end()
        return seen

    @pytest.mark.alike
    @pytest.mark.parametrize("seed", range(20))
    def test_gives_the_rates_of_keras(self, seed):
        """Twenty random settings, each on six random metric sequences of thirty epochs."""
        random = np.random.default_rng(seed)
        arguments = {
            "factor": float(random.uniform(0.1, 0.9)),
            "patience": int(random.integers(0, 4)),
            "cooldown": int(random.integers(0, 4)),
            "min_delta": float(random.choice([0.0, 1e-4, 0.1])),
            "min_lr": float(random.choice([0.0, 0.05])),
            "mode": str(random.choice(["min", "max"])),
        }
        rough, tied = random.normal(size=(6, 30)), random.integers(0, 5, (6, 30)) / 10.0
        sequences = np.where(random.random((6, 1)) < 0.5, rough, tied).tolist()
        theirs, ours = keras.callbacks.ReduceLROnPlateau, adaptlr.PlateauLR
        expected = self.rates(lambda: theirs("score", **arguments), sequences)
        assert min(expected) < 1.0  # something was cut
        actual = self.rates(lambda: ours("score", **arguments), sequences)
        assert actual == pytest.approx(expected, rel=1e-6)

    def test_gives_the_rates_of_keras_in_fit(self):
        values = [1.0, 0.9, 0.95, 0.95, 0.95, 0.5, 0.6, 0.6]
        histories = []
        for kind in (keras.callbacks.ReduceLROnPlateau, adaptlr.PlateauLR):
            callbacks = [Metrics("score", values), kind("score", mode="min", patience=2)]
            history = one_weight().fit(**steps(1), epochs=8, callbacks=callbacks).history
            histories.append(history["learning_rate"])
        assert histories[1] == histories[0]
        assert histories[1][-1] < 1.0

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    def test_cuts_on_data_of_unknown_length_too(self):
        tf = pytest.importorskip("tensorflow")
        ones = tf.data.Dataset.from_tensor_slices((np.ones((4, 1)), np.ones((4, 1)))).batch(1)
        callback = adaptlr.PlateauLR("score", mode="min", patience=1, factor=0.5)
        model = one_weight()
        model.fit(
            ones.filter(lambda x, y: True),
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[Metrics("score", [1.0, 1.0, 1.0]), callback],
        )
        assert weight(model) == -(4 + 4 + 2)

    def test_warmup_rises_to_the_rate_of_the_optimizer(self):
        model = one_weight()
        model.fit(**steps(6), callbacks=[adaptlr.PlateauLR(monitor="loss", warmup_steps=4)])
        assert weight(model) == pytest.approx(-(0 + 0.25 + 0.5 + 0.75 + 1 + 1))

    def test_restores_weights_and_slots_of_the_best_epoch(self):
        model = one_weight(keras.optimizers.SGD(1.0, momentum=0.5))
        seen = []

        class Spy(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                slot = self.model.optimizer.variables[-1]
                seen.append((weight(self.model), float(keras.ops.convert_to_numpy(slot).item())))

        model.fit(
            **steps(2),
            epochs=4,
            callbacks=[
                Metrics("score", [2.0, 1.0, 3.0, 3.0]),
                adaptlr.PlateauLR("score", mode="min", patience=1, restore_best_weights=True),
                Spy(),
            ],
        )
        best_epochs_end, after_the_cut = seen[2], seen[3]
        assert after_the_cut == best_epochs_end

    def test_every_cut_is_recorded_with_its_reason(self):
        callback = adaptlr.PlateauLR("score", mode="min", patience=1, factor=0.5)
        one_weight().fit(
            **steps(2), epochs=3, callbacks=[Metrics("score", [1.0, 1.0, 0.5]), callback]
        )
        start, cut = callback.decisions
        assert (start.rule, start.learning_rate) == ("start", 1.0)
        assert (cut.step, cut.epoch, cut.learning_rate, cut.rule) == (4, 1, 0.5, "plateau")
        assert "score has not improved on its best (1) for 1 epoch:" in cut.reason


class TestMonitor:
    def fit(self, callback, **arguments):
        x, y = blobs()
        model = classifier("sgd")
        return model.fit(x, y, verbose=0, callbacks=[callback], **arguments)

    def test_a_missing_metric_is_said_once_with_those_that_exist(self):
        callback = adaptlr.PlateauLR(monitor="val_acc", patience=1)
        with collected_warnings() as messages:
            self.fit(callback, epochs=3)
        (message,) = messages
        assert "monitor='val_acc'" in message
        assert "accuracy, learning_rate, loss" in message
        assert [record.rule for record in callback.decisions] == ["start"]

    def test_missing_validation_is_named_as_the_cause(self):
        with collected_warnings() as messages:
            self.fit(adaptlr.PlateauLR())
        assert "pass validation_data to fit" in messages[0]

    def test_the_direction_of_a_metric_comes_from_keras(self):
        x, y = blobs()
        callback = adaptlr.PlateauLR(monitor="accuracy", patience=1, min_delta=0.0)
        model = classifier("sgd")
        feed = Metrics("accuracy", [0.1, 0.2, 0.3])
        model.fit(x, y, epochs=3, verbose=0, callbacks=[feed, callback])
        assert [record.rule for record in callback.decisions] == ["start"]

    @pytest.mark.skipif(
        keras.backend.backend() == "tensorflow", reason="metrics are built in the first step"
    )
    def test_an_unknown_direction_is_refused_before_the_first_step(self):
        with pytest.raises(ValueError, match="Pass mode='min' or mode='max'"):
            self.fit(adaptlr.PlateauLR(monitor="score"))


class TestOwnership:
    def test_a_second_writer_is_found_and_named(self):
        callbacks = [adaptlr.PlateauLR("loss"), adaptlr.CyclicalLR(0.1, 1.0, 4)]
        with pytest.raises(
            RuntimeError, match="PlateauLR sets the learning rate, and so does CyclicalLR"
        ):
            one_weight().fit(**steps(8), callbacks=callbacks)

    @pytest.mark.parametrize("first", [True, False])
    def test_a_keras_scheduler_beside_it_is_found(self, first):
        ours = adaptlr.CyclicalLR(0.1, 1.0, 4)
        theirs = keras.callbacks.LearningRateScheduler(lambda epoch: 0.3)
        with pytest.raises(
            RuntimeError,
            match="CyclicalLR sets the learning rate, and so does LearningRateScheduler",
        ):
            one_weight().fit(
                **steps(8), epochs=3, callbacks=[ours, theirs] if first else [theirs, ours]
            )

    def test_a_schedule_in_the_optimizer_is_refused_with_the_mend(self):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
        model = one_weight(keras.optimizers.SGD(schedule))
        with pytest.raises(ValueError, match=r"ExponentialDecay.*adaptlr\.ScheduleLR\(schedule\)"):
            model.fit(**steps(4), callbacks=[adaptlr.PlateauLR("loss")])

    def test_a_zero_rate_is_refused(self):
        model = one_weight(keras.optimizers.SGD(0.0))
        with pytest.raises(ValueError, match=r"> 0.*Received: learning_rate=0\.0"):
            model.fit(**steps(4), callbacks=[adaptlr.PlateauLR("loss")])

    def test_a_restored_rate_is_the_one_to_start_from(self, tmp_path):
        class Restore(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                self.model.optimizer.learning_rate = 0.25

        callback = adaptlr.PlateauLR("loss")
        model = one_weight()
        model.fit(**steps(4), callbacks=[callback, Restore()])
        assert weight(model) == -1.0


class TestUnbuiltModel:
    """Without an Input a model has no weights until, on TensorFlow, its first step."""

    def fit(self, callback):
        model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model.fit(**steps(4), validation_split=0.5, callbacks=[callback])

    def test_rates_are_set(self):
        assert self.fit(adaptlr.ScheduleLR(Constant(0.5))).history["learning_rate"] == [0.5]

    def test_what_needs_weights_builds_them_by_measuring(self):
        self.fit(adaptlr.AutoLR())


class TestReuse:
    def test_over_several_fits(self):
        model = one_weight()
        callback = adaptlr.ScheduleLR(powers_of_two)
        for _ in range(2):
            model.fit(**steps(8), callbacks=[callback])
            assert len(callback.decisions) == 1
        assert weight(model) == -2 * 255.0

    def test_on_another_model(self):
        callback = adaptlr.PlateauLR("score", mode="min", patience=1, factor=0.5)
        for _ in range(2):
            model, feed = one_weight(), Metrics("score", [1.0, 1.0, 1.0])
            model.fit(**steps(1), epochs=3, callbacks=[feed, callback])
            assert weight(model) == -(1 + 1 + 0.5)


class TestScheduleLR:
    @pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
    def test_a_bad_rate_is_refused_with_its_step(self, bad):
        callback = adaptlr.ScheduleLR(lambda step: bad if step == 3 else 1.0)
        with pytest.raises(ValueError, match=rf"Received: {bad} at step 3"):
            one_weight().fit(**steps(8), callbacks=[callback])

    def test_what_cannot_be_called_is_refused(self):
        with pytest.raises(ValueError, match=r"schedule=0\.1"):
            adaptlr.ScheduleLR(0.1)

    def test_warmup_cycle_and_plateau_in_one(self):
        model = one_weight()
        schedule = Warmup(Cyclical(0.0, 1.0, step_size=2), warmup_steps=2)
        controller = Plateau(Monitor("score", "min"), patience=1, factor=0.5)
        feed = Metrics("score", [1.0, 1.0, 1.0])
        callback = adaptlr.ScheduleLR(schedule, controller)
        model.fit(**steps(4), epochs=3, callbacks=[feed, callback])
        scale = [1.0] * 8 + [0.5] * 4
        expected = sum(schedule(step) * scale[step] for step in range(12))
        assert weight(model) == pytest.approx(-expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: adaptlr.PlateauLR(factor=1.5), "factor=1.5"),
        (lambda: adaptlr.PlateauLR(mode="lower"), "mode='lower'"),
        (lambda: adaptlr.CyclicalLR(0.1, 0.01, 10), "max_lr"),
        (lambda: adaptlr.CyclicalLR(1.0, 1.0, 3), r"above base_lr=1\.0\. Received: max_lr=1\.0"),
        (
            lambda: adaptlr.OneCycleLR(1.0, total_steps=1),
            "integer of at least 2.*Received: total_steps=1",
        ),
        (lambda: adaptlr.CyclicalLR(0.01, 0.1, 0), "step_size=0"),
        (lambda: adaptlr.CyclicalLR(0.01, 0.1, 10, mode="square"), "mode='square'"),
        (lambda: adaptlr.AutoLR(horizon=30), "horizon=30"),
        (lambda: adaptlr.AutoLR(mode="up"), "mode='up'"),
    ],
)
def test_bad_arguments_are_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_scalars_are_logged_at_control_points_and_epoch_ends():
    writer = MemoryWriter()
    one_weight().fit(
        **steps(20), epochs=2, callbacks=[adaptlr.ScheduleLR(Constant(0.5), writers=[writer])]
    )
    points = [step for step, scalars in writer.scalars if "learning_rate" in scalars]
    assert points[:3] == [0, 2, 4]
    assert points[-1] == 40
    losses = [scalars["loss"] for _, scalars in writer.scalars if "loss" in scalars]
    # Half a unit down at each step: the mean over two steps falls by one from point to point.
    assert losses[:3] == pytest.approx([-0.25, -1.25, -2.25])
    assert {"epoch/loss", "epoch/learning_rate"} <= set().union(*(s for _, s in writer.scalars))


def test_the_loss_at_an_epoch_end_is_that_of_training_whether_or_not_it_was_validated():
    ones = np.ones((30, 1), "float32")
    for validation in (None, (-100.0 * ones, ones)):
        writer = MemoryWriter()
        one_weight().fit(
            **steps(20),
            epochs=2,
            validation_data=validation,
            callbacks=[adaptlr.ScheduleLR(Constant(0.5), writers=[writer])],
        )
        losses = {step: s["loss"] for step, s in writer.scalars if "loss" in s}
        assert losses[20] == pytest.approx(-9.25)  # steps 18 and 19, at -9 and -9.5
        assert losses[22] == pytest.approx(-10.25)


def test_what_is_no_number_in_the_logs_is_left_out_of_the_scalars():
    writer = MemoryWriter()
    feed = Metrics("confusion", [np.eye(2)])
    callback = adaptlr.ScheduleLR(Constant(0.5), writers=[writer])
    one_weight().fit(**steps(2), callbacks=[feed, callback])
    assert all("epoch/confusion" not in scalars for _, scalars in writer.scalars)
    assert any("epoch/loss" in scalars for _, scalars in writer.scalars)


def test_verbose_prints_the_decisions(capsys):
    feed = Metrics("score", [1.0, 1.0])
    callback = adaptlr.PlateauLR("score", mode="min", patience=1, verbose=1)
    one_weight().fit(**steps(1), epochs=2, callbacks=[feed, callback])
    assert "Epoch 2, step 2: learning rate 0.1: plateau: score has not" in capsys.readouterr().out
