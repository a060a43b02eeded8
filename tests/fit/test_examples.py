"""Each example runs from start to end at tiny size, in a process of its own."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import adaptlr

EXAMPLES = Path(__file__).parents[2] / "examples"
# Nothing listens on this port: a download fails at once, without a network.
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
# Several models in a process of its own.
slow = pytest.mark.slow


def start(name, *arguments, examples=EXAMPLES, **environment):
    pytest.importorskip("sklearn")
    pytest.importorskip("rich")
    if (EXAMPLES.parent / "adaptlr").exists():
        environment["PYTHONPATH"] = str(EXAMPLES.parent)
    return subprocess.run(
        [sys.executable, str(examples / name), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def run(name, *arguments, **more):
    ran = start(name, *arguments, **more)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def row(shown, title):
    """The cells of a table's row, which two spaces divide."""
    (line,) = (line for line in shown.splitlines() if line.startswith(f"{title}  "))
    return re.split(r"\s{2,}", line[len(title) :].strip())


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def decisions(folder):
    return [e.tensor_proto.string_val[0].decode() for e in read(folder).Tensors("decisions")]


@slow
def test_digits(tmp_path):
    shown = run("digits.py", "--epochs", "12", "--out", tmp_path, "--markdown")
    methods = {
        "constant": "constant",
        "plateau": "PlateauLR",
        "cyclical": "CyclicalLR",
        "auto": "AutoLR from 1e-6",
        "auto_from_1": "AutoLR from 1.0",
    }
    for folder, title in methods.items():
        assert f"| {title} |" in shown
        events = read(tmp_path / folder)
        scalars = events.Tags()["scalars"]
        assert {"learning_rate", "loss", "epoch/val_loss", "epoch/val_accuracy"} <= set(scalars)
        assert len(events.Scalars("learning_rate")) > 100
        texts = decisions(tmp_path / folder)
        assert "**start**" in texts[0]
        if folder.startswith("auto"):
            assert "**settle**" in texts[2]
    assert f"--logdir {tmp_path}" in shown
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@slow
def test_images_with_each_callback(tmp_path):
    names = ["auto", "plateau", "cyclical", "onecycle", "schedule", "finder"]
    shown = run("images.py", "--epochs", "1", "--out", tmp_path, "--callback", *names)
    for name in names:
        _, _, steps, low, high = row(shown, name)
        assert (int(steps) > 20) == (name == "finder")
        assert 0.0 <= float(low) <= float(high) <= 1.0  # a warm-up begins at 0
        assert float(high) > 0.0
        assert read(tmp_path / name).Tags()["scalars"]


def colours(count, random):
    """Red and blue noise, and which is which."""
    labels = np.arange(count) % 2
    images = random.integers(0, 128, (count, 16, 16, 3))
    images[np.arange(count), :, :, 2 * labels] += 127
    return images.astype("uint8"), labels


@slow
@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_images_of_ones_own(kind, tmp_path):
    images, labels = colours(100, np.random.default_rng(0))
    data = tmp_path / "data"
    if kind == "npz":
        data = tmp_path / "mine.npz"
        test = colours(20, np.random.default_rng(1))
        np.savez(data, x_train=images, y_train=labels, x_test=test[0], y_test=test[1])
    else:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (data / f"class_{label}").mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(data / f"class_{label}" / f"{i}.png", image, scale=False)
    shown = run("images.py", "--epochs", "30", "--data", data, "--out", tmp_path / "out")
    assert row(shown, "auto")[:2] == ["100.0%", "100.0%"]


@slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images.py", "--data", "cifar10"], "pass --data cifar10.npz"),
        (["images.py", "--data", "nowhere"], "a folder, not nowhere"),
        (["transfer.py", "--imagenet", "--seeds", "0"], "Leave out --imagenet"),
    ],
)
def test_what_to_do_without_the_data(arguments, message, tmp_path):
    ran = start(*arguments, "--out", tmp_path, KERAS_HOME=str(tmp_path), **NO_NETWORK)
    assert ran.returncode == 1
    assert message in ran.stderr


@slow
def test_transfer(tmp_path):
    shown = run("transfer.py", "--epochs", "1", "--seeds", "0", "--out", tmp_path)
    titles = ["from scratch, AutoLR", "base frozen", "all at one rate", "all, AutoLR"]
    if hasattr(keras.optimizers, "OptimizerMap"):
        titles += ["discriminative rates", "discriminative, AutoLR"]
        assert read(tmp_path / "discriminative_rates").Tags()["scalars"]
    for title in titles:
        assert len(row(shown, title)) == 3
    assert "**settle**" in decisions(tmp_path / "pretraining")[2]


@slow
def test_momentum(tmp_path):
    shown = run(
        "momentum.py", "--epochs", "1", "--momenta", 0, 0.9, "--batches", 80, "--out", tmp_path
    )
    for momentum, factor in (("0", "1"), ("0.9", "0.1")):
        cells = row(shown, f"80     {momentum}")
        assert cells[0] == factor
        assert len(cells) == 4
        assert decisions(tmp_path / f"batch_80_momentum_{momentum}")


@slow
def test_rate_search(tmp_path):
    for package in ("optuna", "keras_tuner"):
        pytest.importorskip(package)
    shown = run("rate_search.py", "--epochs", 1, "--trials", 2, "--seeds", 0, "--out", tmp_path)
    steps = {
        title: row(shown, title)[:2]
        for title in ("standard rate", "Optuna", "KerasTuner", "AutoLR")
    }
    assert steps["standard rate"] == steps["AutoLR"] == ["1", "20"]
    assert steps["Optuna"] == steps["KerasTuner"] == ["2", "40"]
    assert read(tmp_path / "optuna_1").Tags()["scalars"]


@slow
@pytest.mark.skipif(
    "backup_dir" not in inspect.signature(adaptlr.AutoLR).parameters, reason="cannot resume yet"
)
def test_resume(tmp_path):
    shown = run("resume.py", "--epochs", "3", "--out", tmp_path)
    assert row(shown, "uninterrupted")[0] == "60"
    assert row(shown, "killed, resumed")[0] == "40"
    assert "The two runs are the same, bit by bit." in shown


@slow
def test_own_controller(tmp_path):
    shown = run("own_controller.py", "--epochs", "1", "--out", tmp_path)
    moves = decisions(tmp_path / "greedy_0.0001")[1:]  # slow enough for noise to show
    changes = [re.search(r"from (\S+) to ([^\s*]+)", text).groups() for text in moves]
    assert ["**up**" in t for t in moves] == [float(b) < float(a) for a, b in changes]
    assert ("**up**" in "".join(moves), "**down**" in "".join(moves)) == (True, True)
    assert row(shown, "Greedy      0.0001")[2] == str(len(moves))


def test_readme_is_filled_from_what_the_examples_print(tmp_path):
    examples = tmp_path / "examples"
    examples.mkdir()
    shutil.copy(EXAMPLES / "readme.py", examples)
    for name in ("one", "two"):
        (examples / f"{name}.py").write_text(f"import sys; print('{name}  ', *sys.argv[1:])")
    page = "<!-- {}: begin -->\n{}<!-- end -->\n"
    before = page.format("one.py", "") + "kept\n" + page.format("two.py --n 3", "old\n")
    (examples / "README.md").write_text(before)
    run("readme.py", "two.py", examples=examples)
    two = "```text\n$ python examples/two.py --n 3\ntwo   --n 3\n```\n"
    expected = page.format("one.py", "") + "kept\n" + page.format("two.py --n 3", two)
    assert (examples / "README.md").read_text() == expected
    run("readme.py", examples=examples)
    assert "```text\n$ python examples/one.py\none\n```" in (examples / "README.md").read_text()
