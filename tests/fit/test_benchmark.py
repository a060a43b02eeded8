"""The benchmark runs from start to end at tiny size, goes on where it was, and fills its page."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import programs
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "benchmark"
pytest.importorskip("sklearn")
pytest.importorskip("rich")
needs_schedule_free = pytest.mark.skipif(
    not hasattr(keras.optimizers, "ScheduleFreeAdamW"),
    reason="this release of Keras lacks an optimizer of the small jobs",
)


def run(script, *arguments):
    return programs.run(FOLDER / script, *arguments)


@pytest.mark.slow
def test_the_digits_suite(tmp_path):
    lines, page = tmp_path / "lines.jsonl", tmp_path / "page.md"
    arguments = ("digits", "--epochs", 12, "--seeds", 0, "--optimizers", "adam", "--out", lines)
    methods = ("--methods", "constant", "AutoLR", "--rates", 1e-6, 1.0)
    run("run.py", *arguments, *methods)
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(line["method"], line["rate"]) for line in written] == [
        ("constant", None),
        ("AutoLR", 1e-6),
        ("AutoLR", 1.0),
    ]
    assert len({line["test_accuracy"] for line in written[1:]}) == 1
    with lines.open("a") as file:
        file.write('{"suite": "digi')  # a run that was cut off
    before = lines.read_text()
    assert "1/3" not in run("run.py", *arguments, *methods)
    assert lines.read_text() == before
    run("run.py", *arguments, "--methods", "CosineDecay")
    assert json.loads(lines.read_text().splitlines()[-1])["method"] == "CosineDecay"
    shorter = "AutoLR, half the epochs", "AutoLR, a third of the epochs"
    named = ("AutoLR, horizon=None", "without cool-down", *shorter)
    run("run.py", *arguments, "--methods", *named, "--rates", 1e-2)
    names = "figures", "auto", "unbounded", "ablation", "shorter"
    page.write_text("".join(f"<!-- {n} -->\nold\n<!-- /{n} -->\n" for n in names))
    run("tables.py", "--lines", lines, "--page", page)
    text = page.read_text()
    assert "old" not in text
    assert "| constant | 1 | 1.00 | 1.000 |" in text
    assert "| digits cnn-bn, adam | 0 | 2 | 0.00 |" in text
    assert " of 160 (" in text
    assert "| without cool-down | 1 |" in text
    assert "| 50% | 1 |" in text
    assert "| 33% | 1 |" in text


def only_on(backend):
    return pytest.mark.skipif(keras.backend.backend() != backend, reason=f"measured on {backend}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "network", "optimizer"),
    [
        ("cifar", "resnet20", "sgd"),
        pytest.param("cifar-bfloat16", "resnet20", "adam", marks=only_on("torch")),
        pytest.param("pictures", "mobilenet", "adam", marks=only_on("tensorflow")),
        pytest.param("pictures-large", "efficientnet", "adam", marks=only_on("torch")),
    ],
)
def test_suites_of_larger_networks_go_on_in_pieces(suite, network, optimizer, tmp_path):
    lines, archive, page = tmp_path / "lines.jsonl", tmp_path / "images.npz", tmp_path / "page.md"
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6000, 32, 32, 3), "uint8")
    labels = random.integers(0, 10, (6000, 1), "uint8")
    np.savez(archive, x_train=images, y_train=labels, x_test=images, y_test=labels)
    arguments = (suite, "--data", archive, "--images", 256, "--epochs", 1, "--seeds", 0,
                 "--tasks", network, "--optimizers", optimizer, "--out", lines,
                 "--methods", "constant", "CosineDecay at", "--rates", 1e-3)  # fmt: skip
    assert "1/2: the same command" in run("run.py", *arguments, "--minutes", -1)
    run("run.py", *arguments)
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["method"] for line in written] == ["constant", "CosineDecay at"]
    page.write_text(f"<!-- {suite} -->\n<!-- /{suite} -->\n")
    run("tables.py", "--lines", lines, "--page", page)
    assert f"{network}, {optimizer} |" in page.read_text()


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="elsewhere they are the same")
def test_the_residual_nets_of_the_suites_are_the_layers_of_keras(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    tasks = runpy.run_path(str(FOLDER / "tasks.py"))
    (task,) = (x for x in tasks["TASKS"] if (x.suite, x.name) == ("cifar", "resnet20"))
    random = np.random.default_rng(0)
    x, y = random.normal(0.0, 1.0, (64, 16, 16, 3)), random.integers(0, 10, 64)
    keras.config.set_dtype_policy("float64")  # so that rounding is no matter
    try:
        own = task.model(x.shape[1:])
    finally:
        keras.config.set_dtype_policy("float32")
    plain = keras.models.clone_model(own, clone_function=of_keras)
    results = []
    for model in (own, plain):
        model.set_weights(plain.get_weights())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01), loss)
        losses = [float(model.train_on_batch(x, y)) for _ in range(3)]
        trained = [variable.numpy() for variable in model.trainable_variables]
        results.append((losses, trained, model.predict(x, verbose=0)))
    (mine, my_weights, my_logits), (its, its_weights, its_logits) = results
    np.testing.assert_allclose(mine, its, rtol=1e-4)
    for weights in zip(my_weights, its_weights, strict=True):
        np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-5)
    # PyTorch's running variance is larger by 1 in 1024 places, the fewest that a layer here has.
    np.testing.assert_allclose(my_logits, its_logits, rtol=2e-3, atol=2e-3)


def of_keras(layer):
    """The layer anew; that of Keras in place of our own batch normalisation."""
    own = type(layer).__name__ == "Normalization"
    kind = keras.layers.BatchNormalization if own else type(layer)
    return kind.from_config(layer.get_config())


@pytest.mark.slow
def test_no_cell_of_a_picture_is_in_two_splits(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    pictures = runpy.run_path(str(FOLDER / "pictures.py"))
    for number, picture in enumerate(pictures["pictures"]()):
        cells = [pictures["_cells"](picture, part, number) for part in pictures["EACH"]]
        places = [tuple(cell) for split in cells for cell in split]
        assert min(map(len, cells)) > 1
        assert len(set(places)) == len(places)
        ends = np.array(places) + pictures["CELL"]
        assert (ends <= picture.shape).all()
    images, labels = pictures["crops"]("test", range(8, 16), 3)
    assert images.shape == (24, 64, 64, 1)
    assert labels.tolist() == [*range(8)] * 3
    np.testing.assert_allclose(images.mean(axis=(1, 2)), 0.0, atol=1e-4)
    assert images.std(axis=(1, 2)).max() < 1.001


@pytest.mark.slow
def test_a_network_to_be_tuned_knows_the_other_pictures(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    pictures = runpy.run_path(str(FOLDER / "pictures.py"))
    pictures["EACH"]["train"] = 2
    keras.utils.set_random_seed(1)
    model = pictures["tuned_net"]((64, 64, 1))
    known = pictures["known_weights"]()
    same = [np.array_equal(a, b) for a, b in zip(model.get_weights(), known, strict=True)]
    assert same == [True] * (len(known) - 2) + [False] * 2
    assert pictures["tuned_net"].__globals__["known_weights"]() is known


@pytest.mark.slow
def test_an_efficient_net_sees_crops_at_their_own_scale(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    tasks = runpy.run_path(str(FOLDER / "tasks.py"))
    model = tasks["efficient_net"]((64, 64, 1))
    inner = next(x for x in model.layers if isinstance(x, keras.Model))
    scaled = next(x for x in inner.layers if isinstance(x, keras.layers.Normalization))
    begun = keras.Model(inner.input, scaled.output)
    noise = np.random.default_rng(0).normal(size=(4, 64, 64, 1)).astype("float32")
    assert 0.9 < np.std(begun.predict(255.0 * noise, verbose=0)) < 1.1
    assert model.layers[1].scale == 255.0


@needs_schedule_free
def test_a_row_of_a_network_says_what_it_is_the_best_of(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    tables = runpy.run_path(str(FOLDER / "tables.py"))

    def line(method, rate, seed, reached, score):
        epochs = [{"step": 10, "val_accuracy": reached}, {"step": 20, "val_accuracy": score}]
        key = {"suite": "cifar", "task": "resnet20", "optimizer": "adam", "made_by": "x"}
        return {**key, "method": method, "rate": rate, "seed": seed, "epochs": epochs, "steps": 20,
                "seconds": 4.0, "test_accuracy": score, "decisions": [],
                **({} if method == "constant" else {"processor_seconds": 3.0})}  # fmt: skip

    factors = tables["ORACLE_FACTORS"]
    lines = [line("constant", None, seed, 0.4, 0.5) for seed in (0, 1)]
    lines += [
        line("AutoLR", 0.01, seed, 0.5 + 0.2 * seed - 0.1, 0.45 + 0.3 * seed) for seed in (0, 1)
    ]
    lines += [line("CosineDecay at", rate, 0, 0.5, 0.6) for rate in (0.1, 0.2)]
    lines += [line("decay", f, 0, 0.1, 0.5 + f / 100) for f in factors]
    shown = tables["sections"](lines)["cifar"]
    row = "| resnet20, adam | {} | 60.00 | {} | 0.2 | 0.15 |"
    assert row.format("AutoLR | 2", "0.742 | 0.50 (1 never) | –") in shown
    assert row.format("CosineDecay at 0.1 | 1", "0.800 | 0.50 | –") in shown
    assert "| resnet20, adam | constant | 2 | 50.00 | 1.000 | 1.00 | – | 0.2 | – |" in shown
    assert "| resnet20, adam | oracle | 1 | 82.00 | 0.360 |" in shown
    assert "decay |" not in shown
    reached = tables["sections"](lines)["cifar-marks"]
    assert "| test accuracy − that of the best cosine, points | ≥ -0.2 | -15.00 |" in reached
    assert "| test accuracy − mean of the cosines, points | > 0 | -15.00 |" in reached
    assert "| error ratio | ≤ 0.75 | 0.742 |" in reached
    assert "÷ those of the constant rate | ≤ 1.03 | – |" in reached


class CutOff(keras.callbacks.Callback):
    """Ends the process, in effect, in the middle of the third epoch."""

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.iterations == 5:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "lost"),
    [("constant", None), ("AutoLR", None), ("constant", "model"), ("constant", "half a file")],
)
def test_a_run_that_is_cut_off_goes_on_or_begins_anew(method, lost, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    run = runpy.run_path(str(FOLDER / "run.py"))
    arguments = ["digits", "--images", "100", "--epochs", "4", "--optimizers", "adam", "--seeds",
                 "0", "--methods", method, "--backup", str(tmp_path / "backup")]  # fmt: skip
    saving = next(run["jobs"](run["parse"](arguments)))
    whole = replace(saving, backup=None)
    run["run_all"]([whole], None, tmp_path / "whole.jsonl", 60.0)

    def start(*given):
        begun = saving.method.start(*given)
        return replace(begun, callbacks=[*begun.callbacks, CutOff()])

    lines, cut = tmp_path / "lines.jsonl", replace(saving.method, start=start)
    with pytest.raises(KeyboardInterrupt):
        run["run_all"]([replace(saving, method=cut)], None, lines, 60.0)
    run["say_left"]([saving], lines)
    assert (
        "epoch 2 of 4, no like run yet\n1 of 1 left, 0 min and more\n" in capsys.readouterr().out
    )
    if lost == "half a file":
        (file,) = saving.backup.glob("model/*.weights.h5")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif lost:
        shutil.rmtree(saving.backup / lost)
    run["run_all"]([saving], None, lines, 60.0)
    told, expected = (json.loads(path.read_text()) for path in (lines, tmp_path / "whole.jsonl"))
    for line in (told, expected):
        assert line.pop("seconds") > 0.0
        assert line.pop("processor_seconds") > 0.0
    assert told == expected
    assert not list((tmp_path / "backup").glob("*/*"))
    run["say_left"]([saving], lines)
    assert capsys.readouterr().out.endswith("0 of 1 left, 0 min\n")


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="optax is of JAX")
def test_what_needs_no_rate_races_on_the_suites(tmp_path):
    pytest.importorskip("optax")
    lines, page = tmp_path / "lines.jsonl", tmp_path / "page.md"
    run("run.py", "digits", "--images", 100, "--epochs", 2, "--seeds", 0, "--optimizers", "adam",
        "--out", lines, "--methods", "constant", "AutoLR", "MoMo", "DoG",
        "ScheduleFreeAdamW", "ScheduleFreeAdamW, AutoLR", "--rates", 1e-2)  # fmt: skip
    run("run.py", "digits", "--images", 100, "--epochs", 2, "--seeds", 0, "--optimizers", "adam",
        "--out", lines, "--methods", "ScheduleFreeAdamW at")  # fmt: skip
    page.write_text("<!-- race -->\n<!-- /race -->\n")
    run("tables.py", "--lines", lines, "--page", page)
    text = page.read_text()
    names = ("constant", "AutoLR", "MoMo", "DoG", "ScheduleFreeAdamW", "ScheduleFreeAdamW, AutoLR",
             "ScheduleFreeAdamW, best of seven")  # fmt: skip
    assert all(f"\n| {name} | 1 | " in text for name in names)
    assert text.index("\n| AutoLR |") < text.index("\n| MoMo |")
    assert "AutoLR is behind the best of everything else by " in text
