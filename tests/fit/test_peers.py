"""The peers that need no rate, in `fit` and by optax alone: the same weights but for rounding."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

pytest.importorskip("optax")
if keras.backend.backend() != "jax":
    pytest.skip("optax is of JAX", allow_module_level=True)
sys.path.append(str(Path(__file__).parents[2] / "examples" / "benchmark"))

import jax
import optax
from optax import contrib
from peers import PEERS, gives_loss

STEPS, BATCH, EPOCHS = 96, 8, 8
COSINE = optax.cosine_decay_schedule(1.0, STEPS)
ALPHA = 0.0017486387539278373


def warm_cosine(step):
    warm = round(0.02 * STEPS)
    rise = optax.linear_schedule(1e-10 * ALPHA, ALPHA, warm)
    return optax.join_schedules([rise, optax.cosine_decay_schedule(ALPHA, STEPS - warm)], [warm])(
        step
    )


# By optax' own schedules, where ours are Keras'.
BY_HAND = {
    "Prodigy": contrib.prodigy(COSINE),
    "D-Adaptation": contrib.dadapt_adamw(COSINE),
    "DoG": contrib.dog(),
    "Mechanic": contrib.mechanize(optax.adamw(COSINE)),
    "MoMo": contrib.momo_adam(),
    "NadamW, AlgoPerf": optax.nadamw(
        warm_cosine, b1=0.93266073836, b2=0.9955159689799007, weight_decay=0.08121616522670176
    ),
}


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH * STEPS // EPOCHS, 5)).astype("float32")
    # Small targets: the loss, and not its rate, is what bounds MoMo's steps.
    return x, (0.1 * x @ random.normal(size=(5, 2))).astype("float32")


def model(optimizer=None):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile(optimizer or "sgd", "mse")
    return model


def trained_by_hand(transformation):
    """Weights after every step."""
    net, (x, y) = model(), data()
    weights = [variable.value for variable in net.trainable_variables]
    transformation = optax.with_extra_args_support(transformation)
    state = transformation.init(weights)

    @jax.jit
    def step(weights, state, x, y):
        def loss(weights):
            predicted, _ = net.stateless_call(weights, [], x, training=True)
            return jax.numpy.mean((predicted - y) ** 2)

        value, grads = jax.value_and_grad(loss)(weights)
        updates, state = transformation.update(grads, state, weights, value=value)
        return optax.apply_updates(weights, updates), state

    after = []
    for number in range(STEPS):
        at = slice(BATCH * (number % (STEPS // EPOCHS)), None)
        weights, state = step(weights, state, x[at][:BATCH], y[at][:BATCH])
        after.append([np.asarray(weight) for weight in weights])
    return after


def trained_by_fit(name, callbacks=()):
    net, (x, y) = model(PEERS[name](STEPS)), data()
    gives_loss(net)
    net.optimizer.build(net.trainable_variables)
    net.fit(
        x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[*callbacks]
    )
    return net


@pytest.mark.parametrize("name", PEERS)
def test_fit_trains_as_optax_alone(name):
    after = trained_by_hand(BY_HAND[name])
    net = trained_by_fit(name)
    expected = after[-1]
    if name == "DoG":  # leaves its average: weights of step t count by (t + 8) ... (t + 1)
        expected = after[0]
        for step, weights in enumerate(after[1:], start=1):
            share = 9.0 / (step + 9.0)
            expected = [a + share * (w - a) for a, w in zip(expected, weights, strict=True)]
    began = model().get_weights()
    moved = max(np.abs(a - b).max() for a, b in zip(expected, began, strict=True))
    assert moved > 1e-5
    for ours, theirs in zip(net.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3 * moved + 1e-7)


def test_the_loss_of_the_batch_does_not_outlive_the_step():
    assert trained_by_fit("MoMo").optimizer.loss is None


def test_the_suites_know_them_all():
    from methods import PEERS as NAMED

    assert tuple(PEERS) == NAMED
