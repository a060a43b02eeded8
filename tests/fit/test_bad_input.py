"""What happens with input that does not fit: it works, or it is refused with the mend."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import (
    Metrics,
    blobs,
    classifier,
    collected_warnings,
    one_weight,
    steps,
    unknown_length,
    weight,
)

import adaptlr
from adaptlr.controllers import Divergence, Feedback, Plateau, RangeFinder
from adaptlr.monitor import Monitor
from adaptlr.schedules import Constant, Cyclical, Warmup
from adaptlr.writers import MemoryWriter

# Every callback, in a setting in which it has something to do.
EVERY = {
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
    "PlateauLR": lambda: adaptlr.PlateauLR("loss", patience=1),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 1.0, 3),
    "OneCycleLR": lambda: adaptlr.OneCycleLR(1.0, momentum=None),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(lambda step: 1.0 / (1 + step)),
    "LRFinder": lambda: adaptlr.LRFinder(num_steps=4),
}
every_callback = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)

KINDS_OF_DATA = {
    "known": steps,
    "unknown": lambda count: {"x": unknown_length(count), "verbose": 0, "shuffle": False},
}


class TestValidationData:
    x, y = blobs(64)

    @pytest.mark.parametrize(
        "data",
        [(x[:0], y[:0]), (x[:, :3], y), (x, y[:5]), "data", (x,)],
        ids=["empty", "shape", "lengths", "string", "no targets"],
    )
    @pytest.mark.parametrize("kind", [adaptlr.AutoLR, adaptlr.LRFinder])
    def test_that_cannot_be_evaluated_are_refused_before_the_first_step(self, kind, data):
        model = classifier("sgd")
        before = model.get_weights()
        named = rf"{kind.__name__}\(validation_data=\.\.\.\)"
        with pytest.raises(ValueError, match=rf"{named} must be data (that model|such as)"):
            model.fit(self.x, self.y, verbose=0, callbacks=[kind(validation_data=data)])
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_that_can_be_read_only_once_are_refused(self):
        batches = iter([(self.x, self.y)])
        with pytest.raises(
            TypeError, match=r"AutoLR\(validation_data=\.\.\.\) must be data that can"
        ):
            adaptlr.AutoLR(validation_data=batches)

    def test_that_lack_the_monitored_metric_are_not_measured_again_and_again(self):
        class Count(keras.callbacks.Callback):
            evaluations = 0

            def on_test_begin(self, logs=None):
                Count.evaluations += 1

        model = classifier("sgd")
        callback = adaptlr.AutoLR((self.x, self.y), monitor="val_acc")  # it is val_accuracy
        evaluate, count = model.evaluate, Count()
        model.evaluate = lambda *a, **k: evaluate(*a, **{**k, "callbacks": [count]})
        own = keras.callbacks.LambdaCallback()  # might give that metric
        with collected_warnings() as messages:
            model.fit(
                self.x, self.y, batch_size=4, epochs=15, verbose=0, callbacks=[own, callback]
            )
        assert count.evaluations == 1  # the first look
        assert sum("there is no such metric" in message for message in messages) == 1
        assert [d.rule for d in callback.decisions][-2:] == ["cool", "stop"]

    def test_that_are_empty_in_fit_are_said_to_be_missing(self):
        """Keras warns that data ran out and reports no validation metrics."""
        model, callback = classifier("sgd"), adaptlr.PlateauLR()
        empty = (self.x[:0], self.y[:0])
        with collected_warnings() as messages:
            model.fit(
                self.x, self.y, epochs=2, validation_data=empty, verbose=0, callbacks=[callback]
            )
        ours = [message for message in messages if "monitor='val_loss'" in message]
        assert len(ours) == 1
        assert "nothing was validated in this epoch" in ours[0]


class TestMetrics:
    def fit(self, values):
        callback = adaptlr.PlateauLR("score", mode="min", patience=1, factor=0.5, min_delta=0.0)
        feed = Metrics("score", values)
        with collected_warnings() as messages:
            one_weight().fit(**steps(2), epochs=len(values), callbacks=[feed, callback])
        return callback, messages

    def numbers(self):
        make = keras.ops.convert_to_tensor
        return [np.float32(1.0), np.array(2.0), make(3.0), keras.Variable(4.0, trainable=False), 5]

    def test_that_are_scalars_of_any_library_count(self):
        callback, messages = self.fit(self.numbers())
        assert messages == []
        assert [r.rule for r in callback.decisions] == ["start", *["plateau"] * 4]
        assert "has not improved on its best (1)" in callback.decisions[-1].reason

    @pytest.mark.parametrize("bad", ["0.5", np.eye(2), [1.0], None, {"a": 1.0}, 1j])
    def test_that_are_no_numbers_are_warned_of_once_and_held(self, bad):
        callback, messages = self.fit([bad] * 3)
        assert [r.rule for r in callback.decisions] == ["start"]
        assert len(messages) == 1
        assert "PlateauLR(monitor='score')" in messages[0]
        assert "is no number" in messages[0]
        assert type(bad).__name__ in messages[0]

    def test_that_never_change_are_a_plateau(self):
        callback, _ = self.fit([1.0] * 4)
        rates = [r.learning_rate for r in callback.decisions]
        assert rates == [1.0, 0.5, 0.25, 0.125]

    def test_of_an_array_in_the_model_do_not_stop_the_evaluation(self):
        class PerClass(keras.metrics.Metric):
            def __init__(self):
                super().__init__(name="per_class")
                self.total = self.add_weight(shape=(3,), initializer="zeros", name="total")

            def update_state(self, y_true, y_pred, sample_weight=None):
                self.total.assign_add(keras.ops.sum(y_pred, axis=0))

            def result(self):
                return self.total * 1.0

        x, y = blobs(64)
        model = classifier("sgd")
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=[PerClass()])
        callback = adaptlr.AutoLR(validation_data=(x, y))
        history = model.fit(x, y, epochs=2, verbose=0, callbacks=[callback]).history
        assert len(history["val_loss"]) == 2

    @pytest.mark.parametrize(("name", "mode"), [("val_accuracy", "min"), ("val_loss", "max")])
    def test_in_the_wrong_direction_are_warned_of(self, name, mode):
        x, y = blobs(64)
        callback = adaptlr.PlateauLR(name, mode=mode)
        with collected_warnings() as messages:
            classifier("sgd").fit(x, y, validation_data=(x, y), verbose=0, callbacks=[callback])
        assert len(messages) == 1
        assert f"mode='{mode}' was given for monitor='{name}'" in messages[0]


class TestEpochs:
    @every_callback
    def test_none_at_all(self, make):
        callback, model = make(), one_weight()
        model.fit(**steps(4), epochs=0, callbacks=[callback])
        assert weight(model) == 0.0
        assert callback.decisions == []

    @pytest.mark.alike
    @every_callback
    def test_of_one_step(self, make):
        callback, model = make(), one_weight()
        model.fit(**steps(1), epochs=6, callbacks=[callback])
        assert np.isfinite(weight(model))
        assert callback.decisions[0].rule == "start"

    def test_of_one_step_have_exact_rates(self):
        model = one_weight()
        callback = adaptlr.ScheduleLR(lambda step: 2.0**step)
        model.fit(**steps(1), epochs=8, callbacks=[callback])
        assert weight(model) == -255.0

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    @every_callback
    def test_whose_data_end_early(self, make):
        def batches():
            for _ in range(6):
                yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

        callback, model = make(), one_weight()
        model.fit(
            batches(), steps_per_epoch=4, epochs=2, verbose=0, shuffle=False, callbacks=[callback]
        )
        assert np.isfinite(weight(model))

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    def test_whose_data_end_early_have_exact_rates(self):
        def batches():
            for _ in range(6):
                yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

        model = one_weight()
        callback = adaptlr.ScheduleLR(lambda step: 2.0**step)
        model.fit(
            batches(), steps_per_epoch=4, epochs=2, verbose=0, shuffle=False, callbacks=[callback]
        )
        assert weight(model) == -63.0

    def test_of_another_length_in_the_next_fit(self):
        """A fit counts steps by its own epochs: epoch 1 of eight steps begins at step 8."""
        model, ones = one_weight(), np.ones((16, 1), "float32")
        callback = adaptlr.ScheduleLR(lambda step: 2.0**step)
        data = {"x": ones, "y": ones, "batch_size": 1, "verbose": 0, "callbacks": [callback]}
        model.fit(**data, steps_per_epoch=2)
        assert weight(model) == -3.0
        model.fit(**data, steps_per_epoch=8, epochs=2, initial_epoch=1)
        assert weight(model) == -3.0 - (2.0**16 - 2.0**8)


class TestCompile:
    @every_callback
    def test_was_not_called(self, make):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        with pytest.raises(ValueError, match="compile"):
            model.fit(**steps(4), callbacks=[make()])

    @pytest.mark.alike
    @every_callback
    def test_was_called_again_in_between(self, make):
        callback, model = make(), one_weight()
        model.fit(**steps(4), epochs=2, callbacks=[callback])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(**steps(4), epochs=2, callbacks=[callback])
        assert np.isfinite(weight(model))

    def test_was_called_again_after_an_interrupted_cycle(self):
        class CtrlC(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                raise KeyboardInterrupt

        model = one_weight()
        with pytest.raises(KeyboardInterrupt):
            model.fit(**steps(4), callbacks=[adaptlr.CyclicalLR(0.1, 1.0, 3), CtrlC()])
        model.compile(keras.optimizers.SGD(0.5), loss=lambda y, p: keras.ops.mean(p, axis=-1))
        model.fit(**steps(4))
        assert weight(model) == -2.0


class TestOwnership:
    """Who else sets the rate is named, with the other callbacks of this fit."""

    @pytest.mark.parametrize(
        "other",
        [
            lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.3),
            lambda: keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1e9),
            lambda: adaptlr.PlateauLR("accuracy", mode="max", patience=1, min_delta=1e9),
        ],
        ids=["LearningRateScheduler", "ReduceLROnPlateau", "PlateauLR"],
    )
    def test_another_callback(self, other, request):
        x, y = blobs(64)
        callbacks = [adaptlr.ScheduleLR(Constant(0.1)), other()]
        with pytest.raises(RuntimeError, match=r"Callbacks in this fit: ") as raised:
            classifier("sgd").fit(x, y, batch_size=8, epochs=4, verbose=0, callbacks=callbacks)
        name = request.node.callspec.id
        assert name in str(raised.value).split("in this fit: ")[1]

    def test_code_of_the_user(self):
        class Meddle(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 2:
                    self.model.optimizer.learning_rate = 0.25

        with pytest.raises(RuntimeError, match=r"set the learning rate to 1 and found 0\.25"):
            one_weight().fit(
                **steps(20), epochs=2, callbacks=[adaptlr.PlateauLR("loss"), Meddle()]
            )

    def test_an_optimizer_that_was_loaded(self, tmp_path):
        class Load(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                path = str(tmp_path / "model.weights.h5")
                if epoch == 0:
                    self.model.save_weights(path)
                if epoch == 3:
                    self.model.load_weights(path)

        callbacks = [Metrics("score", [1.0] * 6), adaptlr.PlateauLR("score", 0.5, 1, mode="min")]
        with pytest.raises(RuntimeError, match=r"to 0\.25 and found 1 .*that was loaded"):
            one_weight().fit(**steps(4), epochs=6, callbacks=[*callbacks, Load()])


class TestObjectsOfTheWrongKind:
    """Are refused where they are passed, with what to pass, and not somewhere inside `fit`."""

    @pytest.mark.parametrize("kind", [Plateau, Feedback, RangeFinder])
    def test_a_name_in_place_of_a_monitor(self, kind):
        message = (
            rf"{kind.__name__}\(monitor=\.\.\.\) must be a Monitor, such as .*"
            r"Monitor\('loss'\).* Received: monitor='loss'"
        )
        with pytest.raises(ValueError, match=message):
            kind(monitor="loss")

    def test_a_monitor_in_place_of_a_ramp(self):
        with pytest.raises(TypeError, match=r"RangeFinder\(ramp=\.\.\.\) must be a RangeTest"):
            RangeFinder(Plateau())

    @pytest.mark.parametrize("name", [None, 5, ["loss"], ""])
    @pytest.mark.parametrize("kind", [adaptlr.PlateauLR, adaptlr.AutoLR])
    def test_a_metric_without_a_name(self, kind, name):
        message = (
            rf"{kind.__name__}\(monitor=\.\.\.\) must be a non-empty string\. Received: monitor="
        )
        with pytest.raises((TypeError, ValueError), match=message):
            kind(monitor=name)

    @pytest.mark.parametrize("value", ["loss", 5, Plateau, adaptlr.PlateauLR()])
    def test_what_is_no_controller(self, value):
        message = r"\(controller=\.\.\.\) must be a controller .*such as Plateau\(patience=3\)"
        with pytest.raises((TypeError, ValueError), match=message):
            adaptlr.ScheduleLR(Constant(0.1), value)
        with pytest.raises((TypeError, ValueError), match=r"Divergence\(inner=\.\.\.\) must be"):
            Divergence(value)

    @pytest.mark.parametrize(
        "schedule",
        [
            lambda step: [1.0, 0.5][step // 4],
            Warmup(lambda step: [1.0, 0.5][step // 4], warmup_steps=0),
            lambda step: 1.0 / (8 - step),
        ],
        ids=["list", "inside", "division"],
    )
    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    @pytest.mark.parametrize("data", KINDS_OF_DATA.values(), ids=KINDS_OF_DATA)
    def test_is_not_held_to_a_rate_for_the_step_after_the_last(self, data, schedule):
        model = one_weight()
        model.fit(**data(4), epochs=2, callbacks=[adaptlr.ScheduleLR(schedule)])
        assert weight(model) == pytest.approx(-sum(map(schedule, range(8))))

    def test_nor_for_epochs_that_do_not_come(self):
        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.model.stop_training = epoch == 1

        model, rates = one_weight(), [1.0] * 4 + [0.5] * 4
        schedule = adaptlr.ScheduleLR(rates.__getitem__, Plateau(Monitor("loss")))
        model.fit(**steps(4), epochs=3, callbacks=[schedule, Stop()])
        assert weight(model) == -6.0
        with pytest.raises(IndexError):
            model.fit(**steps(4), epochs=3, callbacks=[schedule])

    @pytest.mark.parametrize("rates", [[], [1.0, 0.5], [1.0, 0.5, 0.2]], ids=len)
    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    @pytest.mark.parametrize("data", KINDS_OF_DATA.values(), ids=KINDS_OF_DATA)
    def test_but_to_those_before_it_is(self, data, rates):
        with pytest.raises(IndexError):
            one_weight().fit(**data(4), callbacks=[adaptlr.ScheduleLR(rates.__getitem__)])

    def test_a_schedule_may_be_a_text(self):
        model = one_weight()
        text = "Warmup(Linear(1.0, 4), warmup_steps=2)"
        model.fit(**steps(4), callbacks=[adaptlr.ScheduleLR(text)])
        assert weight(model) == -(0 + 0.5 + 1 + 0.75)

    @pytest.mark.parametrize("text", ["cosine", "Cosine", "Cosine(0.1, n)", "[0.1]", "eval('1')"])
    def test_a_text_that_is_no_schedule_is_refused(self, text):
        with pytest.raises(ValueError, match="Received"):
            adaptlr.ScheduleLR(text)

    @pytest.mark.parametrize("rate", [None, "fast", [1.0, 2.0]])
    def test_a_schedule_that_returns_no_number(self, rate):
        callback = adaptlr.ScheduleLR(lambda step: rate)
        with pytest.raises(TypeError, match=r"must return a number .*Received: .* at step 0"):
            one_weight().fit(**steps(2), callbacks=[callback])

    @pytest.mark.parametrize("value", [MemoryWriter(), MemoryWriter, [MemoryWriter], "log", 3])
    @every_callback
    def test_what_is_no_list_of_writers(self, make, value):
        kind = type(make())
        rates = {"CyclicalLR": (0.1, 1.0, 3), "OneCycleLR": (1.0,), "ScheduleLR": (Constant(0.1),)}
        message = rf"{kind.__name__}\(writers=\.\.\.\) must be a list of writers"
        with pytest.raises((TypeError, ValueError), match=message):
            kind(*rates.get(kind.__name__, ()), writers=value)

    @pytest.mark.parametrize("name", ["restore_best_weights", "stop"])
    @pytest.mark.parametrize("value", ["no", 0, None])
    def test_a_flag_that_is_neither_true_nor_false(self, name, value):
        with pytest.raises(
            (TypeError, ValueError), match=rf"\({name}=\.\.\.\) must be True or Fal"
        ):
            adaptlr.PlateauLR(**{name: value})

    def test_data_in_place_of_a_model(self):
        message = r"find\(model, x, y\) needs a model of Keras 3\. .*ndarray"
        with pytest.raises(TypeError, match=message):
            adaptlr.LRFinder().find(*blobs(8))


class TestNumbersOfNumPy:
    def test_count_as_integers(self, tmp_path):
        three = np.int64(3)
        callback = adaptlr.CyclicalLR(0.1, 1.0, three, backup_dir=tmp_path, backup_freq=three)
        model, cycle = one_weight(), Cyclical(0.1, 1.0, 3)
        model.fit(**steps(8), epochs=4, callbacks=[callback])
        assert weight(model) == pytest.approx(-sum(map(cycle, range(32))))
        assert "step_size=3" in repr(callback)

    @pytest.mark.alike
    @pytest.mark.parametrize("kind", [float, np.float64, np.float32])
    def test_written_as_floats_count_as_integers(self, tmp_path, kind):
        """As in the README of CLR, in Keras' InverseTimeDecay(0.1, 1.0, 0.5), and after `/ 2`."""
        three = kind(3.0)
        callback = adaptlr.CyclicalLR(0.1, 1.0, three, backup_dir=tmp_path, backup_freq=three)
        model = one_weight()
        model.fit(**steps(8), epochs=4, callbacks=[callback])
        assert weight(model) == pytest.approx(-sum(map(Cyclical(0.1, 1.0, 3), range(32))))
        one_weight().fit(**steps(3), callbacks=[adaptlr.OneCycleLR(1.0, three, momentum=None)])
        controller = adaptlr.controllers.Plateau(patience=three)
        assert (controller.patience, type(controller.patience)) == (3, int)
        assert adaptlr.KerasSchedule(Constant(0.1), three).total_steps == 3
        assert adaptlr.groups.geometric_shares(three, ratio=2, frozen=kind(1.0)) == [0.0, 0.5, 1.0]

    @pytest.mark.parametrize("size", [0, True, 1.5, np.float64(2.5)])
    def test_that_are_no_integers_are_refused(self, size):
        with pytest.raises(
            (TypeError, ValueError), match=r"step_size=\.\.\.\) must be an integer"
        ):
            adaptlr.CyclicalLR(0.1, 1.0, size)

    def test_travel_with_the_weights_as_json(self, tmp_path):
        """What a controller was given comes back in its state."""
        model, feed = one_weight(), Metrics("score", [1.0] * 4)
        callback = adaptlr.PlateauLR(
            "score", np.float32(0.5), np.int64(1), mode="min", cooldown=np.int64(2)
        )
        save = keras.callbacks.ModelCheckpoint(tmp_path / "a.weights.h5", save_weights_only=True)
        model.fit(**steps(2), epochs=4, callbacks=[feed, callback, save])
        assert [d.rule for d in callback.decisions] == ["start", "plateau", "plateau"]
