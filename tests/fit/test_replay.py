"""A recorded run, shown to the controller that made it and to others."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Metrics, blobs, classifier, one_weight, steps

import adaptlr
from adaptlr.controllers import Decision, Divergence, Feedback, Plateau, RangeFinder, Run
from adaptlr.monitor import Monitor
from adaptlr.range_test import RangeTest
from adaptlr.recording import read
from adaptlr.replay import observations, parting, replay
from adaptlr.schedules import Constant, Linear, Warmup
from adaptlr.writers import JSONLinesWriter, MemoryWriter, Record


def decided(writer):
    """The decisions after the first line, as far as an event file keeps them."""
    return [
        (d.step, d.epoch, f"{d.learning_rate:.6g}", d.rule, d.reason)
        for d in writer.decisions
        if d.rule != "start"
    ]


class Recorder:
    """Writers of every kind for one run, and what each holds afterwards."""

    def __init__(self, folder):
        self.memory, self.folder = MemoryWriter(), folder
        self.arguments = {
            "writers": [self.memory, JSONLinesWriter(folder / "run.jsonl")],
            "log_dir": folder / "events",
        }

    def recordings(self):
        return [self.memory, read(self.folder / "run.jsonl"), read(self.folder / "events")]


@dataclass(frozen=True)
class Reporter:
    """Asks for every seventh step, halves the rate there, and reports all that it was told."""

    monitor: Monitor = field(default_factory=lambda: Monitor("loss"))

    def init(self, run):
        return 1.0

    def update(self, scale, observation):
        rule = "end" if observation.epoch_end else "seen"
        told = (observation.learning_rate, observation.loss, observation.monitored)
        scale *= 0.5
        return scale, Decision(scale, rule, repr(told), next_step=observation.step + 7)


class TestTheSameControllerDecidesTheSame:
    """From memory, from JSON lines and from event files."""

    def test_plateau_with_a_schedule(self, tmp_path):
        recorder = Recorder(tmp_path)
        plateau = Plateau(Monitor("val_loss", min_delta=0.05), factor=0.5, patience=2)
        controller = Divergence(plateau, limit=None, stuck=None)
        schedule = Warmup(Constant(0.5), warmup_steps=6)
        callback = adaptlr.ScheduleLR(schedule, controller, **recorder.arguments)
        losses = [3.0, 2.0, 2.0, 2.0, 1.0, float("nan"), 1.0, 1.0, 0.5, 0.5]
        one_weight().fit(**steps(4), epochs=10, callbacks=[Metrics("val_loss", losses), callback])
        for recorded in recorder.recordings():
            replayed = replay(recorded, controller, schedule)
            assert decided(replayed) == decided(recorder.memory)
            assert [d.rule for d in replayed.decisions] == ["plateau", "diverged", "plateau"]
            assert parting(recorded, replayed) is None

    def test_one_that_reports_what_it_was_told(self):
        memory, schedule = MemoryWriter(), Linear(1.0, 100)
        callback = adaptlr.ScheduleLR(schedule, Reporter(), writers=[memory])
        one_weight().fit(**steps(20), epochs=3, callbacks=[callback])
        assert [d.step for d in memory.decisions] == [0, 0, 7, 14, 20, 27, 34, 40, 47, 54, 60]
        assert decided(replay(memory, Reporter(), schedule)) == decided(memory)

    def test_auto(self, tmp_path):
        recorder = Recorder(tmp_path)
        x, y = blobs(320)
        model = classifier(keras.optimizers.Adam(0.01))
        callback = adaptlr.AutoLR(**recorder.arguments)
        model.fit(
            x, y, batch_size=8, epochs=10, validation_split=0.2, callbacks=[callback], verbose=0
        )
        for recorded in recorder.recordings():
            replayed = replay(recorded, Divergence(Feedback()))
            assert [d[:3] for d in decided(replayed)] == [d[:3] for d in decided(recorder.memory)]
            assert parting(recorded, replayed) is None

    def test_finder(self, tmp_path):
        recorder = Recorder(tmp_path)
        x, y = blobs(64)
        finder = adaptlr.LRFinder(1e-5, 1.0, num_steps=30, **recorder.arguments)
        finder.find(classifier(keras.optimizers.Adam(0.01)), x, y, batch_size=8)
        for recorded in recorder.recordings():
            replayed = replay(recorded, RangeFinder(RangeTest(1e-5, 1.0, num_steps=30)))
            assert [d[:3] for d in decided(replayed)] == [d[:3] for d in decided(recorder.memory)]
            assert replayed.decisions[-1].curve.suggestions["centre"] == pytest.approx(
                finder.suggestion
            )


class TestFitsOneAfterAnother:
    """In one log: the second goes on where the first ended, with a controller that begins anew."""

    rule = Divergence(
        Plateau(Monitor("score", "min"), factor=0.1, patience=1), limit=None, stuck=None
    )

    def recordings(self, folder):
        recorder, model = Recorder(folder), one_weight()
        feed = Metrics("score", [1.0] * 7)
        for first, last in ((0, 3), (3, 6)):
            callback = adaptlr.PlateauLR("score", 0.1, 1, mode="min", **recorder.arguments)
            model.fit(**steps(10), initial_epoch=first, epochs=last, callbacks=[feed, callback])
        return recorder.recordings()

    def test_the_same_controller_decides_the_same(self, tmp_path):
        for recorded in self.recordings(tmp_path):
            replayed = replay(recorded, self.rule)
            assert decided(replayed) == decided(recorded)
            assert [(d.step, d.epoch) for d in replayed.decisions] == [
                (20, 1),
                (30, 2),
                (50, 4),
                (60, 5),
            ]
            assert replayed.decisions[-1].learning_rate == pytest.approx(1e-4)
            assert parting(recorded, replayed) is None

    def test_another_one_goes_on_from_the_rate_that_it_had_reached(self, tmp_path):
        recorded = self.recordings(tmp_path)[0]
        replayed = replay(recorded, Plateau(Monitor("score", "min"), factor=0.1, patience=2))
        assert [(d.step, d.epoch) for d in replayed.decisions] == [(30, 2), (60, 5)]
        assert [d.learning_rate for d in replayed.decisions] == pytest.approx([0.1, 0.01])

    def test_a_rate_that_was_set_in_between_counts(self):
        recorded = MemoryWriter()
        for epoch, rate in ((0, 1.0), (2, 0.3)):
            recorded.write_decision(Record(epoch, epoch, rate, "start", "begins"))
            recorded.write_scalars(epoch, {"learning_rate": rate})
            about = {"learning_rate": rate, "steps_per_epoch": 1, "first_step": epoch}
            for step in (epoch + 1, epoch + 2):
                recorded.write_scalars(step, {"epoch/val_loss": 1.0})
                recorded.write_scalars(step, {"learning_rate": rate})
                recorded.write_run(step, about)
        assert rates(replay(recorded, Plateau(patience=9))) == [1.0, 1.0, 1.0, 0.3, 0.3, 0.3]

    def test_from_the_same_epoch_the_later_one_counts(self):
        memory, model = MemoryWriter(), one_weight()
        feed = Metrics("score", [1.0] * 3)
        for _ in range(2):
            callback = adaptlr.PlateauLR("score", 0.5, 1, mode="min", writers=[memory])
            model.fit(**steps(2), epochs=3, callbacks=[feed, callback])
        replayed = replay(memory, self.rule)
        assert [d.step for d in replayed.decisions] == [4, 6]
        assert replayed.series("learning_rate")[0] == (0, 0.25)


def test_what_is_no_controller_is_refused():
    for value in (5, "Plateau()", Plateau, Monitor()):
        with pytest.raises(
            (TypeError, ValueError), match=r"replay\(controller=\.\.\.\) must be a"
        ):
            replay(recording([1.0]), value)


def recording(losses, **about):
    """A run of one step an epoch."""
    recorded = MemoryWriter()
    recorded.write_run(0, {"learning_rate": 1.0, "steps_per_epoch": 1, **about})
    recorded.write_scalars(0, {"learning_rate": 1.0})
    for step, loss in enumerate(losses, start=1):
        recorded.write_scalars(step, {"epoch/val_loss": loss, "epoch/val_accuracy": -loss})
        recorded.write_scalars(step, {"learning_rate": 1.0, "loss": loss})
    return recorded


def rates(replayed):
    return [rate for _, rate in replayed.series("learning_rate")]


def test_other_settings_decide_otherwise():
    recorded = recording([3.0, 2.0, 2.0, 2.0, 2.0])
    eager = replay(recorded, Plateau(patience=1, factor=0.5))
    patient = replay(recorded, Plateau(patience=3, factor=0.5))
    assert rates(eager) == [1.0, 1.0, 1.0, 0.5, 0.25, 0.125]
    assert rates(patient) == [1.0, 1.0, 1.0, 1.0, 1.0, 0.5]
    assert parting(recorded, eager) == parting(eager, patient) == 3
    assert parting(recorded, recorded) is None


def test_another_metric_is_taken_from_the_epochs_with_the_direction_of_its_name():
    recorded = recording([3.0, 2.0, 1.0, 1.0], monitor="val_loss", direction="min")
    by_accuracy = replay(recorded, Plateau(Monitor("val_accuracy"), patience=1))
    assert rates(by_accuracy) == rates(replay(recorded, Plateau(patience=1)))


def test_a_controller_sees_no_more_control_points_than_it_asks_for():
    recorded = MemoryWriter()
    recorded.write_run(0, {"learning_rate": 1.0, "steps_per_epoch": 20})
    for step in range(20):
        recorded.write_scalars(step, {"loss": float(step)})
    recorded.write_scalars(20, {"epoch/loss": 1.0})
    recorded.write_scalars(20, {})
    seen = [(d.step, d.rule) for d in replay(recorded, Reporter()).decisions]
    assert seen == [(0, "seen"), (7, "seen"), (14, "seen"), (20, "end")]


def test_a_schedule_multiplies():
    replayed = replay(recording([1.0] * 4), Plateau(patience=1), Linear(1.0, 4))
    assert rates(replayed) == pytest.approx([1.0, 0.75, 0.05, 0.0025, 0.0])


def test_a_replay_ends_where_the_controller_would_have_stopped():
    stopping = Plateau(patience=1, min_lr=1.0, stop=True)
    assert replay(recording([1.0] * 9), stopping).series("learning_rate")[-1][0] == 2


def test_what_is_not_recorded_must_be_said():
    recorded = recording([1.0])
    del recorded.run["learning_rate"]
    with pytest.raises(ValueError, match=r"pass run=Run\(learning_rate=...\)"):
        replay(recorded, Plateau())
    assert rates(replay(recorded, Plateau(), run=Run(learning_rate=0.3))) == [0.3, 0.3]


@given(
    st.lists(st.floats(0.0, 10.0) | st.just(float("nan")), max_size=30),
    st.integers(0, 30),
    st.sampled_from([Plateau(patience=2), Divergence(Plateau(patience=1, cooldown=2))]),
)
def test_no_decision_sees_what_comes_later(losses, length, controller):
    recorded = recording(losses)
    seen = list(observations(recorded, controller))
    assert [o.epoch for o in seen] == [0, *range(len(losses))]
    assert [o.epoch_end for o in seen] == [False] + [True] * len(losses)
    early = rates(replay(recording(losses[:length]), controller))
    assert rates(replay(recorded, controller))[: len(early)] == early
