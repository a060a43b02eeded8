"""Every file operation of the writers fails once: one warning, training goes on, logs readable."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import keras
import pytest
from models import collected_warnings, one_weight, steps, weight
from test_writers import accumulated

import adaptlr
from adaptlr.schedules import Constant
from adaptlr.writers import JSONLinesWriter, MemoryWriter, MultiWriter, Record, TensorBoardWriter

RECORD = Record(3, 1, 0.1, "plateau", "because")
WRITERS = {"jsonl": lambda path: JSONLinesWriter(path / "log.jsonl"), "tb": TensorBoardWriter}
OPERATIONS = {"jsonl": 12, "tb": 22}
CODES = (errno.ENOSPC, errno.EROFS, errno.EIO)
FAULTS = [(kind, at) for kind, count in OPERATIONS.items() for at in range(count)]


class Disk:
    """Counts operations on files and lets one of them fail, and all that follow if it stays so."""

    def __init__(self, monkeypatch, fail_at=math.inf, code=errno.ENOSPC, *, stays=False):
        self.count, self.fail_at, self.code, self.stays = 0, fail_at, code, stays
        for name in ("mkdir", "open", "glob"):
            monkeypatch.setattr(Path, name, self.counted(getattr(Path, name)))
        monkeypatch.setattr("adaptlr.writers.tensorboard.open", self.counted(open), raising=False)
        monkeypatch.setattr("adaptlr.writers.base.os.fstat", self.counted(os.fstat))

    def step(self):
        at, self.count = self.count, self.count + 1
        if at == self.fail_at or (self.stays and at > self.fail_at):
            raise OSError(self.code, os.strerror(self.code))

    def counted(self, operation):
        def call(*arguments, **keywords):
            self.step()
            result = operation(*arguments, **keywords)
            return File(self, result) if hasattr(result, "write") else result

        return call


class File:
    def __init__(self, disk, file):
        self.disk, self.file = disk, file

    def __getattr__(self, name):
        if name in ("write", "flush"):
            return self.disk.counted(getattr(self.file, name))
        return getattr(self.file, name)

    def close(self):
        self.file.close()  # it is closed all the same
        self.disk.step()


def session(writer, fine):
    multi = MultiWriter([writer, fine])
    multi.write_scalars(0, {"loss": 1.0})
    multi.write_scalars(1, {"loss": 0.5})
    multi.write_decision(RECORD)
    multi.close()


def scalars(kind, path):
    if not path.exists():
        return 0
    if kind == "tb":
        events = accumulated(path)
        return len(events.Scalars("loss")) if events.Tags()["scalars"] else 0
    file = path / "log.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return sum("scalars" in json.loads(line) for line in lines)


@pytest.mark.parametrize("kind", WRITERS)
def test_these_are_all_operations(kind, tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    session(WRITERS[kind](tmp_path / "run"), MemoryWriter())
    assert disk.count == OPERATIONS[kind]


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize(("kind", "at"), FAULTS)
def test_a_fault_anywhere(kind, at, stays, tmp_path, monkeypatch):
    code = CODES[at % 3]
    path, fine = tmp_path / "run", MemoryWriter()
    writer = WRITERS[kind](path)
    with monkeypatch.context() as patch, collected_warnings() as messages:
        Disk(patch, at, code, stays=stays)
        session(writer, fine)
    assert len(messages) == 1
    assert os.strerror(code) in messages[0]
    assert (len(fine.scalars), len(fine.decisions)) == (2, 1)
    before = scalars(kind, path)
    session(writer, MemoryWriter())  # the next fit finds the disk mended
    assert scalars(kind, path) >= max(2, before)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_directory_that_vanishes_is_warned_of_once(kind, tmp_path):
    path, model = tmp_path / "run", one_weight()

    class Vanish(MemoryWriter):
        def write_decision(self, record):
            shutil.rmtree(path)

    callback = adaptlr.ScheduleLR(Constant(1.0), writers=[WRITERS[kind](path), Vanish()])
    with collected_warnings() as messages:
        model.fit(**steps(20), callbacks=[callback])
    assert weight(model) == -20.0
    assert len(messages) == 1
    assert "the log was deleted during training" in messages[0]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    model = one_weight()
    with collected_warnings() as messages:
        model.fit(**steps(4), callbacks=[adaptlr.ScheduleLR(Constant(1.0), log_dir=tmp_path)])
    tmp_path.chmod(0o700)
    assert weight(model) == -4.0
    assert len(messages) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_disk_that_is_full_for_real():
    model = one_weight()
    callback = adaptlr.ScheduleLR(Constant(1.0), writers=[JSONLinesWriter("/dev/full")])
    with collected_warnings() as messages:
        model.fit(**steps(4), callbacks=[callback])
    assert weight(model) == -4.0
    assert len(messages) == 1
    assert "No space left on device" in messages[0]


def test_a_writer_with_a_fault_of_its_own():
    class Broken(MemoryWriter):
        def write_scalars(self, step, scalars):
            raise KeyError("loss")

    model = one_weight()
    with collected_warnings() as messages:
        model.fit(**steps(4), callbacks=[adaptlr.ScheduleLR(Constant(1.0), writers=[Broken()])])
    assert weight(model) == -4.0
    assert len(messages) == 1


def test_a_writer_that_cannot_say_where_it_stands(tmp_path):
    class Broken(MemoryWriter):
        def position(self):
            raise ImportError("No module named 'tensorboard'")

        def rewind(self, position):
            raise KeyError(position)

    class Odd(Broken):
        def position(self):
            return 1

    for writer in (Broken(), Odd()):
        model = one_weight()
        arguments = {"backup_dir": tmp_path / type(writer).__name__, "writers": [writer]}
        for end in (2, None):
            callback = adaptlr.ScheduleLR(Constant(1.0), **arguments)
            with collected_warnings() as messages, suppress(StopIteration):
                model.fit(**steps(4), epochs=3, callbacks=[callback, Leave(end)])
        assert weight(model) == -12.0
        assert len(messages) == (type(writer) is Odd)


class Leave(keras.callbacks.Callback):
    """Ends `fit` by an exception at the begin of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise StopIteration


def test_memory_is_bounded_where_nothing_can_be_written():
    multi = MultiWriter([JSONLinesWriter("/proc/there/is/no/such/place.jsonl")])
    with collected_warnings():
        multi.write_scalars(0, {"loss": 1.0})
        tracemalloc.start()
        for step in range(2000):
            multi.write_scalars(step, {"loss": 1.0})
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert grown < 10_000


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("interrupted", [False, True])
def test_what_was_logged_is_on_the_disk_when_fit_is_left(kind, interrupted, tmp_path):
    class Stop(MemoryWriter):
        def write_scalars(self, step, scalars):
            if interrupted and step == 10:
                raise KeyboardInterrupt

    memory, path = MemoryWriter(), tmp_path / "run"
    writers = [memory, WRITERS[kind](path), Stop()]
    callback = adaptlr.ScheduleLR(Constant(1.0), writers=writers)
    try:
        one_weight().fit(**steps(20), callbacks=[callback])
    except KeyboardInterrupt:
        assert interrupted
    assert scalars(kind, path) == sum("loss" in s for _, s in memory.scalars) or kind == "jsonl"
    assert kind == "tb" or scalars(kind, path) == len(memory.scalars)
    callback.use_best_weights()  # closes the logs


def test_two_processes_in_one_directory_are_told_apart(tmp_path):
    script = f"""
import sys
from adaptlr.writers.tensorboard import TensorBoardWriter
writer = TensorBoardWriter({str(tmp_path)!r})
writer.write_scalars(0, {{"loss": 1.0}})
print("written", flush=True)
sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as other:
        assert other.stdout.readline() == "written\n"
        with collected_warnings() as messages:
            writer = TensorBoardWriter(tmp_path)
            writer.write_scalars(0, {"loss": 1.0})
            writer.close()
        other.stdin.close()
    assert len(messages) == 1
    assert f"another run (process {other.pid})" in messages[0]
    writer.write_scalars(1, {"loss": 1.0})  # it has ended: no warning
    writer.close()
