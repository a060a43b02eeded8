"""A run that is killed and started again ends as if nothing had happened, to the bit."""

from __future__ import annotations

import pytest
from resuming import (
    Kill,
    KilledError,
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
    with pytest.raises(KilledError):
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
        (auto, 7, [(0, 12), (2, 22), (4, 33)]),  # in the probe, while it holds, while it cools
        (auto, "epoch", [(0, 30), (2, None), (4, None)]),
        (plateau, 9, [(0, 20), (3, 0)]),
        (cyclical, 7, [(2, 22)]),
        (one_cycle, "epoch", [(1, 1), (4, None)]),
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
    assert resumed.history == ({k: v[len(v) - done :] for k, v in history.items()} if done else {})
    assert points(tmp_path / "log") == logged
    assert not (tmp_path / "backup").exists()
