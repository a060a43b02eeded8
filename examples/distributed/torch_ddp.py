"""Several processes on PyTorch, one for each device, through DistributedDataParallel.

torchrun --standalone --nproc-per-node 2 examples/distributed/torch_ddp.py

Keras' own step averages no gradients between processes, so the model brings a step that does.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

import torch
from torch import distributed

device = None
if torch.cuda.is_available():  # before Keras, which takes the device that is current
    device = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(device)
distributed.init_process_group("gloo" if device is None else "nccl")

import keras
from task import network, train
from torch.nn.parallel import DistributedDataParallel


class DataParallelModel(keras.Model):
    def train_step(self, data):
        if "averaging" not in self.__dict__:
            # Through __dict__: as an attribute it would be a part of itself.
            self.__dict__["averaging"] = DistributedDataParallel(self)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.zero_grad()
        y_pred = self.averaging(x, training=True)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
        self._loss_tracker.update_state(loss, sample_weight=len(x))
        loss.backward()
        variables = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in variables], variables)
        return self.compute_metrics(x, y, y_pred, sample_weight)


keras.utils.set_random_seed(0)
train(network(DataParallelModel), distributed.get_rank(), distributed.get_world_size())
distributed.destroy_process_group()
