"""What AutoLR costs where one fit has several devices: whole fits in pairs, on JAX.

    python examples/benchmark/scaled.py --data cifar10.npz
    python examples/benchmark/scaled.py --tables    # writes the table of docs/scaling-out.md

ResNet-20 for two epochs of the processor, once split into devices of one process and once shared
by two processes. All processes of a fit must have decided the same. Every pair appends one line,
with the processor time of all processes together.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from lines import append, read_lines
from page import fill, markdown

DOCS = Path(__file__).parents[2] / "docs"
LINES, PAGE = DOCS / "data" / "scaled.jsonl", DOCS / "scaling-out.md"
SETTINGS = ((4, 1), (1, 2))  # devices of a process, processes
EPOCHS = 2


def begin(options: argparse.Namespace) -> None:
    """Chooses the devices, which has to come before Keras."""
    import jax

    if options.processes == 1:
        jax.config.update("jax_num_cpu_devices", options.devices)
    else:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(options.coordinator, options.processes, options.process)


def worker(options: argparse.Namespace) -> None:
    """One process of a fit: prints what it took and decided."""
    begin(options)
    import keras
    from run import made_by
    from tasks import TASKS, Batches, Split, build

    import adaptlr

    # Each process feeds its own share of each batch.
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    task = next(task for task in TASKS if task.suite == options.suite)
    batch = task.batch_size // 16 * 16  # so that it divides evenly, and the last one as well
    splits = task.few(options.images, EPOCHS).splits(options.data)[:2]
    train, held_out = (Split(*(part[: len(s.x) // batch * batch] for part in (s.x, s.y)))
                       for s in splits)  # fmt: skip
    share = slice(options.process, None, options.processes)
    task = replace(task, batch_size=batch // options.processes)
    keras.utils.set_random_seed(0)  # the same first weights everywhere
    model = build(task, "adam", train.x.shape[1:], 1e-3)
    batches = Batches(Split(train.x[share], train.y[share]), task, 0)
    callbacks = [adaptlr.AutoLR()] if options.controlled else []
    ends: list[tuple[float, float]] = [(time.perf_counter(), time.process_time())]
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append((time.perf_counter(), time.process_time()))
    )
    model.fit(
        batches, epochs=EPOCHS, verbose=0, callbacks=[*callbacks, clock],
        validation_data=task.as_they_are(held_out), validation_batch_size=batch,
    )  # fmt: skip
    told = {
        "wall_s": [round(end[0] - ends[0][0], 2) for end in ends[1:]],
        "cpu_s": [round(end[1] - ends[0][1], 2) for end in ends[1:]],
        "steps": EPOCHS * len(batches),
        "decisions": [[d.step, d.rule, d.learning_rate] for c in callbacks for d in c.decisions],
        "made_by": made_by(),
    }
    print(json.dumps(told), flush=True)


def fit(options: argparse.Namespace, devices: int, processes: int, controlled: bool) -> Any:
    """What the first process of a fit says, once all have said the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, __file__, "--suite", options.suite, "--images", options.images,
               "--devices", devices, "--processes", processes, "--coordinator", coordinator,
               *(["--data", options.data] if options.data else []),
               *(["--controlled"] if controlled else [])]  # fmt: skip
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    runs = [
        subprocess.Popen([*map(str, command), "--process", str(process)], env=environment,
                         text=True, stdout=subprocess.PIPE)
        for process in range(processes)
    ]  # fmt: skip
    try:
        outputs = [run.communicate()[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    if any(run.returncode for run in runs):
        raise SystemExit(f"a process of {command} failed: see above")
    told = [answer(output) for output in outputs]
    if any(each["decisions"] != told[0]["decisions"] for each in told):
        raise SystemExit(f"the processes decided differently: {told}")
    return told[0] | {
        "cpu_s": [round(sum(x), 2) for x in zip(*(t["cpu_s"] for t in told), strict=True)]
    }


def answer(output: str) -> dict[str, Any]:
    """What a process said; gloo writes to the same output, at times behind it in its line."""
    line = next(line for line in output.splitlines()[::-1] if line.startswith("{"))
    return json.JSONDecoder().raw_decode(line)[0]


def measure(options: argparse.Namespace) -> None:
    """Pairs that are not there yet, in turn with and without first."""
    for pair in range(options.pairs):
        for devices, processes in SETTINGS:
            key = {"suite": options.suite, "images": options.images, "devices": devices,
                   "processes": processes, "pair": pair}  # fmt: skip
            if any(key.items() <= line.items() for line in read_lines(options.lines)):
                continue
            order = [False, True][:: 1 if pair % 2 == 0 else -1]
            found = {controlled: fit(options, devices, processes, controlled)
                     for controlled in order}  # fmt: skip
            append(options.lines, key | {"without": found[False], "with": found[True]})
            seconds = [found[controlled]["wall_s"][-1] for controlled in (False, True)]
            print(f"{key}: {seconds[0]:.0f} s without, {seconds[1]:.0f} s with", flush=True)


def table(lines: list[dict[str, Any]]) -> str:
    """Medians over pairs, a row for each setting; the second epoch has nothing to compile."""
    rows = []
    for devices, processes in SETTINGS:
        pairs = [x for x in lines if (x["devices"], x["processes"]) == (devices, processes)]
        if not pairs:
            continue
        whole = [pair["with"]["cpu_s"][-1] / pair["without"]["cpu_s"][-1] for pair in pairs]
        second = [second_epoch(pair["with"]) / second_epoch(pair["without"]) for pair in pairs]
        where = f"{processes} processes" if processes > 1 else f"one process, {devices} devices"
        decided = sorted({len(pair["with"]["decisions"]) for pair in pairs})
        rows.append([where, str(len(pairs)), str(pairs[0]["with"]["steps"]), middle(whole),
                     middle(second), "/".join(map(str, decided))])  # fmt: skip
    head = ["JAX", "pairs", "steps", "whole fit, with ÷ without", "second epoch, with ÷ without",
            "decisions"]  # fmt: skip
    made = "\n".join(f"* {text}" for text in sorted({pair["with"]["made_by"] for pair in lines}))
    return f"{markdown(head, rows)}\n\n{made}"


def second_epoch(told: dict[str, Any]) -> float:
    """Its processor time, of all processes together."""
    first, second = told["cpu_s"]
    return second - first


def middle(ratios: list[float]) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=("cifar", "digits"), default="cifar")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as .npz; downloaded without")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--lines", type=Path, default=LINES)
    parser.add_argument("--tables", action="store_true", help="write the table, measure nothing")
    parser.add_argument("--page", type=Path, default=PAGE)
    for name, default in (("devices", 1), ("processes", 1), ("process", None)):
        parser.add_argument(f"--{name}", type=int, default=default, help=argparse.SUPPRESS)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--controlled", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process is not None:
        worker(options)
    elif options.tables:
        same = {"suite": options.suite, "images": options.images}.items()
        text = table([line for line in read_lines(options.lines) if same <= line.items()])
        options.page.write_text(fill(options.page.read_text(), {"scaled": text}))
    else:
        measure(options)


if __name__ == "__main__":
    main()
