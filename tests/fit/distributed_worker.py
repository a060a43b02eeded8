"""One process of tests/test_distributed.py: `python distributed_worker.py KIND PROCESS PORT`.

Prints one JSON object. Devices are counted when a backend starts, hence a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

kind, process, port = sys.argv[1], int(sys.argv[2]), sys.argv[3]
scope = contextlib.nullcontext


def set_up_tensorflow():
    import tensorflow as tf

    if kind == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        two = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
        tf.config.set_logical_device_configuration(cpu, two)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope
    workers = [f"127.0.0.1:{port}", f"127.0.0.1:{int(port) + 1}"]
    task = {"type": "worker", "index": process}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    return tf.distribute.MultiWorkerMirroredStrategy().scope


def set_up_jax():
    import jax

    jax.config.update("jax_num_cpu_devices", 2)
    import keras

    keras.distribution.set_distribution(keras.distribution.DataParallel())


def set_up_torch():
    from torch import distributed

    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=process, world_size=2
    )


if kind in ("mirrored", "multi_worker"):
    scope = set_up_tensorflow()
elif kind == "devices":
    set_up_jax()
else:
    set_up_torch()

import keras
from models import Metrics, one_weight, steps, weight

import adaptlr
from adaptlr.controllers import Decision
from adaptlr.schedules import Constant
from adaptlr.writers import MemoryWriter


class Scripted:
    """A controller that gives a rate of its own to each step."""

    monitor = None

    def init(self, run):
        return 0

    def update(self, state, observation):
        return state, Decision(2.0 ** (observation.step % 8), next_step=observation.step + 1)


def applied(*callbacks, epochs=1, **optimizer_arguments):
    """The sum of all rates, on batches of one sample for each of two devices."""
    with scope():
        model = one_weight(keras.optimizers.SGD(1.0, **optimizer_arguments))
    data = {**steps(16), "batch_size": 2}
    model.fit(**data, epochs=epochs, callbacks=list(callbacks))
    return weight(model)


def plateau():
    """Two processes disagree about where the score stops falling; 4 falls, 3 stands still."""
    feed = Metrics("score", [4.0, 4.0, 2.0] if process == 0 else [4.0, 3.0, 2.0])
    writer = MemoryWriter()
    callback = adaptlr.PlateauLR("score", 0.5, 1, mode="min", min_delta=0.75, writers=[writer])
    total = applied(feed, callback, epochs=3)
    rules = [(record.step, record.rule) for record in callback.decisions]
    return {"sum": total, "rules": rules, "written": len(writer.scalars)}


def refusal(model):
    callback = adaptlr.PlateauLR()
    callback.set_model(model)
    callback.on_train_begin()


def message_of(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


if kind == "multi_worker":
    with scope():
        made = one_weight()
    answer = {
        "keras": message_of(made.fit, **steps(8)),
        "adaptlr": message_of(refusal, made),
    }
else:
    answer = {
        "schedule": applied(adaptlr.ScheduleLR(lambda step: 2.0**step)),
        "controller": applied(adaptlr.ScheduleLR(Constant(1.0), Scripted())),
        "one_cycle": applied(adaptlr.OneCycleLR(1.0), momentum=0.9),
        "plateau": plateau(),
    }
print(json.dumps(answer), flush=True)
if kind == "multi_worker":
    os._exit(0)  # the failed fit leaves its workers waiting for each other
