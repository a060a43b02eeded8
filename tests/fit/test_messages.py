"""What a user reads who has made a common mistake: what is wrong, and how to mend it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import blobs, classifier, collected_warnings

import adaptlr

# On TensorFlow Keras builds the metrics in the first step: a name that tells nothing may be one of
# them, and is warned of where the first epoch ends.
known_before_the_first_step = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="metrics are built in the first step"
)


def fit(callbacks, **arguments):
    x, y = blobs()
    model = classifier("sgd")
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=callbacks, **arguments)
    return model


class TestAMisspeltMetric:
    @known_before_the_first_step
    @pytest.mark.parametrize(
        ("name", "meant"),
        [("val_acuracy", "val_accuracy"), ("acurracy", "accuracy"), ("val_los", "val_loss")],
    )
    def test_is_asked_about_before_the_first_step(self, name, meant):
        with pytest.raises(ValueError, match="cannot be told") as caught:
            fit([adaptlr.PlateauLR(monitor=name)])
        assert str(caught.value).endswith(f"(did you mean {meant!r}?)")

    @pytest.mark.parametrize(
        ("name", "meant"), [("val_acc", "val_accuracy"), ("val_accuracy_", "val_accuracy")]
    )
    def test_whose_direction_is_known_is_asked_about_in_the_warning(self, name, meant):
        with collected_warnings() as messages:
            fit([adaptlr.PlateauLR(monitor=name, mode="max")])
        (message,) = messages
        assert f"(did you mean {meant!r}?); until there is" in message

    @known_before_the_first_step
    def test_that_is_like_none_gets_no_suggestion(self):
        with pytest.raises(ValueError, match="cannot be told") as caught:
            fit([adaptlr.PlateauLR(monitor="val_score")])
        assert "did you mean" not in str(caught.value)

    @known_before_the_first_step
    def test_in_a_model_that_cannot_be_written_down(self):
        class Odd:
            def __call__(self, y, p):
                return keras.ops.mean(p)

        x, y = blobs()
        model = classifier("sgd")
        model.compile("sgd", Odd(), metrics=["accuracy"])
        with pytest.raises(ValueError, match="Pass mode='min' or mode='max'"):
            model.fit(x, y, verbose=0, callbacks=[adaptlr.PlateauLR(monitor="val_acuracy")])


class Own(adaptlr.AutoLR):
    pass


class TestAClassInsteadOfAnInstance:
    @pytest.mark.parametrize("kind", [adaptlr.AutoLR, adaptlr.CyclicalLR, adaptlr.LRFinder, Own])
    def test_is_named_with_the_mend(self, kind):
        with pytest.raises(TypeError) as caught:
            fit([kind])
        name = kind.__name__
        assert str(caught.value) == (
            f"fit(callbacks=...) must list instances, not classes: write {name}(...) instead of "
            f"{name}. Received: callbacks=[{name}]"
        )

    def test_the_method_of_the_class_still_takes_an_instance(self):
        callback, model = adaptlr.PlateauLR(), classifier("sgd")
        adaptlr.PlateauLR.set_model(callback, model)
        assert callback.model is model
        assert "weights" in adaptlr.PlateauLR.set_model.__doc__


@pytest.mark.parametrize("data", [blobs()[0], (blobs()[0],), (blobs()[0], None)])
@pytest.mark.parametrize("kind", [adaptlr.AutoLR, adaptlr.LRFinder])
def test_labels_that_are_missing_are_said_to_be(kind, data):
    with pytest.raises(ValueError, match=r"the labels are missing, pass validation_data=\(x, y\)"):
        fit([kind(validation_data=data)])


@pytest.mark.parametrize("value", ["val_loss", 0.001, 30, True])
def test_a_metric_or_a_rate_in_the_place_of_data_is_refused_before_fit(value):
    with pytest.raises((TypeError, ValueError), match=r"a metric is monitor=\.\.\.") as caught:
        adaptlr.AutoLR(value)
    assert str(caught.value).startswith("AutoLR(validation_data=...) must be data such as (x, y)")
    assert str(caught.value).endswith(f"Received: validation_data={value!r}")


def test_other_faults_of_validation_data_are_not_called_missing_labels():
    x, y = blobs()
    with pytest.raises(ValueError, match="must be data that model") as caught:
        fit([adaptlr.AutoLR(validation_data=(x, np.zeros((len(y), 7))))])
    assert "labels are missing" not in str(caught.value)
