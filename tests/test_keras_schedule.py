"""Schedules of this package as the learning rate of a Keras optimizer."""

from __future__ import annotations

import subprocess
import sys

import keras
import pytest
from conftest import one_weight, steps, weight

import adaptlr
from adaptlr.schedules import Constant, Cosine, Piecewise, Warmup

SCHEDULE = Piecewise([2, 4], [1.0, 0.5, 0.25])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_optimizer_trains_with_it(jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("compiling takes minutes")
    optimizer = keras.optimizers.SGD(adaptlr.KerasSchedule(SCHEDULE, total_steps=6))
    model = one_weight(optimizer, jit_compile=jit_compile)
    model.fit(**steps(8))
    assert weight(model) == pytest.approx(-sum(SCHEDULE(min(step, 5)) for step in range(8)))


def test_it_is_saved_with_the_model_and_goes_on(tmp_path):
    schedule = adaptlr.KerasSchedule(Warmup(Cosine(1.0, 8), warmup_steps=2), total_steps=8)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    model.fit(**steps(3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer._learning_rate.schedule == schedule.schedule
    assert float(loaded.optimizer.learning_rate) == pytest.approx(schedule.schedule(3))


def test_a_saved_model_loads_in_another_process_after_the_import(tmp_path):
    optimizer = keras.optimizers.SGD(adaptlr.KerasSchedule(SCHEDULE, total_steps=6))
    model = one_weight()
    model.compile(optimizer, "mse")
    model.save(tmp_path / "model.keras")
    script = (
        "import keras; from adaptlr import KerasSchedule; "
        f"model = keras.models.load_model({str(tmp_path / 'model.keras')!r}); "
        "print(model.optimizer._learning_rate.schedule)"
    )
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == repr(SCHEDULE)


def test_it_serialises_as_keras_schedules_do():
    schedule = adaptlr.KerasSchedule(SCHEDULE, total_steps=6)
    config = keras.optimizers.schedules.serialize(schedule)
    again = keras.optimizers.schedules.deserialize(config)
    assert again.get_config() == schedule.get_config()
    assert adaptlr.KerasSchedule.from_config(schedule.get_config()).schedule == SCHEDULE


def test_what_cannot_be_saved_is_refused():
    with pytest.raises(ValueError, match=r"must be one of adaptlr\.schedules"):
        adaptlr.KerasSchedule(lambda step: 0.1, total_steps=5)
    with pytest.raises(ValueError, match=r"KerasSchedule\(total_steps=\.\.\.\)"):
        adaptlr.KerasSchedule(Constant(0.1), total_steps=0)


@pytest.mark.parametrize("schedule", [0.1, "0.1", None, "[Constant(0.1)]", Constant])
def test_what_is_no_schedule_is_refused(schedule):
    with pytest.raises(ValueError, match=r"KerasSchedule\(schedule=\.\.\.\) must be one of"):
        adaptlr.KerasSchedule(schedule, total_steps=5)


def test_a_text_with_unknown_names_is_refused():
    with pytest.raises(ValueError, match=r"n is neither .* Received: Cosine\(0\.1, n\)"):
        adaptlr.KerasSchedule("Cosine(0.1, n)", total_steps=5)


def test_callbacks_name_the_way_out():
    optimizer = keras.optimizers.SGD(adaptlr.KerasSchedule(SCHEDULE, total_steps=6))
    with pytest.raises(ValueError, match=r"adaptlr\.ScheduleLR"):
        one_weight(optimizer).fit(**steps(2), callbacks=[adaptlr.PlateauLR()])
