"""What a `fit` leaves in the model, and in the optimizer, is what was promised and logged."""

from __future__ import annotations

import csv

import keras
import numpy as np
import pytest
from models import (
    blobs,
    classifier,
    collected_warnings,
    one_weight,
    steps,
    unknown_length,
    weight,
)

import adaptlr
from adaptlr.schedules import Constant, Cosine, OneCycle

X, Y = blobs(96)
VALIDATION = blobs(64, seed=1)


def rate(model):
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


OPTIMIZERS = {
    "plain": lambda: keras.optimizers.SGD(0.3, momentum=0.9),
    "use_ema": lambda: keras.optimizers.SGD(0.3, momentum=0.9, use_ema=True),
    "overwriting": lambda: keras.optimizers.SGD(
        0.3, momentum=0.9, use_ema=True, ema_overwrite_frequency=7
    ),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.3, momentum=0.9, use_ema=True), 1.0
    ),
}
OTHERS = ["none", "before", "after"]  # where another callback is listed that may stop


class Swap(keras.callbacks.SwapEMAWeights):
    """One that somebody has extended."""


class Ending(keras.callbacks.Callback):
    """Notes the validation losses, and may press Ctrl-C in the epoch after one that is worse."""

    def __init__(self, end):
        super().__init__()
        self.end, self.seen = end, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(logs["val_loss"])

    def on_train_batch_begin(self, batch, logs=None):
        if self.end == "interrupted" and self.seen and self.seen[-1] > min(self.seen):
            raise KeyboardInterrupt


class TestWeights:
    """Overfitting with a high rate, so that the best epoch is not the last."""

    def fit(self, optimizer, callbacks, epochs=20):
        model = classifier(optimizer)
        noisy = np.random.default_rng(0).permutation(Y)
        history = model.fit(
            X, noisy, epochs=epochs, verbose=0, validation_data=VALIDATION, callbacks=callbacks
        ).history
        return min(history["val_loss"]), history["val_loss"][-1], self.left(model)

    def left(self, model):
        return model.evaluate(*VALIDATION, verbose=0, return_dict=True)["loss"]

    @pytest.mark.alike
    @pytest.mark.parametrize(
        ("optimizer", "others"),
        [
            *((name, others) for name in ("plain", "use_ema") for others in OTHERS),
            ("overwriting", "before"),
            ("loss scale", "after"),
        ],
    )
    def test_are_the_best_where_plateaulr_has_stopped(self, optimizer, others):
        rule = adaptlr.PlateauLR(patience=2, restore_best_weights=True, stop=True, min_delta=0.0)
        callbacks = [rule]
        if others != "none":
            early = keras.callbacks.EarlyStopping(patience=30)
            callbacks.insert(0 if others == "before" else 1, early)
        best, last, left = self.fit(OPTIMIZERS[optimizer](), callbacks)
        assert rule.decisions[-1].rule == "stop"
        assert last > best
        assert left == pytest.approx(best, rel=1e-5)

    # The labels are random, and of 64 samples some epoch has more of them right by chance.
    @pytest.mark.filterwarnings("ignore:AutoLR leaves the weights of epoch")
    @pytest.mark.alike
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_are_the_best_averages_of_autolr(self, optimizer):
        best, _, left = self.fit(OPTIMIZERS[optimizer](), [adaptlr.AutoLR()], epochs=80)
        assert left <= best + 0.1 * abs(best)  # best by more than noise
        assert np.isfinite(left)

    @pytest.mark.alike
    @pytest.mark.parametrize("swap_on_epoch", [False, True])
    @pytest.mark.parametrize("ours_first", [False, True])
    @pytest.mark.parametrize("end", ["stop", "last cut", "interrupted"])
    def test_are_those_that_swapemaweights_has_validated(self, end, ours_first, swap_on_epoch):
        rule = adaptlr.PlateauLR(
            patience=2, restore_best_weights=True, stop=end == "stop", min_delta=0.0
        )
        swap, ending = Swap(swap_on_epoch=swap_on_epoch), Ending(end)
        callbacks = [rule, swap, ending] if ours_first else [swap, rule, ending]
        epochs = self.epoch_of_the_first_cut() + 1 if end == "last cut" else 60
        model = classifier(OPTIMIZERS["use_ema"]())
        noisy = np.random.default_rng(0).permutation(Y)
        data = {"validation_data": VALIDATION, "epochs": epochs, "verbose": 0}
        try:
            model.fit(X, noisy, callbacks=callbacks, **data)
        except KeyboardInterrupt:
            rule.use_best_weights()
        assert ending.seen[-1] > min(ending.seen)
        assert rule.decisions[-1].rule == {"stop": "stop", "last cut": "plateau"}.get(end, "start")
        assert self.left(model) == pytest.approx(min(ending.seen), rel=1e-5)

    def epoch_of_the_first_cut(self):
        rule = adaptlr.PlateauLR(patience=2, min_delta=0.0)
        self.fit(OPTIMIZERS["use_ema"](), [Swap(), rule], epochs=60)
        keras.utils.set_random_seed(0)
        return next(d.epoch for d in rule.decisions if d.rule == "plateau")

    @pytest.mark.alike
    @pytest.mark.parametrize("order", ["before", "between", "after"])
    @pytest.mark.parametrize("name", ["PlateauLR", "CyclicalLR", "ScheduleLR"])
    def test_are_the_best_averages_where_another_callback_stops(self, name, order):
        """Swapped in for validation, and kept by EarlyStopping."""
        ours = {
            "PlateauLR": lambda: adaptlr.PlateauLR(patience=50),
            "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 0.3, 10),
            "ScheduleLR": lambda: adaptlr.ScheduleLR(Cosine(0.3, 500)),
        }[name]()
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        early = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
        callbacks = [swap, early]
        callbacks.insert({"before": 0, "between": 1, "after": 2}[order], ours)
        optimizer = keras.optimizers.SGD(0.3, momentum=0.9, use_ema=True)
        best, _, left = self.fit(optimizer, callbacks, epochs=80)
        assert early.stopped_epoch > 0
        assert left == pytest.approx(best, rel=1e-5)


class Shown(keras.callbacks.Callback):
    """What the optimizer shows at the ends of epochs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(rate(self.model))


SCHEDULES = {
    "ScheduleLR": (lambda: adaptlr.ScheduleLR(Cosine(1.0, 40)), Cosine(1.0, 40)),
    "OneCycleLR": (
        lambda: adaptlr.OneCycleLR(1.0, total_steps=40, momentum=None),
        OneCycle(1.0, 40),
    ),
}


class TestRates:
    """Applied, logged and shown are one number: that of the last step of the epoch."""

    def check(self, kind, tmp_path, fit):
        make, schedule = SCHEDULES[kind]
        model, path = one_weight(), tmp_path / "log.csv"
        before, after = Shown(), Shown()
        history = fit(model, [before, make(), keras.callbacks.CSVLogger(path), after])
        expected = [schedule(step) for step in (9, 19, 29, 39)]
        assert weight(model) == pytest.approx(-sum(map(schedule, range(40))), rel=1e-5)
        assert history["learning_rate"] == pytest.approx(expected, rel=1e-6)
        assert after.seen == history["learning_rate"]
        if fit.__name__ != "unknown" or keras.backend.backend() == "torch":
            # As Keras' TensorBoard does, which may stand anywhere in the list.
            assert before.seen == pytest.approx(expected, rel=1e-6)
        with path.open() as file:
            logged = [float(row["learning_rate"]) for row in csv.DictReader(file)]
        assert logged == pytest.approx(expected, rel=1e-6)
        # Both end at next to nothing: their last rates they have only passed through.
        assert rate(model) == 1.0

    @pytest.mark.parametrize("kind", SCHEDULES)
    def test_of_a_known_number_of_steps(self, kind, tmp_path):
        def fit(model, callbacks):
            return model.fit(**steps(10), epochs=4, callbacks=callbacks).history

        self.check(kind, tmp_path, fit)

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")
    @pytest.mark.parametrize("kind", SCHEDULES)
    def test_of_an_unknown_number_of_steps(self, kind, tmp_path):
        def unknown(model, callbacks):
            arguments = {"epochs": 4, "verbose": 0, "shuffle": False, "callbacks": callbacks}
            return model.fit(unknown_length(10), **arguments).history

        self.check(kind, tmp_path, unknown)

    def test_a_cut_at_the_end_of_an_epoch_shows_at_once_as_in_keras(self):
        arguments = {"patience": 1, "factor": 0.5, "min_delta": 1e9}
        found = []
        for kind in (keras.callbacks.ReduceLROnPlateau, adaptlr.PlateauLR):
            model = one_weight()
            history = model.fit(**steps(4), epochs=4, callbacks=[kind("loss", **arguments)])
            found.append((history.history["learning_rate"], rate(model)))
        assert found[0] == found[1] == ([1.0, 1.0, 0.5, 0.25], 0.125)


class TestInitialEpoch:
    """A cycle over the run spans what this `fit` trains, or says that it does not."""

    def test_of_an_optimizer_that_is_new_numbers_the_epochs(self):
        model = one_weight()
        callback = adaptlr.OneCycleLR(1.0, momentum=None)
        model.fit(**steps(4), initial_epoch=6, epochs=12, callbacks=[callback])
        assert weight(model) == pytest.approx(-sum(map(OneCycle(1.0, 24), range(24))), rel=1e-5)

    def test_and_the_momentum_goes_with_it(self):
        seen = []
        for first in (0, 6):
            model = one_weight(keras.optimizers.SGD(1.0, momentum=0.9))
            callback = adaptlr.OneCycleLR(1.0)
            model.fit(**steps(4), initial_epoch=first, epochs=first + 6, callbacks=[callback])
            seen.append(weight(model))
        assert seen[0] == pytest.approx(seen[1], rel=1e-5)

    def test_of_an_optimizer_that_goes_on_enters_the_cycle_and_says_so(self):
        model = one_weight()
        model.fit(**steps(4), epochs=6)
        before = weight(model)
        with collected_warnings() as messages:
            model.fit(
                **steps(4),
                initial_epoch=6,
                epochs=12,
                callbacks=[adaptlr.OneCycleLR(1.0, momentum=None)],
            )
        (message,) = messages
        assert "spans all 12 epochs of fit, and this fit enters it at epoch 7" in message
        rates = map(OneCycle(1.0, 48), range(24, 48))
        assert weight(model) - before == pytest.approx(-sum(rates), rel=1e-4)

    def test_the_loop_of_the_faq_has_one_cycle_over_all_fits(self):
        model = one_weight()
        for epoch in range(6):
            callback = adaptlr.OneCycleLR(1.0, total_steps=6 * 4, momentum=None)
            model.fit(**steps(4), initial_epoch=epoch, epochs=epoch + 1, callbacks=[callback])
        assert weight(model) == pytest.approx(-sum(map(OneCycle(1.0, 24), range(24))), rel=1e-5)


LOOPED = {
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
    "PlateauLR": lambda: adaptlr.PlateauLR("loss"),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 1.0, 30),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(Cosine(1.0, 40)),
}


class TestFitsOfOneEpochInALoop:
    """Nothing goes on in them, which is said at the third."""

    def messages(self, make, fits, **arguments):
        model, callback = one_weight(), make()
        with collected_warnings() as messages:
            for epoch in range(fits):
                numbers = {k: v + epoch for k, v in arguments.items()}
                model.fit(**steps(10), **numbers, callbacks=[callback])
                callback = make() if epoch % 2 else callback  # one that is new, or used
        return [m for m in messages if "begins anew in each fit" in m]

    @pytest.mark.alike
    @pytest.mark.parametrize("name", LOOPED)
    def test_are_told_once(self, name):
        (message,) = self.messages(LOOPED[name], 5)
        assert message.startswith(f"{name} begins anew")
        assert self.messages(LOOPED[name], 2) == []

    @pytest.mark.alike
    @pytest.mark.parametrize("name", LOOPED)
    def test_not_if_they_are_longer(self, name):
        assert self.messages(LOOPED[name], 4, epochs=2) == []

    @pytest.mark.alike
    @pytest.mark.parametrize("name", LOOPED)
    def test_numbers_help_a_schedule_and_no_rule_that_compares_epochs(self, name):
        found = self.messages(LOOPED[name], 5, initial_epoch=0, epochs=1)
        if name in ("AutoLR", "PlateauLR"):
            (message,) = found
            assert "It compares epochs, and needs all of them in one fit" in message
        else:
            assert found == []

    def test_nor_where_nothing_could_go_on(self):
        assert self.messages(lambda: adaptlr.ScheduleLR(Constant(0.1)), 4) == []
        assert self.messages(lambda: adaptlr.LRFinder(num_steps=4), 4) == []


class TestASpentSchedule:
    """It was given epochs, or ends long before the run for another reason."""

    def messages(self, callback, count=40, epochs=3):
        with collected_warnings() as messages:
            one_weight().fit(**steps(count), epochs=epochs, callbacks=[callback])
        return [m for m in messages if "below a thousandth of its highest rate" in m]

    @pytest.mark.parametrize(
        ("make", "step"),
        [
            (lambda: adaptlr.ScheduleLR(Cosine(0.1, 3)), 3),
            (lambda: adaptlr.ScheduleLR(lambda epoch: 0.1 * 0.5**epoch), 10),
            (lambda: adaptlr.OneCycleLR(0.1, total_steps=3, momentum=None), 2),
        ],
    )
    def test_is_told(self, make, step):
        (message,) = self.messages(make())
        assert f"from step {step} on" in message
        assert "this fit has 120 steps, 40 an epoch" in message

    @pytest.mark.parametrize(
        "make",
        [
            lambda: adaptlr.ScheduleLR(Cosine(0.1, 120)),
            lambda: adaptlr.ScheduleLR(Cosine(0.1, 3, alpha=0.01)),
            lambda: adaptlr.OneCycleLR(0.1, momentum=None),
            lambda: adaptlr.CyclicalLR(1e-9, 0.1, 10),
            lambda: adaptlr.PlateauLR("loss"),
        ],
    )
    def test_is_told_of_no_other(self, make):
        assert self.messages(make()) == []

    def test_is_not_told_of_a_short_run_or_of_one_that_goes_on(self):
        assert self.messages(adaptlr.ScheduleLR(Cosine(0.1, 3)), count=5) == []
