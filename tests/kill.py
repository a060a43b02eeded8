"""Real training, killed by SIGKILL at random moments and started again: `python tests/kill.py 30`.

Each run is one of the callbacks on a model with dropout, batch normalisation and shuffled data. It
is killed after a random time, up to the time that it takes without a kill, and started again with
the same command until it ends by itself. Then weights and slots, decisions, event files and JSON
lines must be those of a run that was not killed, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = [("auto", 7), ("plateau", "epoch"), ("cyclical", 9), ("one_cycle", "epoch")]


def train(case, frequency, directory):
    """What is killed: the same command each time."""
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
    begin = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: print("begin", flush=True))
    start = time.monotonic()
    resuming.fit(network, begin, callback)
    seconds = time.monotonic() - start
    weights, decisions = resuming.final(network, callback)
    result = {
        "weights": hashlib.sha256(b"".join(weights)).hexdigest(),
        "decisions": [vars(record) for record in decisions],
        "points": resuming.points(directory / "log"),
        "lines": (directory / "run.jsonl").read_text(),
    }
    (directory / "seconds.json").write_text(json.dumps(seconds))
    # Last, so that it tells a run that ended from one that was killed.
    (directory / "result.json").write_text(json.dumps(result))


def start(case, frequency, directory, patience=None):
    """Runs the command; kills it `patience` seconds after training began. True if it ended."""
    command = [sys.executable, __file__, "train", case, str(frequency), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if patience is not None and process.stdout.readline():
            select.select([process.stdout], [], [], patience)  # ends early with the process
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(errors.decode()[-3000:])
    return process.returncode == 0


def kill(cases, kills, seed):
    """Kills at least so often; returns kills, attempts killed before any backup, and runs ended."""
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
        while not start(case, frequency, directory, moments.uniform(0.0, longest)):
            counts["kills"] += 1
        result, expected = (
            json.loads((d / "result.json").read_text()) for d in (directory, reference)
        )
        for what in expected:
            assert result[what] == expected[what], f"{case}: other {what}, see {root}"
        counts["runs"] += 1
        print(f"{os.environ.get('KERAS_BACKEND')}: {counts}, {case} the same", flush=True)
    return counts


if __name__ == "__main__":
    if sys.argv[1] == "train":
        _, _, case, frequency, directory = sys.argv
        Path(directory).mkdir(parents=True, exist_ok=True)
        train(case, int(frequency) if frequency.isdigit() else frequency, Path(directory))
    else:
        kill(CASES, int(sys.argv[1]), seed=time.time_ns())
