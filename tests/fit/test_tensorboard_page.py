"""What a real TensorBoard server answers about recorded runs."""

from __future__ import annotations

import html
import importlib.util
import json
import math
import re
import subprocess
import sys
import time
import urllib.request
from urllib.parse import quote

import keras
import pytest
from models import blobs, classifier

import adaptlr
from adaptlr.writers.base import PHASES

# TensorBoard without TensorFlow, as where only JAX or PyTorch is installed: it starts faster, too.
SERVER = """
import sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.main import run_main
run_main()
"""


class Page:
    """A server of its own process, asked until it has an answer."""

    def __init__(self, log_dir, log):
        self.log, self.deadline = log, time.monotonic() + 60.0
        options = ["--logdir", str(log_dir), "--host", "127.0.0.1", "--port", "0"]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, *options], stdout=output, stderr=output
            )
        self.url = self.until(lambda: re.search(r"http://127.0.0.1:\d+/", log.read_text()))[0]

    def until(self, answer):
        """Asks again until there is an answer, the server is dead, or a minute is over."""
        while not (found := answer()):
            assert time.monotonic() < self.deadline, self.log.read_text()
            with pytest.raises(subprocess.TimeoutExpired):  # it must not end
                self.process.wait(timeout=0.05)
        return found

    def get(self, path, body=None):
        """What the server knows at this path, once it has read the runs."""

        def ask():
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(self.url + "data/" + path, data, headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read())

        return self.until(ask)

    def close(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two short runs, and a server that has read both."""
    folder = tmp_path_factory.mktemp("runs")
    x, y = blobs(480)
    x, y, held_out = x[:384], y[:384], (x[384:], y[384:])
    auto = adaptlr.AutoLR(held_out, log_dir=folder / "auto")
    plateau = adaptlr.PlateauLR(patience=1, min_delta=9.0, log_dir=folder / "plateau")
    for callback in (auto, plateau):
        keras.utils.set_random_seed(0)
        model = classifier(keras.optimizers.Adam(0.01))
        model.fit(
            x,
            y,
            batch_size=16,
            epochs=10,
            validation_data=held_out,
            callbacks=[callback],
            verbose=0,
        )
    finder = adaptlr.LRFinder(num_steps=30, log_dir=folder / "finder")
    finder.find(classifier(keras.optimizers.Adam(0.01)), x, y, batch_size=16, verbose=0)
    page = Page(folder, folder / "server.log")
    try:
        page.decisions, page.held = auto.decisions, auto.learning_rate
        page.until(lambda: len(page.get("plugin/hparams/experiment", {})["metricInfos"]) > 7)
        yield page
    finally:
        page.close()


def test_both_runs_have_scalars_that_line_up(page):
    tags = page.get("plugin/scalars/tags")
    assert set(tags) == {"auto", "plateau", "finder"}
    noise = {"noise/averaged", "noise/raw", "noise/gap"}
    assert set(tags["auto"]) == {
        *tags["plateau"],
        "phase",
        "validation_loss",
        "end/rate_found",
        *noise,
    }

    def steps(run):
        tag = quote("epoch/val_loss", safe="")
        return [step for _, step, _ in page.get(f"plugin/scalars/scalars?run={run}&tag={tag}")]

    assert steps("plateau") == [24 * epoch for epoch in range(1, 11)]
    assert steps("auto") == steps("plateau")[: len(steps("auto"))]
    phases = page.get("plugin/scalars/scalars?run=auto&tag=phase")
    assert {2, 3, 4, 5} <= {int(value) for _, _, value in phases} <= set(PHASES.values())


def test_every_decision_is_a_text_that_names_step_rate_and_reason(page):
    answers = page.get("plugin/text/text?run=auto&tag=decisions")
    texts = {answer["step"]: html.unescape(answer["text"]) for answer in answers}
    assert {"start", "begin", "warm", "cool"} <= {record.rule for record in page.decisions}
    for record in page.decisions:
        text = texts[record.step]
        assert f"<strong>{record.rule}</strong> at step {record.step} " in text
        assert f"rate {record.learning_rate:.6g}: {record.reason}" in text


def test_rate_and_loss_stand_side_by_side_in_the_custom_layout(page):
    (category,) = page.get("plugin/custom_scalars/layout")["category"]
    charts = category["chart"]
    tags = [tag for chart in charts for tag in chart["multiline"]["tag"]]
    assert tags[:2] == ["^learning_rate$", "^learning_rate_log10$"]
    assert tags[2:4] == ["^loss$", "^epoch/val_loss$"]
    assert charts[-1]["title"] == "phase: 1 probe, 2 warm-up, 3 trial, 4 hold, 5 cool-down, 6 done"
    for chart in charts:
        for tag in chart["multiline"]["tag"]:
            path = f"plugin/custom_scalars/scalars?run=auto&tag={quote(tag, safe='')}"
            assert page.get(path)["tag_to_events"]


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="draws with matplotlib")
def test_the_curve_of_a_range_test_is_an_image(page):
    (image,) = page.get("plugin/images/images?run=finder&tag=range_test&sample=0")
    address = f"{page.url}data/plugin/images/individualImage?{image['query']}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.read(4) == b"\x89PNG"


def test_runs_compare_by_hyperparameters_and_final_metrics(page):
    experiment = page.get("plugin/hparams/experiment", {})
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"callback", "optimizer", "batch_size", "learning_rate", "patience"} <= names
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = page.get("plugin/hparams/session_groups", body)["sessionGroups"]
    by_callback = {group["hparams"]["callback"]: group for group in groups}
    assert set(by_callback) == {"AutoLR", "PlateauLR", "LRFinder"}
    assert by_callback["PlateauLR"]["hparams"]["batch_size"] == 16
    values = by_callback["AutoLR"]["metricValues"]
    metrics = {value["name"]["tag"]: value["value"] for value in values}
    assert 0.0 < metrics["epoch/val_loss"] < 1.0
    columns = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert columns[:3] == ["end/rate_found", "end/val_accuracy", "end/val_loss"]
    (auto,) = [group for group in groups if group["hparams"]["callback"] == "AutoLR"]
    found = {value["name"]["tag"]: value["value"] for value in auto["metricValues"]}
    assert found["end/rate_found"] == pytest.approx(page.held)
    # That of the best weights, or of later ones that noise alone tells from them.
    losses = [value for _, _, value in series(page, "auto", "epoch/val_loss")]
    assert found["end/val_loss"] in [pytest.approx(loss) for loss in losses]
    assert found["end/val_loss"] < sorted(losses)[len(losses) // 2]


def series(page, run, tag):
    return page.get(f"plugin/scalars/scalars?run={run}&tag={quote(tag, safe='')}")


def test_the_rate_is_there_as_a_logarithm_too(page):
    rates = {step: rate for _, step, rate in series(page, "auto", "learning_rate")}
    logs = {step: value for _, step, value in series(page, "auto", "learning_rate_log10")}
    assert {step for step, rate in rates.items() if rate > 0.0} == set(logs)
    assert all(logs[step] == pytest.approx(math.log10(rates[step]), abs=1e-5) for step in logs)
