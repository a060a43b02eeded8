"""The command line, as a user calls it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

import adaptlr
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
        (["replay", None, "Divergence(Plato())"], "Plato is not one of Constant, .*Plateau"),
        (["replay", None, "Plateau(patience=-1)"], r"Plateau\(patience=...\) must be"),
        (["replay", None, "Plato()"], "no controller Plato .*Constant, .*Plateau"),
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


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"adaptlr {adaptlr.__version__}\n"


def test_help_has_examples_that_run_and_the_names_of_controllers(run, capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    examples = re.findall(r"^  adaptlr (.*)$", shown, re.M)
    assert len(examples) == 4
    (tmp_path / "history.csv").write_text("epoch,val_loss\n0,1.0\n1,1.0\n")
    for example in examples:
        words = [word.replace("tensorboard_logs/run", run) for word in shlex.split(example)]
        words = [word.replace("history", str(tmp_path / "history")) for word in words]
        main(words)
    assert "knows: Constant, Divergence, Feedback, Plateau, RangeFinder.\n" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nowhere"], "adaptlr: there is no such file or folder: nowhere"),
        (
            ["replay", None, "Plato()"],
            "adaptlr: there is no controller Plato (did you mean 'Plateau'?). Controllers: "
            "Constant, Divergence, Feedback, Plateau, RangeFinder. Received: Plato()",
        ),
        (
            ["show", None, "--plot", "nowhere/x.png"],
            "adaptlr: there is no such file or folder: nowhere/x.png",
        ),
    ],
)
def test_errors_are_worded_for_a_person(run, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([argument or run for argument in arguments])
    assert ended.value.code == message


def test_what_may_not_be_read_is_named_without_a_number(tmp_path):
    folder = tmp_path / "run.jsonl"
    folder.symlink_to(folder)
    with pytest.raises(SystemExit) as ended:
        main(["show", str(folder)])
    assert ended.value.code == f"adaptlr: {folder}: too many levels of symbolic links"


@pytest.mark.parametrize("kind", [JSONLinesWriter, TensorBoardWriter])
def test_several_runs_in_one_place_are_said(tmp_path, capsys, kind):
    place = tmp_path / "run.jsonl"
    for runs, rate in ((1, 0.1), (2, 0.2)):
        writer = kind(place)
        writer.write_decision(Record(0, 0, rate, "start", "begins"))
        writer.write_scalars(0, {"learning_rate": rate})
        writer.write_scalars(10, {"epoch/val_loss": rate})
        writer.close()
        main(["show", str(place)])
        shown = capsys.readouterr().out
        assert ("2 runs were written here, one after another" in shown) == (runs == 2)
        assert f"val_loss {rate}" in shown


def test_a_folder_of_runs_asks_for_one_of_them(tmp_path):
    for name in ("a", "b"):
        writer = TensorBoardWriter(tmp_path / name)
        writer.write_scalars(0, {"loss": 1.0})
        writer.close()
    with pytest.raises(SystemExit) as ended:
        main(["show", str(tmp_path)])
    assert ended.value.code == (
        f"adaptlr: the folder holds 2 runs; name one of {tmp_path}/a, {tmp_path}/b. "
        f"Received: {tmp_path}"
    )
