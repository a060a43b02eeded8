"""The public surface: exact, documented, and free of what it need not load."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import keras
import pytest

import adaptlr

MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(adaptlr.__path__, "adaptlr.")
]


@pytest.mark.parametrize("module", [adaptlr, *MODULES], ids=lambda m: m.__name__)
def test_all_is_sorted_and_exists(module):
    names = getattr(module, "__all__", [])
    assert names == sorted(names)
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_all_is_exact(module):
    """What a module defines without an underscore is what it exports, save shared helpers."""
    if module.__file__.endswith("__init__.py"):
        return
    defined = {
        name
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    assert defined <= set(getattr(module, "__all__", defined))


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_examples_in_docstrings_run(module):
    if module.__name__ == "adaptlr.groups" and not hasattr(keras.optimizers, "OptimizerMap"):
        pytest.skip("this release of Keras has no groups of optimizers")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", adaptlr.__all__)
def test_public_callbacks_are_documented_with_an_example(name):
    value = getattr(adaptlr, name)
    if inspect.isclass(value):
        takes = ["Args:"] if inspect.signature(value).parameters else []
        for section in (*takes, "Raises:", "Example:"):
            assert section in value.__doc__


def test_reading_a_recorded_run_loads_no_keras():
    script = "import sys, adaptlr.__main__; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_is_imported_at_first_use_is_all_there():
    assert set(adaptlr.__all__) <= set(dir(adaptlr))
    with pytest.raises(AttributeError, match="no attribute 'AutoRL'"):
        _ = adaptlr.AutoRL
