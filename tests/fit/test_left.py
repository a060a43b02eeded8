"""What `AutoLR` says where another metric would have left better weights."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from models import collected_warnings, one_weight

import adaptlr


def loss(y, p):
    """Falls for ever in training; in validation it is lowest where the weight is -1."""
    return keras.ops.mean(keras.ops.where(y > 0.0, (p + 1.0) ** 2, p), axis=-1)


def accuracy(y, p):
    """Rises for ever with the training, towards 1."""
    return 1.0 - keras.ops.mean(keras.ops.exp(p), axis=-1)


def quality(y, p):
    """The same, of a name of which nobody knows whether it is better when higher."""
    return accuracy(y, p)


class Stopped(keras.callbacks.Callback):
    """Raises in an epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 6:
            raise KeyboardInterrupt


def fit(callback, *more, metrics=(accuracy,), epochs=12):
    """Trains; returns the history."""
    model, ones = one_weight(), np.ones((20, 1), "float32")
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=list(metrics))
    data = {"x": ones, "y": 0.0 * ones, "batch_size": 1, "validation_data": (ones, ones)}
    return model, model.fit(**data, epochs=epochs, verbose=0, callbacks=[callback, *more])


def test_a_later_accuracy_that_was_better_by_far_is_told_of_once():
    with collected_warnings() as messages:
        model, history = fit(adaptlr.AutoLR())
    (message,) = messages
    losses, scores = (history.history[f"val_{name}"] for name in ("loss", "accuracy"))
    best, left = np.argmax(scores), np.argmin(losses)
    assert message.startswith(f"AutoLR leaves the weights of epoch {left + 1}, whose val_loss is")
    found = [float(x) for x in re.findall(r"(?:is|was) (\d\.\d+)", message)]
    assert found == pytest.approx([scores[left], scores[best]], rel=1e-3)
    assert f"in epoch {best + 1} it was" in message
    assert "AutoLR(monitor='val_accuracy')" in message
    weight = model.get_weights()[0].item()
    assert 1.0 - np.exp(weight) == pytest.approx(found[0], rel=1e-3)


def test_what_it_advises_leaves_the_better_ones_and_says_nothing():
    _, history = fit(adaptlr.AutoLR(monitor="val_accuracy"))
    assert len(history.epoch) == 12


@pytest.mark.parametrize("metrics", [(), (quality,)])
def test_without_a_metric_whose_better_side_is_known_nothing_is_said(metrics):
    fit(adaptlr.AutoLR(), metrics=metrics)


def test_a_metric_that_is_as_good_within_its_noise_is_not_told_of():
    def steady(y, p):
        """Better by one in a hundred at most."""
        return 0.99 + 0.01 * accuracy(y, p)

    steady.__name__ = "accuracy"
    fit(adaptlr.AutoLR(), metrics=(steady,))


def test_a_run_too_short_to_know_the_noise_says_nothing():
    fit(adaptlr.AutoLR(), epochs=4)


def test_nothing_is_said_by_a_callback_that_leaves_the_last_weights():
    fit(adaptlr.PlateauLR())


def test_a_run_that_was_interrupted_tells_of_all_epochs(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(adaptlr.AutoLR(backup_dir=tmp_path / "backup"), Stopped())
    with collected_warnings() as continued:
        fit(adaptlr.AutoLR(backup_dir=tmp_path / "backup"))
    with collected_warnings() as whole:
        fit(adaptlr.AutoLR())
    assert continued == whole
    assert len(whole) == 1
