"""Runs read back from disk, also those of plain Keras."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import keras
import pytest
from models import blobs, classifier

from adaptlr.controllers import Plateau
from adaptlr.range_test import RangeTest, read_curve
from adaptlr.recording import read
from adaptlr.replay import replay
from adaptlr.writers import JSONLinesWriter, MemoryWriter, Record, TensorBoardWriter

CURVE = read_curve(RangeTest(1e-3, 1.0, num_steps=4), [2.0, 2.0, 1.0, 0.5, 3.0])


def written(path, writer):
    """What every writer writes, from two sessions of which the second begins at step 2."""
    for steps in ((0, 1, 2, 3), (2, 3, 4)):
        session = writer(path)
        session.write_run(steps[0], {"callback": "PlateauLR", "epochs": 2, "factor": 0.5})
        for step in steps:
            session.write_decision(Record(step, 1, 0.25, "rule", f"because of {steps}"))
            session.write_scalars(step, {"loss": float(step), "bad": float("nan")})
        session.close()
    return read(path)


@pytest.mark.parametrize(
    ("name", "writer"), [("run.jsonl", JSONLinesWriter), ("run", TensorBoardWriter)]
)
def test_reads_what_was_written_and_the_later_session_counts(tmp_path, name, writer):
    recorded = written(tmp_path / name, writer)
    assert recorded.run == {"callback": "PlateauLR", "epochs": 2, "factor": 0.5}
    assert recorded.series("loss") == [(s, float(s)) for s in (0, 1, 2, 2, 3, 4)]
    assert [d.step for d in recorded.decisions] == [0, 1, 2, 2, 3, 4]
    assert recorded.decisions[-1] == Record(4, 1, 0.25, "rule", "because of (2, 3, 4)")
    assert recorded.series("bad")[0][1] != recorded.series("bad")[0][1]


def test_a_second_run_in_one_file_replaces_the_first(tmp_path):
    for value in (1.0, 2.0):
        writer = JSONLinesWriter(tmp_path / "run.jsonl")
        for step in range(3):
            writer.write_scalars(step, {"loss": value})
        writer.close()
    assert read(tmp_path / "run.jsonl").series("loss") == [(0, 2.0), (1, 2.0), (2, 2.0)]


def test_the_curve_of_a_range_test_survives_json(tmp_path):
    writer = JSONLinesWriter(tmp_path / "run.jsonl")
    writer.write_decision(Record(5, 0, 0.1, "found", "x", CURVE))
    unmeasured = replace(CURVE, validation_losses=(1.0, float("nan")))
    writer.write_decision(Record(6, 0, 0.1, "found", "x", unmeasured))
    writer.close()
    first, second = read(tmp_path / "run.jsonl").decisions
    assert first.curve == CURVE
    assert second.curve.validation_losses[0] == 1.0
    assert math.isnan(second.curve.validation_losses[1])


@pytest.mark.parametrize("kind", ["jsonl", "events"])
def test_a_torn_record_is_left_out(tmp_path, kind):
    path = tmp_path / "run.jsonl" if kind == "jsonl" else tmp_path / "run"
    writer = JSONLinesWriter(path) if kind == "jsonl" else TensorBoardWriter(path)
    for step in range(3):
        writer.write_scalars(step, {"loss": 1.0})
    writer.close()
    file = path if kind == "jsonl" else next(path.iterdir())
    file.write_bytes(file.read_bytes()[:-5])
    assert len(read(path).series("loss")) == 2


def fitted(*callbacks, epochs=4):
    x, y = blobs()
    model = classifier(keras.optimizers.SGD(0.5))
    fit = {"epochs": epochs, "validation_split": 0.25, "verbose": 0}
    return model.fit(x, y, callbacks=[*callbacks], **fit).history


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_csv_log_of_keras(tmp_path, separator):
    path = tmp_path / "log.csv"
    history = fitted(
        keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=9.0),  # logs the rate
        keras.callbacks.CSVLogger(path, separator=separator),
    )
    recorded = read(path)
    assert [x for _, x in recorded.series("epoch/val_loss")] == pytest.approx(history["val_loss"])
    assert recorded.run["epochs"] == 4
    replayed = replay(recorded, Plateau(patience=2))
    assert [step for step, _ in replayed.series("learning_rate")] == [0, 1, 2, 3, 4]
    assert replayed.series("learning_rate")[0][1] == pytest.approx(0.5)


def test_a_csv_log_that_was_appended_to(tmp_path):
    path = tmp_path / "log.csv"
    fitted(keras.callbacks.CSVLogger(path), epochs=3)
    history = fitted(keras.callbacks.CSVLogger(path, append=True), epochs=2)
    losses = [x for _, x in read(path).series("epoch/loss")]
    assert losses == pytest.approx(history["loss"])


def test_event_files_of_keras(tmp_path):
    pytest.importorskip("tensorflow")  # which Keras needs to write them
    history = fitted(
        keras.callbacks.TensorBoard(tmp_path / "run", update_freq=1),  # reads the rate first
        keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=9.0),
    )
    recorded = read(tmp_path / "run")
    for name in ("loss", "val_loss", "val_accuracy", "learning_rate"):
        values = [x for _, x in recorded.series(f"epoch/{name}")]
        assert values == pytest.approx(history[name])
    assert recorded.run["learning_rate"] == pytest.approx(0.5)
    assert replay(recorded, Plateau(patience=1, min_lr=0.5)).decisions == []


def test_a_csv_log_with_epochs_as_floats(tmp_path):
    """As pandas writes a column that had a gap."""
    (tmp_path / "log.csv").write_text("epoch,loss\n0.0,2.0\n1.0,1.0\n", encoding="utf-8-sig")
    assert read(tmp_path / "log.csv").series("epoch/loss") == [(1, 2.0), (2, 1.0)]


def test_a_row_of_a_csv_log_that_was_torn_is_left_out(tmp_path):
    # Half of "12,0.5", which would be epoch 1 again.
    rows = "".join(f"{epoch},1.0\n" for epoch in range(12))
    (tmp_path / "log.csv").write_text(f"epoch,loss\n{rows}1")
    assert len(read(tmp_path / "log.csv").series("epoch/loss")) == 12


def test_a_line_that_was_torn_and_written_on_is_left_out(tmp_path):
    """As two processes leave it of which the first was killed."""
    line = '{"step": 1, "scalars": {"loss": 1.0}}'
    (tmp_path / "run.jsonl").write_text(f"{line}\n{line[:9]}{line}\n{line}\n\n")
    assert read(tmp_path / "run.jsonl").series("loss") == [(1, 1.0), (1, 1.0)]


def test_nothing_is_looked_through_while_the_steps_rise(tmp_path, monkeypatch):
    writer = JSONLinesWriter(tmp_path / "run.jsonl")
    for step in range(100):
        writer.write_scalars(step, {"loss": 1.0})
    writer.close()
    monkeypatch.setattr(MemoryWriter, "drop_after", lambda self, step: pytest.fail("a look back"))
    assert len(read(tmp_path / "run.jsonl").scalars) == 100


class TestErrors:
    @pytest.mark.parametrize(
        "line",
        [
            '"foo"',
            "5",
            "null",
            "[1]",
            '{"a": 1}',
            '{"step": 1}',
            '{"step": "1", "scalars": {}}',
            '{"step": 1, "scalars": 5}',
            '{"step": 1, "scalars": {"loss": null}}',
            '{"step": 1, "scalars": {"loss": "low"}}',
            '{"step": 1, "run": [1]}',
            '{"step": 1, "decision": {"step": 1}}',
            '{"step": 1, "decision": 5}',
        ],
    )
    def test_a_line_of_something_else(self, tmp_path, line):
        path = tmp_path / "run.jsonl"
        path.write_text(f'{{"step": 0, "scalars": {{"loss": 1.0}}}}\n{line}\n')
        with pytest.raises(ValueError, match=rf"{re.escape(line)} in line 2 of .*run\.jsonl"):
            read(path)

    @pytest.mark.parametrize("name", ["run.jsonl", "x.tfevents.1"])
    @pytest.mark.parametrize("content", [b"", bytes(range(256)) * 4, b"some\ntext\n"])
    def test_a_file_without_records(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        for path in (tmp_path / name, *([tmp_path] if "tfevents" in name else [])):
            with pytest.raises(ValueError, match=r"no records of a run: .* Received: "):
                read(path)

    @pytest.mark.parametrize("epoch", ["", "one", "1.5", "-1", "nan", "inf"])
    def test_a_csv_file_with_other_epochs(self, tmp_path, epoch):
        (tmp_path / "log.csv").write_text(f"epoch,loss\n0,1.0\n{epoch},1.0\n2,1.0\n")
        with pytest.raises(ValueError, match=rf"epoch='{epoch}' in line 3 of .*log\.csv"):
            read(tmp_path / "log.csv")

    def test_a_csv_file_of_bytes(self, tmp_path):
        (tmp_path / "log.csv").write_bytes(bytes(range(256)))
        with pytest.raises(ValueError, match=r"Received: .*log\.csv"):
            read(tmp_path / "log.csv")

    def test_a_file_of_another_kind(self, tmp_path):
        (tmp_path / "run.txt").write_text("")
        with pytest.raises(ValueError, match=r"a \.jsonl file, a \.csv file, an event file"):
            read(tmp_path / "run.txt")

    @pytest.mark.parametrize("name", ["run.jsonl", "log.csv", "missing"])
    def test_a_file_that_is_not_there(self, tmp_path, name):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / name)

    def test_a_folder_of_runs_names_them(self, tmp_path):
        writer = TensorBoardWriter(tmp_path / "one")
        writer.write_scalars(0, {"loss": 1.0})
        writer.close()
        with pytest.raises(ValueError, match=r"name one of .*one\."):
            read(tmp_path)

    def test_a_csv_file_of_something_else(self, tmp_path):
        (tmp_path / "log.csv").write_text("a,b\n1,2\n")
        with pytest.raises(ValueError, match="a column 'epoch'"):
            read(tmp_path / "log.csv")


def test_lines_are_json_without_nan(tmp_path):
    recorded = written(tmp_path / "run.jsonl", JSONLinesWriter)
    for line in (tmp_path / "run.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert recorded.decisions
