"""The rate of any Keras optimizer: plain, loss-scaled, or one per group of variables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from adaptlr.bridge.schedule_free import is_schedule_free
from adaptlr.monitor import single

# What each class of optimizer is usually trained with, and who says so.
CUSTOMARY = {
    "SGD": 0.1,  # without momentum; with 0.9 that is 0.01, the default of Keras
    "RMSprop": 0.001,  # default of Keras
    "Adam": 0.001,  # arXiv 1412.6980; AdamW and Nadam, which derive from it, as well
    "AdamW": 0.001,
    "Nadam": 0.001,
    "Adamax": 0.002,  # arXiv 1412.6980, section 7.1
    "Adagrad": 0.01,  # default of PyTorch; Keras' 0.001 hardly moves
    "Adadelta": 1.0,  # arXiv 1212.5701, which has no rate; default of PyTorch
    "Adafactor": 0.001,  # default of Keras
    "Ftrl": 0.1,  # McMahan et al., KDD 2013, whose per-coordinate rates begin near it
    "Lion": 0.0001,  # arXiv 2302.06675, the default of its code
    "Lamb": 0.001,  # default of Keras; arXiv 1904.00962 scales it with the batch
    "Muon": 0.001,  # default of Keras
    "ScheduleFreeAdamW": 0.0025,  # arXiv 2405.15682, the default of its code
}

# Attribute of an optimizer: the rate last written, and the one for a later run to begin from.
_MEMORY = "_adaptlr_rate"


@dataclass(frozen=True)
class RateState:
    """The rates of the innermost optimizers, one each."""

    ratios: tuple[float, ...]  # to the leading one
    found: tuple[float, ...]  # when the run began
    begin: tuple[float, ...]  # what it began from
    written: tuple[float, ...] | None = None  # last; None if nothing is expected
    lasting: tuple[float, ...] = ()  # what a later run begins from if it finds them


class OptimizerRate:
    """Reads and writes an optimizer's rate; with several, keeps their ratios.

    `keras.optimizers.LossScaleOptimizer` has a rate of its own that nothing reads, and
    `MultiOptimizer` has none: the rates that count are those of the innermost optimizers. The rate
    that is read and written here is the largest of them, of several optimizers that of the first;
    the others follow in proportion. The first one's counter counts the steps, too.

    On JAX the variables hold no values inside an epoch unless the model's state was synced, so a
    caller reaches the model through `Callback.model` before it reads or writes.

    Args:
        model: A compiled, built model. Its optimizer is built here if it is not yet, which on
            TensorFlow is left to the first step.
        given: Optimizers that its training step applies in place of `model.optimizer`, or None.
            Only that step knows what each trains, so that it builds them.

    Raises:
        ValueError: If a rate is not a variable (a schedule object, a callable) or not positive.
    """

    def __init__(self, model: Any, given: Sequence[Any] | None = None) -> None:
        self.given = given is not None
        if given is None and model.built and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self.optimizers = [model.optimizer] if given is None else list(given)
        self.leaves = [leaf for optimizer in self.optimizers for leaf in innermost(optimizer)]
        self._leading = len(innermost(self.optimizers[0]))
        for leaf in self.leaves:
            _require_variable_rate(leaf)
        self._rates = [leaf.learning_rate for leaf in self.leaves]
        names = ("dynamic_scale", "step_counter")
        scaling = [[getattr(x, name, None) for name in names] for x in self.optimizers]
        self._loss_scales = [scale for scale, _ in scaling if scale is not None]
        self._scaling = [v for pair in scaling for v in pair if v is not None]
        self.state = RateState((), (), ())
        largest = self.initial()
        if not (np.isfinite(largest) and largest > 0.0):
            raise ValueError(
                f"the optimizer's learning rate must be a finite number > 0, so that it can be "
                f"scaled; compile with a positive one, or set model.optimizer.learning_rate. "
                f"Received: learning_rate={largest}"
            )
        ratios = tuple(rate / largest for rate in self.state.begin)
        self.state = replace(self.state, ratios=ratios)

    def initial(self) -> float:
        """Returns the leading rate for a run to begin from, and remembers what it found.

        It is what the optimizer has, unless an earlier run has only passed through that and left
        it there, as a schedule leaves the zero that it ends at (see `write`).
        """
        found = tuple(map(_value, self._rates))
        begin = _to_begin_from(self.leaves, found)
        self.state = replace(self.state, found=found, begin=begin)
        return max(begin[: self._leading])

    def read_all(self) -> dict[str, float]:
        """Returns each rate under the name that Keras logs it by."""
        if len(self.leaves) == 1:
            return {"learning_rate": _value(self._rates[0])}
        names = [leaf.name for leaf in self.leaves]
        # Two that were made of one configuration have one name.
        names = [x if names.count(x) == 1 else f"{x}_{i}" for i, x in enumerate(names, 1)]
        pairs = zip(names, self._rates, strict=True)
        return {f"learning_rate_{name}": _value(rate) for name, rate in pairs}

    def write(self, rate: float, lasting: float | None = None) -> None:
        """Sets the leading rate, and the others in proportion.

        Args:
            rate: What is trained with from now on.
            lasting: What a later run begins from if it finds `rate`; None for `rate` itself.
        """
        lasting = rate if lasting is None else lasting
        ratios = self.state.ratios
        self._assign([rate * r for r in ratios], [lasting * r for r in ratios])

    def put_back(self) -> None:
        """Sets the rates that were found, so that nothing shows that others were written."""
        self._assign(self.state.found, self.state.begin)

    def settle(self) -> None:
        """Sets the rates that are to last, where the last ones were only passed through.

        A cool-down ends at almost nothing. Who trains on, with whatever callback or with none, or
        saves the model for that, would train at almost no rate and not be told.
        """
        lasting = _to_begin_from(self.leaves, tuple(map(_value, self._rates)))
        self._assign(lasting, lasting)

    def _assign(self, rates: Sequence[float], lasting: Sequence[float]) -> None:
        for variable, rate in zip(self._rates, rates, strict=True):
            variable.assign(rate)
        self.load(replace(self.state, written=tuple(rates), lasting=tuple(lasting)))

    def load(self, state: RateState) -> None:
        """Becomes what it was in a run that is continued; the optimizer has its rates again."""
        self.state = state
        for leaf, *pair in zip(self.leaves, state.written or (), state.lasting, strict=False):
            # Through __dict__, so that Keras tracks nothing.
            leaf.__dict__[_MEMORY] = tuple(pair)

    def velocity(self) -> float:
        """Returns the momentum by which past steps, at their own rates, are repeated; 0 for none.

        Adam and its like average gradients instead, and multiply by the present rate. Keras allows
        a momentum of 1, which never forgets; it counts as 0.999.
        """
        known = keras.optimizers.SGD, keras.optimizers.RMSprop
        return max(
            min(float(leaf.momentum), 0.999) if isinstance(leaf, known) else 0.0
            for leaf in self.leaves
        )

    def customary(self) -> float | None:
        """Returns what the class of the optimizer with the leading rate is usually trained with.

        None if that is not known. SGD is known by what its momentum makes of the rate.
        """
        leaf = self.leaves[self.state.ratios.index(1.0)]
        kind = next((k.__name__ for k in type(leaf).__mro__ if k.__name__ in CUSTOMARY), None)
        if kind is None:
            return None
        return CUSTOMARY[kind] * (1.0 - self.velocity() if kind == "SGD" else 1.0)

    def accumulation(self) -> int:
        """Returns how many steps make one update of the weights."""
        return accumulation(self.leaves)

    def changed_by_others(self) -> tuple[float, float] | None:
        """Returns (written, found) if a rate is not the one last written here, else None."""
        for variable, written in zip(self._rates, self.state.written or (), strict=False):
            found = _value(variable)
            if single(found) != _as_held(written, variable):
                return written, found
        return None

    def replaced(self, model: Any) -> str | None:
        """Says what stands in the place of what is driven, if something does since the begin."""
        own = getattr(model, "optimizer", None)
        if not self.given and own is not self.optimizers[0]:
            return f"model.optimizer is another one, {type(own).__name__}"
        for leaf, variable in zip(self.leaves, self._rates, strict=True):
            present = getattr(leaf, "_learning_rate", variable)
            if present is not variable:
                return f"its learning rate was replaced by {type(present).__name__}"
        return None

    def forget(self) -> None:
        """Stops expecting the rate last written."""
        self.state = replace(self.state, written=None)

    def steps_counted(self) -> int:
        """Returns how many steps the leading optimizer has counted."""
        return int(self.progress()[0])

    def progress(self) -> tuple[float, ...]:
        """Returns the steps counted by the leading optimizer, then by each innermost one.

        Behind them stands what a loss scale changes at a step that it skips.
        """
        counts = [int(keras.ops.convert_to_numpy(leaf._iterations)) for leaf in self.leaves]
        return (max(counts[: self._leading]), *counts, *map(_value, self._scaling))

    def idle_since(self, start: tuple[float, ...]) -> list[Any]:
        """Returns the optimizers that have trained nothing since `progress()` was `start`.

        All that are given should train; of groups one may be frozen, and all of them may not.
        """
        now, end = self.progress(), 1 + len(self.leaves)
        pairs = zip(self.leaves, start[1:end], now[1:end], strict=True)
        idle = [leaf for leaf, before, after in pairs if before == after]
        counts = self.given or len(idle) == len(self.leaves)
        return idle if counts and start[end:] == now[end:] else []

    @property
    def averages(self) -> bool:
        """Whether Keras ends a `fit` with averages in place of the weights (`use_ema`)."""
        return any(getattr(leaf, "use_ema", False) for leaf in self.leaves)

    def skips_overflow(self) -> bool:
        """Whether an infinite loss is the affair of a loss scale, which skips such steps.

        It halves the scale at each of them. Below 1 it has not come from scaling.
        """
        return any(_value(scale) >= 1.0 for scale in self._loss_scales)

    def variables(self) -> set[int]:
        """Returns the ids of the rate variables, which no snapshot brings back."""
        return {id(variable) for variable in self._rates}


def momentum_name(optimizer: Any) -> str:
    """Name of the attribute that is an optimizer's momentum.

    Raises:
        ValueError: If it has none, was built without the slots for one, or needs it as it is.
    """
    if is_schedule_free(optimizer):
        raise ValueError(
            f"{type(optimizer).__name__} has no momentum that could be cycled: its beta_1 says "
            f"how much of its average is in the weights. Pass momentum=None to cycle the rate "
            f"alone."
        )
    for name in ("beta_1", "momentum"):
        if getattr(optimizer, name, 0.0) != 0.0:
            return name
    raise ValueError(
        f"{type(optimizer).__name__} has no momentum that could be cycled; compile it with one "
        f"(for instance SGD(momentum=0.9)), or pass momentum=None to cycle the rate alone."
    )


def innermost(optimizer: Any) -> list[Any]:
    """Returns the optimizers whose rates count, behind those that wrap or hold them."""
    if hasattr(optimizer, "optimizers"):
        return [leaf for inner in optimizer.optimizers for leaf in innermost(inner)]
    if hasattr(optimizer, "inner_optimizer"):
        return innermost(optimizer.inner_optimizer)
    return [optimizer]


def accumulation(optimizers: Sequence[Any]) -> int:
    """Returns how many steps make one update of the weights, the most of several optimizers."""
    leaves = [leaf for optimizer in optimizers for leaf in innermost(optimizer)]
    return max(int(getattr(x, "gradient_accumulation_steps", None) or 1) for x in leaves)


def _to_begin_from(leaves: list[Any], found: tuple[float, ...]) -> tuple[float, ...]:
    """The rates found, or if they are all as a run has left them, those that it meant to last."""
    memories = [leaf.__dict__.get(_MEMORY) for leaf in leaves]
    for leaf, memory, rate in zip(leaves, memories, found, strict=True):
        if memory is None or single(rate) != _as_held(memory[0], leaf.learning_rate):
            return found
    return tuple(lasting for _, lasting in memories)


def _as_held(rate: float, variable: Any) -> float:
    """In single precision at most: on JAX a variable of type float64 has no more by default."""
    return single(float(np.asarray(rate, variable.dtype)))


def _require_variable_rate(optimizer: Any) -> None:
    try:
        if isinstance(optimizer.learning_rate, keras.Variable):
            return
        kind = type(getattr(optimizer, "_learning_rate", optimizer.learning_rate)).__name__
    except AttributeError:
        raise ValueError(
            f"{type(optimizer).__name__} has no learning_rate that could be adjusted; compile the "
            f"model with a Keras optimizer. Received: optimizer={optimizer!r}"
        ) from None
    raise ValueError(
        f"the optimizer was compiled with a schedule ({kind}) as its learning rate, which no "
        f"callback can change. Compile with a number, for instance "
        f"{type(optimizer).__name__}(learning_rate=0.01). If the schedule is to set the rate, let "
        f"adaptlr.ScheduleLR(schedule) be the one callback that does."
    )


def _value(variable: Any) -> float:
    # Under a distribution strategy float(variable) fails; convert_to_numpy reads every kind.
    return float(keras.ops.convert_to_numpy(variable))


def warn_if_idle(owner: str, model: Any, rate: OptimizerRate, start: tuple[float, ...]) -> None:
    """Warns if the steps that were trained left the optimizers' counters where they were.

    So it is where a `train_step` has optimizers of its own, as that of a GAN, and where an
    optimizer hands its work to another one under an attribute that Keras does not know.

    Args:
        owner: Name of the callback.
        model: The model, after steps that `fit` has trained.
        rate: What the callback drives.
        start: What `rate.progress()` was before them.
    """
    inside = [pair for leaf in rate.leaves for pair in _optimizers(leaf, "")]
    working = [name for name, inner in inside if _count(inner)]
    idle = rate.idle_since(start)
    if not (idle or working):
        return
    driven = [getattr(model, "optimizer", None), *rate.optimizers]
    own = [name for name, x in _optimizers(model, "model.") if all(x is not y for y in driven)]
    hidden = [f"model.optimizer{name}" for name in working]
    kinds = ", ".join(type(leaf).__name__ for leaf in idle or rate.leaves)
    what = "has not trained anything" if idle else "hands its steps to another optimizer"
    found = f" Others of this model: {', '.join([*own, *hidden])}." if own or hidden else ""
    warnings.warn(
        f"{owner} drives the learning rate of {kinds}, which {what} in this epoch: the rate has "
        f"no effect.{found} Compile the model with the optimizer that trains, or name those that "
        f"do: {owner}(optimizers=[...]); in a wrapper of your own call it self.inner_optimizer.",
        stacklevel=6,
    )


def _optimizers(owner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Optimizers among the attributes of an object, with what leads to them."""
    known = ("_optimizer", "inner_optimizer")
    for name, value in vars(owner).items():
        if isinstance(value, keras.optimizers.Optimizer) and name not in known:
            yield (f"{prefix}{name}" if prefix else f".{name}"), value


def _count(optimizer: Any) -> int:
    return int(keras.ops.convert_to_numpy(optimizer._iterations))
