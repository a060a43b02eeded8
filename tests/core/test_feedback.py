"""The autonomous controller against made-up training: no Keras, no model."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptlr._store import rebuild
from adaptlr.controllers import Divergence, Feedback, Observation, Run
from adaptlr.controllers.feedback.hold import Cool, Hold
from adaptlr.controllers.feedback.progress import Gauge, Turn
from adaptlr.controllers.feedback.search import Back, Known, Look, Lower, Raised, _raise
from adaptlr.monitor import Monitor

CUSTOM = 0.001


@dataclass(frozen=True)
class Model:
    """A loss that falls with the logarithm of the progress, and rates that make none."""

    best: float  # the rate that makes most progress
    start: float = 2.3
    floor: float = 0.0
    stays: float = 0.0  # progress before the loss leaves its start
    progress: float = 0.0
    dead: bool = False  # NaN

    def train(self, steps, rate):
        if rate > 100.0 * self.best:
            return replace(self, dead=True)
        speed = rate / self.best / (1.0 + (rate / self.best) ** 2)
        return replace(self, progress=self.progress + steps * speed)

    @property
    def loss(self):
        gone = max(0.0, self.progress - self.stays)
        fallen = self.start / (1.0 + 0.2 * math.log1p(gone)) ** 2
        return math.nan if self.dead else max(self.floor, fallen)


def drive(controller, run, model, *, longest=10_000, spoil=None):
    """Carries out decisions as the loop does; returns the last state and (step, decision) pairs.

    Args:
        spoil: A step at which something makes NaN of the weights.
    """
    first = run.first_step
    state, decision = controller.update(controller.init(run), Observation(first, 0))
    trace, kept, aside, step = [(first, decision)], model, None, first
    while step < (run.last_step or longest):
        epoch_end = (step // run.steps_per_epoch + 1) * run.steps_per_epoch
        due = min(decision.next_step or step + max(1, run.steps_per_epoch // 10), epoch_end)
        model = model.train(due - step, decision.scale)
        if spoil is not None and step < spoil <= due:
            model = replace(model, dead=True)
        step, end = due, due == epoch_end
        loss = model.loss
        seen = Observation(
            step,
            (step - 1) // run.steps_per_epoch,
            end,
            decision.scale,
            loss,
            loss if end else None,
            loss if decision.measure and run.measurable and not end else None,
        )
        state, decision = controller.update(state, seen)
        trace.append((step, decision))
        for effect in decision.effects:
            if effect == "set aside":
                aside = model
            elif effect == "snapshot":
                kept = model
            elif effect in ("restore", "restore earlier"):
                model = kept
            elif effect == "take back":
                model = aside
        if "stop" in decision.effects:
            break
    return state, trace


def a_run(steps=1000, epochs=10, **more):
    return Run(**{
        "learning_rate": 0.02, "steps_per_epoch": steps // epochs, "epochs": epochs,
        "measurable": True, "customary": CUSTOM, **more,
    })  # fmt: skip


def rules(trace):
    return [d.rule for _, d in trace if d.rule != "hold"]


def held(trace):
    """The rate where the cool-down begins."""
    return next(d.scale for _, d in trace if d.rule == "cool")


@pytest.mark.parametrize("times", [1 / 4, 1, 4, 16, 64])
@pytest.mark.parametrize("measurable", [True, False])
def test_finds_the_rate_from_what_is_customary(times, measurable):
    """Within what it is certain of: it neither goes below where it begins, nor far up in doubt."""
    _, trace = drive(Feedback(), a_run(4000, measurable=measurable), Model(times * CUSTOM))
    assert max(2.0, times) / 4 <= held(trace) / CUSTOM <= 4 * max(2.0, times)


def raised_in_search(trace):
    """The rates up to the first comparison."""
    first = itertools.takewhile(lambda d: d.rule != "back", (d for _, d in trace))
    return [d.scale / CUSTOM for d in first if d.rule == "raise"]


@pytest.mark.parametrize(("normalised", "uncompared"), [(False, 4), (True, 16)])
def test_batch_normalisation_makes_higher_rates_usual(normalised, uncompared):
    """The first rate beyond what is usual is the first that is compared."""
    _, trace = drive(Feedback(), a_run(4000, normalised=normalised), Model(CUSTOM * 32))
    assert raised_in_search(trace)[-1] == pytest.approx(2 * uncompared)


@pytest.mark.parametrize("start", [1e-8, 1e-3, 50.0])
def test_the_optimizers_own_rate_plays_no_part(start):
    traces = [drive(Feedback(), a_run(learning_rate=r), Model(0.01))[1] for r in (start, 0.02)]
    assert traces[0] == traces[1]


@pytest.mark.parametrize("steps", [1, 5, 40, 100, 150, 1000, 40_000, 400_000])
def test_runs_of_any_length_search_hold_cool_and_end(steps):
    epochs = 1 if steps < 40 else 10
    _, trace = drive(Feedback(), a_run(steps, epochs), Model(0.01))
    assert trace[0][1].rule == "begin"
    assert all(0.0 < d.scale < 1.0 for _, d in trace)
    if steps >= 40:
        assert [rule for rule in rules(trace) if rule in ("cool", "stop")] == ["cool", "stop"]
        assert held(trace) > 2 * CUSTOM
    assert trace[-1][0] == steps


def test_steps_that_are_undone_stay_within_their_share():
    for best in (0.001, 0.01, 0.1):
        _, trace = drive(Feedback(), a_run(4000), Model(best))
        undone = 100 * sum(d.rule in ("back", "lower") for _, d in trace)
        assert 0 < undone <= 0.12 * 4000 + 2 * 100


def test_a_raise_that_is_better_goes_on_from_its_own_weights():
    controller, run = Feedback(), a_run()
    state = controller.init(run)
    known = Known(2.3, moved=True)
    phase = Raised(0.016, _gauge(100, 125), known, 0.008, 2.0)
    state = replace(state, phase=phase)
    state, back = controller.update(state, Observation(125, 1, loss=1.9, validation_loss=1.8))
    assert (back.rule, back.scale) == ("back", 0.008)
    assert back.effects == ("set aside", "restore")
    assert isinstance(state.phase, Back)
    better, up = controller.update(state, Observation(150, 1, loss=1.9, validation_loss=1.95))
    assert (up.rule, up.scale, up.effects) == ("raise", 0.032, ("take back", "snapshot"))
    assert better.phase.mark == 1.8
    worse, keep = controller.update(state, Observation(150, 1, loss=1.9, validation_loss=1.7))
    assert (keep.rule, keep.scale, keep.effects) == ("keep", 0.008, ("snapshot",))
    assert isinstance(worse.phase, Hold)


@pytest.mark.parametrize(("loss", "rate", "effects"), [
    (1.9, 0.004, ("snapshot",)),  # it fell
    (2.05, 0.004, ("restore",)),  # it rose by less
    (2.3, 0.008, ("restore",)),
])  # fmt: skip
def test_where_no_rate_brings_anything_a_lower_one_is_tried(loss, rate, effects):
    controller, known = Feedback(), Known(2.3, moved=True)
    phase = Back(0.008, _gauge(100, 125), known, 0.016, 2.2, 2.0)
    state = replace(controller.init(a_run()), phase=phase)
    state, lower = controller.update(state, Observation(125, 1, loss=2.0, validation_loss=2.1))
    assert (lower.rule, lower.scale, lower.effects) == ("lower", 0.004, ("restore",))
    assert isinstance(state.phase, Lower)
    held, keep = controller.update(state, Observation(150, 1, loss=2.0, validation_loss=loss))
    assert (keep.rule, keep.scale, keep.effects) == ("keep", rate, effects)
    assert held.phase.snapshot_loss == min(loss, 2.0)


def test_a_raise_after_which_neither_rate_brings_anything_is_undone_as_well():
    controller, known = Feedback(), Known(2.3, moved=True, earlier=2.1)
    phase = Back(0.008, _gauge(100, 125), known, 0.016, 2.2, 2.0)
    state = replace(controller.init(a_run()), phase=phase)
    state, undo = controller.update(state, Observation(125, 1, loss=2.0, validation_loss=2.1))
    assert (undo.rule, undo.scale, undo.effects) == ("undo", 0.004, ("restore earlier",))
    assert isinstance(state.phase, Hold)
    assert state.phase.snapshot_loss == 2.1


@pytest.mark.parametrize(("before", "loss", "lowers"), [
    (0.9, 1.7, True),  # more than half of 1.4 is lost
    (0.9, 1.5, False),
    (2.25, 2.3, False),  # of a gain that may be chance
    (None, 2.3, False),  # nothing is known of the weights it began with
    (0.9, math.inf, False),
])  # fmt: skip
def test_a_held_rate_that_has_spoilt_the_weights_is_lowered_from_those_it_began_with(
    before, loss, lowers
):
    controller = Feedback()
    phase = Hold(0.016, 250, start=2.3, snapshot_loss=before)
    state = replace(controller.init(a_run()), phase=phase)
    state, _ = controller.update(state, Observation(260, 2))
    assert isinstance(state.phase, Look)
    state, decision = controller.update(state, Observation(261, 2, 1.0, validation_loss=loss))
    assert (decision.rule == "lower") == lowers
    if lowers:
        assert (decision.scale, decision.effects) == (0.004, ("restore",))
        assert isinstance(state.phase, Hold)
        assert (state.phase.snapshot_loss, state.phase.looks) == (before, 1)
        assert state.phase.ceiling == 0.016
        assert decision.reason == (
            "loss 1.7 after 0.9, that of the last snapshot: 0.016 spoils the weights, and it "
            "comes back: 0.004 is held"
        )


@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize("rival", [2.2, 1.999])
@pytest.mark.parametrize(("loss", "effects"), [(2.05, ()), (2.2, ("restore",))])
def test_a_late_search_that_has_spoilt_the_weights_goes_back_before_it_holds(
    loss, effects, rival, looks
):
    """A worse state is no snapshot either: a plateau goes back to the weights from before it."""
    controller, known = Feedback(), Known(2.3, moved=True, looks=looks)
    phase = Back(0.008, _gauge(300, 325), known, 0.016, rival, 2.0)
    state = replace(controller.init(a_run()), phase=phase)
    state, decision = controller.update(state, Observation(325, 3, 2.0, validation_loss=loss))
    if decision.rule == "cool":  # at the last look little is left to gain
        assert (looks, effects) == (2, ())
        return
    spoilt = effects == ("restore",)
    assert decision.effects == effects
    assert decision.scale == (0.004 if spoilt or rival > 2.0 else 0.008)
    assert state.phase.snapshot_loss == 2.0


@pytest.mark.parametrize(("start", "measurable", "lowers"), [
    (2.3, True, True), (0.95, True, True), (2.3, False, True), (0.95, False, False),
])  # fmt: skip
def test_of_means_over_a_few_batches_less_is_believed(start, measurable, lowers):
    known, before = Known(start, moved=True), 0.9 if start > 2 else 0.85
    state = Feedback().init(a_run(measurable=measurable))
    turn = Turn(Feedback(), state, Observation(300, 3))
    assert known.spoilt(turn, before, before + 0.6 * (start - before)) == lowers


def test_a_look_that_sees_no_finite_loss_keeps_the_snapshot():
    controller = Feedback()
    phase = Look(0.016, Gauge(260, 261, 260), Known(2.3, moved=True, looks=1), 0.9)
    state = replace(controller.init(a_run()), phase=phase)
    seen = Observation(261, 2, loss=0.8, validation_loss=math.nan)
    state, keep = controller.update(state, seen)
    assert (keep.rule, keep.effects) == ("keep", ())
    assert keep.reason.startswith("no finite loss was seen")
    assert state.phase.snapshot_loss == 0.9


def test_a_look_is_free_where_too_much_is_undone_for_another_trial():
    phase = Hold(0.016, 250, start=2.3, snapshot_loss=0.9, wasted=121)
    state = replace(Feedback().init(a_run()), phase=phase)
    state = replace(state, progress=replace(state.progress, wait=2))
    for loss, rate, wait in ((0.8, 0.016, 2), (1.7, 0.004, 0)):
        look, _ = Feedback().update(state, Observation(260, 2))
        held, decision = Feedback().update(look, Observation(261, 2, 1.0, validation_loss=loss))
        assert (decision.rule, decision.scale) == ("keep" if loss < 1 else "lower", rate)
        assert held.progress.wait == wait  # epochs without improvement still count


def test_a_rate_that_has_spoilt_the_weights_is_not_tried_again():
    phase = Hold(0.008, 250, start=2.3, snapshot_loss=0.9, ceiling=0.016, looks=1)
    state = replace(Feedback().init(a_run()), phase=phase)
    state, _ = Feedback().update(state, Observation(460, 4))
    state, keep = Feedback().update(state, Observation(461, 4, 1.0, validation_loss=0.8))
    assert (keep.rule, keep.scale) == ("keep", 0.008)
    assert state.phase.ceiling == 0.016


@pytest.mark.parametrize(("name", "loss"), [("val_loss", 0.7), ("val_auc", None)])
def test_a_snapshot_of_a_best_epoch_has_its_loss_where_that_is_the_metric(name, loss):
    controller = Feedback(monitor=Monitor(name, "min"))
    phase = Hold(0.008, 250, start=2.3, snapshot_loss=0.9)
    state = replace(controller.init(a_run(40_000, 40)), phase=phase)
    state, decision = controller.update(state, Observation(1000, 0, True, monitored=0.7))
    assert decision.effects == ("keep best", "snapshot")
    assert state.phase.snapshot_loss == loss


def test_where_an_epoch_ends_with_the_best_weights_and_is_gone_back_from():
    """The best are what was validated, and what was gone back to needs no snapshot."""
    phase = Look(0.016, Gauge(999, 1000, 999), Known(2.3, moved=True, looks=1), 0.9)
    controller = Feedback(monitor=Monitor("val_auc", "max"))
    state = replace(controller.init(a_run(40_000, 40)), phase=phase)
    seen = Observation(1000, 0, True, monitored=0.7, validation_loss=1.7)
    _, decision = controller.update(state, seen)
    assert decision.effects == ("keep best", "restore")


@pytest.mark.parametrize(("rival", "rule", "rate"), [
    (1.8, "keep", 0.016),
    (2.2, "lower", 0.008),  # most of the gain of 0.7 is lost
    (None, "lower", 0.008),
])  # fmt: skip
def test_next_to_a_rate_that_spoils_the_weights_a_margin_is_left(rival, rule, rate):
    controller, known = Feedback(), Known(2.3, moved=True)
    phase = Back(0.016, _gauge(100, 125), known, 0.032, rival, 1.6)
    state = replace(controller.init(a_run()), phase=phase)
    state, kept = controller.update(state, Observation(125, 1, loss=2.0, validation_loss=1.5))
    assert (kept.rule, kept.scale, kept.effects) == (rule, rate, ("snapshot",))
    assert ("0.016 is near to what spoils the weights: 0.008 is held" in kept.reason) == (
        rule == "lower"
    )
    hardly = replace(phase, mark=2.25, rival=2.3)  # what is lost may never have been gained
    turn = Turn(controller, replace(state, phase=hardly), Observation(125, 1))
    _, kept = hardly.judge(turn, 2.2)
    assert (kept.rule, kept.scale) == ("keep", 0.016)


def test_a_rate_that_spoils_once_it_is_held_ends_where_a_lower_one_does():
    """All goes well for a while above the edge; then the loss is where it began."""

    @dataclass(frozen=True)
    class Brittle(Model):
        above: int = 0
        edge: float = 0.006

        def train(self, steps, rate):
            trained = super().train(steps, rate)
            return replace(trained, above=self.above + steps * (rate > self.edge))

        @property
        def loss(self):
            return self.start if self.above > 200 else super().loss

    _, trace = drive(Feedback(), a_run(4000, 40), Brittle(0.02))
    (_, spoils), *_ = [(s, d) for s, d in trace if "spoils" in d.reason]
    assert spoils.rule == "lower"
    assert held(trace) <= 0.006
    _, trace = drive(Feedback(), a_run(4000, 40), Model(0.02))
    assert all("spoils" not in d.reason for _, d in trace)


def _gauge(begin, until):
    return Gauge(begin, until, (begin + until) // 2)


def test_nothing_is_judged_before_the_loss_has_left_its_start():
    model = Model(0.004, stays=150.0)
    _, trace = drive(Feedback(), a_run(), model)
    waiting = [d for _, d in trace if d.rule in ("raise", "wait") and "still close" in d.reason]
    assert len(waiting) > 3
    assert max(d.scale for d in waiting) <= 4 * CUSTOM
    assert held(trace) >= 2 * CUSTOM


def test_a_loss_that_never_moves_raises_the_rate_and_is_no_fault():
    guard = Divergence(Feedback())
    _, trace = drive(guard, a_run(), Model(1.0, stays=1e9))
    assert "diverged" not in rules(trace)
    assert max(d.scale for _, d in trace) > 4 * CUSTOM


def test_a_raise_that_makes_nan_is_undone_by_itself():
    guard = Divergence(Feedback())
    _, trace = drive(guard, a_run(), Model(2e-5 * 4))  # dead at eight times the customary rate
    assert "diverged" not in rules(trace)
    assert "back" in rules(trace)
    assert all(d.scale <= 8 * CUSTOM for _, d in trace)
    assert rules(trace)[-1] == "stop"


def test_the_guard_sees_to_nan_in_a_hold():
    guard = Divergence(Feedback())
    _, trace = drive(guard, a_run(), Model(0.01), spoil=600)
    assert rules(trace).count("diverged") == 1


def test_a_plateau_cuts_twice_and_then_ends():
    _, trace = drive(Feedback(), a_run(4000, 40), Model(0.01, floor=1.2))
    after = [rule for rule in rules(trace) if rule in ("cut", "cool", "stop")]
    assert after == ["cut", "cut", "cool", "stop"]
    cuts = [d for _, d in trace if d.rule == "cut"]
    assert cuts[1].scale == pytest.approx(cuts[0].scale / 3)
    assert "has not improved" in cuts[0].reason
    assert trace[-1][0] < 4000


@dataclass(frozen=True)
class Spoilt(Model):
    """From some step on it gets worse by as much with each, whatever the rate."""

    trained: int = 0
    worse: float = 0.001

    def train(self, steps, rate):
        return replace(self, trained=self.trained + steps)

    @property
    def loss(self):
        good = min(self.trained, 1400)
        return self.start - 0.001 * good + self.worse * (self.trained - good)


def a_plateau(worse):
    """What follows in a run of 40 epochs, whose loss gets worse after 35 % of it."""
    controller = Feedback(look_at=(), search_share=0.0)
    _, trace = drive(controller, a_run(4000, 40), Spoilt(0.01, worse=worse))
    return [(step, d) for step, d in trace if d.rule in ("cut", "cool")]


def test_a_plateau_goes_back_where_the_weights_have_been_spoilt():
    (step, cut), *_ = a_plateau(0.001)
    assert step == 1700
    assert cut.rule == "cut"
    assert "restore" in cut.effects
    assert (
        "val_loss has become much worse, so that the last snapshot comes back: a lower"
        in cut.reason
    )


def test_a_plateau_goes_on_where_they_are_as_good_as_before():
    decisions = a_plateau(0.0)
    assert [d.rule for _, d in decisions] == ["cut", "cut", "cool"]
    assert all("restore" not in d.effects and "comes back" not in d.reason for _, d in decisions)


def test_a_plateau_goes_back_before_it_cools_and_only_where_it_can():
    trained = replace(Feedback().init(a_run()).progress, first=2.0, counted=1.0, wait=9, kept=1.0)
    for value in (1.3, 1.2, 1.0, 1.4):
        trained = replace(trained, monitor=Monitor().update(trained.monitor, value)[0])
    state = replace(Feedback().init(a_run()), progress=trained)
    for restorable in (True, False):
        seen = Observation(400, 4, restorable=restorable)
        _, decision = Hold(0.1, 0, cuts=2).update(Turn(Feedback(), state, seen))
        assert decision.rule == "cool"
        assert ("restore" in decision.effects) == restorable
        assert ("comes back" in decision.reason) == restorable


def test_nothing_is_much_worse_as_long_as_the_noise_is_not_known():
    progress = replace(Feedback().init(a_run()).progress, kept=1.0)
    for value, known in ((1.0, False), (1.5, False), (1.9, True), (9.0, True)):
        progress = replace(progress, monitor=Monitor().update(progress.monitor, value)[0])
        assert progress.worse(2.0) == known


@pytest.mark.parametrize("worse", [0.001, 0.0])
def test_the_last_quarter_begins_with_weights_that_are_not_spoilt(worse):
    """The loss gets worse right before it, too late for a plateau."""

    @dataclass(frozen=True)
    class Late(Spoilt):
        @property
        def loss(self):
            good = min(self.trained, 2800)
            return self.start - 0.0005 * good + self.worse * (self.trained - good)

    controller = Feedback(look_at=(), search_share=0.0)
    _, trace = drive(controller, a_run(4000, 40), Late(0.01, worse=worse))
    step, cool = next((s, d) for s, d in trace if d.rule in ("cut", "cool"))
    assert (step, cool.rule) == (3000, "cool")
    assert ("restore" in cool.effects) == bool(worse)
    assert ("val_loss has become much worse" in cool.reason) == bool(worse)


@pytest.mark.parametrize(
    ("changes", "known", "words"),
    [
        ({"search_share": 0.2}, {}, "after 20% of the run nothing is raised"),
        ({}, {"wasted": 600}, "more than 12% of the steps are undone already"),
        ({"highest": 1.0}, {}, "0.004 is beyond 1 times the customary rate"),
        ({}, {"ceiling": 0.003}, "0.004 was too high before"),
    ],
)
def test_what_is_not_tried_has_its_reason(changes, known, words):
    controller = Feedback(**changes)
    turn = Turn(controller, controller.init(a_run(4000, 40)), Observation(1000, 10))
    _, decision = _raise(turn, 0.002, 0.5, 0.6, Known(start=2.0, moved=True, **known), "found")
    assert decision.rule == "keep"
    assert decision.reason == f"found; {words}: 0.002 is held"


def test_without_weights_that_count_as_good_nothing_is_gone_back_to():
    spoilt = Spoilt(0.01, worse=0.001)
    controller = Feedback(look_at=(), search_share=0.0)
    seen = controller.init(a_run(4000, 40)).progress
    for value in (1.3, 1.2, 1.0, 1.4):
        seen = replace(seen, monitor=Monitor().update(seen.monitor, value)[0])
        assert not seen.worse(2.0)
    assert replace(seen, kept=1.0).worse(2.0)
    assert not replace(seen, kept=1.0).gone_back().worse(2.0)
    assert spoilt.train(1500, 0.1).loss > spoilt.train(1400, 0.1).loss


def test_without_looks_the_search_is_not_the_last_look():
    _, trace = drive(Feedback(look_at=()), a_run(), Model(0.01, floor=1.9))
    assert all("mean per segment" not in d.reason for _, d in trace)


def test_a_nan_in_the_trial_of_the_held_rate_does_not_begin_the_cool_down():
    settings, run = Feedback(), a_run()
    state = settings.init(run)
    turn = Turn(settings, state, Observation(500, 5))
    known = Known(2.3, moved=True, looks=2)
    phase = Back(0.004, Gauge(475, 500, 500), known, 0.008, 1.2, 1.0)
    for loss, cools in ((math.inf, False), (1.01, True), (0.5, False)):
        _, decision = phase.judge(turn, loss)
        assert (decision.rule == "cool") == cools
    late = replace(phase, known=replace(known, start=0.9))  # the loss has risen since its start
    assert late.judge(turn, 1.01)[1].rule != "cool"


@pytest.mark.parametrize("epochs", [10, 50])
def test_a_plateau_of_short_epochs_takes_more_of_them(epochs):
    state = Feedback().init(a_run(1000, epochs))
    assert (
        Hold(0.1, 0)._patience(Turn(Feedback(), state, Observation(0, 0)))
        == {10: 3, 50: 3}[epochs]
    )
    longer = Feedback().init(a_run(1000, 200))
    assert Hold(0.1, 0)._patience(Turn(Feedback(), longer, Observation(0, 0))) == 10


def test_an_unknown_horizon_looks_up_ever_less_and_ends_by_the_plateau():
    run = replace(a_run(10_000, 100), epochs=None)
    _, trace = drive(Feedback(), run, Model(0.01, floor=1.1), longest=50_000)
    assert rules(trace)[-1] == "stop"
    assert trace[-1][0] < 50_000


@pytest.mark.parametrize("accumulation", [1, 8])
def test_updates_count_and_not_steps(accumulation):
    limits = Feedback().init(a_run(400, accumulation=accumulation)).limits
    assert limits.segment == {1: 10, 8: 56}[accumulation]
    assert limits.segment % accumulation == 0


@pytest.mark.parametrize(("momentum", "segment"), [(0.0, 10), (0.9, 10), (0.95, 20)])
def test_a_segment_outlasts_what_momentum_remembers(momentum, segment):
    assert Feedback().init(a_run(200, optimizer_momentum=momentum)).limits.segment == segment


def test_an_unknown_class_gets_a_rate_from_a_ramp():
    run = a_run(customary=None)
    _, trace = drive(Feedback(), run, Model(0.01))
    assert rules(trace)[:2] == ["probe", "settle"]
    settle = next(d for _, d in trace if d.rule == "settle")
    assert settle.curve is not None
    assert settle.restores
    assert all(d.rate_is != "experiment" for _, d in trace if d.rule == "settle")


def test_the_ramp_is_an_experiment_with_a_control_point_at_each_step():
    _, trace = drive(Feedback(), a_run(customary=None), Model(0.01))
    ramp = [(step, d) for step, d in trace if d.rate_is == "experiment"]
    assert "snapshot" in ramp[0][1].effects
    assert [step for step, _ in ramp] == list(range(len(ramp)))
    assert len(ramp) <= 51
    assert [d.scale for _, d in ramp] == sorted(d.scale for _, d in ramp)


def test_a_ramp_without_a_loss_ends_at_once_at_the_own_rate():
    controller, run = Feedback(), a_run(customary=None)
    state, _ = controller.update(controller.init(run), Observation(0, 0))
    state, decision = controller.update(state, Observation(1, 0, learning_rate=1e-6))
    assert (decision.rule, decision.scale) == ("unprobed", 0.02)
    assert decision.effects == ("restore", "restart average")
    assert isinstance(state.phase, Hold)


def test_an_unknown_class_in_a_short_run_keeps_its_own_rate():
    _, trace = drive(Feedback(), a_run(100, customary=None), Model(0.01))
    assert trace[0][1].rule == "unprobed"
    assert held(trace) == 0.02


def test_no_loss_at_all_holds_what_is_customary():
    controller, run = Feedback(), a_run(measurable=False)
    state, decision = controller.update(controller.init(run), Observation(0, 0))
    step = 0
    while not isinstance(state.phase, Hold):
        step = decision.next_step
        state, decision = controller.update(state, Observation(step, 0))
    assert decision.rule == "unseen"
    assert decision.scale == 2 * CUSTOM


def test_the_warm_up_is_a_straight_line():
    _, trace = drive(Feedback(), a_run(), Model(0.01))
    for step, decision in trace:
        if step < 20:
            assert decision.scale == pytest.approx(2 * CUSTOM * (step + 1) / 21)


def test_cooling_is_a_straight_line_to_zero_over_the_last_quarter():
    _, trace = drive(Feedback(late_gain=0.0), a_run(), Model(0.01))
    begin, rate = next((s, d.scale) for s, d in trace if d.rule == "cool")
    assert 740 <= begin <= 760
    for step, decision in trace:
        assert (decision.rate_is == "passing") == (step < 20 or step >= begin)
        if begin < step < 1000:
            assert decision.scale == pytest.approx(rate * (1000 - step) / (1000 - begin))


@dataclass(frozen=True)
class Steady(Model):
    """The last step gains as much as the first."""

    @property
    def loss(self):
        return self.start - 0.002 * self.progress


@pytest.mark.parametrize("measurable", [True, False])
def test_where_little_is_left_to_gain_the_cool_down_begins_after_the_last_look(measurable):
    run = a_run(measurable=measurable)
    _, trace = drive(Feedback(), run, Model(0.01))
    begin, cool = next((s, d) for s, d in trace if d.rule == "cool")
    assert [d.rule for s, d in trace if 450 <= s < begin and d.rule != "hold"] == ["raise", "back"]
    assert begin <= 550
    assert "less than 20% of the mean per segment so far" in cool.reason
    assert f"linear decay to zero over {1000 - begin} steps" in cool.reason
    assert trace[-1][1].rule == "stop"
    _, trace = drive(Feedback(), run, Steady(0.002))
    begin, cool = next((s, d) for s, d in trace if d.rule == "cool")
    assert begin >= 740
    assert "mean per segment" not in cool.reason


@pytest.mark.parametrize("measurable", [True, False])
def test_a_loss_that_has_hardly_moved_says_nothing_of_what_is_left_to_gain(measurable):
    """It may leave its start at half of the run, as a plain network on SGD does."""

    @dataclass(frozen=True)
    class Late(Model):
        @property
        def loss(self):
            return self.start - 0.008 * math.log1p(100.0 * self.progress)

    _, trace = drive(Feedback(), a_run(measurable=measurable), Late(8 * CUSTOM))
    assert "back" in [d.rule for s, d in trace if s > 450]
    assert next(s for s, d in trace if d.rule == "cool") >= 740


def test_a_higher_rate_that_pays_is_taken_however_little_is_left_to_gain():
    """The rate that was held has stopped to gain anything; twice as much gains again."""

    @dataclass(frozen=True)
    class Stuck(Model):
        trained: int = 0

        def train(self, steps, rate):
            helps = self.trained < 300 or rate > 5 * CUSTOM
            progress = self.progress + steps * helps
            return replace(self, trained=self.trained + steps, progress=progress)

    _, trace = drive(Feedback(usual=2.0), a_run(), Stuck(0.01))
    rule = next(d.rule for s, d in trace if s >= 490 and d.rule not in ("hold", "raise", "back"))
    assert rule != "cool", [(s, d.rule, d.scale, d.reason) for s, d in trace if d.rule != "hold"]


def test_without_a_known_horizon_no_look_is_the_last():
    run = replace(a_run(), epochs=None)
    _, trace = drive(Feedback(), run, Model(0.01), longest=4000)
    said = [(step, d.rule) for step, d in trace if d.rule != "hold"]
    compared = [pair for pair in itertools.pairwise(said) if pair[0][1] == "back"]
    assert len(compared) >= 3
    for (begin, _), (end, rule) in compared:
        assert end - begin <= 110
        assert rule in ("keep", "lower")


def test_trials_do_not_replace_what_they_may_go_back_to():
    _, trace = drive(Feedback(), a_run(), Model(0.03))
    for (_, before), (_, now) in itertools.pairwise(trace):
        if before.rate_is == "trial" and now.rate_is == "trial" and now.rule == "hold":
            assert "snapshot" not in now.effects


@pytest.mark.parametrize(
    ("phase", "values", "expected"),
    [
        # 0.895 is within the noise, and trained at a lower rate than 0.9.
        (Cool(0.01, 0, 1000, 0.01), [0.5, 0.9, 0.88, 0.895, 0.7], [True, True, True, True, False]),
        (Hold(0.01, 0), [0.5, 0.9, 0.88, 0.895, 0.7], [True, True, False, False, False]),
        (Hold(0.01, 0), [0.5, 0.9, 0.9, 0.7, 0.9], [True, True, True, False, True]),
    ],
)
def test_which_weights_count_as_the_best(phase, values, expected):
    controller = Feedback(Monitor("val_accuracy", mode="max", threshold="noise", min_delta=0.5))
    state = replace(controller.init(a_run()), phase=phase)
    best = []
    for epoch, value in enumerate(values):
        seen = Observation(100 * epoch + 100, epoch, True, 0.01, 1.0, value)
        state, decision = controller.update(state, seen)
        best.append("keep best" in decision.effects)
    assert best == expected


@given(st.integers(1, 2000), st.integers(1, 30), st.floats(1e-6, 10.0), st.booleans())
def test_any_run_ends_at_its_last_step_with_a_state_that_json_holds(
    steps, epochs, best, measurable
):
    run = a_run(steps * epochs, epochs, measurable=measurable)
    state, trace = drive(Divergence(Feedback()), run, Model(best))
    assert trace[-1][0] <= run.last_step
    assert all(math.isfinite(d.scale) and d.scale > 0.0 for _, d in trace)
    saved = json.loads(json.dumps(dataclasses.asdict(state), allow_nan=False))
    assert rebuild(state, saved) == state


@pytest.mark.parametrize("epochs", [10, None])
def test_a_run_that_continues_another_decides_as_if_it_were_the_first(epochs):
    run = Run(0.02, 400, epochs, measurable=True, customary=CUSTOM)
    later = replace(run, first_step=2800, epochs=epochs and epochs + 7)
    _, first = drive(Feedback(), run, Model(0.01, floor=1.2), longest=8000)
    _, second = drive(Feedback(), later, Model(0.01, floor=1.2), longest=10_800)
    assert any(d.rule == "cool" for _, d in first)
    assert second == [
        (step + 2800, replace(d, next_step=d.next_step and d.next_step + 2800))
        for step, d in first
    ]


@dataclass(frozen=True)
class Rising:
    """A loss that rises at every rate, by a share of its start with each step."""

    share: float
    loss: float = 1.0

    def train(self, steps, rate):
        return replace(self, loss=self.loss + steps * self.share)


@pytest.mark.parametrize("measurable", [True, False])
@pytest.mark.parametrize("share", [5e-5, 5e-4, 1e-2])
def test_a_loss_that_only_rises_lowers_the_rate_a_few_times_and_ends(share, measurable):
    guardless = Feedback()
    _, trace = drive(guardless, a_run(measurable=measurable), Rising(share))
    first = rules(trace)[: rules(trace).index("keep")]  # later searches may lower it as well
    assert first.count("lower") <= 2
    assert rules(trace)[-1] == "stop"
    assert "cool" in rules(trace)
    if share * 25 > 0.02:
        assert held(trace) < CUSTOM


def with_untrained(value, run=None):
    controller, run = Feedback(), a_run() if run is None else run
    seen = Observation(0, 0, monitored=value)
    return controller, *controller.update(controller.init(run), seen)


def test_weights_of_before_are_left_if_all_epochs_are_worse():
    controller, state, decision = with_untrained(0.5)
    assert "keep untrained" in decision.effects
    assert "leave untrained" not in decision.effects  # nothing was compared yet
    for epoch, value in enumerate([0.9, 0.6, 0.55]):
        seen = Observation(100 * (epoch + 1), epoch, True, 0.002, value, value)
        state, decision = controller.update(state, seen)
        assert "leave untrained" in decision.effects
        assert "keep best" not in decision.effects
    state, decision = controller.update(state, Observation(400, 3, True, 0.002, 0.4, 0.4))
    assert "keep best" in decision.effects
    assert "leave untrained" not in decision.effects
    assert state.progress.left("val_loss") == "; best val_loss 0.4"


def test_while_cooling_none_is_left_that_is_worse_than_before():
    """Whatever the noise allows for."""
    controller, state, _ = with_untrained(0.5)
    values = [0.45, 0.95, 0.46, 0.95, 0.44, 0.95, 0.45, 0.51, 0.49]
    kept = []
    for epoch, value in enumerate(values):
        if epoch == 6:
            state = replace(state, phase=Cool(0.001, 600, 1000, 0.001))
        seen = Observation(100 * (epoch + 1), epoch, True, 0.001, value, value)
        state, decision = controller.update(state, seen)
        kept.append("keep best" in decision.effects)
    assert kept == [True, False, False, False, True, False, True, False, True]
    assert "later weights with 0.49 are as good" in state.progress.left("val_loss")


def test_without_an_epoch_that_was_measured_nothing_is_said_of_the_weights_of_before():
    controller, state, _ = with_untrained(0.5)
    state, decision = controller.update(state, Observation(100, 0, True, 0.002, 0.1))
    assert "leave untrained" not in decision.effects
    assert state.progress.left("val_loss") == ""
