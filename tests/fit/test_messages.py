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
    arguments = {"validation_data": (x, y), "verbose": 0, **arguments}
    model.fit(x, y, callbacks=callbacks, **arguments)
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

    @pytest.mark.parametrize("given", ["fit", "callback"])
    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("val_acc", r"\(did you mean 'val_accuracy'\?\). Metrics: val_accuracy, val_loss"),
            (
                "val_auc",
                r"named in compile\(metrics=\[...\]\), or put into the logs by",
            ),
        ],
    )
    def test_is_an_error_where_nobody_else_can_give_it(self, name, hint, given):
        data, model = blobs(), classifier("sgd")
        callback = adaptlr.AutoLR(None if given == "fit" else data, monitor=name)
        stop = keras.callbacks.EarlyStopping("loss")  # of Keras: gives no metric
        with pytest.raises(ValueError, match=rf"AutoLR\(monitor='{name}'\): .*{hint}"):
            model.fit(
                *data,
                validation_data=data if given == "fit" else None,
                verbose=0,
                callbacks=[stop, callback],
            )
        assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0

    @pytest.mark.parametrize("own", [True, False])
    def test_that_another_callback_gives_is_no_error(self, own):
        def give(epoch, logs):
            logs["val_acc"] = 0.5

        class Own(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                give(epoch, logs)

        gives = Own() if own else keras.callbacks.LambdaCallback(on_epoch_end=give)
        callback = adaptlr.AutoLR(monitor="val_acc")
        fit([gives, callback], epochs=15)
        assert callback.decisions[-1].reason.endswith("best val_acc 0.5")

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


def test_data_of_fit_are_not_said_to_be_an_argument_of_the_callback():
    x, y = blobs()
    with pytest.raises(
        ValueError, match="measures on the validation data of fit, which"
    ) as caught:
        fit([adaptlr.AutoLR()], validation_data=(x, np.zeros((len(y), 7))))
    assert "AutoLR(validation_data" not in str(caught.value)


def test_other_faults_of_validation_data_are_not_called_missing_labels():
    x, y = blobs()
    with pytest.raises(ValueError, match="must be data that model") as caught:
        fit([adaptlr.AutoLR(validation_data=(x, np.zeros((len(y), 7))))])
    assert "labels are missing" not in str(caught.value)
