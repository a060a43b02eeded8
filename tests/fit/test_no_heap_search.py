"""Nothing is looked for among all objects of the process: there may be very many."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

import keras
import numpy as np
import pytest
from models import blobs, classifier, one_weight, steps

import adaptlr
from adaptlr.schedules import Constant

EVERY = {
    "AutoLR": lambda: adaptlr.AutoLR(monitor="loss"),
    "PlateauLR": lambda: adaptlr.PlateauLR("loss", patience=1),
    "CyclicalLR": lambda: adaptlr.CyclicalLR(0.1, 1.0, 3),
    "OneCycleLR": lambda: adaptlr.OneCycleLR(1.0, momentum=None),
    "ScheduleLR": lambda: adaptlr.ScheduleLR(Constant(0.1)),
    "LRFinder": lambda: adaptlr.LRFinder(num_steps=4),
}
SEARCHES = ("get_objects", "get_referrers", "get_referents")


@pytest.fixture
def forbidden(monkeypatch):
    def search(*objects):
        raise AssertionError("the heap was searched")

    for name in SEARCHES:
        monkeypatch.setattr(gc, name, search)


@pytest.mark.alike
@pytest.mark.parametrize("name", EVERY)
def test_no_fit_searches_the_heap(name, forbidden):
    one_weight().fit(**steps(40), epochs=6, callbacks=[EVERY[name]()])


def test_validation_beside_averaged_weights_does_not_search_the_heap(forbidden):
    x, y = blobs(64)
    callback = adaptlr.AutoLR(validation_data=(x, y))
    classifier("sgd").fit(
        x, y, batch_size=2, epochs=8, validation_data=(x, y), verbose=0, callbacks=[callback]
    )


def test_no_range_test_searches_the_heap(forbidden):
    adaptlr.LRFinder(num_steps=4).find(classifier("sgd"), *blobs(64), batch_size=8)


def test_an_exception_in_a_callback_does_not_search_the_heap(forbidden):
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ZeroDivisionError

    model = classifier("sgd")
    with pytest.raises(ZeroDivisionError):
        model.fit(*blobs(64), verbose=0, callbacks=[adaptlr.AutoLR(monitor="loss"), Fail()])
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_the_other_callbacks_are_named_without_a_search_of_the_heap(forbidden):
    callbacks = [
        adaptlr.ScheduleLR(Constant(0.1)),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.3),
    ]
    with pytest.raises(RuntimeError, match=r"in this fit: .*LearningRateScheduler"):
        one_weight().fit(**steps(8), epochs=2, callbacks=callbacks)


def test_no_module_names_a_search_of_the_heap():
    offenders = [
        f"{path.name}:{node.lineno}"
        for path in Path(adaptlr.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in SEARCHES)
        or (isinstance(node, ast.alias) and node.name in SEARCHES)
    ]
    assert offenders == []
