import math
import statistics
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptlr.monitor import Monitor, MonitorState, direction_by_name


def verdicts(monitor, values, direction="min"):
    state, seen = monitor.init(direction), []
    for value in values:
        state, improved = monitor.update(state, value)
        seen.append(improved)
    return seen


def test_absolute_threshold_as_in_keras():
    assert verdicts(Monitor(min_delta=0.1), [1.0, 0.95, 0.85, 0.7]) == [True, False, True, True]
    assert verdicts(Monitor(min_delta=0.0), [1.0, 1.0, 0.999]) == [True, False, True]


def test_direction_comes_from_the_mode_or_else_from_the_run():
    rising = [1.0, 2.0, 3.0]
    assert verdicts(Monitor(mode="max"), rising) == [True, True, True]
    assert verdicts(Monitor(mode="min"), rising, "max") == [True, False, False]
    assert verdicts(Monitor(), rising, "max") == [True, True, True]


def test_relative_threshold_is_a_share_of_the_best():
    assert verdicts(Monitor(min_delta=0.1, threshold="relative"), [10.0, 9.5, 8.9]) == [
        True,
        False,
        True,
    ]
    assert verdicts(Monitor(mode="max", min_delta=0.1, threshold="relative"), [-10.0, -8.9]) == [
        True,
        True,
    ]


def test_noise_threshold_ignores_a_wiggle_that_an_absolute_one_takes_for_progress():
    wiggle = [1.0, 1.1, 0.9, 1.1, 0.89]
    assert verdicts(Monitor(min_delta=1e-4), wiggle)[-1]
    assert not verdicts(Monitor(min_delta=1.0, threshold="noise"), wiggle)[-1]


def noise(values):
    state = MonitorState()
    for value in values:
        state, _ = Monitor(threshold="noise").update(state, value)
    return math.sqrt(statistics.median_low(state.curvatures) / 6.0 / 0.455)


def test_noise_of_a_straight_line_is_zero_and_of_normal_values_is_their_deviation():
    assert noise([3.0, 2.0, 1.0, 0.0]) == 0.0
    random = Random(0)
    estimates = [noise(random.gauss(5.0, 2.0) for _ in range(30)) for _ in range(400)]
    assert math.sqrt(statistics.mean(e**2 for e in estimates)) == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize("first", [1e2, 1e6, 1e30])
def test_a_huge_first_value_is_not_taken_for_noise(first):
    """By a mean of squares nothing would be an improvement for long; so it is one value."""
    falling = [first, *(0.9**t for t in range(12))]
    seen = verdicts(Monitor(min_delta=0.5, threshold="noise"), falling)
    assert seen == [t != 2 for t in range(13)]


def test_one_spike_is_not_taken_for_noise():
    falling = [0.9**t for t in range(12)]
    falling[6] = 1e6
    seen = verdicts(Monitor(min_delta=0.5, threshold="noise"), falling)
    assert seen == [t != 6 for t in range(12)]


def test_smoothing_is_an_exponential_average():
    monitor, state = Monitor(smoothing=0.5), MonitorState()
    for value, expected in [(1.0, 1.0), (0.0, 0.5), (0.0, 0.25)]:
        state, _ = monitor.update(state, value)
        assert state.value == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_leaves_no_trace(bad):
    monitor = Monitor()
    state, _ = monitor.update(monitor.init(), 1.0)
    assert monitor.update(state, bad) == (state, False)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_best_is_always_the_best_finite_value_without_a_threshold(values):
    monitor, state = Monitor(min_delta=0.0), MonitorState()
    for value in values:
        state, _ = monitor.update(state, value)
    finite = [v for v in values if abs(v) <= 3.4028234663852886e38]
    if finite:
        # float32 rounding may keep an earlier value that is equal in float32.
        assert state.best == pytest.approx(min(finite), rel=1e-6, abs=1e-37)
    else:
        assert state.best is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "down"}, r"Monitor\(mode=\.\.\.\) must be one of .*Received: mode='down'"),
        ({"threshold": "rel"}, r"threshold=.* one of 'absolute', 'relative', 'noise'"),
        ({"min_delta": -1.0}, r"min_delta=.* of at least 0\. Received: min_delta=-1\.0"),
        ({"min_delta": math.nan}, r"a number of at least 0\. Received: min_delta=nan"),
        ({"smoothing": 1.0}, r"smoothing=.* below 1\. Received: smoothing=1\.0"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        Monitor(**arguments)


# The direction of a name


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_accel_err", "min"),  # "acc" is a part of it and no word
        ("val_accuracy_loss", "min"),
        ("pressure_mae", "min"),
        ("val_prc", "max"),
        ("val_cls_prc", "max"),
        ("val_box_io_u", "max"),
        ("valMeanIoU", "max"),
        ("F1Score", "max"),
        ("val_r2_score_1", "max"),
        ("val_auc2", "max"),
        ("acc@1", "max"),
        ("val/top5_acc", "max"),
        ("RMSE", "min"),
        ("val_word-error-rate", "min"),
    ],
)
def test_whole_words_tell_a_direction(name, direction):
    assert direction_by_name(name) == direction


@pytest.mark.parametrize(
    "name",
    ["accel", "val_place", "inaccuracies", "lossless", "f16", "val_score", "false_positive_rate"],
)
def test_a_part_of_a_word_tells_none(name):
    with pytest.raises(ValueError, match=r"mode='min' or mode='max'.*mode='auto'"):
        direction_by_name(name)
