"""The direction of a metric is what Keras says, on every backend, in the first `fit` too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import Metrics, collected_warnings, one_weight, steps

import adaptlr

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = (X.sum(axis=1, keepdims=True) > 0).astype("float32")


def network(metrics=None, **arguments):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=metrics, **arguments)
    return model


def heads(metrics):
    inputs = keras.Input((4,))
    outputs = {n: keras.layers.Dense(1, "sigmoid", name=n)(inputs) for n in ("cls", "box")}
    model = keras.Model(inputs, outputs)
    losses = {"cls": "binary_crossentropy", "box": "mse"}
    model.compile("sgd", losses, metrics=metrics)
    return model


def directions(model, name, targets=Y, epochs=2, **arguments):
    """What a first and a second `fit` have judged by; the rate is never cut in so few epochs."""
    found = []
    for _ in range(2):
        rule = adaptlr.PlateauLR(name, patience=9, **arguments)
        data = {"validation_data": (X, targets)} if name.startswith("val_") else {}
        model.fit(X, targets, epochs=epochs, verbose=0, callbacks=[rule], **data)
        found.append(rule._state.inner.monitor.direction)
    return found


class TestOfKeras:
    @pytest.mark.alike
    @pytest.mark.parametrize(
        ("metric", "name", "direction"),
        [
            (lambda: keras.metrics.MeanAbsoluteError(name="accel_err"), "val_accel_err", "min"),
            (lambda: keras.metrics.AUC(curve="PR", name="prc"), "val_prc", "max"),
            # The object knows better than its name, and a name that says nothing is enough.
            (lambda: keras.metrics.AUC(name="error_score"), "error_score", "max"),
            (lambda: keras.metrics.MeanSquaredError(name="quality"), "val_quality", "min"),
            (lambda: "mae", "val_mae", "min"),
            (lambda: "AUC", "val_AUC", "max"),
        ],
    )
    def test_metric_objects_and_names(self, metric, name, direction):
        assert directions(network([metric()]), name) == [direction] * 2

    def test_weighted_metrics(self):
        model = network(weighted_metrics=[keras.metrics.AUC(name="quality")])
        assert directions(model, "val_quality") == ["max"] * 2

    @pytest.mark.alike
    @pytest.mark.parametrize(
        ("name", "direction"),
        [("val_cls_prc", "max"), ("box_quality", "min"), ("cls_loss", "min")],
    )
    def test_heads_of_a_model_with_several_outputs(self, name, direction):
        metrics = {
            "cls": [keras.metrics.AUC(name="prc")],
            "box": [keras.metrics.MeanSquaredError(name="quality")],
        }
        targets = {"cls": Y, "box": Y}
        assert directions(heads(metrics), name, targets) == [direction] * 2


class TestOfOtherCallbacks:
    @pytest.mark.parametrize(("name", "direction"), [("macro_f1", "max"), ("val_wer", "min")])
    def test_whole_words_tell(self, name, direction):
        rule = adaptlr.PlateauLR(name)
        one_weight().fit(**steps(2), epochs=2, callbacks=[Metrics(name, [1.0, 2.0]), rule])
        assert rule._state.inner.monitor.direction == direction

    def test_a_name_that_says_nothing_is_refused_with_the_mend(self):
        callbacks = [Metrics("quality", [1.0]), adaptlr.PlateauLR("quality")]
        with pytest.raises(ValueError, match=r"'quality' .* Pass mode='min' or mode='max'"):
            one_weight().fit(**steps(2), callbacks=callbacks)

    def test_a_mode_tells(self):
        rule = adaptlr.PlateauLR("quality", mode="max")
        one_weight().fit(**steps(2), epochs=1, callbacks=[Metrics("quality", [1.0]), rule])
        assert rule._state.inner.monitor.direction == "max"


def test_a_metric_that_rises_and_is_better_so_costs_no_rate():
    """As the row of the fault: cut at every epoch, because of 'acc' in the name."""
    rule = adaptlr.PlateauLR("val_accel_err", patience=1, factor=0.5, min_delta=0.0)
    metric = keras.metrics.MeanAbsoluteError(name="accel_err")
    history = network([metric]).fit(
        X, Y, epochs=5, verbose=0, validation_data=(X, Y), callbacks=[rule]
    )
    falling = np.diff(history.history["val_accel_err"])
    assert (falling < 0).all()
    assert [d.rule for d in rule.decisions] == ["start"]


def test_a_mode_against_keras_is_warned_of_once_and_in_the_first_fit():
    with collected_warnings() as messages:
        directions(network(["AUC"]), "AUC", mode="min")
    assert len(messages) == 2  # one a fit
    assert all("better when higher" in message for message in messages)


@pytest.mark.filterwarnings("ignore:AutoLR.*judges by the data that are trained on")
@pytest.mark.alike
@pytest.mark.parametrize("monitor", ["val_AUC", "AUC"])
def test_autolr_with_data_of_its_own(monitor):
    rule = adaptlr.AutoLR((X, Y), monitor=monitor)
    network(["AUC"]).fit(X, Y, batch_size=1, epochs=8, verbose=0, callbacks=[rule])
    assert rule._state.inner.progress.monitor.direction == "max"


@pytest.mark.parametrize("killed", ["step 4", "epoch 2"])
def test_a_resumed_run_keeps_it(killed, tmp_path):
    """Also of a backup from before the metric was first seen."""

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if killed == "step 4" and batch == 4:
                raise KeyboardInterrupt

        def on_epoch_begin(self, epoch, logs=None):
            if killed == "epoch 2" and epoch == 1:
                raise KeyboardInterrupt

    def fit(model, *more):
        rule = adaptlr.PlateauLR("quality", backup_dir=tmp_path, backup_freq=3)
        model.fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=[rule, *more])
        return rule

    model = network([keras.metrics.AUC(name="quality")])
    with pytest.raises(KeyboardInterrupt):
        fit(model, Kill())
    # In a new process the metrics are not built.
    rule = fit(network([keras.metrics.AUC(name="quality")]))
    assert rule._state.inner.monitor.direction == "max"
