"""One metric: its name, its direction, its noise, and what counts as an improvement."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from adaptlr._arguments import BelowOne, NonNegativeFloat, check, refuse

__all__ = [
    "Direction",
    "Mode",
    "Monitor",
    "MonitorState",
    "direction_by_name",
    "finite",
    "judged",
    "noise",
    "require_monitor",
    "single",
    "spread",
]

Direction = Literal["min", "max"]
Mode = Literal["auto", "min", "max"]
Threshold = Literal["absolute", "relative", "noise"]

# Whole words; "io u" is how Keras writes IoU in the names that it makes.
_LOWER = """
    loss logloss err error mse rmse mae mape msle crossentropy entropy bce nll logcosh perplexity
    ppl hinge divergence kld poisson wer cer fid
"""
_HIGHER = """
    acc accuracy auc auroc auprc roc prc precision recall sensitivity specificity f1 fbeta iou miou
    dice jaccard r2 mcc kappa correlation similarity psnr ssim bleu rouge
"""
_WORD = re.compile(r"[A-Z]+[0-9]*(?![a-z])|[A-Z]?[a-z]+[0-9]*")


@dataclass(frozen=True)
class MonitorState:
    """What is remembered of a metric; `None` stands for "not yet"."""

    direction: Direction = "min"
    best: float | None = None  # the last one that counted as an improvement
    record: float | None = None  # the best one, by however little
    value: float | None = None  # the value judged last, smoothed if the monitor smooths
    previous: float | None = None
    curvatures: tuple[float, ...] = ()  # squares of the latest second differences


@dataclass(frozen=True)
class Monitor:
    """Judges a stream of metric values: improved, or not.

    A value improves on the best one if it is better by more than a threshold:

    * `"absolute"`: by `min_delta`, as in `keras.callbacks`;
    * `"relative"`: by `min_delta` times the size of the best value, as PyTorch's `"rel"` for
      values above zero;
    * `"noise"`: by `min_delta` standard deviations of the metric's own noise. The noise is
      estimated from the latest nine second differences `v[t] - 2 v[t-1] + v[t-2]`, in which a
      steady trend cancels and white noise of variance `s²` has variance `6 s²`. It is the median
      of their squares that counts, over 0.455, what it is for a normal variable of variance 1: so
      one value far off, as a first loss often is, leaves no mark. Until three values were seen the
      noise counts as zero.

    Values that are NaN or infinite in float32 are never an improvement and are not remembered.
    Comparisons round to float32, the precision metrics are computed in, as Keras does.

    Args:
        name: Name of the metric in `logs`, not empty.
        mode: `"min"` if lower is better, `"max"` if higher is, `"auto"` to take the direction that
            Keras knows the metric by.
        min_delta: Threshold, a number ≥ 0 in the unit that `threshold` names.
        threshold: `"absolute"`, `"relative"` or `"noise"`.
        smoothing: Weight in [0, 1) of the past in an exponential moving average of the values;
            0 judges each value as it is.

    Raises:
        ValueError, TypeError: If an argument is outside its range.

    Example:
        >>> monitor, verdicts = Monitor("val_loss", min_delta=0.1), []
        >>> state = monitor.init()
        >>> for value in [1.0, 0.95, 0.8]:
        ...     state, improved = monitor.update(state, value)
        ...     verdicts.append(improved)
        >>> verdicts
        [True, False, True]
    """

    name: str = "val_loss"
    mode: Mode = "auto"
    min_delta: NonNegativeFloat = 1e-4
    threshold: Threshold = "absolute"
    smoothing: BelowOne = 0.0

    def __post_init__(self) -> None:
        check(self)

    def init(self, direction: Direction = "min") -> MonitorState:
        """Returns the state before the first value; `direction` counts if the mode is auto."""
        return MonitorState(direction=direction if self.mode == "auto" else self.mode)

    def update(self, state: MonitorState, value: float) -> tuple[MonitorState, bool]:
        """Takes in one value and says whether it improved on the best one."""
        if not finite(value):
            return state, False
        if state.value is not None:
            value = self.smoothing * state.value + (1.0 - self.smoothing) * value
        curvatures = state.curvatures
        if state.value is not None and state.previous is not None:
            bend = value - 2.0 * state.value + state.previous
            curvatures = (*curvatures, bend * bend)[-9:]
        improved = self._better(value, state, _noise(curvatures))
        state = replace(
            state,
            best=value if improved else state.best,
            record=value if self._ahead(value, state) else state.record,
            value=value,
            previous=state.value,
            curvatures=curvatures,
        )
        return state, improved

    def _better(self, value: float, state: MonitorState, noise: float) -> bool:
        best = state.best
        if best is None:
            return True
        unit = {"absolute": 1.0, "relative": abs(best), "noise": noise}
        margin = self.min_delta * unit[self.threshold]
        if state.direction == "min":
            return single(value + margin) < single(best)
        return single(value - margin) > single(best)

    def _ahead(self, value: float, state: MonitorState) -> bool:
        if state.record is None:
            return True
        return value < state.record if state.direction == "min" else value > state.record


def judged(state: Any) -> MonitorState | None:
    """Returns what a controller's state remembers of its metric, the first that it holds."""
    if isinstance(state, MonitorState):
        return state
    if not is_dataclass(state):
        return None
    parts = (judged(getattr(state, field.name)) for field in fields(state))
    return next((part for part in parts if part is not None), None)


def require_monitor(owner: Any, *, optional: bool = False) -> None:
    """Refuses a controller's `monitor` that is none, such as the bare name of a metric."""
    value = owner.monitor
    if isinstance(value, Monitor) or (optional and value is None):
        return
    name = value if isinstance(value, str) and value else "val_loss"
    rule = f"a Monitor, such as adaptlr.monitor.Monitor({name!r}){', or None' * optional}"
    refuse(owner, "monitor", rule, value)


def noise(state: MonitorState) -> float:
    """Standard deviation of the noise of a metric, as far as it was seen; 0 before that."""
    return _noise(state.curvatures)


def spread(values: Sequence[float]) -> float:
    """Standard deviation of the noise of a series, from its second differences."""
    triples = zip(values, values[1:], values[2:], strict=False)
    return _noise(tuple((c - 2.0 * b + a) ** 2 for a, b, c in triples))


def _noise(curvatures: tuple[float, ...]) -> float:
    """Standard deviation of the noise behind squared second differences."""
    if not curvatures:
        return 0.0
    median = sorted(curvatures)[(len(curvatures) - 1) // 2]
    return math.sqrt(median / 6.0 / 0.455)


def direction_by_name(name: str) -> Direction:
    """Returns the direction that a metric of this name usually has.

    Whole words count, wherever they stand: "val_cls_prc" and "top5_acc" are better when higher,
    "accel_err" is better when lower, and so is "accuracy_loss".

    Raises:
        ValueError: If the name does not tell.
    """
    words = {word.lower() for word in _WORD.findall(name)}
    words |= {word.rstrip("0123456789") for word in words}  # "acc1", and Keras' "auc2"
    if words.intersection(_LOWER.split()):
        return "min"
    if words.intersection(_HIGHER.split()) or {"io", "u"} <= words:
        return "max"
    raise ValueError(
        f"it cannot be told whether {name!r} is better when lower or when higher. Pass "
        f"mode='min' or mode='max'. Received: monitor={name!r}, mode='auto'"
    )


def finite(value: float) -> bool:
    """Whether a metric is a number: neither NaN nor beyond float32, where metrics are computed."""
    return math.isfinite(single(value))


def single(value: float) -> float:
    """Rounds to float32, the precision of rates and metrics; beyond its range, to infinity."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
