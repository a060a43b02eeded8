"""The rate that another batch size asks for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptlr.batch_size import scale_learning_rate

sizes = st.integers(1, 2**20)
rules = st.sampled_from(["linear", "sqrt"])


@pytest.mark.parametrize(
    ("rule", "expected"), [("linear", [0.1, 0.2, 0.4, 0.8]), ("sqrt", [0.1, 0.1414, 0.2, 0.2828])]
)
def test_doubling(rule, expected):
    rates = [scale_learning_rate(0.1, 32, size, rule) for size in (32, 64, 128, 256)]
    assert rates == pytest.approx(expected, rel=1e-3)


def test_linear_is_the_default():
    assert scale_learning_rate(0.1, 256, 8192) == pytest.approx(3.2)  # Goyal et al., section 5.1


@given(sizes, sizes, sizes, rules)
def test_two_changes_are_as_good_as_one(first, second, third, rule):
    there = scale_learning_rate(0.1, first, second, rule)
    assert scale_learning_rate(there, second, third, rule) == pytest.approx(
        scale_learning_rate(0.1, first, third, rule)
    )


@given(sizes, sizes)
def test_linear_is_sqrt_twice(size, new):
    once = scale_learning_rate(1.0, size, new, "sqrt")
    assert scale_learning_rate(1.0, size, new) == pytest.approx(once**2)


@given(st.floats(1e-8, 10.0), sizes, rules)
def test_the_same_size_is_the_same_rate(rate, size, rule):
    assert scale_learning_rate(rate, size, size, rule) == rate


def test_numpy_integers_do_not_overflow():
    tiny, large = np.uint8(200), np.int32(400)
    assert scale_learning_rate(0.1, tiny, large) == pytest.approx(0.2)
    assert type(scale_learning_rate(np.float32(0.1), tiny, large)) is float


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (0.1, 0, 64),
            ValueError,
            r"scale_learning_rate\(batch_size=\.\.\.\) must be an integer of at least 1\. "
            r"Received: batch_size=0",
        ),
        ((0.1, 32, -1), ValueError, "new_batch_size=-1"),
        ((0.1, 32, 64.5), ValueError, r"new_batch_size=64\.5"),
        ((0.1, None, 64), TypeError, "batch_size=None"),
        ((-0.1, 32, 64), ValueError, r"learning_rate=-0\.1"),
        ((math.nan, 32, 64), ValueError, "learning_rate=nan"),
        (("0.1", 32, 64), ValueError, "learning_rate='0.1'"),
        ((0.1, 32, 64, "square"), ValueError, "one of 'linear', 'sqrt'.*rule='square'"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        scale_learning_rate(*arguments)
