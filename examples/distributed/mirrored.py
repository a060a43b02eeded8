"""Several devices of one machine on TensorFlow: every GPU, or two halves of the CPU.

python examples/distributed/mirrored.py
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf

if not tf.config.list_physical_devices("GPU"):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    )

import keras
from task import network, train

keras.utils.set_random_seed(0)
kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
devices = [f"{kind}:{i}" for i, _ in enumerate(tf.config.list_logical_devices(kind))]
with tf.distribute.MirroredStrategy(devices).scope():
    model = network()
train(model)
