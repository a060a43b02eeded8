"""A GAN on digits: two optimizers of its own, driven by one callback, and both networks learn."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import adaptlr
from adaptlr.schedules import Cosine, Warmup

BACKEND = keras.backend.backend()
LATENT = 8


def mlp(inputs, outputs, last):
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(64),
            keras.layers.LeakyReLU(0.2),
            keras.layers.Dense(outputs, activation=last),
        ]
    )


class GAN(keras.Model):
    """Goodfellow et al., arXiv 1406.2661; `fit` takes images and as many latent vectors."""

    def __init__(self):
        super().__init__()
        self.generator = mlp(LATENT, 64, "sigmoid")
        self.discriminator = mlp(64, 1, None)
        self.built = True

    def compile(self, d_optimizer, g_optimizer):
        # On JAX a compiled step holds what is no part of model.optimizer for constants.
        super().compile(run_eagerly=BACKEND == "jax")
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        if BACKEND == "jax":
            d_optimizer.build(self.discriminator.trainable_variables)
            g_optimizer.build(self.generator.trainable_variables)

    def call(self, latent):
        return self.generator(latent)

    def losses_of(self, images, latent):
        """Optimizer, network and loss of the two players, in the order of their moves."""

        def d_loss():
            told = self.discriminator(images), self.discriminator(self.generator(latent))
            return keras.ops.mean(keras.ops.softplus(-told[0]) + keras.ops.softplus(told[1]))

        def g_loss():
            told = self.discriminator(self.generator(latent))
            return keras.ops.mean(keras.ops.softplus(-told))

        yield "d_loss", self.d_optimizer, self.discriminator.trainable_variables, d_loss
        yield "g_loss", self.g_optimizer, self.generator.trainable_variables, g_loss

    def train_step(self, *arguments):
        return getattr(self, f"step_of_{BACKEND}")(*arguments)

    def step_of_tensorflow(self, data):
        import tensorflow as tf

        logs = {}
        for name, optimizer, variables, loss in self.losses_of(*data):
            with tf.GradientTape() as tape:
                logs[name] = loss()
            weights = [variable.value for variable in variables]
            optimizer.apply(tape.gradient(logs[name], weights), variables)
        return logs

    def step_of_torch(self, data):
        import torch

        logs = {}
        for name, optimizer, variables, loss in self.losses_of(*data):
            self.zero_grad()
            value = loss()
            value.backward()
            with torch.no_grad():
                optimizer.apply([variable.value.grad for variable in variables], variables)
            logs[name] = value.detach()
        return logs

    def step_of_jax(self, state, data):
        import jax

        weights, others, slots, metrics = state
        values, logs = dict(zip(map(id, self.trainable_variables), weights, strict=True)), {}
        for name, optimizer, variables, loss in self.losses_of(*data):

            def at(own, variables=variables, loss=loss):
                now = {**values, **dict(zip(map(id, variables), own, strict=True))}
                mapping = [(v, now[id(v)]) for v in self.trainable_variables]
                with keras.StatelessScope(state_mapping=mapping):
                    return loss()

            own = [values[id(v)] for v in variables]
            logs[name], gradients = jax.value_and_grad(at)(own)
            inner = [v.value for v in optimizer.variables]
            own, inner = optimizer.stateless_apply(inner, gradients, own)
            for variable, value in zip(optimizer.variables, inner, strict=True):
                variable.assign(value)
            values.update(zip(map(id, variables), own, strict=True))
        return logs, ([values[id(v)] for v in self.trainable_variables], others, slots, metrics)


EPOCHS, BATCH = 8, 128
STEPS = 13 * EPOCHS
EVERY = {
    "ScheduleLR": lambda own: adaptlr.ScheduleLR(Warmup(Cosine(4e-3, STEPS), 10), optimizers=own),
    "CyclicalLR": lambda own: adaptlr.CyclicalLR(1e-3, 4e-3, 26, optimizers=own),
    "PlateauLR": lambda own: adaptlr.PlateauLR("g_loss", 0.5, 2, min_delta=1e9, optimizers=own),
}


@pytest.mark.alike
@pytest.mark.parametrize("name", EVERY)
def test_both_networks_train_at_the_rates_given(name):
    images = load_digits().data[: 13 * BATCH].astype("float32") / 16.0
    keras.utils.set_random_seed(0)
    latent = np.random.default_rng(0).normal(size=(len(images), LATENT)).astype("float32")
    model = GAN()
    d_optimizer = keras.optimizers.Adam(4e-3, beta_1=0.5, name="d")
    g_optimizer = keras.optimizers.Adam(1e-3, beta_1=0.5, name="g")
    model.compile(d_optimizer, g_optimizer)

    def distance():
        made = keras.ops.convert_to_numpy(model(latent))
        return np.abs(made.mean(0) - images.mean(0)).mean()

    before, far = [np.copy(w) for w in model.get_weights()], distance()
    callback = EVERY[name]([d_optimizer, g_optimizer])
    history = model.fit(
        images, latent, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[callback]
    ).history
    assert all(
        np.abs(w - b).max() > 0.02 for w, b in zip(model.get_weights(), before, strict=True)
    )
    assert distance() < 0.5 * far
    assert np.isfinite([history["d_loss"], history["g_loss"]]).all()
    rates = np.array(history["learning_rate_d"])
    np.testing.assert_allclose(history["learning_rate_g"], rates / 4, rtol=1e-6)
    wanted = {
        "ScheduleLR": [Warmup(Cosine(4e-3, STEPS), 10)(13 * n - 1) for n in range(1, EPOCHS + 1)],
        "CyclicalLR": [
            1e-3 + 3e-3 * (1 - abs((13 * n - 1) / 26 % 2 - 1)) for n in range(1, EPOCHS + 1)
        ],
        "PlateauLR": [4e-3] * 3 + [2e-3] * 2 + [1e-3] * 2 + [5e-4],
    }
    np.testing.assert_allclose(rates, wanted[name], rtol=1e-5)
