"""Several devices and several processes: the same decisions everywhere, one log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from adaptlr.schedules import CyclicalMomentum, OneCycle

BACKEND = keras.backend.backend()
TESTS = Path(__file__).parent
EXAMPLES = TESTS.parents[1] / "examples" / "distributed"

on_tensorflow, on_jax, on_torch = (
    pytest.mark.skipif(name != BACKEND, reason=f"a way of {name}")
    for name in ("tensorflow", "jax", "torch")
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(commands, folder):
    """Runs all commands at once, in `folder`; returns the last JSON line of each.

    TensorFlow itself can die of a segmentation fault where an iterator over several devices is
    destroyed: once in 33 runs on a busy machine, on the way out of Keras' `evaluate`. Such a run
    is made once more, from nothing. Whatever else ends a run is a failure.
    """
    ended = run_all(commands, folder)
    if BACKEND == "tensorflow" and any(code == -signal.SIGSEGV for code, _, _ in ended):
        shutil.rmtree(folder / "tensorboard_logs", ignore_errors=True)
        ended = run_all(commands, folder)
    for code, _, errors in ended:
        assert code == 0, errors[-3000:]
    lines = [line for _, output, _ in ended for line in output.splitlines()]
    return [found for found in map(object_in, lines) if found is not None]


def object_in(line):
    """The JSON object in a line, or None: Gloo writes to the same output, before it and behind."""
    begin = line.find("{")
    return None if begin < 0 else json.JSONDecoder().raw_decode(line, begin)[0]


def test_an_answer_is_read_whatever_gloo_writes_into_its_line():
    said = "[Gloo] Rank 1 is connected to 1 peer ranks."
    for line in ('{"process": 1}', said + '{"process": 1}', '{"process": 1}' + said):
        assert object_in(line) == {"process": 1}
    assert object_in(said) is None


def run_all(commands, folder):
    """Exit code, output and errors of each command."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1",
    }  # fmt: skip
    runs = [
        subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for command in commands
    ]  # fmt: skip
    try:
        outputs = [run.communicate(timeout=300) for run in runs]
    finally:
        for run in runs:
            run.kill()
    return [(run.returncode, *output) for run, output in zip(runs, outputs, strict=True)]


@on_tensorflow
@pytest.mark.slow
def test_a_run_is_made_again_where_tensorflow_died_and_nowhere_else(tmp_path):
    once = (
        "import os, pathlib, signal\n"
        "mark = pathlib.Path('mark')\n"
        "if not mark.exists():\n"
        "    mark.touch()\n"
        "    os.kill(os.getpid(), signal.{0})\n"
        "print('{{}}')"
    )
    assert answers([["-c", once.format("SIGSEGV")]], tmp_path) == [{}]
    (tmp_path / "mark").unlink()
    with pytest.raises(AssertionError):
        answers([["-c", once.format("SIGABRT")]], tmp_path)


def workers(kind, processes, folder):
    port = free_port()
    worker = TESTS / "distributed_worker.py"
    return answers([[worker, kind, process, port] for process in range(processes)], folder)


def one_cycle_by_hand(count=8):
    cycle = OneCycle(1.0, count)
    momentum = CyclicalMomentum(cycle, base_momentum=0.85, max_momentum=0.95)
    velocity = position = 0.0
    for step in range(count):
        velocity = momentum(step) * velocity - cycle(step)
        position += velocity
    return position


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "processes"),
    [
        pytest.param("mirrored", 1, marks=on_tensorflow),
        pytest.param("devices", 1, marks=on_jax),
        pytest.param("processes", 2, marks=on_torch),
    ],
)
def test_rates_are_exact_and_alike(kind, processes, tmp_path):
    found = workers(kind, processes, tmp_path)
    assert len(found) == processes
    for answer in found:
        assert answer["schedule"] == answer["controller"] == -255.0
        assert answer["one_cycle"] == pytest.approx(one_cycle_by_hand(), rel=1e-5)
        assert answer["plateau"]["sum"] == found[0]["plateau"]["sum"]
        assert answer["plateau"]["rules"] == found[0]["plateau"]["rules"]
    # Alone: 4, 4, 2 is cut once, and so is the mean of two processes, 4, 3.5, 2.
    assert found[0]["plateau"]["sum"] == -(8 + 8 + 4)
    assert [answer["plateau"]["written"] > 0 for answer in found] == [True, False][:processes]


@on_tensorflow
@pytest.mark.slow
def test_what_keras_cannot_train_is_refused_in_a_sentence(tmp_path):
    for answer in workers("multi_worker", 2, tmp_path):
        assert "PerReplica" in answer["keras"]  # once this passes, look whether Keras can do it
        assert answer["adaptlr"].startswith("RuntimeError: Keras 3 cannot fit a model under")
        assert "keras/issues/20585" in answer["adaptlr"]


def commands_of(name):
    if name == "torch_ddp":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        return [[*launcher, EXAMPLES / "torch_ddp.py"]]
    if name == "jax_processes":
        place = ["--processes", "2", "--coordinator", f"127.0.0.1:{free_port()}"]
        return [[EXAMPLES / "jax_devices.py", *place, "--process", str(i)] for i in range(2)]
    return [[EXAMPLES / f"{name}.py"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "processes"),
    [
        pytest.param("mirrored", 1, marks=on_tensorflow),
        pytest.param("jax_devices", 1, marks=on_jax),
        pytest.param("jax_processes", 2, marks=on_jax),
        pytest.param("torch_ddp", 2, marks=on_torch),
    ],
)
def test_autolr_decides_alike_and_logs_once(name, processes, tmp_path):
    found = answers(commands_of(name), tmp_path)
    assert sorted(answer["process"] for answer in found) == list(range(processes))
    for answer in found:
        assert answer["decisions"] == found[0]["decisions"]
        assert answer["trainable_weights"] == found[0]["trainable_weights"]
        assert [rule for _, rule, _ in answer["decisions"]][:3] == ["start", "begin", "warm"]
        assert answer["val_accuracy"] > 0.85
    assert len(list((tmp_path / "tensorboard_logs").rglob("events*"))) == 1


@on_jax
@pytest.mark.slow
def test_what_control_costs_is_measured_once_and_shown(tmp_path):
    script, lines = EXAMPLES.parent / "benchmark" / "scaled.py", tmp_path / "lines.jsonl"
    page = tmp_path / "page.md"
    small = ["--suite", "digits", "--images", 192, "--pairs", 1, "--lines", lines]
    command = [sys.executable, script, *small]
    first, again = (
        subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first.count(" s with\n") == 2
    assert again == ""
    for line in map(json.loads, lines.read_text().splitlines()):
        assert [rule for _, rule, _ in line["with"]["decisions"]][:3] == ["start", "begin", "warm"]
        assert line["without"]["decisions"] == []
    page.write_text("<!-- scaled --><!-- /scaled -->")
    subprocess.run([*map(str, command), "--tables", "--page", page], check=True)
    assert "| one process, 4 devices | 1 | 8 |" in page.read_text()
    assert "| 2 processes | 1 | 8 |" in page.read_text()
