"""Runs examples as programs, each in a process of its own; Keras is imported once for all."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_OURS = [str(ROOT)] if (ROOT / "adaptlr").exists() else []  # or what is installed

# Each program is forked from a process that has these imported and has done no more.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["keras", "adaptlr.callbacks", "rich.console", "rich.progress", "sklearn.datasets"]
)

# How JAX is to be set up in each: see tests/fit/conftest.py.
JAX_SETTINGS = {}


def paths():
    """What an environment has to hold for our own package to be found."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [*_OURS, before]))}


def start(script, *arguments, **environment):
    """Runs a script with a command line; returns what `subprocess.run` would."""
    command = [str(script), *map(str, arguments)]
    environment = {**os.environ, **paths(), **environment}
    with tempfile.TemporaryDirectory() as folder:
        shown = [Path(folder) / name for name in ("stdout", "stderr")]
        arguments = (command, environment, shown, JAX_SETTINGS)
        process = PROCESSES.Process(target=_program, args=arguments)
        process.start()
        process.join()
        texts = [path.read_text() if path.exists() else "" for path in shown]
    return subprocess.CompletedProcess(command, process.exitcode, *texts)


def run(script, *arguments, **environment):
    """Returns what a script prints, which must end well."""
    ran = start(script, *arguments, **environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def _program(command, environment, shown, jax_settings):
    """What `python script` does, from the import of Keras on."""
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(shown, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    for name, value in jax_settings.items():
        importlib.import_module("jax").config.update(name, value)
    here = str(Path(__file__).parent)
    sys.argv = command
    sys.path[:] = [str(Path(command[0]).parent), *_OURS, *(p for p in sys.path if p != here)]
    runpy.run_path(command[0], run_name="__main__")
