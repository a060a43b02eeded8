"""The peers that need no rate: optax' transformations as Keras optimizers, on JAX.

    model.compile(prodigy(steps), "mse")

Each has the settings that its authors recommend; `steps` is the length of the run, for a decay.
Keras keeps the transformation's state in variables, so `fit` is as with any optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
import optax
from keras.optimizers.schedules import CosineDecay
from optax import contrib

# Rate, a number or a schedule's value → the transformation.
Maker = Callable[[Any], optax.GradientTransformation]


class Optax(keras.optimizers.Optimizer):
    """An optax transformation whose state lies in Keras variables.

    Args:
        make: Learning rate → transformation, called in every trace.
        learning_rate: As Keras takes it.
    """

    def __init__(self, make: Maker, learning_rate: Any = 1.0, **settings: Any) -> None:
        super().__init__(learning_rate, name="optax", **settings)
        self._make = make
        self.loss: Any = None  # of the batch, where `gives_loss` has been called

    def build(self, variables: Sequence[Any]) -> None:
        """Begins the state from the values that the variables have now."""
        if self.built:
            return
        super().build(variables)
        state = self._make(1.0).init([variable.value for variable in variables])
        leaves, self._structure = jax.tree.flatten(state)
        self._state = [self._held(leaf) for leaf in leaves]

    def _held(self, leaf: Any) -> Any:
        variable = self.add_variable(leaf.shape, "zeros", str(leaf.dtype), name="state")
        variable.assign(jax.numpy.array(leaf, copy=True))  # Keras donates each buffer once
        return variable

    def _backend_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        state = jax.tree.unflatten(self._structure, [held.value for held in self._state])
        weights = [variable.value for variable in variables]
        transformation = optax.with_extra_args_support(self._make(learning_rate))
        updates, state = transformation.update(list(grads), state, weights, value=self.loss)
        for held, leaf in zip(self._state, jax.tree.leaves(state), strict=True):
            held.assign(leaf)
        for variable, value in zip(variables, optax.apply_updates(weights, updates), strict=True):
            variable.assign(value)


class PolynomialAverage(Optax):
    """With the average by which DoG is judged, polynomial decay of degree 8 (arXiv 2302.12022).

    Keras' `SwapEMAWeights` validates it and `fit` leaves it in the model.
    """

    def __init__(self, make: Maker) -> None:
        super().__init__(make, use_ema=True)

    def _update_model_variables_moving_average(self, variables: Sequence[Any]) -> None:
        step = keras.ops.cast(self.iterations, "float32")  # from 0: the average is the first
        share = 9.0 / (step + 9.0)
        pairs = zip(variables, self._model_variables_moving_average, strict=True)
        for variable, average in pairs:
            average.assign(average + share * (variable - average))


def gives_loss(model: keras.Model) -> None:
    """Lets the optimizer see the loss of the batch, which MoMo needs."""

    def train_step(state: Any, data: Any) -> Any:
        weights, others, slots, metrics = state
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        gradient = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)
        (_, (model.optimizer.loss, predicted, others, metrics)), grads = gradient(
            weights,
            others,
            metrics,
            x,
            y,
            sample_weight,
            training=True,
            optimizer_variables=slots,
        )
        loss = model.optimizer.loss
        weights, slots = model.optimizer.stateless_apply(slots, grads, weights)
        model.optimizer.loss = None  # a tracer that must not outlive the trace
        logs, metrics = model._update_metrics_variables(
            metrics, loss, x, y, predicted, sample_weight
        )
        return logs, (weights, others, slots, metrics)

    model.train_step = train_step


def prodigy(steps: int) -> Optax:
    """Prodigy (arXiv 2306.06101): rate 1 and a cosine decay without warm-up."""
    return Optax(contrib.prodigy, CosineDecay(1.0, steps))


def d_adaptation(steps: int) -> Optax:
    """D-Adaptation around AdamW (arXiv 2301.07733): rate 1 and a cosine decay."""
    return Optax(contrib.dadapt_adamw, CosineDecay(1.0, steps))


def dog(steps: int) -> Optax:
    """DoG (arXiv 2302.12022) at a constant factor of 1, judged by its average."""
    return PolynomialAverage(contrib.dog)


def mechanic(steps: int) -> Optax:
    """Mechanic around AdamW (arXiv 2306.00144): rate 1 and a cosine decay."""
    return Optax(lambda rate: contrib.mechanize(optax.adamw(rate)), CosineDecay(1.0, steps))


def momo(steps: int) -> Optax:
    """MoMo around Adam (arXiv 2305.07583): at most its default rate of 0.01, no decay."""
    return Optax(contrib.momo_adam, 1e-2)


def nadamw(steps: int) -> Optax:
    """NadamW as calibrated over AlgoPerf's workloads: the baseline of its self-tuning ruleset.

    MLCommons' `prize_qualification_baselines/self_tuning`: warm-up over 2 % of the steps, cosine
    decay. The dropout of 0.1 that it asks of models is left as each job has it, and the first
    steps differ by the bias correction, which in optax is Dozat's.
    """
    rate, warm = 0.0017486387539278373, max(1, round(0.02 * steps))
    schedule = CosineDecay(1e-10 * rate, steps - warm, warmup_target=rate, warmup_steps=warm)
    settings = {"b1": 1.0 - 0.06733926164, "b2": 0.9955159689799007}
    decay = 0.08121616522670176
    return Optax(lambda now: optax.nadamw(now, weight_decay=decay, **settings), schedule)


PEERS: dict[str, Callable[[int], Optax]] = {
    "Prodigy": prodigy,
    "D-Adaptation": d_adaptation,
    "DoG": dog,
    "Mechanic": mechanic,
    "MoMo": momo,
    "NadamW, AlgoPerf": nadamw,
}
