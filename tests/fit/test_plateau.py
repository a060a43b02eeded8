"""Plateau detection beyond Keras: PyTorch's rule, other thresholds, smoothing, an end."""

from __future__ import annotations

import dataclasses
import json
import math

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Metrics, one_weight, steps, weight

import adaptlr
from adaptlr.controllers import Observation, Plateau, Run
from adaptlr.monitor import Monitor

nan, inf = math.nan, math.inf


def decide(controller, values, base=1.0):
    """Feeds one monitored value an epoch; returns the decisions up to a stop."""
    state, decisions, rate = controller.init(Run(learning_rate=base)), [], base
    for epoch, value in enumerate(values):
        seen = Observation(epoch + 1, epoch, True, learning_rate=rate, monitored=value)
        state, decision = controller.update(state, seen)
        rate = base * decision.scale
        decisions.append(decision)
        json.dumps(dataclasses.asdict(state), allow_nan=False)
        if "stop" in decision.effects:
            break
    return decisions


def rates(controller, values, base=1.0):
    return [base * decision.scale for decision in decide(controller, values, base)]


def from_torch(
    mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, **further
) -> Plateau:
    """The arguments of `torch.optim.lr_scheduler.ReduceLROnPlateau`, in our words.

    | PyTorch | here | why |
    |---|---|---|
    | `mode`, `factor`, `min_lr` | the same | a list of `min_lr` has no counterpart |
    | `patience=n` | `patience=n + 1` | PyTorch cuts when more than n epochs were bad, we at n |
    | `threshold=t` | `min_delta=t` | |
    | `threshold_mode="abs"` | `threshold="absolute"` | |
    | `threshold_mode="rel"` | `threshold="relative"` | the same for values > 0; see below |
    | `cooldown=n` | `cooldown=n + 1` | PyTorch leaves n epochs uncounted, we n - 1, as Keras |
    | `eps=e` | none | PyTorch drops a cut by e or less; rates differ by e / (1 - factor) at most |

    PyTorch's relative threshold turns its sense below zero: with mode "min" and a best of -1, it
    takes -0.95 for an improvement. Ours is a share of the best value's size: for values < 0 it is
    PyTorch's for the negated metric and the other mode.
    """
    threshold_word = {"abs": "absolute", "rel": "relative"}[threshold_mode]
    return Plateau(
        Monitor("score", mode, min_delta=threshold, threshold=threshold_word),
        factor=factor,
        patience=patience + 1,
        cooldown=cooldown + 1,
        min_lr=min_lr,
        **further,
    )


torch_arguments = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.floats(0.1, 0.9),
        "patience": st.integers(0, 4),
        # Sums and products of these with the values below are exact in single and in double.
        "threshold": st.sampled_from([0.0, 1 / 64, 1 / 8]),
        "threshold_mode": st.sampled_from(["abs", "rel"]),
        "cooldown": st.integers(0, 4),
        "min_lr": st.sampled_from([0.0, 0.01, 0.3]),
    }
)
metric_values = st.integers(1, 128).map(lambda k: k / 64)
metric_sequences = st.lists(metric_values | st.just(nan), min_size=10, max_size=40)


def torch_rates(arguments, values, base=1.0, **further):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **arguments, **further)
    seen = []
    for value in values:
        plateau.step(value)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


class TestPyTorch:
    @settings(max_examples=4 * settings().max_examples)
    @given(torch_arguments, metric_sequences)
    def test_gives_the_rates_of_pytorch(self, arguments, values):
        expected = torch_rates(arguments, values, eps=0.0)
        assert rates(from_torch(**arguments), values) == pytest.approx(expected, rel=1e-9)

    @settings(max_examples=4 * settings().max_examples)
    @given(torch_arguments, metric_sequences)
    def test_below_zero_gives_the_rates_of_pytorch_for_the_negated_metric(self, arguments, values):
        other = {"min": "max", "max": "min"}[arguments["mode"]]
        expected = torch_rates({**arguments, "mode": other}, values, eps=0.0)
        negated = [-value for value in values]
        assert rates(from_torch(**arguments), negated) == pytest.approx(expected, rel=1e-9)

    @settings(max_examples=2 * settings().max_examples)
    @given(torch_arguments, metric_sequences, st.sampled_from([1e-8, 1e-3, 0.1]))
    def test_eps_makes_a_difference_of_a_few_eps(self, arguments, values, eps):
        theirs = torch_rates(arguments, values, eps=eps)
        for ours, rate in zip(rates(from_torch(**arguments), values), theirs, strict=True):
            assert 0.0 <= rate - ours + 1e-12 <= eps / (1.0 - arguments["factor"]) + 2e-12

    def test_the_traces_behind_the_mapping(self):
        """A patience of 1 and a cooldown of 2 there are 2 and 3 here."""
        arguments = {
            "mode": "min",
            "factor": 0.5,
            "patience": 1,
            "threshold": 0.0,
            "threshold_mode": "abs",
            "cooldown": 2,
            "min_lr": 0.0,
        }
        expected = [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]
        assert torch_rates(arguments, [1.0] * 7) == expected
        assert rates(from_torch(**arguments), [1.0] * 7) == expected

    def test_below_zero_its_relative_threshold_takes_a_worse_value_for_an_improvement(self):
        arguments = {
            "mode": "min",
            "factor": 0.5,
            "patience": 0,
            "threshold": 0.1,
            "threshold_mode": "rel",
            "cooldown": 0,
            "min_lr": 0.0,
        }
        assert torch_rates(arguments, [-1.0, -0.95]) == [1, 1]
        assert rates(from_torch(**arguments), [-1.0, -0.95]) == [1, 0.5]


class TestCooldown:
    """A cooldown of n leaves n - 1 epochs uncounted, as in Keras; the rates are Keras' own."""

    @pytest.mark.alike
    @pytest.mark.parametrize(
        ("cooldown", "expected"),
        [
            (0, [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
            (1, [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
            (2, [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
            (3, [1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        ],
    )
    def test_epochs_from_a_cut_to_the_first_that_counts(self, cooldown, expected):
        arguments = {"factor": 0.5, "patience": 1, "cooldown": cooldown}
        assert rates(Plateau(**arguments), [1.0] * 6) == expected
        theirs = keras.callbacks.ReduceLROnPlateau("score", mode="min", **arguments)
        ours = adaptlr.PlateauLR("score", mode="min", **arguments)
        for callback in (theirs, ours):
            feed = Metrics("score", [1.0] * 7)
            history = one_weight().fit(**steps(1), epochs=7, callbacks=[feed, callback]).history
            # Keras logs the rate that the epoch was trained with, one epoch later than the cut.
            assert history["learning_rate"][1:] == pytest.approx(expected)

    def test_an_improvement_during_it_counts_as_one(self):
        cooled = Plateau(patience=1, factor=0.5, cooldown=3)
        assert rates(cooled, [1, 1, 0.5, 0.7, 0.7]) == [1, 0.5, 0.5, 0.5, 0.25]
        assert rates(cooled, [1, 1, 1, 0.5, 0.4]) == [1, 0.5, 0.5, 0.5, 0.5]


class TestThreshold:
    def plateau(self, threshold, min_delta, **further):
        monitor = Monitor("score", "min", min_delta=min_delta, threshold=threshold)
        return Plateau(monitor, patience=1, factor=0.5, **further)

    def test_relative_is_a_share_of_the_best(self):
        values = [100.0, 95.0, 80.0, 75.0]  # 10 % of the best is 10, then 8
        assert rates(self.plateau("relative", 0.1), values) == [1, 0.5, 0.5, 0.25]
        assert rates(self.plateau("absolute", 0.1), values) == [1, 1, 1, 1]

    def test_noise_is_no_improvement(self):
        """Ever new lowest values by luck, around a level that does not fall."""
        values = [1.0, 1.3, 0.9, 1.2, 0.85, 1.1, 0.8, 1.2]
        assert rates(self.plateau("absolute", 0.0), values)[-1] == 2.0**-4
        assert rates(self.plateau("noise", 1.0), values)[-1] == 2.0**-7

    def test_a_fall_beyond_the_noise_is_one(self):
        values = [1.0, 0.8, 0.6, 0.4, 0.2]
        assert rates(self.plateau("noise", 1.0), values) == [1, 1, 1, 1, 1]

    def test_the_callback_passes_it_on(self):
        callback = adaptlr.PlateauLR(
            "score", 0.5, 1, mode="min", min_delta=0.1, threshold="relative"
        )
        model = one_weight()
        feed = Metrics("score", [100.0, 95.0, 80.0, 75.0])
        model.fit(**steps(1), epochs=4, callbacks=[feed, callback])
        assert weight(model) == -(1 + 1 + 0.5 + 0.5)

    def test_an_unknown_word_is_refused(self):
        with pytest.raises(ValueError, match="threshold='rel'"):
            adaptlr.PlateauLR(threshold="rel")


class TestSmoothing:
    def test_judges_the_moving_average(self):
        """One lucky epoch sets a record that no later one beats; its average is soon beaten."""
        values = [1.0, 0.9, 0.1, 0.75, 0.7, 0.65, 0.6]
        monitor = Monitor("score", "min", min_delta=0.0)
        rough = rates(Plateau(monitor, patience=2, factor=0.5), values)
        smooth = rates(
            Plateau(dataclasses.replace(monitor, smoothing=0.9), patience=2, factor=0.5), values
        )
        assert rough == [1, 1, 1, 1, 0.5, 0.5, 0.25]
        assert smooth == [1] * 7

    def test_the_callback_passes_it_on(self):
        callback = adaptlr.PlateauLR("score", 0.5, 2, mode="min", smoothing=0.9)
        model = one_weight()
        feed = Metrics("score", [1.0, 0.9, 0.1, 0.75, 0.7, 0.65, 0.6])
        model.fit(**steps(1), epochs=7, callbacks=[feed, callback])
        assert weight(model) == -7.0

    @pytest.mark.parametrize("value", [-0.1, 1.0, nan])
    def test_a_weight_outside_its_range_is_refused(self, value):
        with pytest.raises(ValueError, match="smoothing="):
            adaptlr.PlateauLR(smoothing=value)


class TestStop:
    def test_ends_at_a_plateau_after_a_cut_that_brought_nothing(self):
        decisions = decide(Plateau(patience=2, factor=0.5, stop=True), [1.0] * 9)
        assert [d.rule for d in decisions] == ["hold", "hold", "plateau", "hold", "stop"]
        assert decisions[-1].scale == 0.5  # the rate is not cut once more
        assert decisions[-1].reason == (
            "val_loss has not improved on its best (1) for 2 epochs: the last cut brought no "
            "improvement, so the training ends"
        )

    def test_goes_on_while_each_cut_brings_something(self):
        values = [1.0, 1.0, 0.9, 0.9, 0.8, 0.8, 0.8]
        decisions = decide(Plateau(patience=1, factor=0.5, stop=True), values)
        rules = ["hold", "plateau", "hold", "plateau", "hold", "plateau", "stop"]
        assert [d.rule for d in decisions] == rules

    def test_ends_at_a_plateau_at_min_lr(self):
        plateau = Plateau(patience=1, factor=0.5, min_lr=0.5, stop=True)
        decisions = decide(plateau, [1.0, 1.0, 0.9, 0.9])
        assert [d.rule for d in decisions] == ["hold", "plateau", "hold", "stop"]
        assert "the rate is at min_lr (0.5), so the training ends" in decisions[-1].reason

    def test_waits_for_the_cooldown(self):
        plateau = Plateau(patience=1, factor=0.5, cooldown=3, stop=True)
        rules = ["hold", "plateau", "hold", "hold", "stop"]
        assert [d.rule for d in decide(plateau, [1.0] * 9)] == rules

    def test_an_improvement_during_the_cooldown_is_one_that_the_cut_brought(self):
        plateau = Plateau(patience=1, factor=0.5, cooldown=3, stop=True)
        rules = ["hold", "plateau", "hold", "hold", "plateau"]
        assert [d.rule for d in decide(plateau, [1.0, 1.0, 0.5, 0.5, 0.5])] == rules

    def test_leaves_the_best_weights_if_they_are_kept(self):
        plateau = Plateau(patience=1, stop=True, restore_best_weights=True)
        last = decide(plateau, [1.0] * 9)[-1]
        assert (last.rule, "restore" in last.effects) == ("stop", True)
        assert last.reason.endswith("ends, back to the weights of the best epoch")

    def test_without_it_nothing_changes(self):
        assert not any(
            "stop" in d.effects for d in decide(Plateau(patience=1, min_lr=0.01), [1.0] * 20)
        )

    def test_never_before_a_first_cut(self):
        assert not any(
            "stop" in d.effects
            for d in decide(Plateau(patience=3, stop=True), [nan, 1.0, nan, 1.0])
        )

    def test_ends_fit_with_the_best_weights_and_a_record(self):
        callback = adaptlr.PlateauLR(
            "score", 0.5, 1, mode="min", restore_best_weights=True, stop=True
        )
        model = one_weight()
        feed = Metrics("score", [1.0, 0.5] + [0.7] * 18)
        history = model.fit(**steps(2), epochs=20, callbacks=[feed, callback]).history
        assert len(history["loss"]) == 4
        assert [record.rule for record in callback.decisions] == ["start", "plateau", "stop"]
        assert callback.decisions[-1].epoch == 3
        assert weight(model) == -4.0  # two epochs at rate 1
