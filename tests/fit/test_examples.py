"""Each example runs from start to end at tiny size, in a process of its own."""

from __future__ import annotations

import importlib
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import programs
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import adaptlr

Image = pytest.importorskip("PIL.Image")
EXAMPLES = Path(__file__).parents[2] / "examples"
# Nothing listens on this port: a download fails at once, without a network.
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
# Several models in a process of its own.
slow = pytest.mark.slow


def start(name, *arguments, examples=EXAMPLES, **environment):
    pytest.importorskip("sklearn")
    pytest.importorskip("rich")
    return programs.start(examples / name, *arguments, **environment)


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
        steps = [event.step for event in events.Scalars("learning_rate")]
        assert (steps[0], steps[-1]) == (0, 240)
        assert max(after - before for before, after in itertools.pairwise(steps)) <= 5
        texts = decisions(tmp_path / folder)
        assert "**start**" in texts[0]
        if folder.startswith("auto"):
            assert "**warm**" in texts[2]
    assert f"--logdir {tmp_path}" in shown
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@slow
def test_images_with_each_callback(tmp_path):
    names = ["none", "auto", "plateau", "cyclical", "onecycle", "schedule", "finder"]
    shown = run("images.py", "--epochs", "1", "--out", tmp_path, "--callback", *names)
    for name in names:
        _, _, steps, low, high = row(shown, name)
        assert (int(steps) > 20) == (name == "finder")
        assert 0.0 <= float(low) <= float(high) <= 1.0  # a warm-up begins at 0
        assert float(high) > 0.0
        assert name == "none" or read(tmp_path / name).Tags()["scalars"]
    assert not (tmp_path / "none").exists()


def colours(count, random):
    """Red and blue noise, and which is which."""
    labels = np.arange(count) % 2
    images = random.integers(0, 128, (count, 16, 16, 3))
    images[np.arange(count), :, :, 2 * labels] += 127
    return images.astype("uint8"), labels


@slow
def test_images_of_ones_own_in_an_archive(tmp_path):
    images, labels = colours(100, np.random.default_rng(0))
    test = colours(20, np.random.default_rng(1))
    data = tmp_path / "mine.npz"
    np.savez(data, x_train=images, y_train=labels, x_test=test[0], y_test=test[1])
    shown = run(
        "images.py", "--epochs", "30", "--callback", "auto", "--data", data, "--out", tmp_path
    )
    assert row(shown, "auto")[:2] == ["100.0%", "100.0%"]


def written(root, count, first="red", second="blue"):
    """Class folders of red and of blue noise; returns the paths."""
    paths = []
    for i, (image, label) in enumerate(
        zip(*colours(count, np.random.default_rng(0)), strict=True)
    ):
        paths.append(root / (second if label else first) / f"{i:03}.{'jpg' if i % 3 else 'png'}")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(paths[-1], image, scale=False)
    return paths


def untidy(root):
    """Adds what real folders hold besides images."""
    whole = next(iter(sorted(root.rglob("*.jpg")))).read_bytes()
    (root / "blue" / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "blue" / "notes.txt").write_text("taken in spring\n")
    (root / "red" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "readme.md").write_text("my pictures\n")


@slow
def test_a_folder_as_it_is(tmp_path):
    written(tmp_path / "photos", 100)
    written(tmp_path / "photos", 6, "green", "green")
    untidy(tmp_path / "photos")
    ran = start("images.py", "--epochs", "30", "--data", tmp_path / "photos",
                "--out", tmp_path / "out", "--save", tmp_path / "mine.keras")  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = ran.stderr.splitlines()
    for name, why in {
        "blue/broken.jpg": "broken: ",
        "blue/notes.txt": "no image that Pillow can read",
        "red/.DS_Store": "no image that Pillow can read",
        "readme.md": "in no class folder",
    }.items():
        assert any(f"left out: {tmp_path / 'photos' / name}: {why}" in line for line in told)
    counts = [line.split() for line in told]
    for line in (["class", "images"], ["blue", "50"], ["green", "6"], ["all", "106"]):
        assert line in counts
    assert "few images: green has 6" in ran.stderr
    assert re.search(r"none .* epoch 30/30  rate 1\.0e-03  validation 9?\d+", ran.stderr)
    assert len(row(ran.stdout, "none")) == len(row(ran.stdout, "auto")) == 5
    assert "the order of blue green red" in ran.stdout
    assert "Next: " in ran.stdout
    kept = keras.saving.load_model(tmp_path / "mine.keras")
    assert kept.input_shape == (None, 64, 64, 3)
    reds = [keras.utils.load_img(p, target_size=(64, 64)) for p in list(tmp_path.rglob("red/*g"))]
    found = kept.predict(np.stack([np.asarray(image) for image in reds]), verbose=0)
    assert (found.argmax(-1) == 2).mean() > 0.9


@pytest.fixture
def folders(monkeypatch):
    pytest.importorskip("PIL")
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("folders")


def parts(folders, root):
    """Files of each split, as class/name."""
    splits = folders.splits(folders.scan(root, 16), 0, 16)
    return [{f"{p.parent.name}/{p.name}" for p in images.paths} for images, _ in splits]


def test_a_folder_is_divided_class_by_class(folders, tmp_path):
    written(tmp_path, 40)
    train, validation, test = parts(folders, tmp_path)
    assert [len(part) for part in (train, validation, test)] == [24, 8, 8]
    assert len(train | validation | test) == 40
    assert sum(name.startswith("red") for name in validation) == 4
    (_, labels), *_ = folders.splits(folders.scan(tmp_path, 16), 0, 16)
    assert np.bincount(labels).tolist() == [12, 12]


@pytest.mark.parametrize(
    ("present", "sizes"),
    [
        (("train", "val", "test"), [40, 10, 10]),
        (("Training", "valid", "test"), [40, 10, 10]),
        (("train", "test"), [32, 8, 10]),
        (("train", "val"), [32, 10, 8]),
    ],
)
def test_folders_of_splits_are_understood(folders, tmp_path, present, sizes):
    own = {}
    for name in present:
        own[name] = written(tmp_path / name, 40 if name.lower().startswith("train") else 10)
    (tmp_path / "labels.csv").write_text("none of this\n")
    found = folders.scan(tmp_path, 16)
    assert found.classes == ["blue", "red"]
    assert set(found.skipped.values()) == {"in no class folder"}
    splits = folders.splits(found, 0, 16)
    assert [len(labels) for _, labels in splits] == sizes
    if "test" in present:
        assert sorted(splits[2][0].paths) == sorted(own["test"])


def test_a_class_may_be_called_train(folders, tmp_path):
    written(tmp_path, 10, "train", "ship")
    assert folders.scan(tmp_path, 16).classes == ["ship", "train"]


def test_what_hidden_folders_hold_is_left_out(folders, tmp_path):
    written(tmp_path, 10)
    written(tmp_path, 4, ".ipynb_checkpoints", "__MACOSX")
    written(tmp_path / "red" / "holidays", 4, "day_1", "day_2")
    found = folders.scan(tmp_path, 16)
    assert found.classes == ["blue", "red"]
    assert found.counts("red") == {"train": 9}
    assert len(found.skipped) == 4


def test_images_are_read_when_they_are_needed_and_as_they_are_seen(folders, tmp_path):
    image = np.zeros((40, 60, 3), "uint8")
    image[:20, :, 0] = 255  # the upper half is red
    turned = Image.fromarray(np.rot90(image, -1).copy())
    exif = turned.getexif()
    exif[0x0112] = 8  # how a camera says that it was held upright
    kinds = {"grey.jpg": "L", "palette.png": "P", "alpha.png": "RGBA"}
    for name, kind in kinds.items():
        Image.fromarray(image).convert(kind).save(tmp_path / name)
    turned.save(tmp_path / "camera.png", exif=exif)
    folders.read.cache_clear()
    names = ["camera.png", *kinds]
    files = folders.Files([tmp_path / name for name in names], 8)
    assert (files.shape, len(files)) == ((4, 8, 8, 3), 4)
    assert folders.read.cache_info().misses == 0
    seen = files[[0, 2, 3]]
    assert folders.read.cache_info().misses == 3
    for pixels in seen:
        assert pixels[1, 4].tolist() == pytest.approx([255, 0, 0], abs=6)
        assert pixels[6, 4].tolist() == pytest.approx([0, 0, 0], abs=6)
    assert files[[1]].std(axis=-1).max() == 0


def test_a_large_folder_is_read_by_several_threads(folders, tmp_path, monkeypatch):
    written(tmp_path, 24)
    monkeypatch.setattr(folders, "CACHED", 1)
    monkeypatch.setattr(folders, "THREADS", 2)
    train, validation, _ = folders.splits(folders.scan(tmp_path, 8), 0, 8)
    batches = folders.Batches(*train, 4, seed=0)
    assert (batches.workers, folders.Batches(*validation, 4).workers) == (2, 2)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    held = folders.Batches(*validation, 4)
    history = model.fit(batches, validation_data=held, epochs=2, verbose=0)
    assert len(history.history["val_loss"]) == 2
    assert int(model.optimizer.iterations) == 2 * 4


def test_batches_cover_every_image_in_a_new_order_each_epoch(folders):
    images, labels = np.arange(10), np.arange(10) * 2
    batches = folders.Batches(images, labels, 4, seed=0)
    epochs = []
    for _ in range(2):
        seen = [batches[i] for i in range(len(batches))]
        assert [len(x) for x, _ in seen] == [4, 4, 2]
        assert all((2 * x == y).all() for x, y in seen)
        epochs.append(np.concatenate([x for x, _ in seen]).tolist())
        batches.on_epoch_end()
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert folders.Batches(images, labels, 4)[0][0].tolist() == [0, 1, 2, 3]


@slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "a folder, not nowhere"),
        (["--data", "."], "two or more classes"),
        (["--save", "model.h5"], "ends in .keras, not model.h5"),
    ],
)
def test_what_to_do_without_the_data(arguments, message, tmp_path):
    (tmp_path / "lone").mkdir()
    arguments = [tmp_path if argument == "." else argument for argument in arguments]
    ran = start("images.py", *arguments, "--out", tmp_path)
    assert ran.returncode == 1
    assert message in ran.stderr


@slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images.py", "--data", "cifar10"], "pass --data cifar10.npz"),
        (["transfer.py", "--imagenet", "--seeds", "0"], "Leave out --imagenet"),
    ],
)
def test_what_to_do_without_a_network(arguments, message, tmp_path):
    """Where downloads are kept, Keras asks for when it is imported."""
    script, *arguments = arguments
    ran = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments, "--out", tmp_path],
        env={**os.environ, "KERAS_HOME": str(tmp_path), **NO_NETWORK, **programs.paths()},
        capture_output=True,
        text=True,
        check=False,
    )
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
    assert "**warm**" in decisions(tmp_path / "pretraining")[2]


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
    (examples / "table.py").write_text("print('prose\\n\\n| a |\\n| --- |\\n| 1 |\\n\\nnotes')")
    page_above = "<!-- table.py --markdown: begin -->\nold\n<!-- end -->\n"
    (tmp_path / "README.md").write_text(page_above)
    run("readme.py", "two.py", examples=examples)
    two = "```text\n$ python examples/two.py --n 3\ntwo   --n 3\n```\n"
    expected = page.format("one.py", "") + "kept\n" + page.format("two.py --n 3", two)
    assert (examples / "README.md").read_text() == expected
    assert (tmp_path / "README.md").read_text() == page_above
    run("readme.py", examples=examples)
    assert "```text\n$ python examples/one.py\none\n```" in (examples / "README.md").read_text()
    table = "| a |\n| --- |\n| 1 |\n\nnotes\n\n`python examples/table.py --markdown`\n"
    assert (tmp_path / "README.md").read_text() == page_above.replace("old\n", table)
