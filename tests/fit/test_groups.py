"""Groups of layers at shares of one rate, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Metrics, blobs, needs_multi_optimizer

import adaptlr
from adaptlr import groups

pytestmark = needs_multi_optimizer

LAYERS = 3


def classifier():
    """Three dense layers and batch normalisation, not compiled."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@keras.saving.register_keras_serializable("adaptlr tests")
class Block(keras.layers.Layer):
    """A layer around a layer named `conv`."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.conv = keras.layers.Dense(8, name="conv")

    def build(self, shape):
        self.conv.build(shape)

    def call(self, inputs):
        return self.conv(inputs)


def nested(*names):
    """A functional model of a block, of a layer with the name of the one in it, and of a head."""
    kinds = {
        "conv": lambda: keras.layers.Dense(8, name="conv"),
        "block": lambda: Block(name="block"),
    }
    inputs = outputs = keras.Input((8,))
    for name in names:
        outputs = kinds[name]()(outputs)
    outputs = keras.layers.Dense(3, activation="softmax", name="head")(outputs)
    return keras.Model(inputs, outputs)


def compiled(shares, optimizer=None, model=None):
    model = classifier() if model is None else model
    optimizer = (
        keras.optimizers.SGD(0.1, momentum=0.9, name="sgd") if optimizer is None else optimizer
    )
    model.compile(
        groups.group_optimizer(optimizer, model, shares),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def fit(model, callbacks=(), epochs=4, samples=640):
    x, y = blobs(samples)
    return model.fit(
        x, y, batch_size=32, epochs=epochs, verbose=0, validation_data=(x[:96], y[:96]),
        callbacks=list(callbacks),
    ).history  # fmt: skip


def rates(optimizer):
    return [float(keras.ops.convert_to_numpy(leaf.learning_rate)) for leaf in optimizer.optimizers]


def values(variables):
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def moved(model, before):
    """Whether each layer's weights differ from those kept."""
    after = [layer.get_weights() for layer in model.layers]
    return [
        any(not np.array_equal(a, b) for a, b in zip(new, old, strict=True))
        for new, old in zip(after, before, strict=True)
    ]


CONTROLLERS = {
    "PlateauLR": lambda: adaptlr.PlateauLR("score", 0.5, 1, mode="min"),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.01, 0.1, step_size=15),
    "AutoLR": lambda: adaptlr.AutoLR(),
}


class TestGeometricShares:
    def test_each_group_has_the_share_of_the_one_above_over_the_ratio(self):
        assert groups.geometric_shares(3) == pytest.approx([1 / 2.6**2, 1 / 2.6, 1.0])

    def test_a_ratio_of_one_is_one_rate(self):
        assert groups.geometric_shares(4, ratio=1) == [1.0] * 4

    @given(st.integers(1, 20), st.floats(1.0, 10.0), st.data())
    def test_the_last_is_one_and_the_frozen_are_the_first(self, count, ratio, data):
        frozen = data.draw(st.integers(0, count - 1))
        shares = groups.geometric_shares(count, ratio, frozen)
        assert shares[-1] == 1.0
        assert [share == 0.0 for share in shares] == [i < frozen for i in range(count)]
        assert shares == sorted(shares)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (
                (0,),
                ValueError,
                r"geometric_shares\(count=\.\.\.\) must be an integer of at least 1",
            ),
            ((3, 0.5), ValueError, r"number of at least 1\. Received: ratio=0\.5"),
            ((3, "high"), ValueError, "ratio='high'"),
            ((3, None), TypeError, "ratio=None"),
            ((3, 2.0, 3), ValueError, r"frozen=\.\.\.\) must be below count=3"),
            ((3, 2.0, -1), ValueError, "frozen=-1"),
        ],
    )
    def test_bad_arguments_are_refused_by_name(self, arguments, error, message):
        with pytest.raises(error, match=message):
            groups.geometric_shares(*arguments)


class TestGroupOptimizer:
    def paths(self, model, shares):
        """Paths that each group's optimizer trains."""
        optimizer = groups.group_optimizer(keras.optimizers.SGD(1.0), model, shares)
        optimizer.build(model.trainable_variables)
        return [[v.path for v in leaf._trainable_variables] for leaf in optimizer.optimizers]

    def test_rates_are_shares_of_the_optimizers_own(self):
        model = classifier()
        optimizer = groups.group_optimizer(
            keras.optimizers.Adam(0.2, name="adam"), model, [0, 0.5, 1]
        )
        assert rates(optimizer) == pytest.approx([0.0, 0.1, 0.2])
        assert [leaf.name for leaf in optimizer.optimizers] == [
            "adam_group_0",
            "adam_group_1",
            "adam_group_2",
        ]

    def test_every_setting_of_the_optimizer_is_copied(self):
        prototype = keras.optimizers.AdamW(0.1, weight_decay=0.02, beta_1=0.8, clipnorm=1.0)
        optimizer = groups.group_optimizer(prototype, classifier(), [0.5, 1.0])
        for leaf in optimizer.optimizers:
            assert isinstance(leaf, keras.optimizers.AdamW)
            changed = ("name", "learning_rate")
            ours, theirs = leaf.get_config(), prototype.get_config()
            assert {k: v for k, v in ours.items() if k not in changed} == {
                k: v for k, v in theirs.items() if k not in changed
            }

    def test_layers_are_divided_in_order_and_models_inside_are_taken_apart(self):
        body = keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Normalization(),  # nothing to train: not counted
                keras.layers.Dense(4, name="first"),
                keras.layers.BatchNormalization(name="second"),
            ],
            name="body",
        )
        inputs = keras.Input((8,))
        hidden = keras.layers.Dense(4, name="third")(body(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1, name="fourth")(hidden))
        body.trainable = False  # a frozen layer keeps its place
        names = [
            {path.split("/")[-2] for path in group}
            for group in self.paths(model, [0.1, 0.2, 0.5, 1.0])
        ]
        assert names == [set(), set(), {"third"}, {"fourth"}]
        body.trainable = True
        names = [
            {path.split("/")[-2] for path in group} for group in self.paths(model, [0.5, 1.0])
        ]
        assert names == [{"first", "second"}, {"third", "fourth"}]

    def test_given_groups_and_the_rest_with_the_last(self):
        model = classifier()
        first, second, third = model.layers
        names = self.paths(model, [0.5, 1.0])
        optimizer = groups.group_optimizer(
            keras.optimizers.SGD(1.0), [[second], [third]], [0.1, 1]
        )
        optimizer.build(model.trainable_variables)
        names = [
            {path.path.split("/")[-2] for path in leaf._trainable_variables}
            for leaf in optimizer.optimizers
        ]
        assert names == [{second.name}, {first.name, third.name}]

    def test_each_group_steps_at_its_rate(self):
        """Gradients of one: weights move by their group's rate at every step, exactly."""
        model = keras.Sequential([keras.Input((1,)), *(keras.layers.Dense(1) for _ in range(2))])
        optimizer = groups.group_optimizer(keras.optimizers.SGD(0.5), model, [0.25, 1.0])
        before = values(model.trainable_variables)
        optimizer.build(model.trainable_variables)
        optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables])
        steps = [
            (b - a).ravel().tolist()
            for a, b in zip(values(model.trainable_variables), before, strict=True)
        ]
        assert np.ravel(steps) == pytest.approx([0.125, 0.125, 0.5, 0.5])

    @pytest.mark.parametrize(
        ("shares", "message"),
        [
            ([0.5, 0.5], "shares=...) must be numbers of which the largest is 1"),
            ([], "of which the largest is 1. Received: shares=[]"),
            ([-0.5, 1.0], "shares[0]=...) must be a number of at least 0 and at most 1"),
            ([1.0, 2.0], "shares[1]=2.0"),
            ([0.1] * 4 + [1.0], "Received: 5 shares and 3 layers"),
        ],
    )
    def test_bad_shares_are_refused(self, shares, message):
        with pytest.raises(ValueError) as error:  # noqa: PT011  brackets in the message
            groups.group_optimizer(keras.optimizers.SGD(1.0), classifier(), shares)
        assert message in str(error.value)

    def test_a_model_that_is_not_built_is_refused_with_the_mend(self):
        with pytest.raises(ValueError, match=r"give it a keras\.Input"):
            groups.group_optimizer(
                keras.optimizers.SGD(1.0), keras.Sequential([keras.layers.Dense(1)]), [1.0]
            )

    def test_groups_without_a_share_each_are_refused(self):
        first, second, _ = classifier().layers
        with pytest.raises(ValueError, match="2 groups and 1 shares"):
            groups.group_optimizer(keras.optimizers.SGD(1.0), [[first], [second]], [1.0])

    def test_layers_that_cannot_be_told_apart_are_refused(self):
        model = classifier()
        with pytest.raises(ValueError, match="in two groups"):
            groups.group_optimizer(
                keras.optimizers.SGD(1.0), [model.layers[:2], model.layers[1:]], [0.5, 1.0]
            )

    @pytest.mark.parametrize("names", ["conv and block", "block and conv"])
    def test_a_path_that_is_the_end_of_another_keeps_its_group(self, names):
        """The block holds a layer `conv`, and another layer has that name too."""
        model = nested(*names.split(" and "))
        first, second = names.split(" and ")
        ends = {"conv": "conv/kernel", "block": "block/conv/kernel"}
        found = self.paths(model, [0.0, 0.5, 1.0])
        kernels = [[path for path in group if path.endswith("kernel")] for group in found]
        assert kernels == [[ends[first]], [ends[second]], ["head/kernel"]]

    @pytest.mark.parametrize(
        "make",
        [
            lambda layers: layers,
            lambda layers: layers[0],
            lambda layers: [layers, "dense"],
            lambda layers: [[layer.name] for layer in layers],
        ],
    )
    def test_what_is_no_list_of_groups_is_refused_with_the_mend(self, make):
        with pytest.raises(TypeError, match=r"each a list of layers: \[model.layers\[:2\]"):
            groups.group_optimizer(keras.optimizers.SGD(1.0), make(classifier().layers), [1.0])

    def test_layers_that_are_not_built_are_refused(self):
        with pytest.raises(ValueError, match="must hold built layers"):
            groups.group_optimizer(keras.optimizers.SGD(1.0), [[keras.layers.Dense(1)]], [1.0])

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: "sgd", TypeError, "optimizer='sgd'"),
            (
                lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0)),
                TypeError,
                "goes around the result",
            ),
            (
                lambda: keras.optimizers.SGD(
                    keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
                ),
                ValueError,
                r"schedule to adaptlr\.ScheduleLR",
            ),
        ],
    )
    def test_optimizers_that_cannot_be_copied_are_refused(self, make, error, message):
        with pytest.raises(error, match=message):
            groups.group_optimizer(make(), classifier(), [1.0])


class TestSetShares:
    def test_keeps_the_largest_rate(self):
        model = compiled([0.0, 0.5, 1.0])
        groups.set_shares(model.optimizer, [1.0, 0.0, 0.25])
        assert rates(model.optimizer) == pytest.approx([0.1, 0.0, 0.025])

    def test_takes_a_new_rate(self):
        model = compiled([0.0, 0.5, 1.0])
        groups.set_shares(model.optimizer, [0.5, 0.5, 1.0], learning_rate=0.2)
        assert rates(model.optimizer) == pytest.approx([0.1, 0.1, 0.2])

    def test_under_a_loss_scale(self):
        inner = groups.group_optimizer(keras.optimizers.SGD(0.1), classifier(), [0.0, 0.5, 1.0])
        groups.set_shares(keras.optimizers.LossScaleOptimizer(inner), [0.5, 0.5, 1.0])
        assert rates(inner) == pytest.approx([0.05, 0.05, 0.1])

    def test_refusals(self):
        model = compiled([0.0, 0.5, 1.0])
        with pytest.raises(ValueError, match="one number a group, of which there are 3"):
            groups.set_shares(model.optimizer, [0.5, 1.0])
        with pytest.raises(
            ValueError, match=r"set_shares\(learning_rate=\.\.\.\) must be a number above 0\."
        ):
            groups.set_shares(model.optimizer, [0.5, 0.5, 1.0], learning_rate=0.0)
        with pytest.raises(TypeError, match="must be a MultiOptimizer"):
            groups.set_shares(keras.optimizers.SGD(1.0), [1.0])


class TestControl:
    @pytest.mark.alike
    @pytest.mark.parametrize("name", CONTROLLERS)
    def test_scales_all_groups_and_keeps_their_ratios(self, name):
        seen = []

        class Spy(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append([logs[f"learning_rate_sgd_group_{i}"] for i in range(LAYERS)])

        shares = groups.geometric_shares(LAYERS)
        callback, epochs = CONTROLLERS[name](), 6
        model = compiled(shares)
        fit(model, [Metrics("score", [1.0] * epochs), callback, Spy()], epochs)
        assert len({largest for _, _, largest in seen}) > 1  # the rate did move
        for row in seen:
            assert row == pytest.approx([row[-1] * share for share in shares], rel=1e-5)

    @pytest.mark.alike
    @pytest.mark.parametrize(
        ("name", "momentum"), [(name, 0.9) for name in CONTROLLERS] + [("AutoLR", 0.0)]
    )
    def test_a_share_of_zero_freezes_and_is_set_free_for_a_second_fit(self, name, momentum):
        optimizer = keras.optimizers.SGD(0.1, momentum=momentum)
        model = compiled(groups.geometric_shares(LAYERS, frozen=2), optimizer)
        before = [layer.get_weights() for layer in model.layers]
        fit(model, [Metrics("score", [1.0] * 6), CONTROLLERS[name]()], 6)
        assert moved(model, before) == [False, False, True]
        groups.set_shares(model.optimizer, groups.geometric_shares(LAYERS, frozen=1), 0.05)
        before = [layer.get_weights() for layer in model.layers]
        fit(model, [Metrics("score", [1.0] * 6), CONTROLLERS[name]()], 6)
        assert moved(model, before) == [False, True, True]

    @pytest.mark.alike
    @pytest.mark.parametrize("name", CONTROLLERS)
    def test_layers_that_are_not_trainable_are_frozen_until_the_next_compile(self, name):
        shares = groups.geometric_shares(LAYERS)
        model = classifier()
        model.layers[0].trainable = False
        compiled(shares, model=model)
        before = [layer.get_weights() for layer in model.layers]
        fit(model, [Metrics("score", [1.0] * 6), CONTROLLERS[name]()], 6)
        assert moved(model, before) == [False, True, True]
        model.layers[0].trainable = True
        compiled(shares, model=model)
        before = [layer.get_weights() for layer in model.layers]
        fit(model, [Metrics("score", [1.0] * 6), CONTROLLERS[name]()], 6)
        assert moved(model, before) == [True, True, True]

    def test_weight_decay_does_not_move_a_frozen_group(self):
        model = compiled([0.0, 0.0, 1.0], keras.optimizers.AdamW(0.01, weight_decay=0.1))
        before = [layer.get_weights() for layer in model.layers]
        fit(model, epochs=1)
        assert moved(model, before) == [False, False, True]

    def test_groups_under_a_loss_scale(self):
        model = classifier()
        inner = groups.group_optimizer(keras.optimizers.SGD(0.1), model, [0.0, 0.5, 1.0])
        model.compile(
            keras.optimizers.LossScaleOptimizer(inner), "sparse_categorical_crossentropy"
        )
        before = [layer.get_weights() for layer in model.layers]
        fit(model, [Metrics("score", [1.0] * 2), CONTROLLERS["PlateauLR"]()], 2)
        assert moved(model, before) == [False, True, True]
        assert rates(inner) == pytest.approx([0.0, 0.025, 0.05])

    @pytest.mark.alike("AutoLR learns")
    def test_autolr_learns(self):
        model = compiled(groups.geometric_shares(LAYERS), keras.optimizers.Adam(1e-7))
        callback = adaptlr.AutoLR()
        history = fit(model, [callback], epochs=20)
        assert max(history["val_accuracy"]) > 0.9
        assert 1e-4 < callback.learning_rate < 3.0


class TestSaving:
    def test_a_saved_model_goes_on_as_if_never_saved(self, tmp_path):
        shares = groups.geometric_shares(LAYERS, frozen=1)
        model = compiled(shares, keras.optimizers.Adam(0.01))
        fit(model, [CONTROLLERS["PlateauLR"](), Metrics("score", [1.0] * 2)][::-1], epochs=2)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert len(loaded.optimizer.optimizers) == LAYERS
        assert rates(loaded.optimizer) == rates(model.optimizer)
        for ours, theirs in zip(
            values(loaded.optimizer.variables), values(model.optimizer.variables), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
        x, y = blobs(64)
        for each in (model, loaded):
            each.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
        for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_groups_in_nested_models_come_back(self, tmp_path):
        """Loading takes the outer names off the paths of variables in a Sequential model."""
        body = keras.Sequential(
            [keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(16)], name="body"
        )
        inputs = keras.Input((8,))
        outputs = keras.layers.Dense(3, activation="softmax")(body(inputs))
        shares = [0.25, 0.5, 1.0]
        model = compiled(shares, model=keras.Model(inputs, outputs))
        fit(model, epochs=1)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert [len(leaf.variables) for leaf in loaded.optimizer.optimizers] == [4, 4, 4]
        for ours, theirs in zip(
            values(loaded.optimizer.variables), values(model.optimizer.variables), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)

    def test_weights_alone_bring_the_slots_too(self, tmp_path):
        model = compiled([0.5, 0.5, 1.0], keras.optimizers.Adam(0.01))
        fit(model, epochs=1)
        model.save_weights(tmp_path / "model.weights.h5")
        fresh = compiled([0.5, 0.5, 1.0], keras.optimizers.Adam(0.01))
        fresh.optimizer.build(fresh.trainable_variables)
        fresh.load_weights(tmp_path / "model.weights.h5")
        for ours, theirs in zip(
            values(fresh.optimizer.variables), values(model.optimizer.variables), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
