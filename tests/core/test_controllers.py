"""The pure core as traces: no Keras, no model."""

import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptlr.controllers import (
    Constant,
    Divergence,
    Feedback,
    Observation,
    Plateau,
    Run,
)
from adaptlr.controllers.feedback.hold import Hold
from adaptlr.controllers.feedback.trial import Trial, Warm
from adaptlr.monitor import Monitor

nan = math.nan


def epochs(controller, values, base=1.0, **run):
    """Feeds one monitored value an epoch; returns the decisions."""
    state, decisions, rate = controller.init(Run(learning_rate=base, **run)), [], base
    for epoch, value in enumerate(values):
        seen = Observation(epoch + 1, epoch, True, learning_rate=rate, monitored=value)
        state, decision = controller.update(state, seen)
        rate = base * decision.scale
        decisions.append(decision)
    return decisions


def scales(controller, values, **run):
    return [decision.scale for decision in epochs(controller, values, **run)]


def test_constant_never_moves():
    assert scales(Constant(), [1, nan, math.inf]) == [1, 1, 1]


class TestPlateau:
    def test_cuts_after_patience(self):
        assert scales(Plateau(patience=2, factor=0.5), [1, 1, 1, 1, 1]) == [1, 1, 0.5, 0.5, 0.25]

    def test_an_improvement_starts_the_wait_anew(self):
        assert scales(Plateau(patience=2, factor=0.5), [1, 1, 0.9, 0.9, 0.9]) == [1, 1, 1, 1, 0.5]

    def test_cooldown_counts_epochs_after_the_cut(self):
        cooled = Plateau(patience=1, factor=0.5, cooldown=2)
        assert scales(cooled, [1, 1, 1, 1, 1]) == [1, 0.5, 0.5, 0.25, 0.25]

    def test_stops_cutting_at_min_lr(self):
        bounded = Plateau(patience=1, factor=0.1, min_lr=0.03)
        decisions = epochs(bounded, [1, 1, 1, 1])
        assert [d.scale for d in decisions] == pytest.approx([1, 0.1, 0.03, 0.03])
        assert [d.rule for d in decisions] == ["hold", "plateau", "plateau", "hold"]

    def test_says_why(self):
        reason = epochs(Plateau(patience=2, factor=0.5), [1, 1, 1])[-1].reason
        assert reason == "val_loss has not improved on its best (1) for 2 epochs: rate × 0.5"

    def test_restores_the_best_epoch_at_a_cut(self):
        decisions = epochs(Plateau(patience=1, restore_best_weights=True), [1, 0.9, 1, 1])
        assert [("snapshot" in d.effects) for d in decisions] == [True, True, False, False]
        assert [d.restores for d in decisions] == [False, False, True, True]

    def test_warmup_epochs_are_not_counted(self):
        warm = Plateau(patience=1, factor=0.5, warmup_steps=3)
        assert scales(warm, [1, 1, 1, 1, 1]) == [1, 1, 1, 0.5, 0.25]

    def test_nan_is_no_improvement_and_never_the_best(self):
        assert scales(Plateau(patience=2, factor=0.5), [nan, 1, nan, nan]) == [1, 1, 1, 0.5]

    def test_epochs_without_a_value_and_points_inside_an_epoch_are_held(self):
        controller = Plateau(patience=1)
        state = controller.init(Run(1.0))
        for seen in (Observation(1, 0, True), Observation(1, 0, False, monitored=1.0)):
            assert controller.update(state, seen)[0] == state

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"factor": 1.0},
                r"Plateau\(factor=...\) must be a number above 0 and below 1\. Received: fac",
            ),
            ({"factor": 0.0}, "factor"),
            ({"factor": nan}, "Received: factor=nan"),
            ({"patience": -1}, "patience"),
            ({"patience": 2.5}, r"an integer of at least 0\. Received: patience=2\.5"),
            ({"cooldown": -1}, "cooldown"),
            ({"min_lr": -1e-3}, "min_lr"),
            ({"warmup_steps": -1}, "warmup_steps"),
        ],
    )
    def test_bad_arguments_are_refused_by_name(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Plateau(**arguments)


def ramp(rate_at_minimum):
    """Loss as a function of the rate: flat, falling, exploding."""

    def loss(rate):
        x = math.log10(rate / rate_at_minimum)
        return 2.3 - 1.5 * math.exp(-(x**2)) if x <= 0 else 0.8 * 10.0 ** (x * 2)

    return loss


def drive(controller, run, loss_of_rate, monitored, trial=None):
    """Runs a controller against a made-up model; returns (step, decision) pairs.

    In trials the metric falls the faster the higher the rate, and rises at rates above `trial`.
    """
    progress, begin = 0.0, run.first_step
    state = controller.init(run)
    state, decision = controller.update(state, Observation(begin, begin // run.steps_per_epoch))
    trace, due = [(begin, decision)], decision.next_step or begin + 10
    for step in range(begin + 1, begin + run.steps_per_epoch * 50):
        end = step % run.steps_per_epoch == 0
        if step < due and not end:
            continue
        epoch = (step - 1) // run.steps_per_epoch
        value = monitored(epoch) if end else None
        if trial is not None and not end and decision.measure:
            distance = math.log10(decision.scale / trial)
            progress += math.exp(distance) if distance <= 0.0 else -distance
            value = 3.0 - 0.1 * progress
        seen = Observation(step, epoch, end, decision.scale, loss_of_rate(decision.scale), value)
        state, decision = controller.update(state, seen)
        due = decision.next_step or step + 10
        trace.append((step, decision))
        if ("stop" in decision.effects) or step == run.last_step:
            break
    return state, trace


class TestFeedback:
    run = Run(learning_rate=1e-6, steps_per_epoch=100, epochs=10)

    def test_phases_of_a_run_that_keeps_improving(self):
        _, trace = drive(Feedback(), self.run, ramp(0.1), lambda epoch: 1.0 / (epoch + 1))
        moves = [(step, d.rule) for step, d in trace if d.rule != "hold"]
        assert [rule for _, rule in moves] == ["probe", "settle", "warm", "cool", "stop"]
        assert dict((rule, step) for step, rule in moves)["stop"] == 1000
        assert 740 <= dict((rule, step) for step, rule in moves)["cool"] <= 760

    def test_the_probe_is_undone_and_costs_at_most_its_share(self):
        _, trace = drive(Feedback(), self.run, ramp(0.1), lambda epoch: 1.0)
        step, settle = next((s, d) for s, d in trace if d.rule == "settle")
        assert step <= 0.05 * 1000 + 1
        assert "snapshot" in trace[0][1].effects
        assert settle.restores
        assert "restart average" in settle.effects
        assert all((d.rate_is == "experiment") for s, d in trace if s < step)
        assert not any((d.rate_is == "experiment") for s, d in trace if s >= step)

    def test_each_step_of_the_probe_is_a_control_point(self):
        _, trace = drive(Feedback(), self.run, ramp(0.1), lambda epoch: 1.0)
        probe = [(step, d) for step, d in trace if (d.rate_is == "experiment")]
        assert [step for step, _ in probe] == list(range(len(probe)))
        assert all(d.next_step == step + 1 for step, d in probe)

    def test_a_probe_that_nothing_ends_takes_all_its_steps_and_sees_what_the_last_one_led_to(self):
        _, trace = drive(Feedback(), self.run, lambda rate: 2.3, lambda epoch: 1.0)
        assert [step for step, d in trace if d.rule == "settle"] == [50 + 1]

    @pytest.mark.parametrize("phase", [Warm(0.2, 180), Trial(0.2, until=200, mark=2.0)])
    def test_where_an_epoch_ends_as_well_held_out_data_are_measured_a_step_later(self, phase):
        """The metric of an epoch's end is that of `fit`, which may have other data."""
        controller = Feedback()
        state = controller.init(Run(0.1, 100, 10, measurable=True))
        state = dataclasses.replace(state, phase=phase)
        state, decision = controller.update(state, Observation(200, 1, True, monitored=1.0))
        assert (decision.next_step, decision.measure, decision.scale) == (201, True, 0.2)
        assert state.phase.kind == "trial"
        _, decision = controller.update(state, Observation(201, 2, monitored=1.0))
        assert (decision.rule, decision.scale) == ("raise", 0.4)

    @pytest.mark.parametrize(
        ("epochs", "measurable", "divisor"), [(6, False, 1), (6, True, 2), (40, False, 2)]
    )
    def test_only_a_short_run_without_trials_takes_the_rate_of_the_probe_as_it_is(
        self, epochs, measurable, divisor
    ):
        run = Run(1e-6, 100, epochs, measurable=measurable)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0, trial=1e-9)
        settle = next(d for _, d in trace if d.rule == "settle")
        rate = settle.scale * (Feedback().init(run).limits.warm_steps + 1)  # it begins to warm up
        assert rate == pytest.approx(settle.curve.suggestions["centre"] / divisor)

    def test_every_record_is_kept_as_the_best_and_to_go_back_to(self):
        values = [1.0, 0.9, 0.95, 0.8, 0.85, 0.7, 0.75, 0.6, 0.65, 0.5]
        _, trace = drive(Feedback(), self.run, ramp(0.1), values.__getitem__)
        ends = [d for step, d in trace if step % 100 == 0 and step > 0]
        records = [True, True, False, True, False, True, False, True, False, True]
        assert [("keep best" in d.effects) for d in ends] == records
        assert [("snapshot" in d.effects) for d in ends] == records

    @pytest.mark.parametrize("best", [1e-3, 1e-2, 0.1])
    def test_the_rate_follows_the_curve(self, best):
        _, trace = drive(Feedback(), self.run, ramp(best), lambda epoch: 1.0)
        held = max(d.scale for _, d in trace if d.rate_is != "experiment")
        assert best / 20 < held < best

    @pytest.mark.parametrize("start", [1e-8, 1e-3, 1.0, 50.0])
    def test_the_start_rate_plays_no_part(self, start):
        run = dataclasses.replace(self.run, learning_rate=start)
        reference = drive(Feedback(), self.run, ramp(0.1), lambda epoch: 1.0)[1]
        assert drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0)[1] == reference

    def test_the_rate_warms_up_in_a_straight_line(self):
        _, trace = drive(Feedback(), self.run, ramp(0.1), lambda epoch: 1.0 / (epoch + 1))
        settled, held = (next(s for s, d in trace if d.rule == "settle") + n for n in (0, 20))
        rate = next(d.scale for step, d in trace if step == held)
        settle = next(d for _, d in trace if d.rule == "settle")
        assert settle.reason.endswith("the rate warms up over 20 steps")
        for step, decision in trace:
            if settled <= step < held:
                assert decision.scale == pytest.approx(rate * (step - settled + 1) / 21)

    def test_a_plateau_cools_early_and_stops(self):
        controller = Feedback(patience=2)
        _, trace = drive(controller, self.run, ramp(0.1), lambda epoch: max(0.5, 1 - epoch / 4))
        step, last = trace[-1]
        assert "stop" in last.effects
        assert step < 1000
        assert step % 100 == 0

    def test_an_unknown_horizon_ends_by_the_plateau(self):
        run = dataclasses.replace(self.run, epochs=None)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: max(0.5, 1 - epoch / 10))
        assert "stop" in trace[-1][1].effects

    def test_only_the_rates_of_the_cool_down_are_passed_through(self):
        _, trace = drive(Feedback(), self.run, ramp(0.1), lambda epoch: 1.0 / (epoch + 1))
        begin = next(step for step, d in trace if d.rule == "cool")
        assert [(d.rate_is == "passing") for _, d in trace] == [step >= begin for step, _ in trace]

    def test_cooling_is_a_straight_line_to_zero(self):
        _, trace = drive(Feedback(), self.run, ramp(0.1), lambda epoch: 1.0 / (epoch + 1))
        begin = next(step for step, d in trace if d.rule == "cool")
        rate = next(d.scale for step, d in trace if step == begin)
        for step, decision in trace:
            if begin < step < 1000:
                assert decision.scale == pytest.approx(rate * (1000 - step) / (1000 - begin))

    def test_a_run_too_short_for_a_probe_holds_its_own_rate(self):
        run = Run(learning_rate=0.02, steps_per_epoch=8, epochs=5)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0 / (epoch + 1))
        assert trace[0][1].rule == "unprobed"
        assert trace[0][1].scale == 0.02
        assert not any((decision.rate_is == "experiment") for _, decision in trace)

    @pytest.mark.parametrize(("best", "paid"), [(0.01, 0), (0.05, 2), (0.2, 4)])
    def test_raises_go_on_while_they_pay_and_end_a_margin_below_the_edge(self, best, paid):
        run = dataclasses.replace(self.run, steps_per_epoch=1000, measurable=True)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0, trial=best)
        moves = [d for _, d in trace if d.rule in ("raise", "undo")]
        *raises, undo = moves
        assert [d.rule for d in moves] == ["raise"] * (paid + 1) + ["undo"]
        assert all(("snapshot" in d.effects) for d in raises)
        for lower, higher in itertools.pairwise(raises):
            assert higher.scale == pytest.approx(2.0 * lower.scale)
        top = raises[-1].scale / 2.0  # the highest rate that paid, or the one before all raises
        assert top <= 2.5 * undo.scale <= 2.0 * top
        assert undo.restores
        assert ("restore earlier" in undo.effects) == (paid > 0)

    def test_raises_that_always_pay_end_a_margin_below_the_highest_rate_tried(self):
        run = dataclasses.replace(self.run, steps_per_epoch=1000, measurable=True)
        controller = Feedback(max_lr=1.0)
        _, trace = drive(controller, run, ramp(0.1), lambda epoch: 1.0, trial=100.0)
        moves = [d for _, d in trace if d.rule in ("raise", "keep", "undo")]
        *raises, keep = moves
        assert {d.rule for d in raises} == {"raise"}
        assert keep.rule == "keep"
        assert 0.5 < raises[-1].scale <= 1.0
        assert keep.scale == pytest.approx(raises[-1].scale / 2.5)
        assert not keep.restores

    def test_an_infinite_loss_in_a_trial_is_a_loss_of_ground(self):
        """The guard would go back by itself; a controller on its own must not raise again."""
        controller, run = Feedback(), dataclasses.replace(self.run, steps_per_epoch=1000)
        state = dataclasses.replace(
            controller.init(dataclasses.replace(run, measurable=True)),
            phase=Trial(0.2, until=100, mark=1.0, trying=True),
        )
        state, decision = controller.update(state, Observation(100, 0, monitored=math.inf))
        assert decision.rule == "undo"
        assert decision.scale == pytest.approx(0.1 / 2.5)

    def test_an_epoch_end_in_a_trial_does_not_replace_what_an_undo_goes_back_to(self):
        run = dataclasses.replace(self.run, steps_per_epoch=50, epochs=200, measurable=True)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0 / (epoch + 1), trial=0.01)
        raised = next(i for i, (_, d) in enumerate(trace) if d.rule == "raise")
        undone = next(i for i, (_, d) in enumerate(trace) if d.rule == "undo")
        between = trace[raised + 1 : undone]
        assert any(step % 50 == 0 and ("keep best" in d.effects) for step, d in between)
        assert not any(("snapshot" in d.effects) for _, d in between)

    @pytest.mark.parametrize(
        ("steps", "momentum", "least"),
        [(10_000, 0.0, 125), (10_000, 0.99, 200), (400, 0.0, 10), (400, 0.9, 20), (200, 0.0, 10)],
    )
    def test_a_trial_outlasts_what_momentum_remembers(self, steps, momentum, least):
        run = Run(0.01, steps // 10, 10, measurable=True, optimizer_momentum=momentum)
        assert Feedback().init(run).limits.trial_steps == least

    @pytest.mark.parametrize(("steps", "momentum"), [(190, 0.0), (390, 0.9), (800, 0.99)])
    def test_no_trials_in_a_run_shorter_than_twenty(self, steps, momentum):
        run = Run(0.01, steps // 10, 10, measurable=True, optimizer_momentum=momentum)
        assert Feedback().init(run).limits.trial_steps == 0

    def test_epochs_spent_in_trials_do_not_count_as_a_plateau(self):
        run = Run(0.01, steps_per_epoch=20, epochs=40, measurable=True)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0, trial=1.0)
        undone = next(step for step, d in trace if d.rule == "undo")
        cool = next(step for step, d in trace if d.rule == "cool")
        assert undone > 3 * 20  # more epochs than patience allows
        assert cool >= undone + 2 * 20

    def test_probe_and_trials_throw_at_most_five_per_cent_away(self):
        run = dataclasses.replace(self.run, steps_per_epoch=1000, measurable=True)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0, trial=0.2)
        steps = {d.rule: step for step, d in trace if d.rule != "hold"}
        raises = [step for step, d in trace if d.rule == "raise"]
        assert steps["settle"] + steps["undo"] - raises[-2] <= 0.05 * 10_000

    def test_without_a_metric_the_training_loss_ends_an_unknown_horizon(self):
        run = dataclasses.replace(self.run, epochs=None)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: None)
        assert "stop" in trace[-1][1].effects
        cool = next(d for _, d in trace if d.rule == "cool")
        assert cool.reason.startswith("the training loss has not improved")

    def test_a_metric_that_comes_late_takes_over_from_the_training_loss(self):
        values = [None, None, None, None, *(1.0 / (epoch + 1) for epoch in range(6))]
        _, trace = drive(Feedback(patience=5), self.run, ramp(0.1), values.__getitem__)
        assert next(step for step, d in trace if d.rule == "cool") >= 740

    @pytest.mark.parametrize("epochs", [10, None])
    @pytest.mark.parametrize("floor", [0.0, 0.5])
    @pytest.mark.parametrize("trial", [None, 0.05])
    def test_a_run_that_continues_another_decides_as_if_it_were_the_first(
        self, epochs, floor, trial
    ):
        run = Run(1e-6, 400, epochs, measurable=trial is not None)
        later = dataclasses.replace(run, first_step=2800, epochs=epochs and epochs + 7)
        _, first = drive(
            Feedback(), run, ramp(0.1), lambda epoch: max(floor, 1.0 - epoch / 10), trial
        )
        _, second = drive(
            Feedback(), later, ramp(0.1), lambda epoch: max(floor, 1.0 - (epoch - 7) / 10), trial
        )
        assert any(d.rule == "cool" for _, d in first)
        assert second == [
            (step + 2800, dataclasses.replace(d, next_step=d.next_step and d.next_step + 2800))
            for step, d in first
        ]

    @pytest.mark.parametrize(
        ("steps", "probe", "warm"), [(10_000, 100, 200), (1000, 50, 20), (200, 20, 4), (199, 0, 3)]
    )
    def test_probe_and_warm_up_take_their_shares(self, steps, probe, warm):
        state = Feedback().init(Run(0.01, steps, 1))
        assert (state.limits.probe_steps, state.limits.warm_steps) == (probe, warm)

    def test_they_take_a_hundred_steps_each_where_the_horizon_is_unknown(self):
        state = Feedback().init(Run(0.01, 100, measurable=True))
        assert (state.limits.probe_steps, state.limits.warm_steps, state.limits.trial_steps) == (
            100,
            100,
            100,
        )

    @pytest.mark.parametrize("measurable", [False, True])
    def test_held_out_data_are_measured_where_the_warm_up_ends_and_at_no_other_step_of_it(
        self, measurable
    ):
        run = Run(1e-6, 1000, 10, measurable=measurable)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0, trial=0.05)
        settled = next(i for i, (_, d) in enumerate(trace) if d.rule == "settle")
        after = [d for _, d in trace[settled:]]
        warm = list(itertools.takewhile(lambda d: d.rule in ("settle", "hold"), after))
        assert [d.measure for d in warm] == [False] * (len(warm) - 1) + [measurable]

    def test_a_trial_is_measured_once_at_its_end(self):
        run = Run(1e-6, 1000, 10, measurable=True)
        _, trace = drive(Feedback(), run, ramp(0.1), lambda epoch: 1.0, trial=0.05)
        raises = [(step, d) for step, d in trace if d.rule == "raise"]
        assert raises
        for step, decision in raises:
            assert decision.measure
            assert decision.next_step == step + 125

    def hold(self, values, **arguments):
        """Feeds one metric an epoch of ten steps to a controller that holds 0.1."""
        controller = Feedback(Monitor(), **arguments)
        state = controller.init(Run(0.1, steps_per_epoch=10))
        state, decisions = dataclasses.replace(state, phase=Hold(0.1)), []
        for epoch, value in enumerate(values):
            seen = Observation(10 * epoch + 10, epoch, True, 0.1, monitored=value)
            state, decision = controller.update(state, seen)
            decisions.append(decision)
        return state, [d.rule for d in decisions].index("cool"), decisions

    @pytest.mark.parametrize(
        ("values", "cooled"),
        [
            ([1.0, 0.5, 0.5, 0.5, 0.5], 4),
            ([1.0, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4], 7),  # an improvement: all anew
            ([1.0, 0.5, 0.499, 0.498, 0.497], 4),  # of less than a hundredth of all progress
            ([1.0, 0.5, 0.498, 0.496, 0.494, 0.494, 0.494, 0.494], 7),  # of more, added up
            ([1.0, 1.1, 1.2, 1.3], 3),
            ([1.0, nan, nan, nan], 3),
        ],
    )
    def test_cools_when_so_many_epochs_brought_nothing(self, values, cooled):
        state, at, decisions = self.hold(values)
        step = 10 * cooled + 10
        # A quarter of the steps so far, in whole epochs.
        assert (at, state.phase.begin, state.phase.end) == (
            cooled, step, step + 10 * math.ceil(step / 40)
        )  # fmt: skip
        assert decisions[at].scale == 0.1

    def test_patience_is_a_number_of_epochs(self):
        assert [self.hold([1.0] * 9, patience=n)[1] for n in (1, 2, 5)] == [1, 2, 5]

    def test_without_a_training_loss_the_probe_ends_at_once_at_the_own_rate(self):
        run = Run(0.02, steps_per_epoch=100, epochs=10, measurable=True)
        controller = Feedback()
        state, probe = controller.update(controller.init(run), Observation(0, 0))
        assert probe.rate_is == "experiment"
        state, decision = controller.update(state, Observation(1, 0, learning_rate=1e-6))
        assert (decision.rule, decision.scale) == ("unprobed", 0.02)
        assert decision.restores
        assert "restart average" in decision.effects
        assert decision.rate_is != "experiment"
        assert state.phase.kind == "hold"

    @pytest.mark.parametrize(("trying", "held"), [(False, 0.2), (True, 0.1)])
    def test_a_trial_without_a_measurement_ends_all_trials(self, trying, held):
        run = Run(0.02, steps_per_epoch=1000, epochs=10, measurable=True)
        controller = Feedback()
        phase = Trial(0.2, until=100, mark=1.0, trying=trying)
        state = dataclasses.replace(controller.init(run), phase=phase)
        state, early = controller.update(state, Observation(60, 0))
        assert (early.rule, early.next_step, early.measure) == ("hold", 100, True)
        state, decision = controller.update(state, Observation(100, 0))
        assert (decision.rule, decision.scale, state.phase) == ("keep", held, Hold(held))
        assert not decision.measure

    def test_a_probe_that_noise_ended_says_at_which_rate(self):
        _, trace = drive(
            Feedback(), self.run, lambda rate: 1.0 if rate < 1e-4 else 50.0, lambda epoch: 1.0
        )
        settle = next(d for _, d in trace if d.rule == "settle")
        assert "until it rose by a rate of 0.000" in settle.reason

    def test_a_curve_without_a_minimum_is_said_to_have_none(self):
        _, trace = drive(Feedback(), self.run, lambda rate: 2.3 + rate, lambda epoch: 1.0)
        settle = next(d for _, d in trace if d.rule == "settle")
        assert "no minimum" in settle.reason


observations = st.builds(
    dict,
    loss=st.none() | st.floats(),
    monitored=st.none() | st.floats(),
    epoch_end=st.booleans(),
    skip=st.integers(1, 60),
)


@settings(max_examples=200)
@given(
    st.lists(observations, max_size=60),
    st.sampled_from(
        [
            Plateau(patience=1),
            Divergence(Plateau(patience=1, restore_best_weights=True)),
            Feedback(),
            Divergence(Feedback(Monitor(threshold="noise"))),
        ]
    ),
)
def test_whatever_is_observed_the_scale_stays_finite_and_the_state_stays_json(seen, controller):
    state = controller.init(Run(0.1, steps_per_epoch=40, epochs=12))
    state, decision = controller.update(state, Observation(0, 0))
    step = 0
    for values in seen:
        step += values["skip"]
        observation = Observation(
            step,
            step // 40,
            values["epoch_end"],
            0.1 * decision.scale,
            values["loss"],
            values["monitored"],
        )
        state, decision = controller.update(state, observation)
        assert math.isfinite(decision.scale)
        assert 0.0 <= decision.scale <= 10.0
        json.dumps(dataclasses.asdict(state), allow_nan=False)
