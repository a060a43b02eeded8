"""Kill and resume: a training that is killed, started again, and ends as if nothing had happened.

The script starts itself three times as a process that trains with `backup_dir=`: once to the end;
once until it is killed in the middle of an epoch, with no chance to clean up; and once more with
the same command, which goes on where the backup stands. Weights are compared bit by bit.

    python examples/resume.py
"""

import hashlib
import json
import shutil
import subprocess
import sys

import common
import keras
from common import TRAIN, VALIDATION, percent

import adaptlr

EPOCHS, GPU_EPOCHS = 15, 60  # 300 steps: from 200 on AutoLR probes
KILL_AFTER = 1 / 3  # of the epochs: before AutoLR may have ended the training at a plateau


class Announce(keras.callbacks.Callback):
    """Says where it is, for the process that will kill this one."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 9:  # in the middle: the backup is that of the epoch before
            print("middle of epoch", flush=True)


def train(options):
    """What is killed: the same command each time."""
    splits = common.split(*common.digits(), 0, TRAIN, VALIDATION)
    keras.utils.set_random_seed(0)
    model = common.compiled(common.network(width=options.width), 1e-6)
    callback = adaptlr.AutoLR(log_dir=options.out / "log", backup_dir=options.out / "backup")
    steps = common.fit(model, splits, options.epochs, callback, Announce())
    weights = b"".join(w.tobytes() for w in model.get_weights())
    result = {
        "steps": steps,
        "moves": [f"{d.step} {d.rule}" for d in callback.decisions],
        "test": common.accuracy(model, splits[2]),
        "weights": hashlib.sha256(weights).hexdigest()[:12],
    }
    (options.out / "result.json").write_text(json.dumps(result))


def start(folder, options, kill_at=None):
    """Runs the command; returns its result, or None if it was killed at that epoch's middle."""
    command = [sys.executable, __file__, "--train", "--out", str(folder)]
    command += ["--epochs", str(options.epochs), *(["--gpu"] if options.gpu else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for epoch, _ in enumerate(process.stdout):
            if epoch == kill_at:
                process.kill()
    if kill_at is None and process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    result = folder / "result.json"
    return json.loads(result.read_text()) if result.exists() else None


def main():
    parser = common.command_line(__doc__, "resume", EPOCHS, GPU_EPOCHS)
    parser.add_argument("--train", action="store_true", help="what is started and killed")
    options = common.parsed(parser)
    if options.train:
        train(options)
        return
    shutil.rmtree(options.out, ignore_errors=True)
    kill_at = round(KILL_AFTER * options.epochs)
    common.progress.print("to the end")
    whole = start(options.out / "uninterrupted", options)
    common.progress.print(f"to be killed in epoch {kill_at + 1}")
    if start(options.out / "resumed", options, kill_at) is not None:
        raise SystemExit("the process ended before it was killed")
    common.progress.print("started again")
    resumed = start(options.out / "resumed", options)
    lines = [
        [title, str(run["steps"]), ", ".join(run["moves"]), percent(run["test"]), run["weights"]]
        for title, run in (("uninterrupted", whole), ("killed, resumed", resumed))
    ]
    same = all(whole[name] == resumed[name] for name in ("moves", "test", "weights"))
    columns = (
        f"Killed in the middle of epoch {kill_at + 1} of {options.epochs}. steps: trained by the "
        "last process; moves: of AutoLR, step and rule; weights: SHA-256.\n"
        f"The two runs are {'the same, bit by bit' if same else 'NOT the same'}."
    )
    headings = ["run", "steps", "moves", "test", "weights"]
    common.report("Result", headings, lines, columns, options)


if __name__ == "__main__":
    main()
