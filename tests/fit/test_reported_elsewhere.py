"""Situations of public bug reports of other callbacks and schedulers, and what is right there."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import Metrics, blobs, classifier, one_weight, steps, weight

import adaptlr
from adaptlr.schedules import Cosine, Warmup

X, Y = blobs(96)


def same(one, other):
    return all(map(np.array_equal, one, other))


def test_a_callback_that_is_used_again_knows_no_best_of_before():
    """keras-team/keras#20256."""
    callback, rates = adaptlr.PlateauLR("score", 0.5, 1, mode="min"), []
    for values in ([0.1] * 4, [1.0, 0.9, 0.8, 0.7]):
        callbacks = [Metrics("score", values), callback]
        history = one_weight().fit(**steps(2), epochs=4, callbacks=callbacks).history
        rates.append(history["learning_rate"])
    assert rates == [[1.0, 1.0, 0.5, 0.25], [1.0] * 4]


def test_at_its_least_rate_no_cut_is_told():
    """tensorflow/tensorflow#39462."""
    callback = adaptlr.PlateauLR("loss", 0.1, 1, min_delta=1e9, min_lr=0.05)
    one_weight().fit(**steps(2), epochs=8, callbacks=[callback])
    told = [(r.epoch, r.rule) for r in callback.decisions]
    assert told == [(0, "start"), (1, "plateau"), (2, "plateau")]


class StopAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True


@pytest.mark.parametrize("batch_size", [8, 48], ids=["stopped by another", "few batches"])
def test_a_finder_that_does_not_come_to_its_end_leaves_no_trace(batch_size):
    """Lightning-AI/pytorch-lightning#6675."""
    model = classifier(keras.optimizers.Adam(1e-3))
    before = [np.copy(w) for w in model.get_weights()]
    finder = adaptlr.LRFinder(num_steps=50)
    callbacks = [finder, *([StopAt(7)] if batch_size == 8 else [])]
    model.fit(X, Y, batch_size=batch_size, epochs=3, verbose=0, callbacks=callbacks)
    assert finder.suggestion is None
    assert same(model.get_weights(), before)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)


def test_a_finder_before_fit_changes_nothing_of_it():
    """fastai/fastai#3013, with a dropout and an optimizer that has been trained."""
    left = []
    for finds in (False, True):
        keras.utils.set_random_seed(1)
        model = classifier(keras.optimizers.Adam(1e-2), keras.layers.Dropout(0.3))
        model.fit(X, Y, verbose=0)
        if finds:
            adaptlr.LRFinder(num_steps=20).find(model, X, Y)
        model.fit(X, Y, verbose=0)
        left.append(model.get_weights())
    assert same(*left)


def test_gradients_that_are_accumulated_stretch_no_schedule():
    """huggingface/diffusers#4387: it counts batches, and ends where they do."""
    cosine = Cosine(1.0, 32)
    model = one_weight(keras.optimizers.SGD(1.0, gradient_accumulation_steps=4))
    callback = adaptlr.ScheduleLR(cosine)
    history = model.fit(**steps(16), epochs=2, callbacks=[callback]).history
    assert history["learning_rate"][-1] == pytest.approx(cosine(31), rel=1e-5)
    assert weight(model) == pytest.approx(-sum(map(cosine, range(3, 32, 4))), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.* below a thousandth of its highest rate")
def test_more_steps_than_the_cycle_has_go_on_at_its_last_rate():
    """vLAR-group/GrowSP#11."""
    model = one_weight(keras.optimizers.SGD(1.0, momentum=0.9))
    callback = adaptlr.OneCycleLR(1.0, total_steps=10)
    history = model.fit(**steps(6), epochs=4, callbacks=[callback]).history
    assert history["learning_rate"][1:] == pytest.approx([4e-6] * 3)


def test_a_warm_up_ends_where_the_schedule_begins():
    """microsoft/Swin-Transformer#277."""
    warm = Warmup(Cosine(1.0, 100), 20)
    assert [warm(step) for step in (19, 20)] == [0.95, 1.0]
    assert warm(21) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_data_without_an_end_warm_up_and_decay():
    """mosaicml/composer#1335."""

    def endless():
        while True:
            yield np.ones((1, 1), "float32"), np.ones((1, 1), "float32")

    warm, model = Warmup(Cosine(1.0, 12), 3), one_weight()
    callbacks = [adaptlr.ScheduleLR(warm)]
    history = model.fit(
        endless(), steps_per_epoch=5, epochs=3, verbose=0, callbacks=callbacks
    ).history
    assert history["learning_rate"] == pytest.approx([warm(4), warm(9), warm(14)], rel=1e-5)


@pytest.mark.alike
@pytest.mark.parametrize("order", ["before", "after"])
def test_early_stopping_that_restores_leaves_the_best_beside_autolr(order):
    """keras-team/keras#12511."""
    early = keras.callbacks.EarlyStopping(patience=50, restore_best_weights=True)
    callbacks = [early, adaptlr.AutoLR()]
    validation = blobs(64, seed=1)
    model = classifier(keras.optimizers.SGD(0.3, momentum=0.9))
    best = model.fit(
        X,
        np.random.default_rng(0).permutation(Y),
        epochs=12,
        verbose=0,
        validation_data=validation,
        callbacks=callbacks if order == "before" else callbacks[::-1],
    ).history["val_loss"]
    left = model.evaluate(*validation, verbose=0, return_dict=True)["loss"]
    assert left <= min(best) + 0.1 * abs(min(best))
