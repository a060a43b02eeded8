"""Training that goes wrong: as traces of numbers, and in `fit`."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from models import blobs, one_weight, steps, weight

import adaptlr
from adaptlr.controllers import Constant, Decision, Divergence, Feedback, Observation, Plateau, Run
from adaptlr.schedules import Constant as Rate

nan = math.nan


def trace(guard, losses, every=10):
    """Feeds one training loss a control point, ten of them an epoch; returns the decisions."""
    state = guard.init(Run(1.0))
    state, first = guard.update(state, Observation(0, 0))
    decisions = [first]
    for i, loss in enumerate(losses):
        seen = Observation((i + 1) * every, i // 10, i % 10 == 9, decisions[-1].scale, loss)
        state, decision = guard.update(state, seen)
        decisions.append(decision)
    return decisions[1:]


def rules(decisions):
    return [(i, d.rule) for i, d in enumerate(decisions) if d.rule != "hold"]


class TestDivergence:
    def start(self, **arguments):
        guard = Divergence(Constant(), **arguments)
        state = guard.init(Run(1.0))
        state, first = guard.update(state, Observation(0, 0))
        assert "snapshot" in first.effects  # something to go back to before anything can go wrong
        return guard, state

    @pytest.mark.parametrize("loss", [nan, math.inf])
    def test_restores_and_cuts(self, loss):
        guard, state = self.start(factor=0.5)
        state, decision = guard.update(state, Observation(5, 0, loss=loss))
        assert (decision.restores, decision.rule, decision.scale) == (True, "diverged", 0.5)
        assert f"the training loss became {loss}" in decision.reason
        state, decision = guard.update(state, Observation(9, 0, loss=1.0))
        assert (decision.restores, decision.scale) == (False, 0.5)  # the cut stays

    @pytest.mark.parametrize("rate_is", ["kept", "passing"])
    def test_a_rate_that_was_only_passed_through_stays_one(self, rate_is):
        """What a later fit begins from is none of a cool-down, cut or not."""

        class Cooling(Constant):
            def update(self, state, observation):
                return state, Decision(scale=0.1, rate_is=rate_is)

        guard = Divergence(Cooling())
        state, _ = guard.update(guard.init(Run(1.0)), Observation(0, 0))
        _, decision = guard.update(state, Observation(5, 0, loss=nan))
        assert (decision.rule, decision.rate_is) == ("diverged", rate_is)

    def test_a_monitored_nan_counts_too(self):
        guard, state = self.start()
        seen = []
        for epoch, value in enumerate([nan, 0.5, nan]):  # the first is none that has *turned* NaN
            step = 5 * epoch + 5
            state, decision = guard.update(state, Observation(step, epoch, True, None, 1.0, value))
            seen.append(decision.restores)
        assert seen == [False, False, True]
        assert "monitored metric became nan" in decision.reason

    def test_an_explosion_is_measured_against_the_first_loss(self):
        guard, state = self.start(limit=10.0)
        state, _ = guard.update(state, Observation(1, 0, loss=2.0))
        state, fine = guard.update(state, Observation(2, 0, loss=19.0))
        state, exploded = guard.update(state, Observation(3, 0, loss=21.0))
        assert (fine.restores, exploded.restores) == (False, True)

    def test_stops_after_so_many_restores(self):
        guard, state = self.start(max_restores=2)
        stops = []
        for step in range(3):
            state, decision = guard.update(state, Observation(step + 1, 0, loss=nan))
            stops.append("stop" in decision.effects)
        assert stops == [False, False, True]

    def test_the_wrapped_controller_goes_on_below_the_cut(self):
        guard = Divergence(Plateau(patience=1, factor=0.5), factor=0.1)
        state, scales = guard.init(Run(1.0)), []
        for epoch, value in enumerate([1, nan, 1, 1]):
            state, decision = guard.update(state, Observation(epoch, epoch, True, 1, 1, value))
            scales.append(decision.scale)
        assert scales == pytest.approx([1, 0.1, 0.05, 0.025])

    def test_exploring_steps_may_diverge(self):
        guard = Divergence(Feedback())
        state = guard.init(Run(1e-6, steps_per_epoch=100, epochs=10))
        state, _ = guard.update(state, Observation(0, 0))
        state, _ = guard.update(state, Observation(1, 0, loss=2.0))
        state, _ = guard.update(state, Observation(2, 0, loss=1.0))
        state, decision = guard.update(state, Observation(3, 0, loss=nan))
        assert decision.rule == "settle"

    def test_a_lucky_first_batch_of_a_probe_is_not_what_an_explosion_is_measured_against(self):
        guard = Divergence(Feedback())
        state = guard.init(Run(1e-6, steps_per_epoch=100, epochs=10))
        state, _ = guard.update(state, Observation(0, 0))
        losses = [0.1, *[1.0] * 9, *[0.5] * 40]
        for step, loss in enumerate(losses, 1):
            state, decision = guard.update(state, Observation(step, 0, loss=loss))
        assert state.signs.start == pytest.approx(0.91)  # the mean of ten
        state, decision = guard.update(state, Observation(51, 0, loss=0.5))
        assert decision.rule == "settle"
        state, fine = guard.update(state, Observation(52, 0, loss=9.0))
        state, exploded = guard.update(state, Observation(53, 0, loss=9.2))
        assert (fine.rule, exploded.rule) == ("hold", "diverged")


class TestChance:
    def test_a_loss_that_never_left_its_start_may_want_a_higher_rate(self):
        assert rules(trace(Divergence(Constant()), [2.4, *[2.303] * 100])) == []

    def test_a_loss_that_falls_back_to_its_start_is_restored_and_cut(self):
        decisions = trace(Divergence(Constant(), factor=0.5), [2.4, 1.0, *[2.303] * 20])
        assert rules(decisions) == [(21, "diverged")]
        assert decisions[-1].restores
        assert "has stayed at 2.303 for 20 control points" in decisions[-1].reason

    def test_control_points_of_a_ramp_do_not_count_each(self):
        guard = Divergence(Constant())
        state = guard.init(Run(1.0, steps_per_epoch=200))
        state, _ = guard.update(state, Observation(0, 0))
        found = []
        for step in range(1, 500):
            loss = 1.0 if step == 2 else 2.3
            state, decision = guard.update(state, Observation(step, 0, loss=loss))
            found += [step] if decision.rule == "diverged" else []
        assert found == [383]  # the twentieth, twenty steps apart, from the third on

    def test_so_is_one_that_went_back_there(self):
        decisions = trace(Divergence(Constant()), [2.4, 1.0, 0.5, 9.0, *[2.303] * 20])
        assert rules(decisions) == [(23, "diverged")]

    def test_two_cuts_that_do_not_help_are_taken_back_and_training_is_not_ended(self):
        decisions = trace(Divergence(Constant(), factor=0.5), [2.4, 1.0, *[2.303] * 200])
        assert rules(decisions) == [(21, "diverged"), (41, "diverged"), (71, "released")]
        assert decisions[-1].scale == 1.0
        assert not any(("stop" in d.effects) for d in decisions)

    def test_no_snapshot_is_taken_there(self):
        decisions = trace(Divergence(Constant()), [2.4, 1.0, *[2.303] * 18])
        assert not any(("snapshot" in d.effects) for d in decisions)

    @pytest.mark.parametrize(
        "losses",
        [
            [2.4 - 0.01 * i for i in range(100)],  # a slow warm-up
            [2.4, 1.0, *[0.5] * 100],  # a plateau after learning
            [2.4, *[2.2 + 0.02 * (-1) ** i for i in range(100)]],  # what is left is noise
            [-1.0, *[-1.0] * 100],  # no level to compare with
            [0.0] * 100,
        ],
    )
    def test_what_only_looks_like_it(self, losses):
        assert rules(trace(Divergence(Constant()), losses)) == []

    def test_may_be_switched_off(self):
        assert rules(trace(Divergence(Constant(), stuck=None), [2.4, *[2.303] * 100])) == []


class TestPassingFault:
    def test_the_cut_is_taken_back_after_a_time_that_doubles(self):
        good = [1.0] * 70
        guard = Divergence(Constant(), factor=0.5, stuck=None)
        decisions = trace(guard, [nan, *good, nan, *good])
        assert rules(decisions) == [
            (0, "diverged"), (30, "released"), (71, "diverged"), (131, "released"),
        ]  # fmt: skip
        assert [decisions[i].scale for i in (0, 30, 71, 131)] == [0.5, 1.0, 0.5, 1.0]

    def test_a_fault_in_every_epoch_ends_the_training_in_the_end(self):
        decisions = trace(Divergence(Constant(), stuck=None), [*[1.0] * 9, nan] * 8)
        stops = [i for i, d in enumerate(decisions) if ("stop" in d.effects)]
        assert stops[0] == 59
        assert decisions[59].scale == pytest.approx(3.0**-5)
        assert decisions[79].scale == pytest.approx(3.0**-5)  # no cut without end


class TestSnapshots:
    def taken(self, losses, every=10):
        decisions = trace(Divergence(Constant()), losses, every)
        return [i for i, d in enumerate(decisions) if ("snapshot" in d.effects)]

    def test_at_ends_of_epochs_while_the_loss_falls(self):
        assert self.taken([2.0 * 0.98**i for i in range(40)]) == [9, 19, 29, 39]

    def test_at_least_a_hundred_steps_apart(self):
        assert self.taken([2.0 * 0.98**i for i in range(60)], every=3) == [39]

    def test_not_where_a_quarter_of_the_fall_is_lost(self):
        falling = [2.0 * 0.9**i for i in range(10)]
        climbing = [min(falling) * 1.1**i for i in range(1, 11)]
        assert self.taken([*falling, *climbing]) == [9]

    def test_for_losses_below_zero_too(self):
        assert self.taken([-float(i) for i in range(20)]) == [9, 19]

    def test_of_the_inner_controller_come_first(self):
        guard = Divergence(Plateau(patience=1, restore_best_weights=True))
        state, taken = guard.init(Run(1.0)), []
        for epoch, value in enumerate([3.0, 2.0, 4.0, 5.0]):
            seen = Observation(200 * epoch, epoch, True, 1.0, 1.0 / (1 + epoch), value)
            state, decision = guard.update(state, seen)
            taken.append("snapshot" in decision.effects)
        assert taken == [True, True, False, False]

    def test_the_one_before_is_asked_for_when_the_last_fails_at_once(self):
        decisions = trace(Divergence(Constant()), [1.0, nan, nan, 1.0, nan])
        assert [("restore earlier" in d.effects) for d in decisions if d.restores] == [
            False,
            True,
            False,
        ]


class Poison(keras.callbacks.Callback):
    """Spoils the weights at one hook of one epoch, or of all from then on."""

    def __init__(self, hook, epoch, value=nan, *, once=True):
        super().__init__()
        self.epoch, self.value, self.once = epoch, value, once
        setattr(self, hook, self.spoil)

    def spoil(self, epoch, logs=None):
        if epoch == self.epoch or (epoch > self.epoch and not self.once):
            self.model.set_weights([w * 0 + self.value for w in self.model.get_weights()])


def network(optimizer=None):
    """Starts at the loss of chance exactly: the last layer is zero."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, activation="softmax", kernel_initializer="zeros"),
        ]
    )
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9) if optimizer is None else optimizer
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(callbacks, model=None, *, epochs=8, x=None, batches=120):
    features, labels = blobs(8 * batches)
    model = network() if model is None else model
    history = model.fit(
        features if x is None else x, labels, batch_size=8, epochs=epochs, shuffle=False,
        verbose=0, callbacks=callbacks,
    ).history  # fmt: skip
    return model, history


def finite(model):
    return all(np.isfinite(w).all() for w in model.get_weights())


CALLBACKS = {
    "PlateauLR": lambda: adaptlr.PlateauLR("loss"),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(Rate(0.05), Divergence(Constant())),
    # Compiled into the step.
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.02, 0.08, 50),
    "OneCycleLR": lambda: adaptlr.OneCycleLR(0.08),
}
each_callback = pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS)


class TestFit:
    @pytest.mark.alike
    @each_callback
    @pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
    def test_nan_in_the_weights_is_undone(self, make, hook):
        """At an epoch's end it comes after the last loss: the snapshot must not take it in."""
        callback = make()
        model, history = fit([Poison(hook, 2), callback], epochs=5)
        assert [r.rule for r in callback.decisions] == ["start", "diverged"]
        assert finite(model)
        assert history["accuracy"][-1] > 0.9

    def test_weights_that_are_huge_and_finite_are_not_gone_back_to(self):
        callback = adaptlr.ScheduleLR(Rate(0.01), Divergence(Constant()))
        model = one_weight_regression()
        ones = np.ones((200, 1), "float32")
        model.fit(
            ones, ones, batch_size=1, epochs=5, verbose=0,
            callbacks=[Poison("on_epoch_end", 2, 1e4), callback],
        )  # fmt: skip
        assert [r.rule for r in callback.decisions] == ["start", "diverged", "diverged"]
        assert model.get_weights()[0].item() == pytest.approx(1.0, abs=1e-3)

    @pytest.mark.alike
    @each_callback
    def test_data_with_nan_in_them_end_the_training_with_good_weights(self, make):
        x, _ = blobs(960)
        x[500] = nan
        callback = make()
        model, history = fit([callback], epochs=20, x=x)
        assert len(history["loss"]) <= 12
        assert "5 restores were in vain" in callback.decisions[-1].reason
        assert finite(model)

    def test_one_bad_batch_costs_the_rate_only_for_a_time(self):
        callback = adaptlr.PlateauLR("loss", min_delta=-0.0, patience=100)
        fit([Poison("on_epoch_begin", 1), callback], epochs=6)
        assert [r.rule for r in callback.decisions] == ["start", "diverged", "released"]
        assert callback.decisions[-1].learning_rate == pytest.approx(0.05)

    def test_a_network_that_died_is_brought_back(self):
        class Kill(keras.callbacks.Callback):
            """No unit of the first layer fires any more, for any sample."""

            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 2:
                    kernel, bias, *rest = self.model.get_weights()
                    self.model.set_weights([kernel * 0, bias - 1e3, *(w * 0 for w in rest)])

        callback = adaptlr.ScheduleLR(Rate(0.05), Divergence(Constant()))
        _, history = fit([Kill(), callback])
        diverged = [r for r in callback.decisions if r.rule == "diverged"]
        assert len(diverged) == 1
        assert "has stayed at 1." in diverged[0].reason
        assert history["accuracy"][3] < 0.5
        assert history["accuracy"][-1] > 0.9

    @pytest.mark.alike
    @each_callback
    def test_steps_that_a_loss_scale_skips_are_no_divergence(self, make):
        x, _ = blobs(960)
        x[500] = np.inf
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05, momentum=0.9))
        callback = make()
        model, _ = fit([callback], network(optimizer), epochs=3, x=x)
        assert [r.rule for r in callback.decisions] == ["start"]
        assert finite(model)

    def test_under_a_loss_scale_nan_in_the_weights_still_is_one(self):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05))
        callback = adaptlr.PlateauLR("loss")
        model, _ = fit([Poison("on_epoch_begin", 1), callback], network(optimizer), epochs=4)
        assert "diverged" in [r.rule for r in callback.decisions]
        assert finite(model)

    @pytest.mark.rest
    def test_autolr_ends_with_the_best_weights_whatever_goes_wrong(self):
        x, y = blobs(960)
        callback, model = adaptlr.AutoLR(), network(keras.optimizers.Adam())
        model.fit(
            x, y, batch_size=8, epochs=20, validation_data=(x, y), verbose=0,
            callbacks=[callback, Poison("on_epoch_begin", 4, once=False)],
        )  # fmt: skip
        assert [r.rule for r in callback.decisions].count("diverged") >= 3
        assert model.evaluate(x, y, verbose=0)[1] > 0.9


class PoisonedStep(keras.callbacks.Callback):
    """Makes NaN of the only weight before one step, and writes down the weight before each."""

    def __init__(self, step):
        super().__init__()
        self.poisoned, self.weights = step, []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.poisoned and len(self.weights) == batch:
            self.model.layers[0].kernel.assign([[nan]])
        self.weights.append(weight(self.model))


class TestRatesAfterACut:
    """A gradient of 1 and SGD: the weight falls by the rate of each step."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: adaptlr.ScheduleLR(lambda s: 1.0 + s),
            lambda: adaptlr.ScheduleLR(lambda s: 1.0 + s, Constant()),
            lambda: adaptlr.CyclicalLR(1.0, 41.0, 40),
        ],
        ids=["ScheduleLR", "ScheduleLR with a controller", "CyclicalLR"],
    )
    def test_are_a_third_of_the_schedules_exactly(self, make):
        poison, callback, model = PoisonedStep(13), make(), one_weight()
        model.fit(**steps(40), callbacks=[callback, poison])
        diverged = [r.step for r in callback.decisions if r.rule == "diverged"]
        assert diverged == [16]  # the control point after the 13th step
        weights = [*poison.weights[17:], weight(model)]
        expected = [(1.0 + s) / 3.0 for s in range(16, 40)]
        assert -np.diff([0.0, *weights]) == pytest.approx(expected, rel=1e-4)

    def test_momentum_goes_on_with_its_cycle(self):
        callback = adaptlr.CyclicalLR(1.0, 41.0, 40, momentum=(0.9, 0.5))
        model = one_weight(keras.optimizers.SGD(0.1, momentum=0.9))
        model.fit(**steps(40), callbacks=[callback, PoisonedStep(13)])
        velocity = position = 0.0
        for step in range(16, 40):
            velocity = (0.9 - 0.4 * step / 40) * velocity - (1.0 + step) / 3.0
            position += velocity
        assert weight(model) == pytest.approx(position, rel=1e-4)

    def test_come_back_when_the_fault_has_passed(self):
        callback, model = adaptlr.CyclicalLR(1.0, 41.0, 40), one_weight()
        poison = PoisonedStep(3)
        model.fit(**steps(40), epochs=5, callbacks=[callback, poison])
        rules = [r.rule for r in callback.decisions]
        assert rules == ["start", "diverged", "released"]
        cycle = adaptlr.schedules.Cyclical(1.0, 41.0, 40)
        released = callback.decisions[-1].step
        falls = -np.diff([*poison.weights[released:], weight(model)])
        assert falls == pytest.approx([cycle(s) for s in range(released, 200)], rel=1e-3)


def one_weight_regression():
    model = one_weight(keras.optimizers.SGD(0.01))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model
