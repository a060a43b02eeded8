"""Several devices on JAX: those of this process, or those of several processes together.

python examples/distributed/jax_devices.py
python examples/distributed/jax_devices.py --processes 2 --process 0 &
python examples/distributed/jax_devices.py --processes 2 --process 1

Without a GPU one process takes two halves of the CPU, and several talk through gloo.
"""

from __future__ import annotations

import argparse
import os

os.environ["KERAS_BACKEND"] = "jax"
parser = argparse.ArgumentParser()
parser.add_argument("--processes", type=int, default=1)
parser.add_argument("--process", type=int, default=0)
parser.add_argument("--coordinator", default="127.0.0.1:29500")
args = parser.parse_args()

import jax

if args.processes == 1:
    jax.config.update("jax_num_cpu_devices", 2)  # must precede the first use of a device
else:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(args.coordinator, args.processes, args.process)

import keras
from task import network, train

# Each process feeds its own share of each batch, so Keras is not to split the data again.
keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
keras.utils.set_random_seed(0)  # the same first weights everywhere
train(network(), args.process, args.processes)
