"""The command line, as a user calls it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from adaptlr.__main__ import main
from adaptlr.writers import JSONLinesWriter, Record, TensorBoardWriter


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run.jsonl"
    writer = JSONLinesWriter(path)
    writer.write_decision(Record(0, 0, 0.1, "start", "begins"))
    writer.write_scalars(0, {"learning_rate": 0.1})
    writer.write_run(1, {"callback": "PlateauLR", "learning_rate": 0.1, "steps_per_epoch": 10})
    for epoch, loss in enumerate([1.0, 0.5, 0.5, 0.5], start=1):
        writer.write_scalars(10 * epoch, {"epoch/val_loss": loss})
        writer.write_scalars(10 * epoch, {"learning_rate": 0.1, "loss": loss, "monitored": loss})
    writer.close()
    return str(path)


def test_show_prints_the_decisions_as_a_table(run, capsys):
    main(["show", run])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "callback PlateauLR, learning_rate 0.1, steps_per_epoch 10",
        "step  epoch  rate  rule   why",
        "0     1      0.1   start  begins",
        "",
        "after 4 epochs, at step 40: val_loss 0.5",
    ]


def test_show_says_that_a_log_holds_several_runs(run, capsys):
    """As where a search of hyperparameters gives all its trials one log_dir."""
    for _ in range(2):
        writer = JSONLinesWriter(run)
        writer.write_decision(Record(0, 0, 0.2, "start", "begins anew"))
        writer.write_scalars(10, {"learning_rate": 0.2})
        writer.close()
    main(["show", run])
    shown = capsys.readouterr().out
    assert "3 runs have begun in this log, and this is the last of them" in shown
    assert "0.2   start  begins anew" in shown


def test_show_says_so_of_event_files(tmp_path, capsys):
    for rate in (0.1, 0.2):
        writer = TensorBoardWriter(tmp_path)
        writer.write_decision(Record(0, 0, rate, "start", "begins"))
        writer.write_decision(Record(9, 0, rate, "plateau", "why"))
        writer.close()
    main(["show", str(tmp_path)])
    assert "2 runs have begun in this log" in capsys.readouterr().out


def test_long_reasons_are_wrapped_under_their_column(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    writer = JSONLinesWriter(tmp_path / "run.jsonl")
    writer.write_decision(Record(5, 0, 0.1, "rule", "word " * 30))
    writer.close()
    main(["show", str(tmp_path / "run.jsonl")])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[1].startswith("5     1      0.1   rule  word word")
    assert lines[2].startswith(" " * 25 + "word")
    assert max(map(len, lines)) <= 60


def test_replay_compares_two_controllers(run, capsys):
    main(["replay", run, "Plateau(patience=1, factor=0.5)", "Plateau(patience=9)"])
    shown = capsys.readouterr().out
    assert "30    3      0.05   plateau  val_loss has not improved" in shown
    assert "\nPlateau(patience=9)\nno decisions\n" in shown
    assert "Plateau(patience=1, factor=0.5) has the recorded rates until step 30\n" in shown
    assert "Plateau(patience=9) has the recorded rates everywhere\n" in shown


def test_replay_of_a_log_without_rates(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text("epoch,val_loss\n0,1.0\n1,1.0\n")
    with pytest.raises(SystemExit, match="--learning-rate"):
        main(["replay", str(path), "Plateau(patience=1)"])
    main(["replay", str(path), "Plateau(patience=1)", "--learning-rate", "0.3"])
    assert "2     2      0.03  plateau" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nothing.jsonl"], "nothing.jsonl"),
        (["replay", None, "Plateau(patience=-1)"], r"Plateau\(patience=...\) must be"),
        (["replay", None, "Plato()"], "Plato is not one of Constant, .*Plateau"),
        (["replay", None, "Plateau(patients=1)"], "patients"),
        (["replay", None, "Plateau"], r"write Plateau\(\.\.\.\)"),
        (["replay", None, "Plateau(monitor='loss')"], r"Monitor\('loss'\)"),
        (["replay", None, "Monitor('loss')"], r"must be a controller .*Plateau\(patience=3\)"),
        (["replay", None, "5"], r"must be a controller .*Received: controller=5"),
        (["replay", None, "Divergence(3)"], r"Divergence\(inner=\.\.\.\) must be a controller"),
    ],
)
def test_errors_are_one_line(run, arguments, message):
    with pytest.raises(SystemExit, match=f"^adaptlr: .*{message}"):
        main([argument or run for argument in arguments])


def test_draws(run, tmp_path):
    pytest.importorskip("matplotlib")
    main(["show", run, "--plot", str(tmp_path / "show.png")])
    main(["replay", run, "Plateau(patience=1)", "--plot", str(tmp_path / "replay.svg")])
    assert (tmp_path / "show.png").read_bytes().startswith(b"\x89PNG")
    assert "Plateau(patience=1)" in (tmp_path / "replay.svg").read_text()


def test_as_a_module(run):
    command = [sys.executable, "-m", "adaptlr", "show", run]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "callback PlateauLR" in shown
