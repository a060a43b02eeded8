"""The example on batch size: it measures, records, and shows what it has recorded."""

from __future__ import annotations

import json
from pathlib import Path

import programs
import pytest

ROOT = Path(__file__).parents[2]


def run_example(*arguments):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    return programs.run(ROOT / "examples" / "batch_size.py", *arguments)


@pytest.mark.slow
def test_the_example_measures_and_records(tmp_path):
    record, picture = tmp_path / "record.jsonl", tmp_path / "picture.png"
    shown = run_example(
        "--epochs", 1, "--seeds", 0, "--batches", 400, "--record", record, "--picture", picture
    )  # fmt: skip
    about, *runs = [json.loads(line) for line in record.read_text().splitlines()]
    assert about["epochs"] == 1
    assert {run["phase"] for run in runs} == {"tuning", "sweep"}
    assert shown.count("| SGD | 400 |") == shown.count("| Adam | 400 |") == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_what_was_recorded(tmp_path):
    page = (ROOT / "docs" / "batch-size.md").read_text()
    copy = tmp_path / "batch-size.md"
    copy.write_text(page.replace("| SGD | 25 |", "| SGD | 26 |"))
    record = ROOT / "docs" / "data" / "batch_size.jsonl"
    run_example("--record", record, "--picture", tmp_path / "picture.png", "--docs", copy)
    assert copy.read_text() == page
