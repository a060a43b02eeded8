"""The names of Keras' metrics have the direction that the metrics themselves know."""

import inspect

import keras
import pytest

from adaptlr.monitor import direction_by_name

NEEDED = {"num_classes": 2, "target_class_ids": [0]} | dict.fromkeys(
    ("recall", "precision", "specificity", "sensitivity"), 0.5
)
METRICS = [
    metric
    for metric in vars(keras.metrics).values()
    if isinstance(metric, type) and metric is not keras.metrics.MeanMetricWrapper
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
def test_the_names_of_keras_have_the_direction_of_its_metrics(metric):
    parameters = inspect.signature(metric.__init__).parameters
    made = metric(**{name: NEEDED[name] for name in NEEDED if name in parameters})
    known = {"up": "max", "down": "min", None: None}[getattr(made, "_direction", None)]
    if known is None:
        with pytest.raises(ValueError, match="cannot be told"):
            direction_by_name(made.name)
    else:
        assert direction_by_name(f"val_{made.name}") == known
        assert direction_by_name(f"head_{made.name}_1") == known
