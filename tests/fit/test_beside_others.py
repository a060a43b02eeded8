"""Beside other callbacks, metrics that come late or seldom, and models of Keras 2."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import Metrics, blobs, classifier, collected_warnings, one_weight, steps, weight

import adaptlr
from adaptlr.schedules import Constant

EVERY = {
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
    "PlateauLR": lambda: adaptlr.PlateauLR("loss"),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 1.0, 3),
    "OneCycleLR": lambda: adaptlr.OneCycleLR(1.0, momentum=None),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(Constant(0.1)),
    "LRFinder": lambda: adaptlr.LRFinder(num_steps=4),
}
every_callback = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)

RIVALS = {
    "LearningRateScheduler": lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
    "ReduceLROnPlateau": lambda: keras.callbacks.ReduceLROnPlateau("loss"),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(Constant(1.0)),
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
}


@every_callback
class TestARival:
    """Is found in the list, and not at its first move, hours later."""

    @pytest.mark.alike
    @pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
    @pytest.mark.parametrize("name", RIVALS)
    def test_is_refused_before_the_first_step(self, make, name, first):
        ours, rival, model = make(), RIVALS[name](), one_weight()
        callbacks = [rival, ours] if first else [ours, rival]
        with pytest.raises(RuntimeError, match=name) as raised:
            model.fit(**steps(4), callbacks=callbacks)
        assert "Callbacks in this fit" in str(raised.value)
        assert weight(model) == 0.0

    def test_is_found_in_a_list_that_was_made_by_hand(self, make):
        model = one_weight()
        rival = keras.callbacks.ReduceLROnPlateau("loss")
        callbacks = keras.callbacks.CallbackList([make(), rival], model=model)
        with pytest.raises(RuntimeError, match="ReduceLROnPlateau"):
            model.fit(**steps(4), callbacks=callbacks)

    def test_is_not_seen_in_callbacks_that_leave_the_rate_alone(self, make, tmp_path):
        others = [
            keras.callbacks.EarlyStopping("loss"),
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", "loss"),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.LambdaCallback(),
        ]
        model = one_weight()
        model.fit(**steps(4), callbacks=[*others, make()])
        assert np.isfinite(weight(model))


class TestAMetricThatIsMissing:
    x, y = blobs(32)

    def fit(self, callbacks, **arguments):
        with collected_warnings() as messages:
            classifier("sgd").fit(self.x, self.y, verbose=0, callbacks=callbacks, **arguments)
        return messages

    @pytest.mark.alike
    @pytest.mark.parametrize("often", [2, [2, 4]])
    @pytest.mark.parametrize("given", ["validation_data", "validation_split"])
    def test_in_epochs_that_fit_does_not_validate_is_no_fault(self, often, given):
        data = {"validation_data": (self.x, self.y), "validation_split": 0.25}
        rule = adaptlr.PlateauLR(patience=1, factor=0.5, min_delta=1e9)
        arguments = {given: data[given], "validation_freq": often, "epochs": 4}
        assert self.fit([rule], **arguments) == []
        # The first value is the best one by definition; the second is at the end of epoch 4.
        assert [d.epoch for d in rule.decisions if d.rule == "plateau"] == [3]

    def test_because_fit_validates_too_seldom_is_said_so(self):
        arguments = {"validation_data": (self.x, self.y), "validation_freq": 5, "epochs": 3}
        (message,) = self.fit([adaptlr.PlateauLR()], **arguments)
        assert "none of the epochs of fit is validated: lower validation_freq" in message
        assert "pass validation_data" not in message

    def test_because_an_epoch_before_this_fit_would_be_validated_is_said_so(self):
        arguments = {"validation_data": (self.x, self.y), "validation_freq": 5, "epochs": 9}
        (message,) = self.fit([adaptlr.PlateauLR()], initial_epoch=6, **arguments)
        assert "none of the epochs of fit is validated: lower validation_freq" in message

    def test_because_nothing_is_validated_is_said_so(self):
        (message,) = self.fit([adaptlr.PlateauLR()], epochs=2)
        assert "pass validation_data to fit" in message

    def test_because_its_callback_is_listed_later_is_said_so(self):
        rule, feed = adaptlr.PlateauLR("score", mode="min"), Metrics("score", [1.0, 1.0])
        (message,) = self.fit([rule, feed], epochs=2)
        assert "a callback that puts it there must be listed before PlateauLR" in message
        assert self.fit([feed, adaptlr.PlateauLR("score", mode="min")], epochs=2) == []


class TestModelsOfKeras2:
    def model(self):
        old = pytest.importorskip("tf_keras")
        model = old.Sequential([old.layers.Dense(1, input_shape=(1,))])
        model.compile("sgd", "mse")
        return model

    @pytest.mark.filterwarnings("ignore")
    @every_callback
    def test_are_named_by_every_callback(self, make):
        model = self.model()
        with pytest.raises(TypeError, match=r"Keras 3\. Received: tf_keras.*Keras 2 \(tf_keras\)"):
            model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[make()])

    @pytest.mark.filterwarnings("ignore")
    def test_are_named_by_the_finder(self):
        with pytest.raises(TypeError, match=r"LRFinder\.find.* Keras 2 \(tf_keras\)"):
            adaptlr.LRFinder().find(self.model(), np.ones((4, 1)), np.ones((4, 1)))

    @every_callback
    def test_what_is_no_model_is_named(self, make):
        with pytest.raises(TypeError, match=r"needs a model of Keras 3\. Received: an object"):
            make().set_model(object())
