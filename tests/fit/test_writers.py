from __future__ import annotations

import copy
import errno
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from models import collected_warnings, one_weight, steps, weight
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import adaptlr
from adaptlr.range_test import RangeTest, read_curve
from adaptlr.schedules import Constant
from adaptlr.writers import JSONLinesWriter, MemoryWriter, MultiWriter, Record, TensorBoardWriter

RECORD = Record(step=7, epoch=1, learning_rate=0.1, rule="plateau", reason="because")


def accumulated(directory):
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0})
    return events.Reload()


def texts(events):
    return [e.tensor_proto.string_val[0].decode() for e in events.Tensors("decisions")]


class TestTensorBoard:
    def test_reads_back(self, tmp_path):
        writer = TensorBoardWriter(tmp_path)
        for step in range(300):
            writer.write_scalars(step, {"learning_rate": 0.5**step, "loss": float(step)})
        writer.write_decision(RECORD)
        writer.close()
        events = accumulated(tmp_path)
        assert [(e.step, e.value) for e in events.Scalars("loss")] == [
            (step, float(step)) for step in range(300)
        ]
        assert len(events.Scalars("learning_rate")) == 300
        (text,) = texts(events)
        assert "**plateau** at step 7 (epoch 2), rate 0.1: because" in text

    def test_a_killed_process_loses_nothing_that_was_written(self, tmp_path):
        script = f"""
import os, signal
from adaptlr.writers import TensorBoardWriter
writer = TensorBoardWriter({str(tmp_path)!r})
for step in range(50):
    writer.write_scalars(step, {{"loss": 1.0}})
os.kill(os.getpid(), signal.SIGKILL)
"""
        killed = subprocess.run([sys.executable, "-c", script], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert len(accumulated(tmp_path).Scalars("loss")) == 50

    def test_a_torn_last_record_costs_that_record_only(self, tmp_path):
        writer = TensorBoardWriter(tmp_path)
        for step in range(10):
            writer.write_scalars(step, {"loss": 1.0})
        writer.close()
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-5])
        assert len(accumulated(tmp_path).Scalars("loss")) == 9

    def test_a_second_session_purges_what_the_first_left_at_later_steps(self, tmp_path):
        for first, last in ((0, 10), (5, 12)):
            writer = TensorBoardWriter(tmp_path)
            for step in range(first, last):
                writer.write_scalars(step, {"loss": float(first)})
            writer.close()
        # What was written at the step itself, at which it goes on, stays.
        found = [e.step for e in accumulated(tmp_path).Scalars("loss")]
        assert found == sorted([*range(12), 5])

    def test_nothing_is_created_before_something_is_written(self, tmp_path):
        TensorBoardWriter(tmp_path / "run").close()
        assert not (tmp_path / "run").exists()

    def test_tensorflow_is_not_imported(self, tmp_path):
        script = f"""
import sys
from dataclasses import replace
from adaptlr.writers.base import Record
from adaptlr.writers.tensorboard import TensorBoardWriter
before = "tensorflow" in sys.modules
writer = TensorBoardWriter({str(tmp_path)!r})
writer.write_scalars(0, {{"loss": 1.0}})
writer.write_decision(Record(0, 0, 0.1, "rule", "reason"))
assert before or "tensorflow" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", script], check=True)


class TestJSONLines:
    def test_one_object_a_line(self, tmp_path):
        path = tmp_path / "logs" / "run.jsonl"
        writer = JSONLinesWriter(path)
        writer.write_scalars(3, {"loss": 0.5, "bad": math.nan})
        writer.write_decision(RECORD)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert lines[0] == {"step": 3, "scalars": {"loss": 0.5, "bad": "nan"}}
        assert lines[1]["decision"]["reason"] == "because"
        writer.close()

    def test_a_new_session_appends(self, tmp_path):
        for _ in range(2):
            writer = JSONLinesWriter(tmp_path / "run.jsonl")
            writer.write_scalars(0, {})
            writer.close()
        assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 2


class Full(MemoryWriter):
    """A disk that has room for so many writes."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def write_scalars(self, step, scalars):
        if len(self.scalars) >= self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_scalars(step, scalars)


class TestTrainingGoesOn:
    def test_when_the_disk_is_full_with_one_warning(self):
        full, fine, model = Full(room=2), MemoryWriter(), one_weight()
        callback = adaptlr.ScheduleLR(Constant(1.0), writers=[full, fine])
        with collected_warnings() as messages:
            model.fit(**steps(20), epochs=2, callbacks=[callback])
        assert weight(model) == -40.0
        assert len(full.scalars) == 2
        assert len(fine.scalars) > 10
        assert len(messages) == 1
        assert "Full cannot write" in messages[0]
        assert "No space left on device" in messages[0]

    def test_when_the_directory_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        model = one_weight()
        with collected_warnings() as messages:
            model.fit(
                **steps(4),
                callbacks=[adaptlr.ScheduleLR(Constant(1.0), log_dir=tmp_path / "file" / "run")],
            )
        assert weight(model) == -4.0
        assert len(messages) == 1


def test_multi_writer_writes_to_all():
    writers = [MemoryWriter(), MemoryWriter()]
    multi = MultiWriter(writers)
    multi.write_scalars(1, {"a": 2.0})
    multi.write_decision(RECORD)
    multi.close()
    for writer in writers:
        assert writer.scalars == [(1, {"a": 2.0})]
        assert writer.decisions == [RECORD]


@pytest.mark.parametrize("times", [1, 2])
def test_a_fit_writes_rate_metric_and_decisions(tmp_path, times):
    """Also for a callback that is used again: a second session in the same directory."""
    callback = adaptlr.PlateauLR("loss", patience=1, min_delta=100.0, log_dir=tmp_path)
    with collected_warnings() as messages:
        for _ in range(times):
            model = one_weight()
            model.fit(**steps(4), epochs=3, callbacks=[callback])
    assert len(messages) == times - 1
    events = accumulated(tmp_path)
    assert {"learning_rate", "loss", "monitored", "epoch/loss"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("monitored")][-3:] == [4, 8, 12]
    assert "**start**" in texts(events)[0]
    assert "**plateau** at step 8" in texts(events)[1]


class TestTrialsThatShareADirectory:
    """As where a search of hyperparameters copies one callback for each of its trials."""

    def fit(self, callback, **arguments):
        with collected_warnings() as messages:
            one_weight().fit(**steps(4), callbacks=[callback], **arguments)
        return messages

    def test_are_told_of_with_what_to_do(self, tmp_path):
        callback = adaptlr.PlateauLR("loss", log_dir=tmp_path / "logs")
        assert self.fit(copy.deepcopy(callback), epochs=2) == []
        for _ in range(2):
            (message,) = self.fit(copy.deepcopy(callback), epochs=2)
            assert f"{tmp_path / 'logs'} holds a run that came to its end" in message
            assert "Give each run a log_dir of its own, such as log_dir=f'logs/{trial}'" in message

    def test_are_apart_in_directories_of_their_own(self, tmp_path):
        for trial in range(2):
            callback = adaptlr.PlateauLR("loss", log_dir=tmp_path / f"{trial}")
            assert self.fit(callback, epochs=2) == []
        assert accumulated(tmp_path / "0").Tags() == accumulated(tmp_path / "1").Tags()

    def test_a_run_that_goes_on_is_none(self, tmp_path):
        callback = adaptlr.PlateauLR("loss", log_dir=tmp_path)
        assert self.fit(callback, epochs=2) == []
        assert self.fit(callback, initial_epoch=2, epochs=4) == []
        assert [e.step for e in accumulated(tmp_path).Scalars("epoch/loss")] == [4, 8, 12, 16]

    def test_a_run_that_was_killed_and_begins_anew_is_none(self, tmp_path):
        writer = TensorBoardWriter(tmp_path)
        writer.write_scalars(0, {"loss": 1.0})  # and not closed
        assert self.fit(adaptlr.PlateauLR("loss", log_dir=tmp_path), epochs=2) == []
        writer.close()  # so that no file is left open

    def test_with_a_backup_the_second_is_told_of_too(self, tmp_path):
        for told in (0, 1):
            logs, backups = tmp_path / "logs", tmp_path / "backups"
            callback = adaptlr.PlateauLR("loss", log_dir=logs, backup_dir=backups)
            assert len(self.fit(callback, epochs=2)) == told


class TestWhatIsKnownOfARun:
    def described(self, callback_arguments=None, **fit):
        memory = MemoryWriter()
        callback = adaptlr.PlateauLR("loss", writers=[memory], **(callback_arguments or {}))
        one_weight().fit(callbacks=[callback], **fit)
        return memory.run

    def test_arguments_optimizer_and_horizon(self):
        run = self.described({"patience": 3, "log_dir": None}, **{**steps(40), "batch_size": 4})
        assert run.pop("factor") == pytest.approx(0.1)
        assert {
            "callback": "PlateauLR",
            "patience": 3,
            "monitor": "loss",
            "optimizer": "SGD",
            "learning_rate": 1.0,
            "steps_per_epoch": 10,
            "batch_size": 4,
        }.items() <= run.items()
        assert not {"log_dir", "writers", "verbose"} & set(run)

    def test_the_batch_size_is_left_out_where_only_a_remainder_was_seen(self):
        assert "batch_size" not in self.described(**{**steps(3), "batch_size": 4})
        assert self.described(**{**steps(30), "batch_size": 4})["batch_size"] == 4

    def test_it_can_be_written_whatever_the_arguments(self, tmp_path):
        path = tmp_path / "run.jsonl"
        callback = adaptlr.ScheduleLR(
            lambda step: 0.5, log_dir=tmp_path / "run", writers=[JSONLinesWriter(path)]
        )
        one_weight().fit(**steps(4), callbacks=[callback])
        runs = [json.loads(line) for line in path.read_text().splitlines() if '"run"' in line]
        assert runs[0]["run"]["schedule"] == "..."


def test_the_curve_of_a_finder_is_logged_as_an_image_if_it_can_be_drawn(tmp_path, monkeypatch):
    curve = read_curve(RangeTest(1e-3, 1.0, num_steps=4), [2.0, 2.0, 1.0, 0.5, 3.0])
    record = replace(RECORD, curve=curve)
    for name, without in (("with", False), ("without", True)):
        if without:
            monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if not installed
        writer = TensorBoardWriter(tmp_path / name)
        writer.write_decision(record)
        writer.close()
    assert accumulated(tmp_path / "with").Tags()["images"] == ["range_test"]
    without = accumulated(tmp_path / "without")
    assert without.Tags()["images"] == []
    assert len(texts(without)) == 1


def test_decisions_of_one_step_share_a_text(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    for record in (RECORD, replace(RECORD, rule="stop"), replace(RECORD, step=8)):
        writer.write_decision(record)
    writer.close()
    first, both, next_step = texts(accumulated(tmp_path))
    assert both.startswith(f"{first}\n\n**stop**")
    assert next_step.startswith("**plateau** at step 8")


def test_rewinding_drops_what_was_written_since(tmp_path):
    for name, writer in (
        ("lines", JSONLinesWriter(tmp_path / "run.jsonl")),
        ("events", TensorBoardWriter(tmp_path / "events")),
    ):
        writer.write_scalars(1, {"x": 1.0})
        position = json.loads(json.dumps(writer.position()))
        writer.write_scalars(2, {"x": 2.0})
        writer.rewind(position)
        writer.rewind(position)
        writer.write_scalars(2, {"x": 3.0})
        writer.close()
        if name == "lines":
            lines = (tmp_path / "run.jsonl").read_text().splitlines()
            assert [json.loads(line)["scalars"]["x"] for line in lines] == [1.0, 3.0]
        else:
            events = EventAccumulator(str(tmp_path / "events")).Reload().Scalars("x")
            assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 3.0)]


def test_a_position_of_another_file_cuts_nothing(tmp_path):
    first, second = JSONLinesWriter(tmp_path / "a"), JSONLinesWriter(tmp_path / "b")
    position = first.position()
    second.write_scalars(1, {"x": 1.0})
    second.rewind(position)
    assert (tmp_path / "b").read_text() != ""


def test_a_callback_that_has_logged_can_be_copied(tmp_path):
    callback = adaptlr.PlateauLR("loss", log_dir=tmp_path)
    one_weight().fit(**steps(2), callbacks=[callback])
    again = copy.deepcopy(callback._writers[0])
    again.write_scalars(9, {"x": 1.0})
    again.close()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["1.host.2.3", "1", "1.-5.2"])
def test_a_file_of_a_stranger_does_not_end_the_log(tmp_path, name):
    (tmp_path / f"events.out.tfevents.{name}.adaptlr").write_bytes(b"")
    writer = TensorBoardWriter(tmp_path)
    writer.write_scalars(1, {"x": 1.0})
    writer.close()
    assert len(list(tmp_path.iterdir())) == 2
