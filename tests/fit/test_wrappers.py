"""Inside KerasTuner and scikit-learn, which copy the callbacks that they are given."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from models import blobs

import adaptlr
from adaptlr.schedules import Constant, Warmup
from adaptlr.writers import JSONLinesWriter

EVERY = {
    # scikit-learn validates between fits and not inside: the default val_loss would be missing.
    "AutoLR": lambda **k: adaptlr.AutoLR(monitor="loss", **k),
    "AutoLR with data": lambda **k: adaptlr.AutoLR(validation_data=blobs(32, seed=1), **k),
    "PlateauLR": lambda **k: adaptlr.PlateauLR("loss", patience=1, **k),
    "CyclicalLR": lambda **k: adaptlr.CyclicalLR(0.01, 0.1, 3, **k),
    "OneCycleLR": lambda **k: adaptlr.OneCycleLR(0.1, momentum=None, **k),
    "ScheduleLR": lambda **k: adaptlr.ScheduleLR(Warmup(Constant(0.1), 4), **k),
}


def every_callback(*turns):
    """Each callback new or used, by turns: what one wrapper gets new, the other gets used."""
    cases = [
        pytest.param(make, turn == "used", id=f"{name} {turn}")
        for (name, make), turn in zip(EVERY.items(), turns * 3, strict=True)
    ]
    return pytest.mark.parametrize(("make", "used"), cases)


def network(width=8):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def use(callback):
    x, y = blobs(32)
    network().fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[callback])


def runs(path):
    """How many times a rate was taken over, by what a callback has logged."""
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return sum(line.get("decision", {}).get("rule") == "start" for line in lines)


@pytest.mark.alike
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:AutoLR.*judges by the data that are trained on")
@every_callback("new", "used")
def test_keras_tuner_searches_with_it(make, used, tmp_path):
    keras_tuner = pytest.importorskip("keras_tuner")
    (x, y), log = blobs(32), tmp_path / "log.jsonl"
    callback = make(writers=[JSONLinesWriter(log)])
    if used:
        use(callback)
    before = list(callback.decisions)
    tuner = keras_tuner.RandomSearch(
        lambda parameters: network(parameters.Choice("width", [4, 8])),
        objective="val_loss",
        max_trials=2,
        executions_per_trial=2,
        directory=tmp_path,
        seed=0,
    )
    tuner.search(
        x,
        y,
        batch_size=4,
        epochs=2,
        validation_data=blobs(32, seed=1),
        verbose=0,
        callbacks=[callback],
    )
    assert len(tuner.oracle.get_best_trials(2)) == 2
    assert runs(log) == 4 + used
    assert callback.decisions == before  # the search trained with copies


def classifier(base):
    """An estimator as users write it, with callbacks among its parameters."""

    class Classifier(base.ClassifierMixin, base.BaseEstimator):
        def __init__(self, width=8, callbacks=()):
            self.width, self.callbacks = width, callbacks

        def fit(self, x, y):
            self.classes_, self.model_ = np.unique(y), network(self.width)
            self.model_.fit(
                x, y, batch_size=4, epochs=2, verbose=0, callbacks=list(self.callbacks)
            )
            return self

        def predict(self, x):
            return np.argmax(self.model_.predict(x, verbose=0), axis=-1)

    return Classifier


@pytest.mark.alike
@every_callback("used", "new")
def test_scikit_learn_clones_and_cross_validates_with_it(make, used, tmp_path):
    base = pytest.importorskip("sklearn.base")
    selection = pytest.importorskip("sklearn.model_selection")
    (x, y), log = blobs(60), tmp_path / "log.jsonl"
    callback = make(writers=[JSONLinesWriter(log)])
    if used:
        use(callback)
    before = list(callback.decisions)
    estimator = classifier(base)(callbacks=[callback])
    copied = base.clone(estimator).callbacks[0]
    assert copied is not callback
    assert repr(copied) == repr(callback)
    search = selection.GridSearchCV(estimator, {"width": [4, 8]}, cv=2, error_score="raise")
    search.fit(x, y)
    assert runs(log) == 5 + used  # two widths in two folds, then the better one with all
    assert callback.decisions == before
    # A clone of what has been trained can be trained again.
    base.clone(search.best_estimator_).fit(x, y)
    assert runs(log) == 6 + used
