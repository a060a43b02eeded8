"""What the tests of real fits share."""

from __future__ import annotations

import importlib

import keras
import programs
import pytest

BACKEND = keras.backend.backend()

# Here graphs are as users have them, as in each test that runs a program of its own: what is
# compiled is the question, or what the pages show.
OPTIMISED = {
    "test_compile_modes",
    "test_docs",
    "test_in_graph",
    "test_keras_contract",
    "test_own_optimizers",
    "test_public",
}


@pytest.fixture(autouse=True, scope="module")
def _graphs_as_traced(request):
    """TensorFlow optimises each graph anew, which pays in none that is run so few times."""
    if BACKEND == "tensorflow":
        optimizer = importlib.import_module("tensorflow").config.optimizer
        traced = request.module.__name__ not in OPTIMISED
        optimizer.set_experimental_options({"disable_meta_optimizer": traced})


@pytest.fixture(autouse=True, scope="session")
def _compiled_once(tmp_path_factory):
    """Most tests train one of few models: JAX keeps for all what it has compiled for one.

    Processes of one worker follow one another; two at once would read what is half written.
    """
    if BACKEND == "jax":
        programs.JAX_SETTINGS.update(
            jax_compilation_cache_dir=str(tmp_path_factory.mktemp("compiled")),
            jax_persistent_cache_min_compile_time_secs=0.0,
        )
        for name, value in programs.JAX_SETTINGS.items():
            importlib.import_module("jax").config.update(name, value)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
