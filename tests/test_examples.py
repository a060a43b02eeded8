"""Each example runs from start to end at tiny size, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    pytest.importorskip("sklearn")
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
        if (EXAMPLES.parent / "adaptlr").exists()
        else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.slow
def test_digits(tmp_path):
    shown = run("digits.py", "--epochs", "12", "--out", str(tmp_path), "--markdown")
    methods = {
        "constant": "constant",
        "plateau": "PlateauLR",
        "cyclical": "CyclicalLR",
        "auto": "AutoLR from 1e-6",
        "auto_from_1": "AutoLR from 1.0",
    }
    for folder, title in methods.items():
        assert f"| {title} |" in shown
        events = EventAccumulator(
            str(tmp_path / folder), size_guidance={"scalars": 0, "tensors": 0}
        )
        events.Reload()
        scalars = events.Tags()["scalars"]
        assert {"learning_rate", "loss", "epoch/val_loss", "epoch/val_accuracy"} <= set(scalars)
        assert len(events.Scalars("learning_rate")) > 100
        texts = [e.tensor_proto.string_val[0].decode() for e in events.Tensors("decisions")]
        assert "**start**" in texts[0]
        if folder.startswith("auto"):
            assert "**settle**" in texts[2]
    assert f"--logdir {tmp_path}" in shown
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
