"""Schedules of this package as the learning rate of a Keras optimizer."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from models import one_weight, steps, weight

import adaptlr
from adaptlr.bridge.keras_schedule import Tabulated, tabulated
from adaptlr.schedules import Clipped, Constant, Cosine, Joined, Piecewise, Scaled, Warmup

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


def test_a_decay_arrives_at_its_end():
    schedule = adaptlr.KerasSchedule(Cosine(0.1, 10), total_steps=10)
    assert [float(schedule(step)) for step in (9, 10, 99)] == pytest.approx(
        [0.05 * (1 - np.cos(np.pi / 10)), 0.0, 0.0], rel=1e-5
    )


@pytest.mark.parametrize("inner", ["Cyclical(0.1, 0.2, 2, mode=Exponential(1.0, 1, 0.9))"])
def test_text_builds_schedules_inside_others(inner):
    schedule = adaptlr.KerasSchedule(f"Scaled({inner}, factor=Cosine(1.0, 9))", total_steps=9)
    assert repr(schedule.schedule) == schedule.get_config()["schedule"]


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
    with pytest.raises(
        ValueError, match=r"n is neither .* Received: schedule='Cosine\(0\.1, n\)'"
    ):
        adaptlr.KerasSchedule("Cosine(0.1, n)", total_steps=5)


def test_callbacks_name_the_way_out():
    optimizer = keras.optimizers.SGD(adaptlr.KerasSchedule(SCHEDULE, total_steps=6))
    with pytest.raises(ValueError, match=r"adaptlr\.ScheduleLR"):
        one_weight(optimizer).fit(**steps(2), callbacks=[adaptlr.PlateauLR()])


class TestTabulated:
    @pytest.mark.parametrize(
        "theirs",
        [
            keras.optimizers.schedules.CosineDecay(0.1, 900),
            keras.optimizers.schedules.CosineDecay(0.0, 900, warmup_target=0.1, warmup_steps=90),
            keras.optimizers.schedules.PiecewiseConstantDecay([100, 300], [0.1, 0.05, 0.01]),
            keras.optimizers.schedules.PolynomialDecay(0.1, 500, 0.001, cycle=True),
            keras.optimizers.schedules.CosineDecayRestarts(0.1, 500),
        ],
        ids=["cosine", "warm-up", "piecewise", "cycles", "restarts"],
    )
    def test_has_the_rates_of_single_calls(self, theirs):
        """Those of step 1500 are where JAX rounds a vector otherwise, and jumps a step later."""
        rates = Tabulated(theirs)
        steps = [0, 1, 50, 89, 90, 91, 100, 101, 300, 301, 499, 500, 501, 1500, 1501, 17_000]
        assert [rates(s) for s in steps] == pytest.approx(
            [float(theirs(s)) for s in steps], rel=1e-4, abs=1e-7
        )

    def test_inside_others(self):
        theirs = keras.optimizers.schedules.InverseTimeDecay(0.5, 10, 1.0)
        schedule = Joined([Scaled(Warmup(theirs, 4), Clipped(theirs, 0.2)), Constant(0.1)], [15])
        inner = tabulated(schedule)
        assert isinstance(inner.schedules[0].schedule.schedule, Tabulated)
        assert isinstance(inner.schedules[0].factor.schedule, Tabulated)
        assert repr(inner) == repr(schedule)
        assert [inner(step) for step in (0, 2, 4, 14, 15)] == pytest.approx(
            [float(schedule(step)) for step in (0, 2, 4, 14, 15)]
        )
        assert tabulated(SCHEDULE) is SCHEDULE

    def test_calls_the_schedule_a_few_times(self):
        calls = []

        class Counted(keras.optimizers.schedules.LearningRateSchedule):
            def __call__(self, step):
                calls.append(step)
                return 0.1 / (1.0 + keras.ops.cast(step, "float32"))

        rates = Tabulated(Counted())
        assert [rates(step) for step in (0, 1, 3, 9)] == pytest.approx([0.1, 0.05, 0.025, 0.01])
        assert len(calls) < 50

    @pytest.mark.parametrize(
        "rate",
        [
            lambda step: 0.5 ** int(step),
            lambda step: 0.1,
            lambda step: float(step < 3),
            lambda step: 1.0 / (1.0 + float(np.max(keras.ops.convert_to_numpy(step)))),
            lambda step: {0: 0.5, 1: 0.25, 2: 0.125, 3: 0.1}[int(step)],
        ],
        ids=["int", "constant", "bool", "maximum", "table"],
    )
    def test_what_takes_no_vector_is_called_step_by_step(self, rate):
        class Theirs(keras.optimizers.schedules.LearningRateSchedule):
            def __call__(self, step):
                return rate(step)

        rates = Tabulated(Theirs())
        found = [rates(step) for step in range(4)]
        assert found == pytest.approx([rate(step) for step in range(4)])

    def test_a_callback_trains_with_it(self):
        theirs = keras.optimizers.schedules.CosineDecay(0.0, 9, warmup_target=1.0, warmup_steps=3)
        model = one_weight()
        model.fit(**steps(8), callbacks=[adaptlr.ScheduleLR(theirs)])
        assert weight(model) == pytest.approx(-sum(float(theirs(step)) for step in range(8)))


def test_a_table_is_made_once_however_often_it_is_asked():
    """PyTorch asks at every step: a table of 100 000 steps took 700 ms to make of a list."""
    schedule = adaptlr.KerasSchedule(Cosine(1.0, 1000), total_steps=1000)
    first = schedule._table()
    assert [float(schedule(step)) for step in (0, 500, 2000)] == pytest.approx([1.0, 0.5, 0.0])
    assert isinstance(schedule._rates, np.ndarray)
    assert keras.backend.backend() != "torch" or schedule._table() is first
