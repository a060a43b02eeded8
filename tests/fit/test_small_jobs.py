"""The suite of small jobs from the command line, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import programs
import pytest

SUITE = Path(__file__).parents[2] / "examples" / "benchmark"


def run(script, *arguments):
    return programs.run(SUITE / script, *arguments)


@pytest.mark.slow
def test_lines_and_their_tables(tmp_path):
    out = tmp_path / "lines.jsonl"
    methods = ["constant", "decay", "AutoLR", "constant at"]
    arguments = ["--jobs", "wine, Ftrl", "--seeds", 0, "--out", out, "--methods", *methods]
    run("run_small.py", *arguments)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 1 + 1 + 7 + 1 + 12
    shown = run("tables_small.py", "--lines", out)
    for row in ("| constant | 1 | 1 |", "| best decay | 1 | 1 |", "| AutoLR | 1 | 1 |"):
        assert row in shown
    assert "| wine, Ftrl, 100 steps * | accuracy | 1 |" in shown
    assert "| wine, Ftrl, 100 steps | " in shown  # against constant rates
    ended = {x["factor"]: x["validation"] for x in lines[1:] if x["method"] == "decay"}
    highest = ended[max(ended)] == min(ended.values())
    (row,) = (x for x in shown.splitlines() if x.startswith("| kept out |"))
    assert row.endswith(f"| – | {int(highest)} of 1 |")
    assert sum(map(int, row.split(" | ")[1].split(" / "))) == 1


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="optax is of JAX")
def test_the_race(tmp_path):
    pytest.importorskip("optax")
    out, peers = tmp_path / "lines.jsonl", ["Prodigy", "DoG", "MoMo", "AutoLR, interpolated"]
    chosen = ["--jobs", "wine, Ftrl", "--seeds", 0, "--out", out]
    run("run_small.py", *chosen, "--methods", "constant", *peers)
    lines = [json.loads(line) for line in out.read_text().splitlines()][1:]
    assert [line["method"] for line in lines] == ["constant", *peers[:3]]  # not for Ftrl
    assert [len(line["epochs"]) for line in lines] == [10] * 4
    assert lines[1]["validation"] < lines[0]["validation"]  # Prodigy's last and the default's
    shown = run("tables_small.py", "--lines", out)
    assert "| Prodigy | 1 | 1 | – | – | – | – | 0 | 0 | – |" in shown
