"""Interpolation and averaging around a job's own optimizer, in the compiled step; on JAX.

Its momentum, SGD's or Adam's first, is taken into the interpolation (arXiv 2405.15682). What came
of it stands in docs/schedule-free.md.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

KINDS = ("SGD", "Adam", "AdamW", "RMSprop")


class Interpolated(keras.optimizers.ScheduleFreeAdamW):
    """Trains at y = 0.9 x + 0.1 z; the optimizer's own step, without momentum, moves z.

    Args:
        own: One of `KINDS`.
        weighted: Whether z counts in the average by its squared rate, as in the paper's code under
            a warm-up, or each alike, as in Keras.
    """

    def __init__(self, own: keras.optimizers.Optimizer, weighted: bool) -> None:
        rate = float(ops.convert_to_numpy(own.learning_rate))
        super().__init__(rate, beta_1=0.9, weight_decay=own.weight_decay)
        self._kind, self._weighted = type(own).__name__.removesuffix("W"), weighted
        self._own = own

    def build(self, variables: Any) -> None:
        """Adds the sum of the weights so far."""
        if not self.built:
            super().build(variables)
            self._sum = self.add_variable((), "zeros", "float32", name="sum")

    def _backend_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, "float32")
        weight = ops.square(rate) if self._weighted else ops.ones((), "float32")
        self._sum.assign(self._sum + weight)
        self._share = weight / ops.maximum(self._sum, 1e-30)
        super()._backend_update_step(grads, variables, learning_rate)
        del self._share

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of z, of their average and of the point between."""
        index = self._get_variable_index(variable)
        z, before = self._momentums[index], self._momentums[index].value
        x = (variable.value - (1.0 - self.beta_1) * before) / self.beta_1
        after = before - learning_rate * self._direction(gradient, self._velocities[index])
        x = x + self._share * (after - x)
        z.assign(after)
        variable.assign(self.beta_1 * x + (1.0 - self.beta_1) * after)

    def _direction(self, gradient: Any, velocity: Any) -> Any:
        own = self._own
        if self._kind == "SGD":
            return gradient
        decay = own.rho if self._kind == "RMSprop" else own.beta_2
        square = decay * velocity.value + (1.0 - decay) * ops.square(gradient)
        velocity.assign(square)
        if self._kind == "RMSprop":
            return gradient / ops.sqrt(square + own.epsilon)
        steps = ops.cast(self.iterations + 1, "float32")
        return gradient / (ops.sqrt(square / (1.0 - decay**steps)) + own.epsilon)
