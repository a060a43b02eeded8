"""What stands between the pure core and Keras: rates, copies of weights, measurements."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import blobs, classifier, one_weight, steps

from adaptlr.bridge.average import RunningAverage
from adaptlr.bridge.evaluation import TrainingLoss, evaluate
from adaptlr.bridge.optimizer import OptimizerRate
from adaptlr.bridge.snapshots import Snapshot


def values(variables):
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def trained(model, epochs=1):
    x, y = blobs()
    model.fit(x, y, epochs=epochs, shuffle=False, verbose=0)
    return model


class At(keras.callbacks.Callback):
    """Runs a function before a step, with the model synced."""

    def __init__(self, step, function):
        super().__init__()
        self.step, self.function = step, function

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.step:
            self.function(self.model)


class TestOptimizerRate:
    @pytest.mark.parametrize(
        ("optimizer", "velocity"),
        [
            (lambda: keras.optimizers.SGD(0.1, momentum=0.8), 0.8),
            (lambda: keras.optimizers.SGD(0.1, momentum=1.0), 0.999),
            (lambda: keras.optimizers.RMSprop(0.1, momentum=0.5), 0.5),
            (lambda: keras.optimizers.RMSprop(0.1), 0.0),
            (lambda: keras.optimizers.Adam(0.1), 0.0),
            (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0, 0.7)), 0.7),
        ],
    )
    def test_velocity_is_the_momentum_that_remembers_rates(self, optimizer, velocity):
        assert OptimizerRate(one_weight(optimizer())).velocity() == velocity

    def test_writes_are_float32_and_not_mistaken_for_a_change(self):
        model = one_weight(keras.optimizers.Adam(1e-3))
        rate = OptimizerRate(model)
        assert rate.changed_by_others() is None
        rate.write(0.1)
        assert rate.initial() == pytest.approx(0.1)
        assert rate.changed_by_others() is None
        model.optimizer.learning_rate = 0.2
        assert rate.changed_by_others() == (pytest.approx(0.1), pytest.approx(0.2))

    def test_reaches_the_inner_optimizer_of_a_loss_scale(self):
        inner = keras.optimizers.SGD(0.5)
        rate = OptimizerRate(one_weight(keras.optimizers.LossScaleOptimizer(inner)))
        assert rate.initial() == 0.5
        rate.write(0.25)
        assert float(keras.ops.convert_to_numpy(inner.learning_rate)) == 0.25


class TestSnapshot:
    @pytest.mark.alike
    @pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adamw", "lion"])
    def test_brings_back_weights_slots_and_counters_again_and_again(self, optimizer):
        model = trained(classifier(optimizer, keras.layers.BatchNormalization()))
        variables = [*model.weights, *model.optimizer.variables]
        snapshot, before = Snapshot(model, OptimizerRate(model)), values(variables)
        for _ in range(2):  # on JAX a restore that does not copy can be done once
            trained(model, epochs=2)
            assert not same(values(variables), before)
            snapshot.restore()
            assert same(values(variables), before)

    def test_brings_back_random_state(self):
        model = trained(classifier("sgd", keras.layers.Dropout(0.5)))
        snapshot = Snapshot(model, OptimizerRate(model))
        first = values(trained(model).weights)
        snapshot.restore()
        assert same(values(trained(model).weights), first)

    def test_leaves_the_rate(self):
        model = one_weight()
        rate = OptimizerRate(model)
        snapshot = Snapshot(model, rate)
        rate.write(0.125)
        snapshot.restore()
        assert rate.initial() == 0.125


class TestRunningAverage:
    def average(self, model, path, step=0):
        average = RunningAverage(model, step)
        for value in path:
            step += 1
            model.set_weights([np.full((1, 1), value, "float32")])
            average.update(step)
        return average

    def test_is_the_power_function_average(self):
        model, path = one_weight(), [1.0, 2.0, 4.0, 8.0, 16.0]
        average = self.average(model, path)
        expected = 0.0
        for t, value in enumerate(path, start=1):
            expected += (1.0 - (1.0 - 1.0 / t) ** 17.0) * (value - expected)
        average.swap_in()
        assert model.get_weights()[0].item() == pytest.approx(expected, rel=1e-6)

    def test_swaps_in_and_out_exactly(self):
        model = one_weight()
        average = self.average(model, [0.1, 0.2, 0.3])
        raw = values(model.weights)
        average.swap_in()
        assert not same(values(model.weights), raw)
        average.swap_out()
        assert same(values(model.weights), raw)

    def test_finish_leaves_the_best(self):
        model = one_weight()
        average = self.average(model, [1.0])
        average.keep_best()
        model.set_weights([np.full((1, 1), 9.0, "float32")])
        average.update(2)
        average.finish()
        assert model.get_weights()[0].item() == 1.0

    def test_an_update_without_a_step_in_between_counts_once(self):
        model = one_weight()
        average = self.average(model, [1.0, 3.0])
        once = list(average._values)
        average.update(2)
        assert same(values(average._values), values(once))

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("interval", [1, 3])
    def test_batch_norm_statistics_are_free_of_their_initial_values(self, interval, dtype):
        """A moving mean of constant batches reads their mean at once, not after 1/(1-μ) steps."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization(dtype=dtype)])
        model.compile(keras.optimizers.SGD(1e-6), "mse")
        x = np.tile(np.array([[2.0], [4.0]], "float32"), (6, 1))
        averages = []

        class Average(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if not averages:
                    averages.append(RunningAverage(self.model, 0))
                elif batch % interval == 0:
                    self.model.trainable_variables  # noqa: B018
                    averages[0].update(batch)

        model.fit(x, x, batch_size=2, shuffle=False, verbose=0, callbacks=[Average()])
        mean, variance = values(model.layers[0].non_trainable_variables)
        assert float(mean[0]) < 0.5
        averages[0].swap_in()
        mean, variance = values(model.layers[0].non_trainable_variables)
        close = 1e-3 if dtype == "float32" else 0.05
        assert float(mean[0]) == pytest.approx(3.0, rel=close)
        assert float(variance[0]) == pytest.approx(1.0, rel=close)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_frozen_statistics_of_a_narrow_type_stay_to_the_bit(self, dtype):
        layer = keras.layers.BatchNormalization(trainable=False, dtype=dtype)
        model = keras.Sequential([keras.Input((2,)), layer])
        layer.moving_mean.assign([3.0, 0.7])
        layer.moving_variance.assign([0.3, 1.1])
        before = values(layer.weights)
        average = RunningAverage(model, 0)
        for step in (1, 2, 5, 21):
            average.update(step)
        average.swap_in()
        assert same(values(layer.weights), before)

    def test_frozen_statistics_stay_as_they_are(self):
        model = classifier("sgd", keras.layers.BatchNormalization(trainable=False))
        x, y = blobs()
        model.fit(x, y, verbose=0)
        average = RunningAverage(model, 0)
        before = values(model.layers[1].weights)
        model.fit(x, y, verbose=0)
        average.update(5)
        average.swap_in()
        for now, then in zip(values(model.layers[1].weights)[2:], before[2:], strict=True):
            assert now == pytest.approx(then, rel=1e-5)


class TestTrainingLoss:
    def test_is_the_mean_since_the_last_read(self):
        model, seen, meter = one_weight(), [], []

        class Read(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                meter[:] = meter or [TrainingLoss(self.model)]
                meter[0].reset()

            def on_train_batch_begin(self, batch, logs=None):
                if batch % 2 == 0:
                    model = self.model  # on JAX reading it syncs the metrics
                    assert model is not None
                    seen.append(meter[0].read())

        model.fit(**steps(6), epochs=2, callbacks=[Read()])
        # The loss is the weight, which falls by one a step.
        assert seen == pytest.approx([None, -0.5, -2.5, None, -6.5, -8.5])

    def test_a_model_without_a_loss_metric_gives_none(self):
        class Bare:
            metrics = ()

        assert TrainingLoss(Bare()).read() is None


class TestEvaluate:
    def data(self, kind):
        x, y = blobs(32, seed=1)
        if kind == "arrays":
            return x, y
        if kind == "weighted arrays":
            return x, y, np.ones(32, "float32")
        if kind == "PyDataset":

            class Batches(keras.utils.PyDataset):
                def __len__(self):
                    return 4

                def __getitem__(self, index):
                    return x[index * 8 : index * 8 + 8], y[index * 8 : index * 8 + 8]

            return Batches()
        if kind == "tf.data":
            tf = pytest.importorskip("tensorflow")
            return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        torch = pytest.importorskip("torch")
        pairs = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
        return torch.utils.data.DataLoader(pairs, batch_size=8)

    @pytest.mark.alike
    @pytest.mark.parametrize(
        "kind", ["arrays", "weighted arrays", "PyDataset", "tf.data", "DataLoader"]
    )
    def test_every_kind_of_data_gives_the_same(self, kind):
        model = trained(classifier("sgd"))
        expected = evaluate(model, self.data("arrays"))
        assert set(expected) == {"val_loss", "val_accuracy"}
        assert evaluate(model, self.data(kind)) == pytest.approx(expected, rel=1e-5)

    def test_inside_fit_it_leaves_no_trace(self):
        x, y = blobs()
        ends, logs = [], []
        for probe in (False, True):
            keras.utils.set_random_seed(1)
            model = classifier(
                "adam", keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)
            )
            callbacks = [At(1, lambda m: evaluate(m, (x, y)))] if probe else []
            history = model.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=callbacks)
            ends.append(values(model.weights))
            logs.append(history.history)
        assert same(*ends)
        assert logs[0] == logs[1]
