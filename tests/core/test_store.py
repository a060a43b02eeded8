"""State files: what comes back is what was written, whatever happened to disk and process."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from dataclasses import asdict, dataclass

import ml_dtypes  # noqa: F401  (makes bfloat16 known to NumPy)
import numpy as np
import pytest
from faults import Faults
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptlr._store import DamagedError, Store, read, rebuild, write
from adaptlr.controllers import Divergence, Feedback, Plateau, Run

numbers = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
arrays = st.builds(
    lambda data, kind: np.frombuffer(data, "uint8").view(kind),
    st.binary(max_size=50).map(lambda data: data[: len(data) // 4 * 4]),
    st.sampled_from(["uint8", "int16", "uint32", "bool", "bfloat16"]),
)
contents = st.recursive(
    numbers | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text().filter(lambda key: key != "array"), inner, max_size=4)
    ),
    max_leaves=12,
)
OLD = {"step": 1, "weights": [np.float32([1.5, 2.5])]}
NEW = {"step": 2, "weights": [np.float32([3.5, 4.5])]}


def same(one, other):
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(contents)
def test_what_is_read_is_what_was_written(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "round-trip"
    write(path, content)
    assert same(read(path), content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "whole"
    write(path, NEW)
    return path.read_bytes()


@settings(max_examples=5 * settings().max_examples)
@given(st.data())
def test_a_changed_file_is_refused_or_reads_the_same(tmp_path_factory, whole, data):
    """Any flipped bits, cut, or bytes after the end; some, such as a time of day, do not count."""
    path = tmp_path_factory.getbasetemp() / "changed"
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)), label="cut")])
    for _ in range(data.draw(st.integers(0, 3), label="flips") if changed else 0):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    changed += data.draw(st.binary(max_size=3), label="after")
    path.write_bytes(changed)
    try:
        found = read(path)
    except DamagedError:
        found = None
    assert same(found, NEW) or (found is None and changed != whole)


@given(st.binary(max_size=200).filter(lambda data: not data.startswith(b"adaptlr state\n")))
def test_a_foreign_file_is_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "foreign"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="foreign is damaged, or not a state file of adaptlr"):
        read(path)


@given(
    st.binary(max_size=60)
    | st.sampled_from(
        [{}, [], {"arrays": [["uint8", [9], 9]]}, {"arrays": [1], "content": 1}]
    ).map(lambda header: json.dumps(header).encode())
)
def test_a_forged_file_is_refused(tmp_path_factory, header):
    """With right checksums; nothing in it can be executed."""
    path = tmp_path_factory.getbasetemp() / "forged"
    with path.open("wb") as file:
        np.savez(file, header=np.frombuffer(header, "uint8"))
    with pytest.raises(DamagedError, match="forged is damaged"):
        read(path)


def test_another_format_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("adaptlr._store.FORMAT", 0)
    store = Store(tmp_path)
    store.save(OLD)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"latest.adaptlr has format 0 .* reads \d+: finish"):
        Store(tmp_path).load()


def test_the_formats_of_0_1_are_refused_by_name(tmp_path):
    (tmp_path / "latest.adaptlr").write_bytes(b"adaptlr state\n" + (2).to_bytes(8, "little"))
    with pytest.raises(ValueError, match=r"has format 2 or lower .* or remove the file"):
        Store(tmp_path).load()


def test_the_state_before_takes_the_place_of_a_damaged_one(tmp_path):
    store = Store(tmp_path)
    store.save(OLD)
    store.save(NEW)
    store.latest.write_bytes(store.latest.read_bytes()[:-1])
    again = Store(tmp_path)
    with pytest.warns(UserWarning, match="latest.adaptlr is damaged.*the state before it is used"):
        assert again.load()["step"] == 1
    # What is damaged is not kept as the one before the next.
    again.save(NEW)
    again.latest.unlink()
    assert Store(tmp_path).load()["step"] == 1


def test_nothing_good_left_is_an_error_that_says_what_to_do(tmp_path):
    store = Store(tmp_path)
    store.save(OLD)
    store.latest.write_bytes(b"")
    with pytest.raises(DamagedError, match=r"latest.adaptlr is damaged.* Remove .* to begin anew"):
        Store(tmp_path).load()


def test_remove_leaves_what_is_not_ours(tmp_path):
    store = Store(tmp_path / "ours")
    store.save(OLD)
    store.remove()
    assert not (tmp_path / "ours").exists()
    assert store.load() is None
    store.save(OLD)
    (tmp_path / "ours" / "notes.txt").write_text("mine")
    store.remove()
    assert os.listdir(tmp_path / "ours") == ["notes.txt"]


class Killed(BaseException):
    """Ends a process: no handler for errors sees it."""


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Killed()], ids=repr)
@pytest.mark.parametrize("saved_before", [1, 3])
def test_a_good_state_survives_a_fault_of_any_file_operation(
    tmp_path, error, lasting, saved_before
):
    first = 0
    while True:
        first += 1
        store = Store(tmp_path / f"{first}")
        for _ in range(saved_before):
            store.save(OLD)
        with pytest.MonkeyPatch.context() as monkeypatch:
            faults = Faults(monkeypatch, first, error, lasting)
            try:
                store.save(NEW)
                failed = False
            except (OSError, Killed):
                failed = True
        assert Store(tmp_path / f"{first}").load()["step"] in ([1, 2] if failed else [2])
        if isinstance(error, OSError):  # the process lives and tries again
            store.save(NEW)
        else:
            store = Store(tmp_path / f"{first}")
            store.load()
            store.save(NEW)
        assert Store(tmp_path / f"{first}").load()["step"] == 2
        if faults.calls < first:
            break
    assert first > 10


def test_a_full_disk_leaves_no_open_archive_behind(tmp_path, monkeypatch):
    late = []
    monkeypatch.setattr("sys.unraisablehook", late.append)
    for first in range(1, 40):
        with monkeypatch.context() as patch:
            Faults(patch, first, OSError(28, "No space left on device"), lasting=True)
            with contextlib.suppress(OSError):
                Store(tmp_path / f"{first}").save(NEW)
    gc.collect()
    assert late == []


@pytest.mark.parametrize("controller", [Plateau(), Divergence(Feedback())], ids=repr)
def test_states_come_back_from_json(controller):
    state = controller.init(Run(learning_rate=0.1, steps_per_epoch=10, epochs=50))
    assert rebuild(state, json.loads(json.dumps(asdict(state)))) == state


@dataclass(frozen=True)
class Inner:
    seen: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner | None = None
    pairs: tuple[tuple[int, int], ...] = ()


def test_states_come_back_where_the_template_has_none():
    state = Outer(Inner((1.0, float("inf"))), ((1, 2), (3, 4)))
    assert rebuild(Outer(), json.loads(json.dumps(asdict(state)))) == state


def test_other_fields_are_refused():
    with pytest.raises(ValueError, match=r"Inner has the fields seen. Received: heard"):
        rebuild(Outer(), {"inner": {"heard": []}, "pairs": []})
