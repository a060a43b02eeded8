"""A callback can be subclassed, pickled and copied, new and after a `fit`."""

from __future__ import annotations

import copy
import functools
import pickle

import keras
import numpy as np
import pytest
from models import Metrics, blobs, classifier, collected_warnings, one_weight, steps, weight

import adaptlr
from adaptlr.controllers import Plateau
from adaptlr.monitor import Monitor
from adaptlr.schedules import Constant, Cosine, Warmup
from adaptlr.writers import JSONLinesWriter, MemoryWriter

# Their schedules end after a third of the run, so that what comes after the end is copied too.
pytestmark = pytest.mark.filterwarnings("ignore:.* below a thousandth of its highest rate")

ONES = np.ones((4, 1), "float32")
# Every callback, in settings in which the rate moves.
EVERY = {
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
    "AutoLR with data": lambda: adaptlr.AutoLR(validation_data=(ONES, ONES)),
    "PlateauLR": lambda: adaptlr.PlateauLR("score", 0.5, 1, mode="min", warmup_steps=3),
    "PlateauLR that restores": lambda: adaptlr.PlateauLR(
        "score", 0.5, 1, mode="min", restore_best_weights=True, writers=[MemoryWriter()]
    ),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 1.0, 3, momentum=(0.9, 0.5)),
    "CyclicalLR cosine": lambda: adaptlr.CyclicalLR(0.1, 1.0, 3, "cosine"),
    "OneCycleLR": lambda: adaptlr.OneCycleLR(1.0),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(Warmup(Cosine(1.0, 20), 4)),
    "ScheduleLR of Keras": lambda: adaptlr.ScheduleLR(
        keras.optimizers.schedules.CosineDecay(1.0, 20)
    ),
    "ScheduleLR with Plateau": lambda: adaptlr.ScheduleLR(
        Constant(1.0), Plateau(Monitor("score", "min"), 0.5, 1)
    ),
    "LRFinder": lambda: adaptlr.LRFinder(num_steps=6),
}


def pickled(value):
    return pickle.loads(pickle.dumps(value))


def cloudpickled(value):
    cloudpickle = pytest.importorskip("cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(value))


WAYS = [pickled, cloudpickled, copy.deepcopy]
every_way = pytest.mark.parametrize("copied", WAYS)


class CtrlC(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step, self.begun = step, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.begun += 1
        if self.begun > self.step:
            raise KeyboardInterrupt


def train(callback, *others):
    """Trains one weight for 72 steps; returns the rates and what was decided."""
    keras.utils.set_random_seed(0)
    model = one_weight(keras.optimizers.SGD(1.0, momentum=0.9))
    feed = Metrics("score", [1.0, 0.5, 0.5, 0.5, 0.4, 0.4])
    callbacks = [feed, callback, *others]
    history = model.fit(**steps(12), epochs=6, callbacks=callbacks).history
    return weight(model), history["learning_rate"], callback.decisions


def same(callback):
    """What of a callback a copy must have."""
    names = ("learning_rate", "suggestions", "verdict", "losses")
    return {
        "class": type(callback),
        "repr": repr(callback),
        "decisions": list(callback.decisions),
        **{name: getattr(callback, name) for name in names if hasattr(callback, name)},
    }


@functools.cache
def wanted(name):
    """What a fresh callback of this name does."""
    return train(EVERY[name]())


class TestCopies:
    @pytest.mark.alike
    @pytest.mark.parametrize("name", EVERY)
    def test_of_a_new_callback_give_the_same_rates(self, name):
        callback = EVERY[name]()
        again, *others = [copied(callback) for copied in WAYS]
        assert same(again) == same(callback)
        assert train(again) == wanted(name)
        assert callback.decisions == []
        assert [same(other) for other in others] == [same(callback)] * 2

    @pytest.mark.alike
    @pytest.mark.parametrize("name", EVERY)
    def test_after_a_fit_give_the_same_rates(self, name):
        callback = EVERY[name]()
        assert train(callback) == wanted(name)
        before = same(callback)
        *others, again = [copied(callback) for copied in WAYS]
        assert same(again) == before
        assert train(again) == wanted(name)
        assert [same(one) for one in (callback, *others)] == [before] * 3

    @pytest.mark.alike
    @pytest.mark.parametrize("name", EVERY)
    def test_after_an_interrupted_fit_give_the_same_rates(self, name):
        callback = EVERY[name]()
        with pytest.raises(KeyboardInterrupt):
            train(callback, CtrlC(4))
        *others, again = [copied(callback) for copied in WAYS[::-1]]
        assert same(again) == same(callback)
        assert train(again) == wanted(name)
        assert [same(other) for other in others] == [same(callback)] * 2

    def test_of_a_schedule_that_is_a_function(self):
        callback = adaptlr.ScheduleLR(lambda step: 1.0 / (1 + step))
        rates = train(callback)
        for again in (cloudpickled(callback), copy.deepcopy(callback)):
            assert train(again) == rates

    @pytest.mark.alike
    @every_way
    def test_with_logs_and_a_backup(self, copied, tmp_path):
        callback = adaptlr.PlateauLR(
            "score",
            0.5,
            1,
            mode="min",
            log_dir=tmp_path / "log",
            backup_dir=tmp_path / "backup",
            backup_freq=7,
            writers=[MemoryWriter(), JSONLinesWriter(tmp_path / "log.jsonl")],
        )
        first = train(callback)
        again = copied(callback)
        assert same(again) == same(callback)
        with collected_warnings() as messages:
            assert train(again) == first
        assert [text for text in messages if "holds a run that came to its end" not in text] == []
        assert (tmp_path / "log.jsonl").read_text().count('"rule": "start"') == 2

    def test_leave_the_model_out(self):
        """A model is large, and a callback that is sent to another process needs none."""
        model = classifier("sgd", keras.layers.Dense(1000))
        callback = adaptlr.AutoLR(monitor="loss")
        model.fit(*blobs(64), batch_size=2, epochs=8, verbose=0, callbacks=[callback])
        assert model.count_params() * 4 > 60_000
        assert len(pickle.dumps(callback)) < 60_000

    @pytest.mark.parametrize("name", EVERY)
    def test_in_one_list_stay_one(self, name):
        callback = EVERY[name]()
        one, two = copy.deepcopy([callback, callback])
        assert one is two


class Named(adaptlr.PlateauLR):
    """Has arguments of its own, set before and after those of the package."""

    def __init__(self, name, patience=1):
        self.name = name
        super().__init__("score", 0.5, patience, mode="min")
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.epochs += 1


class Passing(adaptlr.PlateauLR):
    """Takes any arguments and passes them on."""

    def __init__(self, *args, tag="none", **kwargs):
        super().__init__(*args, **kwargs)
        self.tag = tag


class Twice(Named):
    def __init__(self):
        super().__init__("twice")


class MyAuto(adaptlr.AutoLR):
    def __init__(self, share):
        super().__init__(monitor="loss")
        self.share = share


class MyCyclical(adaptlr.CyclicalLR):
    def __init__(self, middle):
        super().__init__(middle / 2, middle * 2, 3)


class MyOneCycle(adaptlr.OneCycleLR):
    def __init__(self, peak):
        super().__init__(peak, momentum=None)


class MySchedule(adaptlr.ScheduleLR):
    def __init__(self, peak, length):
        super().__init__(Warmup(Cosine(peak, length), 4))


class MyFinder(adaptlr.LRFinder):
    def __init__(self, count):
        super().__init__(num_steps=count)


class Bare(adaptlr.PlateauLR):
    """Has no `__init__` of its own."""


# How to make one, the same without a subclass, and what its repr must say beside its name.
SUBCLASSES = {
    "Named": (
        lambda: Named("mine"),
        lambda: adaptlr.PlateauLR("score", 0.5, 1, mode="min"),
        "patience=1",
    ),
    "Passing": (
        lambda: Passing("score", 0.5, patience=1, mode="min", tag="a"),
        lambda: adaptlr.PlateauLR("score", 0.5, 1, mode="min"),
        "patience=1",
    ),
    "Twice": (Twice, lambda: adaptlr.PlateauLR("score", 0.5, 1, mode="min"), "patience=1"),
    "Bare": (
        lambda: Bare("score", 0.5, 1, mode="min"),
        lambda: adaptlr.PlateauLR("score", 0.5, 1, mode="min"),
        "patience=1",
    ),
    "MyAuto": (lambda: MyAuto(0.1), lambda: adaptlr.AutoLR(monitor="loss"), "monitor='loss'"),
    "MyCyclical": (
        lambda: MyCyclical(0.5),
        lambda: adaptlr.CyclicalLR(0.25, 1.0, 3),
        "base_lr=0.25, max_lr=1.0, step_size=3",
    ),
    "MyOneCycle": (
        lambda: MyOneCycle(0.5),
        lambda: adaptlr.OneCycleLR(0.5, momentum=None),
        "max_lr=0.5, momentum=None",
    ),
    "MySchedule": (
        lambda: MySchedule(0.5, 20),
        lambda: adaptlr.ScheduleLR(Warmup(Cosine(0.5, 20), 4)),
        "schedule=Warmup(",
    ),
    "MyFinder": (lambda: MyFinder(6), lambda: adaptlr.LRFinder(num_steps=6), "num_steps=6"),
}
every_subclass = pytest.mark.parametrize("name", SUBCLASSES)


class TestSubclasses:
    @pytest.mark.alike
    @every_subclass
    def test_train_as_what_they_extend(self, name):
        make, plain, _ = SUBCLASSES[name]
        mine, theirs = train(make()), train(plain())
        moves = [[(r.step, r.learning_rate, r.rule) for r in run[2]] for run in (mine, theirs)]
        assert mine[:2] == theirs[:2]
        assert moves[0] == moves[1]

    @every_subclass
    def test_say_what_they_are_and_do(self, name):
        make, _, said = SUBCLASSES[name]
        callback = make()
        assert repr(callback).startswith(f"{name}(")
        assert said in repr(callback)
        assert repr(callback).endswith(")")

    @pytest.mark.alike
    @every_subclass
    def test_can_be_copied_new_and_after_a_fit(self, name):
        callback = SUBCLASSES[name][0]()
        assert [same(copied(callback)) for copied in WAYS] == [same(callback)] * 3
        rates = train(callback)
        *others, later = [copied(callback) for copied in WAYS]
        assert [same(one) for one in (later, *others)] == [same(callback)] * 3
        assert train(later) == rates

    @every_way
    def test_keep_what_is_their_own(self, copied):
        callback = Named("mine")
        train(callback)
        again = copied(callback)
        assert (again.name, again.epochs) == ("mine", 6)

    def test_are_logged_by_their_name(self):
        class Written(adaptlr.PlateauLR):
            def __init__(self, writer):
                super().__init__("score", 0.5, 1, mode="min", writers=[writer])

        writer = MemoryWriter()
        train(Written(writer))
        assert writer.run["callback"] == "Written"
        assert writer.run["patience"] == 1
        assert writer.decisions[0].reason.startswith("Written takes over")

    def test_with_a_backup_are_continued(self, tmp_path):
        class Saved(adaptlr.PlateauLR):
            def __init__(self, directory):
                super().__init__("score", 0.5, 1, mode="min", backup_dir=directory, backup_freq=7)

        whole = train(Saved(tmp_path / "whole"))
        with pytest.raises(KeyboardInterrupt):
            train(Saved(tmp_path / "halves"), CtrlC(29))
        weight_, rates, decisions = train(Saved(tmp_path / "halves"))
        assert (weight_, decisions) == (whole[0], whole[2])
        assert rates == whole[1][-len(rates) :]
