"""Real training, killed by SIGKILL at random moments and started again: `python tests/kill.py 30`.

Each run is one of the callbacks on a model with dropout, batch normalisation and shuffled data. It
is killed after a random time, up to the time that it takes without a kill, and started again
with the same command until it ends by itself. Then weights and slots, decisions, event files and
JSON lines must be those of a run that was not killed, byte for byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

# Each attempt is a process of its own, forked from one that has Keras imported and no more.
_PATHS = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _PATHS))  # all that it is told of ours
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["resuming"])
CASES = [("auto", 7), ("plateau", "epoch"), ("cyclical", 9), ("one_cycle", "epoch")]


def train(case, frequency, directory, parent):
    """What is killed: the same each time."""
    directory.mkdir(parents=True, exist_ok=True)
    import keras
    import resuming

    from adaptlr.writers import JSONLinesWriter

    network = resuming.model()
    callback = getattr(resuming, case)(
        log_dir=directory / "log",
        backup_dir=directory / "backup",
        backup_freq=frequency,
        writers=[JSONLinesWriter(directory / "run.jsonl")],
    )
    begin = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: parent.send("begin"))
    start = time.monotonic()
    resuming.fit(network, begin, callback)
    parent.send("end")
    seconds = time.monotonic() - start
    weights, decisions = resuming.final(network, callback)
    result = {
        "weights": hashlib.sha256(b"".join(weights)).hexdigest(),
        "decisions": [dataclasses.asdict(record) for record in decisions],
        "points": resuming.points(directory / "log"),
        "lines": (directory / "run.jsonl").read_text(),
    }
    (directory / "seconds.json").write_text(json.dumps(seconds))
    (directory / "partial.json").write_text(json.dumps(result))
    (directory / "partial.json").rename(directory / "result.json")


def start(case, frequency, directory, patience=None):
    """Trains in a process, killed `patience` seconds after training began. False if it was."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=train, args=(case, frequency, directory, theirs))
    process.start()
    assert ours.recv() == "begin"
    killed = not ours.poll(patience)
    if killed:
        process.kill()
    process.join()
    assert process.exitcode == (-signal.SIGKILL if killed else 0)
    return not killed


def kill(cases, kills, seed):
    """Kills at least so often; returns the numbers of kills and of runs that ended.

    A run that leaves lines but no backup is given up, and its kills do not count: it was killed
    before its first backup or after its last, and would begin anew beside the old lines.
    """
    moments = random.Random(seed)
    counts = {"kills": 0, "runs": 0}
    references = {}
    while counts["kills"] < kills:
        case, frequency = cases[counts["runs"] % len(cases)]
        root = Path(tempfile.mkdtemp(prefix="kill-"))
        if case not in references:
            start(case, frequency, root / "reference")
            references[case] = root / "reference"
        reference, directory = references[case], root / "run"
        longest = json.loads((reference / "seconds.json").read_text())
        killed = 0
        while not start(case, frequency, directory, moments.uniform(0.0, longest)):
            killed += 1
            left = [directory / "backup" / f"{n}.adaptlr" for n in ("latest", "previous")]
            if (directory / "run.jsonl").exists() and not any(path.exists() for path in left):
                break
        if not (directory / "result.json").exists():
            continue
        result, expected = (
            json.loads((d / "result.json").read_text()) for d in (directory, reference)
        )
        for what in expected:
            assert result[what] == expected[what], f"{case}: other {what}, see {root}"
        shutil.rmtree(directory)
        counts["kills"] += killed
        counts["runs"] += 1
        print(f"{os.environ.get('KERAS_BACKEND')}: {counts}, {case} the same", flush=True)
    return counts


if __name__ == "__main__":
    kill(CASES, int(sys.argv[1]), seed=time.time_ns())
