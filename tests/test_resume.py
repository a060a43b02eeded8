"""A run that is killed and started again ends as if nothing had happened, to the bit."""

from __future__ import annotations

import keras
import pytest
from resuming import (
    EPOCHS,
    Kill,
    Killed,
    auto,
    cyclical,
    final,
    fit,
    model,
    one_cycle,
    plateau,
    points,
)

REFERENCES = {}


def interrupt(callback, *kill, **arguments):
    with pytest.raises(Killed):
        fit(model(), callback, Kill(*kill), **arguments)
    for writer in callback._writers:  # the end of a process would close its files
        writer.close()


def reference(make, tmp_path_factory):
    if make not in REFERENCES:
        log = tmp_path_factory.mktemp("reference")
        network, callback = model(), make(log_dir=log)
        history = fit(network, callback).history
        REFERENCES[make] = (*final(network, callback), history, points(log))
    return REFERENCES[make]


@pytest.mark.parametrize(
    ("make", "frequency", "kills"),
    [
        (auto, 7, [(0, 12)]),  # in the probe
        (auto, 7, [(2, 22), (2, 30)]),  # while the rate is held, twice
        (auto, 7, [(5, 3)]),  # while it cools
        (auto, "epoch", [(0, 30), (3, 5), (5, 39)]),
        (auto, "epoch", [(4, None), (5, None)]),
        (plateau, "epoch", [(1, 12), (4, None)]),
        (plateau, 9, [(0, 20), (3, 0)]),
        (cyclical, 7, [(2, 22)]),
        (cyclical, "epoch", [(3, 0), (5, None)]),
        (one_cycle, 11, [(1, 1), (4, 17)]),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_continues_to_the_same_bits(make, frequency, kills, tmp_path, tmp_path_factory):
    weights, decisions, history, logged = reference(make, tmp_path_factory)
    where = {"log_dir": tmp_path / "log", "backup_dir": tmp_path / "backup"}
    for kill in kills:
        interrupt(make(backup_freq=frequency, **where), *kill)
    network, callback = model(), make(backup_freq=frequency, **where)
    resumed = fit(network, callback)
    assert callback.decisions == decisions
    assert final(network, callback)[0] == weights
    done = len(resumed.epoch)
    assert resumed.history == ({k: v[EPOCHS - done :] for k, v in history.items()} if done else {})
    assert points(tmp_path / "log") == logged
    assert not (tmp_path / "backup").exists()
