"""LRFinder: its controller as traces, and the callback in real `fit` runs."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import blobs, classifier, needs_multi_optimizer, one_weight, steps, weight

import adaptlr
from adaptlr.controllers import Observation, RangeFinder, Run
from adaptlr.range_test import RangeTest
from adaptlr.writers import MemoryWriter

BACKEND = keras.backend.backend()
RAMP = RangeTest(min_lr=1e-3, max_lr=1.0, num_steps=4)


def trace(losses, ramp=RAMP, epoch_ends=()):
    """The state and the decisions of a finder that sees these losses, one a step."""
    finder = RangeFinder(ramp)
    state = finder.init(Run(learning_rate=0.5))
    state, decision = finder.update(state, Observation(step=0, epoch=0))
    decisions = [decision]
    for step, loss in enumerate(losses, start=1):
        observation = Observation(step, 0, epoch_end=step in epoch_ends, loss=loss)
        state, decision = finder.update(state, observation)
        decisions.append(decision)
        if "stop" in decision.effects:
            break
    return finder.curve(state), decisions


class TestController:
    def test_ramps_reads_and_puts_back(self):
        curve, decisions = trace([2.0, 2.0, 1.0, 0.5, 3.0])
        assert [d.scale for d in decisions] == pytest.approx([1e-3, 1e-2, 1e-1, 1.0, 1.0, 0.5])
        assert [d.rule for d in decisions] == ["ramp", "hold", "hold", "hold", "hold", "found"]
        assert [("snapshot" in d.effects) for d in decisions] == [True, *[False] * 5]
        assert [d.restores for d in decisions] == [False] * 5 + [True]
        assert all((d.rate_is == "experiment") for d in decisions)
        assert curve.losses == (2.0, 1.0, 0.5, 3.0)
        assert "0.01 is suggested" in decisions[-1].reason

    @pytest.mark.parametrize("bad", [math.nan, math.inf, 90.0])
    def test_divergence_ends_the_ramp(self, bad):
        curve, decisions = trace([2.0, 1.0, bad, 1.0, 1.0])
        assert len(decisions) == 4
        assert "stop" in decisions[-1].effects
        assert decisions[-1].restores
        assert all(math.isfinite(loss) for loss in curve.losses)

    def test_an_epoch_end_without_a_new_loss_changes_nothing(self):
        curve, decisions = trace([2.0, 2.0, None, 1.0, 0.5, 3.0], epoch_ends=[3])
        assert decisions[3].scale == decisions[2].scale
        assert curve == trace([2.0, 2.0, 1.0, 0.5, 3.0])[0]

    def test_a_model_without_a_loss_is_named(self):
        curve, decisions = trace([None])
        assert decisions[-1].rule == "unclear"
        assert "no metric named 'loss'" in curve.verdict

    @given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=12))
    def test_whatever_the_losses_the_rates_are_those_of_the_ramp_and_then_the_own(self, losses):
        ramp = RangeTest(num_steps=8)
        _, decisions = trace(losses, ramp)
        tried = [d.scale for d in decisions if "stop" not in d.effects]
        rates = [ramp.rate(i) for i in range(8)]
        assert tried == [*rates, rates[-1]][: len(tried)]
        assert all(d.scale == 0.5 and d.restores for d in decisions if ("stop" in d.effects))
        assert all(("stop" in d.effects) == (d is decisions[-1] and d.rule in ("found", "unclear"))
                   for d in decisions)  # fmt: skip


def dropout_and_norm():
    return keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return {v.path: np.array(keras.ops.convert_to_numpy(v)) for v in variables}


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


def built(optimizer=None, *layers, **compile_arguments):
    """A classifier that has trained a little, so that there is a state to lose."""
    model = classifier(optimizer or keras.optimizers.Adam(0.003), *(layers or dropout_and_norm()))
    if compile_arguments:
        model.compile(model.optimizer, "sparse_categorical_crossentropy", **compile_arguments)
    model.fit(*blobs(64), epochs=1, verbose=0)
    return model


def finder(**arguments):
    return adaptlr.LRFinder(**{"min_lr": 1e-5, "num_steps": 40, **arguments})


class TestLeavesNoTrace:
    @pytest.mark.alike
    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize("reseed", [False, True])
    def test_a_fit_after_it_is_what_it_would_have_been(self, shuffle, reseed):
        x, y = blobs(320)
        outcomes = []
        for find in (False, True):
            keras.utils.set_random_seed(1)
            model = classifier(keras.optimizers.Adam(0.003), *dropout_and_norm())
            if reseed:  # the first look at data draws an order; let that be done
                model.evaluate(x, y, verbose=0)
            if find:
                search = finder(validation_data=blobs(32))
                search.find(model, x, y, batch_size=32, shuffle=shuffle)
                assert search.suggestion is not None
            if reseed:
                keras.utils.set_random_seed(2)
            fitted = model.fit(x, y, batch_size=32, epochs=2, verbose=0, shuffle=shuffle)
            outcomes.append((fitted.history, state_of(model)))
        assert outcomes[0][0] == outcomes[1][0]
        # Names of layers count up; what they hold is compared.
        for left, right in zip(*(o[1].values() for o in outcomes), strict=True):
            np.testing.assert_array_equal(left, right)

    def test_state_metrics_and_history(self):
        model = built()
        before, metrics, history = state_of(model), model.get_metrics_result(), model.history
        finder().find(model, *blobs(320))
        assert_same(before, state_of(model))
        assert model.get_metrics_result() == metrics
        assert model.history is history
        assert not model.stop_training

    def test_the_rate_is_the_one_it_came_with(self):
        model = one_weight(keras.optimizers.SGD(0.7))
        finder().find(model, **steps(100))
        assert weight(model) == 0.0
        assert float(model.optimizer.learning_rate) == np.float32(0.7)

    @pytest.mark.alike
    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda: keras.optimizers.SGD(0.01, momentum=0.9),
            lambda: keras.optimizers.RMSprop(0.01),
            lambda: keras.optimizers.Adam(0.01, use_ema=True),
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
        ],
        ids=["momentum", "rmsprop", "ema", "loss-scale"],
    )
    def test_with_other_optimizers(self, optimizer):
        model = classifier(optimizer(), *dropout_and_norm())
        model.optimizer.build(model.trainable_variables)
        before = state_of(model)
        search = finder().find(model, *blobs(320))
        assert search.suggestion is not None
        assert_same(before, state_of(model))

    @needs_multi_optimizer
    def test_with_rates_by_group(self):
        model = classifier(keras.optimizers.Adam())
        by_group = adaptlr.groups.group_optimizer(keras.optimizers.Adam(0.01), model, [0.1, 1.0])
        model.compile(by_group, "sparse_categorical_crossentropy")
        model.optimizer.build(model.trainable_variables)
        before = state_of(model)
        finder().find(model, *blobs(320))
        assert_same(before, state_of(model))

    def test_as_a_callback_it_ends_that_fit(self):
        model = built()
        before = state_of(model)
        search = finder(divergence=1e9)
        fitted = model.fit(*blobs(320), epochs=50, verbose=0, callbacks=[search])
        assert len(fitted.epoch) == 5  # 41 steps of the ramp, and one more, by 10 an epoch
        assert search.suggestion is not None
        assert_same(before, state_of(model))

    def test_when_fit_ends_before_the_ramp(self):
        model = built()
        before = state_of(model)
        search = finder()
        model.fit(*blobs(320), epochs=1, verbose=0, callbacks=[search])
        assert len(search.losses) == 9
        assert "ended" in search.verdict
        assert_same(before, state_of(model))

    @pytest.mark.filterwarnings("ignore")  # TensorFlow warns of the generator that raised
    def test_when_the_data_fail(self):
        def failing():
            x, y = blobs(32)
            for _ in range(20):
                yield x, y
            raise RuntimeError("the disk is gone")

        model = built()
        before = state_of(model)
        with pytest.raises(Exception, match="the disk is gone"):
            finder().find(model, failing(), shuffle=False)
        assert_same(before, state_of(model))

    def test_it_can_be_used_again(self):
        model, search = built(), finder()
        x, y = blobs(320)
        first = list(search.find(model, x, y, shuffle=False).losses)
        assert search.find(model, x, y, shuffle=False).losses == first


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        x, y = blobs(160)
        return x[32 * index : 32 * index + 32], y[32 * index : 32 * index + 32]


def endless():
    x, y = blobs(160)
    while True:
        for i in range(0, 160, 32):
            yield x[i : i + 32], y[i : i + 32]


def dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(blobs(160)).batch(32)


def dataset_of_unknown_length():
    return dataset().unbatch().filter(lambda x, y: True).batch(32)


def loader():
    data = pytest.importorskip("torch.utils.data")
    x, y = blobs(160)
    return data.DataLoader(list(zip(x, y, strict=True)), batch_size=32)


@pytest.mark.alike
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "data", [Batches, endless, dataset, dataset_of_unknown_length, loader]
)  # fmt: skip
def test_any_data_give_the_same_curve(data):
    """Without dropout and bias correction: the kind of data moves random state and counters."""
    x, y = blobs(160)
    model = built(keras.optimizers.SGD(0.01), keras.layers.BatchNormalization())
    before = state_of(model)
    search = finder(min_lr=1e-4, num_steps=16, validation_data=(x[:32], y[:32]))
    expected = search.find(model, x, y, batch_size=32, shuffle=False).losses
    measured = search.validation_losses
    search.find(model, data(), shuffle=False)
    assert search.losses == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert search.validation_losses == pytest.approx(measured, rel=1e-3, abs=1e-5)
    assert_same(before, state_of(model))


def test_losses_are_those_of_single_batches_after_each_step():
    """One weight with gradient 1: the loss is minus the sum of the rates so far."""
    model = one_weight()
    search = finder(min_lr=1e-3, max_lr=1.0, num_steps=31).find(model, **steps(100))
    ramp = RangeTest(1e-3, 1.0, 31)
    rates = [ramp.rate(i) for i in range(31)]
    assert search.learning_rates == pytest.approx(rates)
    assert search.losses == pytest.approx(-np.cumsum(rates), rel=1e-3)


def test_validation_losses_are_those_of_the_weights_after_each_step():
    ones = np.ones((4, 1), "float32")
    search = finder(min_lr=1e-3, max_lr=1.0, num_steps=31, validation_data=(3.0 * ones, ones))
    search.find(one_weight(), **steps(7))
    assert len(search.validation_losses) == 31
    assert search.validation_losses == pytest.approx(3.0 * np.array(search.losses), rel=1e-3)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has one step per execution on PyTorch")
def test_several_steps_per_execution():
    model = built(steps_per_execution=4)
    before = state_of(model)
    search = finder().find(model, *blobs(320))
    assert len(search.losses) > 30
    assert search.suggestion is not None
    assert_same(before, state_of(model))


@pytest.mark.alike
@pytest.mark.parametrize(
    ("optimizer", "low", "high"),
    [
        (lambda: keras.optimizers.SGD(1e-4, momentum=0.9), 0.003, 0.5),
        (lambda: keras.optimizers.Adam(1e-4), 0.002, 0.2),
        (lambda: keras.optimizers.RMSprop(1e-4), 0.001, 0.2),
    ],
    ids=["sgd", "adam", "rmsprop"],
)
def test_the_suggestion_trains_well(optimizer, low, high):
    x, y = blobs(640)
    model = classifier(optimizer())
    search = adaptlr.LRFinder().find(model, x, y)
    assert low < search.suggestion < high
    assert "the loss fell from" in search.verdict
    model.optimizer.learning_rate = search.suggestion
    history = model.fit(x, y, epochs=3, verbose=0).history
    assert history["accuracy"][-1] > 0.95


@pytest.mark.alike
@pytest.mark.parametrize("momentum", [0.8, 0.9, 0.95])
def test_momentum_changes_the_suggestion_as_it_changes_the_steps(momentum):
    """Momentum m multiplies a steady step by 1 / (1 - m), so the rate is to be 1 - m of it."""
    found = []
    for m in (0.0, momentum):
        keras.utils.set_random_seed(0)
        model = classifier(keras.optimizers.SGD(0.01, momentum=m))
        found.append(adaptlr.LRFinder().find(model, *blobs(640)).suggestion)
    assert 0.5 < found[1] / (1.0 - momentum) / found[0] < 2.3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"min_lr": 1e-12, "max_lr": 1e-9}, "no minimum: up to a rate of 1e-09"),
        ({"min_lr": 100.0, "max_lr": 1e6}, "diverged at the very start"),
    ],
)
def test_no_usable_rate(arguments, words):
    search = adaptlr.LRFinder(num_steps=50, **arguments)
    search.find(built(keras.optimizers.SGD(0.01)), *blobs(320), shuffle=False)
    assert search.suggestion is None
    assert set(search.suggestions.values()) == {None}
    assert words in search.verdict


def test_not_finite_from_the_start():
    x, y = blobs(64)
    model = built(None, keras.layers.Rescaling(1.0))
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    search = finder().find(model, x, y)
    assert search.losses == []
    assert "not finite before any step" in search.verdict


def test_writers_get_the_ramp_and_the_verdict():
    writer = MemoryWriter()
    search = finder(writers=[writer]).find(built(), *blobs(320))
    losses = [scalars["loss"] for _, scalars in writer.scalars if "loss" in scalars]
    assert losses[1 : len(search.losses) + 1] == search.losses
    assert [r.rule for r in search.decisions] == ["start", "ramp", "found"]
    assert search.verdict in writer.decisions[-1].reason


def test_log_dir(tmp_path):
    finder(log_dir=tmp_path).find(built(), *blobs(320))
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_it_is_quiet_unless_asked(capsys):
    finder().find(built(), *blobs(320))
    assert capsys.readouterr().out == ""
    finder(verbose=1).find(built(), *blobs(320))
    assert "is suggested" in capsys.readouterr().out


def test_callbacks_of_the_user_run_too():
    begun = []
    spy = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    finder(divergence=1e9).find(built(), *blobs(320), callbacks=spy)
    assert begun == [0, 1, 2, 3, 4]


def test_before_the_ramp_there_is_nothing():
    search = adaptlr.LRFinder()
    assert search.suggestion is None
    assert search.suggestions == dict.fromkeys(["centre", "valley", "steepest", "minimum/10"])
    assert search.learning_rates == search.losses == search.validation_losses == []
    assert search.verdict == "no ramp was run yet"


@pytest.mark.parametrize("name", ["epochs", "initial_epoch"])
def test_epochs_are_not_the_users_choice(name):
    with pytest.raises(TypeError, match=rf"LRFinder.find\({name}=\.\.\.\).*Received: {name}=3"):
        finder().find(built(), *blobs(64), **{name: 3})


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"min_lr": 0.0}, "min_lr"),
        ({"min_lr": 1.0, "max_lr": 0.1}, "max_lr"),
        ({"num_steps": 1}, "num_steps"),
        ({"shape": "cosine"}, "shape"),
        ({"divergence": 1.0}, "divergence"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=rf"\({name}=\.\.\.\).*Received: {name}="):
        adaptlr.LRFinder(**arguments)


@pytest.mark.parametrize("batches", [100, 7])
def test_where_gradients_are_accumulated_a_step_of_the_ramp_is_an_update(batches):
    """The loss is minus the sum of the rates of the updates so far, also where epochs end."""
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=4)
    search = finder(min_lr=1e-3, max_lr=1.0, num_steps=31)
    search.find(one_weight(optimizer), **steps(batches))
    rates = [RangeTest(1e-3, 1.0, 31).rate(i) for i in range(31)]
    assert search.learning_rates == pytest.approx(rates)
    sums = [0.0, *np.cumsum(rates)]
    if batches == 100:
        assert search.losses == pytest.approx(-np.array(sums[1:]), rel=1e-3)
    for seen, before, after in zip(search.losses, sums, sums[1:], strict=False):
        assert -after * 1.001 <= seen <= -before * 0.999
    assert optimizer.learning_rate == 1.0
    assert optimizer.iterations == 0


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("fit_steps", [None, 4])
@pytest.mark.parametrize(("batches", "seen"), [(1, 0), (2, 1), (9, 8)])
def test_a_generator_ends_the_ramp_where_it_ends(batches, seen, fit_steps):
    """Keras would repeat its first two batches, which a network soon knows by heart."""
    drawn = []

    def generate():
        for number in range(batches):
            drawn.append(number)
            yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

    model = one_weight()
    search = finder(num_steps=30).find(model, generate(), steps_per_epoch=fit_steps, shuffle=False)
    assert drawn == list(range(batches))
    assert len(search.losses) <= seen  # what was read ahead where an epoch ends is not trained on
    assert "the training ended" in search.verdict


def test_a_generator_that_is_long_enough_is_not_read_to_its_end():
    def generate():
        while True:
            yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

    search = finder(num_steps=12).find(one_weight(), generate(), steps_per_epoch=5, shuffle=False)
    assert len(search.losses) == 12


def test_what_cannot_be_trained_is_named():
    with pytest.raises(ValueError, match=r"call model.compile\(optimizer, loss\)"):
        finder().find(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), *blobs(8))
    with pytest.raises(ValueError, match="needs the data that fit would train on"):
        finder().find(one_weight())


def test_beside_another_callback_the_error_names_the_method():
    with pytest.raises(RuntimeError, match=r"call LRFinder\(\).find\(model, x, y\)") as raised:
        finder().find(one_weight(), **steps(4), callbacks=[adaptlr.AutoLR(monitor="loss")])
    assert "_Shuffling" not in str(raised.value)
