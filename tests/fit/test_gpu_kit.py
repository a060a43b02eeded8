"""The kit for a machine with a GPU: all of it at tiny size, cut off, again, and refused."""

from __future__ import annotations

import io
import json
import os
import runpy
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import programs
import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "benchmark"
BACKEND = keras.backend.backend()
pytest.importorskip("sklearn")
pytest.importorskip("rich")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def tasks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return runpy.run_path(str(FOLDER / "tasks.py"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Noise as JPEG files, one after another."""
    path, arrays = tmp_path_factory.mktemp("carried") / "cifar10.npz", {}
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        files = []
        for image in random.integers(0, 256, (150, 32, 32, 3), "uint8"):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG")
            files.append(buffer.getvalue())
        arrays[f"jpeg_{part}"] = np.frombuffer(b"".join(files), "uint8")
        arrays[f"offsets_{part}"] = np.cumsum([0, *map(len, files)])
        arrays[f"y_{part}"] = random.integers(0, 10, (150, 1), "uint8")
    np.savez(path, **arrays)
    return path


def test_jpeg_files_are_unpacked(tasks, archive):
    (x, y), (x_test, _) = tasks["read_cifar"](archive)
    assert x.shape == x_test.shape == (150, 32, 32, 3)
    assert x.dtype == y.dtype == np.uint8
    with np.load(archive) as arrays:
        first, second = arrays["offsets_train"][1:3]
        file = io.BytesIO(arrays["jpeg_train"][first:second].tobytes())
    assert (x[1] == np.asarray(Image.open(file))).all()


def test_a_model_moves_images_as_the_batches_would(tasks):
    task = next(task for task in tasks["TASKS"] if task.suite == "cifar")
    assert task.in_graph
    x = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), "uint8")
    y, make = np.arange(200), tasks["Batches"]
    bytes_ = make(tasks["Split"](x, y), task, 3)
    floats = make(tasks["Split"](tasks["scaled"](x), y), replace(task, in_graph=False), 3)
    layer, moved = tasks["Moved"](task.shift), set()
    for _ in range(2):
        for index in range(len(bytes_)):
            ((images, moves), labels), (wanted, same) = bytes_[index], floats[index]
            assert images.dtype == np.uint8
            assert (labels == same).all()
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(layer(images, moves)), wanted, strict=True
            )
            moved |= set(map(tuple, moves.tolist()))
        bytes_.on_epoch_end()
        floats.on_epoch_end()
    seen = [set(found) for found in zip(*moved, strict=True)]
    assert seen == [set(range(9)), set(range(9)), {0, 1}]
    (images, moves), _ = task.as_they_are(tasks["Split"](x, y))
    still = keras.ops.convert_to_numpy(layer(images, moves))
    np.testing.assert_array_equal(still, tasks["scaled"](x), strict=True)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(
    BACKEND != "torch", reason="a kit without TensorFlow; JAX compiles for minutes"
)
def test_all_of_it_tiny_and_again_after_a_cut(archive, tmp_path):
    out = tmp_path / "out"
    arguments = ("--data", archive, "--out", out, "--backends", BACKEND, "--rehearse", 1)

    def run(minutes=30):
        return programs.run(FOLDER / "gpu.py", *arguments, "--minutes", minutes)

    assert "the time is up: the same command goes on with it" in run(minutes=0)
    assert not (out / "fits.jsonl").exists()

    shown = run()
    fits = lines_of(out / "fits.jsonl")
    assert len({line["callback"] for line in fits}) == len(fits) == 8
    assert all(np.isfinite(line["losses"]).all() for line in fits)
    pairs = lines_of(out / "overhead.jsonl")
    assert [line["method"] for line in pairs] == ["AutoLR", "CyclicalLR"]
    (line,) = lines_of(out / "benchmark.jsonl")
    assert (line["task"], line["method"], line["rate"]) == ("resnet20", "AutoLR", 0.01)
    (logs,) = (out / "tensorboard").iterdir()
    recorded = lines_of(logs / "run.jsonl")
    logged = [x["decision"]["rule"] for x in recorded if "decision" in x]
    assert logged == [rule for _, _, rule, _ in line["decisions"]]
    assert len(list(logs.glob("*tfevents*"))) == 1
    assert f"{BACKEND}: " in shown
    assert "benchmark: resnet20 adam AutoLR 0.01 seed 0: " in shown

    with (out / "benchmark.jsonl").open("r+") as file:
        file.truncate(100)
    (out / "fits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in fits[:-1]))
    assert "all 1 runs are done" in run()
    assert [line["callback"] for line in lines_of(out / "fits.jsonl")[7:]] == [
        "SwapScheduleFreeWeights"
    ]
    again = json.loads((out / "benchmark.jsonl").read_text().splitlines()[-1])
    assert again["test_accuracy"] == line["test_accuracy"]
    assert len(list(logs.glob("*tfevents*"))) == 1
    assert lines_of(out / "overhead.jsonl") == pairs


def test_each_run_of_the_suite_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    gpu, run = (runpy.run_path(str(FOLDER / name)) for name in ("gpu.py", "run.py"))
    jobs = {
        part: [
            job
            for piece in gpu["pieces"](part, tmp_path)
            for job in run["jobs"](run["parse"](["cifar", *piece]))
        ]
        for part in ("suite", "other", "rest")
    }
    first = [(job.optimizer, job.method.name, job.rate) for job in jobs["suite"]]
    around = {"adam": (1e-4, 1e-3, 1e-2), "sgd": (1e-3, 1e-2, 1e-1)}  # the standard rate
    assert first == [
        (optimizer, *one)
        for optimizer, rates in around.items()
        for one in [("AutoLR", 0.01), ("constant", None), *(("CosineDecay at", r) for r in rates)]
    ]
    assert [job.log_dir is not None for job in jobs["suite"]] == [True] + 9 * [False]
    assert [(j.task.name, j.method.name) for j in jobs["other"]] == [
        ("resnet20", "AutoLR"),
        ("resnet20", "constant"),
    ]
    keys = [json.dumps(job.key) for job in jobs["rest"]]
    assert len(set(keys)) == len(keys) == 3 * 2 * 2 * (5 + 7 + 7)
    assert {json.dumps(job.key) for job in jobs["suite"]} < set(keys)


def script(*arguments, **environment):
    command = ["bash", str(FOLDER / "gpu.sh"), *map(str, arguments)]
    environment = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_what_is_missing_is_named(archive, tmp_path):
    assert "usage: gpu.sh pack FOLDER" in script().stderr
    assert "usage: gpu.sh run FOLDER OUT" in script("run", tmp_path).stderr
    gone = script("pack", tmp_path / "kit", tmp_path / "gone.npz")
    assert (gone.returncode, gone.stderr) == (2, f"gpu.sh: there is no file {tmp_path}/gone.npz\n")
    assert not (tmp_path / "kit").exists()
    empty = script("run", tmp_path, tmp_path / "out")
    assert empty.returncode == 2
    assert f"there is no {tmp_path}/cifar10.npz: gpu.sh pack makes it" in empty.stderr
    without = script("run", archive.parent, tmp_path / "out")
    assert f"there are no wheels in {archive.parent}" in without.stderr
    assert not (tmp_path / "out").exists()


def test_a_pack_removes_nothing_but_its_own_older_wheels(archive, tmp_path):
    kit = tmp_path / "kit"
    kit.mkdir()
    for name in ("photos.npz", "mine-1.0-py3-none-any.whl", "keras-3.0.0-py3-none-any.whl"):
        (kit / name).write_text(name)
    for source in (archive, kit / "cifar10.npz"):  # the second lies where it is to go
        ran = script("pack", kit, source, PYTHON="true")  # for pip, which would need a network
        assert ran.returncode == 0, ran.stderr
    kept = {path.name for path in kit.iterdir()}
    assert kept == {"photos.npz", "mine-1.0-py3-none-any.whl", "cifar10.npz"}
    assert (kit / "cifar10.npz").read_bytes() == archive.read_bytes()


def test_times_go_on_after_a_line_that_was_cut_off(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    log = runpy.run_path(str(FOLDER / "overhead.py"))["Log"]
    path, where = tmp_path / "overhead.jsonl", {"backend": BACKEND, "device": "CPU"}
    log(path, where).add({"kind": "import", "pair": 0}, milliseconds=1.0)
    with path.open("a") as file:
        file.write('{"kind": "import", "pa')
    again = log(path, where)
    assert again.has({"kind": "import", "pair": 0})
    assert not again.has({"kind": "import", "pair": 1})
    again.add({"kind": "import", "pair": 1}, milliseconds=2.0)
    read = runpy.run_path(str(FOLDER / "lines.py"))["read_lines"](path)
    assert [line["pair"] for line in read] == [0, 1]


def test_wheels_are_installed_beside_the_environment_and_removed(archive, tmp_path):
    pytest.importorskip("pip")
    kit, scratch = tmp_path / "kit", tmp_path / "scratch"
    kit.mkdir()
    scratch.mkdir()
    (kit / "cifar10.npz").write_bytes(archive.read_bytes())
    with zipfile.ZipFile(kit / "carried-1.0-py3-none-any.whl", "w") as wheel:
        info = "carried-1.0.dist-info"
        wheel.writestr("sitecustomize.py", "print('carried along')\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    ran = script("run", kit, tmp_path / "out", "--minutes", 0, TMPDIR=str(scratch))
    assert ran.returncode == 0, ran.stderr
    assert "carried along" in ran.stdout
    assert "the time is up" in ran.stdout
    assert (tmp_path / "out" / "log.txt").read_text() == ran.stdout
    assert not list(scratch.iterdir())
