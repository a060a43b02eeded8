"""Exceptions and Ctrl-C anywhere in `fit`: raw weights, best weights, nothing left behind."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import (
    Metrics,
    blobs,
    classifier,
    needs_multi_optimizer,
    one_weight,
    steps,
    weight,
)

import adaptlr
from adaptlr.bridge.average import RunningAverage
from adaptlr.schedules import Cyclical, Linear


class At(keras.callbacks.Callback):
    """Raises at the second call of one hook."""

    def __init__(self, hook, error=RuntimeError):
        super().__init__()
        self.calls, self.error = 0, error
        setattr(self, hook, self.raise_at_the_second)

    def raise_at_the_second(self, *arguments, **keywords):
        self.calls += 1
        if self.calls == 2:
            raise self.error


class Raw(keras.callbacks.Callback):
    """Copies the weights after each step, and those that stand in the model at ends of epochs."""

    def __init__(self):
        super().__init__()
        self.weights, self.at_epoch_ends, self.losses = None, [], []

    def on_train_batch_end(self, batch, logs=None):
        self.weights = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        self.at_epoch_ends.append(self.model.get_weights())
        self.losses.append(logs["val_loss"])


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def interrupted(callbacks, *, error=RuntimeError, epochs=4, model=None):
    x, y = blobs(128)
    model = model or classifier(
        "adam", keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)
    )
    with pytest.raises(error):
        model.fit(
            x,
            y,
            batch_size=16,
            epochs=epochs,
            validation_data=(x, y),
            verbose=0,
            callbacks=callbacks,
        )
    return model


HOOKS = ("on_epoch_begin", "on_train_batch_begin", "on_test_begin", "on_test_batch_begin")


class TestAutoLR:
    @pytest.mark.alike
    @pytest.mark.parametrize(
        ("place", "error"), [("before", RuntimeError), ("after", KeyboardInterrupt)]
    )
    @pytest.mark.parametrize("hook", [*HOOKS, "on_test_end", "on_epoch_end"])
    def test_leaves_the_raw_weights(self, hook, place, error):
        raw, bad, ours = Raw(), At(hook, error), adaptlr.AutoLR()
        order = [raw, bad, ours] if place == "before" else [raw, ours, bad]
        model = interrupted(order, error=error)
        same(model.get_weights(), raw.weights)

    def test_leaves_the_raw_weights_when_another_callback_fails_at_the_end(self):
        class Bad(keras.callbacks.Callback):
            def on_train_end(self, logs=None):
                raise RuntimeError

        raw = Raw()
        model = interrupted([raw, Bad(), adaptlr.AutoLR()])
        same(model.get_weights(), raw.weights)

    def test_the_best_weights_are_there_for_the_asking(self):
        raw, ours = Raw(), adaptlr.AutoLR()

        class CtrlC(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 4:
                    raise KeyboardInterrupt

        model = interrupted([ours, raw, CtrlC()], error=KeyboardInterrupt, epochs=9)
        ours.use_best_weights()
        same(model.get_weights(), raw.at_epoch_ends[int(np.argmin(raw.losses))])
        ours.use_best_weights()  # once is enough, and twice is no harm

    @pytest.mark.alike
    @pytest.mark.parametrize("hook", ["on_epoch_begin", "on_test_batch_begin"])
    @pytest.mark.parametrize("again", ["the same callback", "another", "none"])
    def test_the_model_can_be_fitted_again(self, hook, again):
        first = adaptlr.AutoLR()
        model = interrupted([first, At(hook)])
        before, (x, y) = model.get_weights(), blobs(128)
        callbacks = {"the same callback": [first], "another": [adaptlr.AutoLR()], "none": []}
        model.optimizer.learning_rate = 0.0 if again == "none" else 0.01
        model.fit(
            x,
            y,
            batch_size=16,
            epochs=5,  # of one alone nothing better may come, and then what was there is left
            validation_data=(x, y),
            verbose=0,
            callbacks=callbacks[again],
        )
        kernels = (
            [w for w in model.get_weights() if w.ndim == 2],
            [w for w in before if w.ndim == 2],
        )
        if again == "none":
            same(*kernels)
        else:
            assert not np.array_equal(kernels[0][0], kernels[1][0])
            assert "evaluate" not in vars(model)


def test_an_interrupted_cycle_leaves_no_compiled_rates():
    callback, model = adaptlr.CyclicalLR(0.25, 1.0, 4), one_weight()
    with pytest.raises(RuntimeError):
        model.fit(**steps(8), callbacks=[callback, At("on_train_batch_begin")])
    model.optimizer.learning_rate = 0.5
    start = weight(model)
    model.fit(**steps(4))
    assert weight(model) == start - 4 * 0.5
    model.fit(**steps(8), callbacks=[callback])
    assert weight(model) == start - 2.0 - sum(map(Cyclical(0.25, 1.0, 4), range(8)))


@pytest.mark.alike
@pytest.mark.parametrize("end", ["by itself", "interrupted", "best weights"])
@pytest.mark.parametrize("cycle", ["CyclicalLR", "OneCycleLR"])
def test_a_cycle_leaves_the_momentum_that_was_compiled(cycle, end):
    callback = {
        "CyclicalLR": lambda: adaptlr.CyclicalLR(0.25, 1.0, 3, momentum=(0.75, 0.25)),
        "OneCycleLR": lambda: adaptlr.OneCycleLR(1.0),
    }[cycle]()
    model = one_weight(keras.optimizers.SGD(0.5, momentum=0.5))
    if end == "by itself":
        model.fit(**steps(8), callbacks=[callback])
    else:
        with pytest.raises(KeyboardInterrupt):
            model.fit(
                **steps(8), callbacks=[callback, At("on_train_batch_begin", KeyboardInterrupt)]
            )
    if end == "best weights":
        callback.use_best_weights()
    assert model.optimizer.get_config()["momentum"] == 0.5
    slots = model.optimizer.variables
    velocity = next(v for v in slots if "momentum" in v.path)
    velocity.assign(np.zeros(velocity.shape))
    model.optimizer.learning_rate = 0.5
    start = weight(model)
    model.fit(**steps(2))
    assert weight(model) - start == pytest.approx(-0.5 - (0.5 + 0.25))
    assert model.optimizer.momentum == 0.5
    assert "make_train_function" not in vars(model)


def test_plateau_gives_the_best_epoch_back():
    class CtrlC(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    callback = adaptlr.PlateauLR("score", mode="min", restore_best_weights=True)
    model, feed = one_weight(), Metrics("score", [2.0, 1.0, 3.0, 4.0])
    with pytest.raises(KeyboardInterrupt):
        model.fit(**steps(2), epochs=4, callbacks=[feed, callback, CtrlC()])
    assert weight(model) == -6.0
    callback.use_best_weights()
    assert weight(model) == -4.0


def test_best_weights_of_a_fit_that_ended_by_itself_are_in_already():
    callback, model = adaptlr.PlateauLR("loss"), one_weight()
    callback.use_best_weights()
    model.fit(**steps(2), callbacks=[callback])
    callback.use_best_weights()
    assert weight(model) == -2.0


class Once:
    """A variable at whose first assignment Ctrl-C is pressed."""

    def __init__(self, variable):
        self.variable, self.pressed, self.dtype = variable, False, variable.dtype

    @property
    def value(self):  # by which TensorFlow's is assigned to
        self.press(keras.backend.backend() == "tensorflow")
        return self.variable.value

    def assign(self, value):
        self.press(True)
        self.variable.assign(value)

    def press(self, now):
        if now and not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt


@pytest.mark.parametrize("position", [0, 1, 3])
def test_a_swap_is_never_left_half_done(position):
    model = classifier("sgd")
    average = RunningAverage(model, 0)
    average._cells.arrays = [keras.ops.ones_like(v) for v in average._cells.arrays]
    variables, raw = average._variables, model.get_weights()
    average.swap_in()
    variables[position] = Once(variables[position])
    with pytest.raises(KeyboardInterrupt):
        average.swap_out(interrupted=True)
    same(model.get_weights(), raw)


class TestTheRateThatAnotherFitBeginsFrom:
    """It is what the optimizer shows, but for rates that a run had only passed through."""

    @staticmethod
    def first_rate(model, callback=None):
        callback = adaptlr.PlateauLR("loss") if callback is None else callback
        model.fit(**steps(4), callbacks=[callback])
        return pytest.approx(callback.decisions[0].learning_rate, rel=1e-6)

    @staticmethod
    def interrupted(callback, epochs=1, count=8):
        model = one_weight(keras.optimizers.SGD(0.5))
        with pytest.raises(KeyboardInterrupt):
            model.fit(
                **steps(count),
                epochs=epochs,
                callbacks=[callback, At("on_train_batch_end", KeyboardInterrupt)],
            )
        return model

    def test_zero_at_the_end_of_a_schedule_is_none(self):
        model = one_weight(keras.optimizers.SGD(0.5))
        schedule = adaptlr.ScheduleLR(Linear(0.25, decay_steps=3))
        model.fit(**steps(8), callbacks=[schedule])
        assert model.history.history["learning_rate"][-1] == 0.0
        assert float(model.optimizer.learning_rate) == 0.5
        assert adaptlr.LRFinder(num_steps=5).find(model, **steps(8)).decisions
        assert float(model.optimizer.learning_rate) == 0.5  # as it was found
        assert self.first_rate(model, schedule) == 0.5
        assert self.first_rate(model) == 0.5

    @needs_multi_optimizer
    def test_groups_keep_their_shares_over_it(self):
        model = classifier("sgd")
        optimizer = adaptlr.groups.group_optimizer(keras.optimizers.SGD(0.5), model, [0.0, 1.0])
        model.compile(optimizer, "sparse_categorical_crossentropy")
        x, y = blobs(64)
        model.fit(x, y, callbacks=[adaptlr.ScheduleLR(Linear(0.25, 1))], verbose=0)
        before = model.get_weights()
        callback = adaptlr.PlateauLR("loss")
        history = model.fit(x, y, callbacks=[callback], verbose=0).history
        assert callback.decisions[0].learning_rate == 0.5
        rates = [value for name, [value] in sorted(history.items()) if "learning_rate" in name]
        assert rates == [0.0, 0.5]
        same(model.get_weights()[:2], before[:2])

    @pytest.mark.parametrize("three_phase", [False, True])
    def test_the_end_of_one_cycle_is_none_and_any_earlier_rate_of_it_is_one(self, three_phase):
        model = one_weight(keras.optimizers.SGD(0.5))
        cycle = adaptlr.OneCycleLR(1.0, momentum=None, three_phase=three_phase)
        model.fit(**steps(20), callbacks=[cycle])
        assert model.history.history["learning_rate"][-1] < 1e-5
        assert float(model.optimizer.learning_rate) == 0.5
        assert self.first_rate(model) == 0.5
        model.optimizer.learning_rate = 0.5
        cycle = adaptlr.OneCycleLR(1.0, total_steps=20, momentum=None, three_phase=three_phase)
        model.fit(**steps(8), callbacks=[cycle])
        assert self.first_rate(model) == model.history.history["learning_rate"][-1] > 0.5

    def test_what_the_user_has_set_counts(self):
        model = one_weight(keras.optimizers.SGD(0.5))
        model.fit(**steps(8), callbacks=[adaptlr.ScheduleLR(Linear(0.25, decay_steps=3))])
        model.optimizer.learning_rate = 0.125
        assert self.first_rate(model) == 0.125
        model.compile(keras.optimizers.SGD(0.0), "mse")
        with pytest.raises(ValueError, match=r"finite number > 0.*or set model.optimizer"):
            self.first_rate(model)

    def test_a_cut_rate_lasts(self):
        model = one_weight(keras.optimizers.SGD(0.5))
        callback = adaptlr.PlateauLR("worse", mode="min", factor=0.5, patience=1)
        model.fit(**steps(4), epochs=3, callbacks=[Metrics("worse", [1.0] * 3), callback])
        assert self.first_rate(model) == 0.125

    def test_an_interrupted_warm_up_is_none(self):
        model = self.interrupted(adaptlr.PlateauLR("loss", warmup_steps=5))
        assert 0.0 < float(model.optimizer.learning_rate) < 0.5
        assert self.first_rate(model) == 0.5

    def test_an_interrupted_warm_up_of_autolr_is_none(self):
        model = self.interrupted(adaptlr.AutoLR(monitor="loss"), count=400)
        assert 0.0 < float(model.optimizer.learning_rate) < 0.2
        assert self.first_rate(model) == 0.5

    def test_the_end_of_a_cool_down_is_none(self):
        model = one_weight(keras.optimizers.SGD(0.5))
        callback = adaptlr.AutoLR(monitor="loss")
        model.fit(**steps(100), epochs=3, callbacks=[callback])
        assert "cool" in [record.rule for record in callback.decisions]
        assert float(model.optimizer.learning_rate) < callback.learning_rate / 10
        assert self.first_rate(model) == 0.5
