"""What surrounds a callback in `fit`: arguments, callbacks, exceptions, steps, processes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import keras


def asked_first_epoch(model: Any) -> int | None:
    """Returns the `initial_epoch` that the running `fit` of a model was given; None if not found.

    Keras tells no callback of it, and `on_epoch_begin` of the epoch that is continued at.
    """
    epoch = _arguments_of_fit(model).get("initial_epoch")
    return epoch if isinstance(epoch, int) else None


def validation_of(model: Any) -> tuple[Any, int | None, int | None]:
    """Returns the validation data of the running `fit`, and what it was told of them.

    That is for arrays their batch size, and the number of batches to validate, each None if none
    was given.

    What `validation_split` has split off counts. Data that can be read only once count as none.
    """
    asked = _arguments_of_fit(model)
    data = asked.get("validation_data")
    if isinstance(data, Iterator):
        return None, None, None
    size = asked.get("validation_batch_size") or asked.get("batch_size")
    arrays = isinstance(data, tuple | list)
    return data, size if arrays else None, asked.get("validation_steps")


def batch_size_of(model: Any) -> int:
    """Returns the batch size that the running `fit` was given, or Keras' default of 32."""
    return _arguments_of_fit(model).get("batch_size") or 32


def other_callbacks(callback: Any) -> list[Any]:
    """Returns the callbacks that are in the same `fit`, but for those that Keras adds."""
    found = _callback_list(callback)
    added = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    others = [] if found is None else found.callbacks
    return [c for c in others if c is not callback and not isinstance(c, added)]


def other_names(callback: Any) -> list[str]:
    """Names them by their classes, but for those that the user has not put there."""
    others = other_callbacks(callback)
    return [type(other).__name__ for other in others if not getattr(other, "unnamed", False)]


def metrics_may_come(callback: Any) -> bool:
    """Whether another callback may put metrics of its own into the logs; none of Keras does."""
    if _callback_list(callback) is None:  # driven by hand
        return True
    known = ("keras", "adaptlr")
    return any(
        isinstance(other, keras.callbacks.LambdaCallback)
        or type(other).__module__.split(".")[0] not in known
        for other in other_callbacks(callback)
    )


def averages_in_model(callback: Any) -> bool | None:
    """Whether `SwapEMAWeights` leaves the averages in the model for this callback's epoch ends.

    Listed before it, and with `swap_on_epoch`, it does; else the averages that were validated
    stand in the optimizer. None where there is no `SwapEMAWeights`.
    """
    found = _callback_list(callback)
    listed = [] if found is None else found.callbacks
    for place, other in enumerate(listed):
        if isinstance(other, keras.callbacks.SwapEMAWeights):
            return bool(other.swap_on_epoch) and callback not in listed[:place]
    return None


def validated_epochs(model: Any) -> list[int] | None:
    """Returns which epochs the running `fit` of a model validates, counted from 1.

    None if no `fit` is found that was given data to validate with.
    """
    given = _arguments_of_fit(model)
    if given.get("validation_data") is None and not given.get("validation_split"):
        return None
    often = given.get("validation_freq", 1)
    epochs = range(given["initial_epoch"] + 1, given["epochs"] + 1)
    if isinstance(often, int):
        return [epoch for epoch in epochs if epoch % often == 0]
    return [epoch for epoch in epochs if epoch in often]


def require_keras_3(owner: str, model: Any) -> None:
    """Refuses the models of Keras 2, which look alike.

    Raises:
        TypeError: If it is one, or no model at all.
    """
    if isinstance(model, keras.Model):
        return
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    old = any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__)
    raise TypeError(
        f"{owner} needs a model of Keras 3. Received: "
        + (
            f"{kind}, a model of Keras 2 (tf_keras). Import keras in place of tf_keras, and where "
            f"tf.keras is used, leave TF_USE_LEGACY_KERAS unset."
            if old
            else f"an object of type {kind}"
        )
    )


def on_exception(callback: Any, act: Callable[[], None]) -> Callable[[], None]:
    """Calls `act` if validation, or any callback at the turn of an epoch, raises in this `fit`.

    Keras tells no callback of an exception. So the methods in which it can arise are put on the
    model and on the list of callbacks anew, with a call of `act` on its way out.

    Args:
        callback: A callback in one of its hooks, called by `fit`.
        act: What to do.

    Returns:
        A function that takes the guard off the model.
    """
    model, callbacks = callback.model, _callback_list(callback)
    _guard(model, "evaluate", act)
    if callbacks is not None:
        for hook in ("on_epoch_begin", "on_epoch_end", "on_train_end"):
            _guard(callbacks, hook, act)
    guarded = vars(model)["evaluate"]

    def remove() -> None:
        if vars(model).get("evaluate") is guarded:
            del vars(model)["evaluate"]

    return remove


def compiles_steps() -> bool:
    """Whether the backend compiles the training step, and with it what is a Python number."""
    return bool(keras.backend.backend() != "torch")


def undo_at_next_build(model: Any, undo: Callable[[], None]) -> Callable[[], None]:
    """Calls `undo` when the next `fit` builds its training step, should it not be called before.

    That is how what a callback has put into a step leaves it again where an exception ends `fit`,
    after which Keras calls no hook any more.

    Args:
        model: A compiled model.
        undo: What to do. It must cancel itself.

    Returns:
        A function that cancels it.
    """
    pending = _pending(model)
    if pending is None:
        pending = []

        def build_undone(force: bool = False) -> Any:
            while pending:
                pending[-1]()
            return model.make_train_function(force)

        build_undone.pending = pending  # type: ignore[attr-defined]
        vars(model)["make_train_function"] = build_undone
    pending.append(undo)

    def cancel() -> None:
        if undo in pending:
            pending.remove(undo)
        if not pending and _pending(model) is pending:
            del vars(model)["make_train_function"]

    return cancel


def _pending(model: Any) -> Any:
    return getattr(vars(model).get("make_train_function"), "pending", None)


def _guard(owner: Any, name: str, act: Callable[[], None]) -> None:
    method = getattr(owner, name)

    def guarded(*arguments: Any, **keywords: Any) -> Any:
        try:
            return method(*arguments, **keywords)
        except BaseException:
            with suppress(Exception):  # what ended it is what is to be told
                act()
            raise

    vars(owner)[name] = guarded


def _arguments_of_fit(model: Any) -> dict[str, Any]:
    """Those of Keras' own: a method of that name in a model's class may take anything."""
    for frame in _frames():
        own = str(frame.f_globals.get("__name__")).startswith("keras.")
        if own and frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return dict(frame.f_locals)
    return {}


def _callback_list(callback: Any) -> Any:
    """The list that Keras goes through; its own method has called the hook that asks."""
    for frame in _frames():
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList) and callback in owner.callbacks:
            return owner
    return None


def _frames() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_chief() -> bool:
    """Whether this process writes the logs: rank 0, and any process that trains alone."""
    return _process()[0] == 0


def is_alone() -> bool:
    """Whether this process trains the model by itself."""
    return _process()[1] == 1


def _process() -> tuple[int, int]:
    """Index of this process, and how many there are."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_index(), jax.process_count()
    group = _torch_group()
    return (0, 1) if group is None else (group.get_rank(), group.get_world_size())


def agreed(numbers: Sequence[float | None]) -> list[float | None]:
    """Returns the mean over all processes of each number, so that all decide alike.

    On PyTorch every process measures its own share of the data. On JAX and TensorFlow, Keras'
    metrics are those of all shares already. `None` stands for "not measured" and is left out.
    """
    group = _torch_group()
    if group is None:
        return list(numbers)
    everywhere: list[Any] = [None] * group.get_world_size()
    group.all_gather_object(everywhere, list(numbers))
    return [
        _mean([x for x in column if x is not None]) for column in zip(*everywhere, strict=True)
    ]


def require_supported(model: Any) -> None:
    """Refuses what Keras itself cannot train.

    Raises:
        RuntimeError: If the model was made under `tf.distribute.MultiWorkerMirroredStrategy` with
            more than one worker.
    """
    extended = getattr(getattr(model, "distribute_strategy", None), "extended", None)
    if getattr(extended, "_num_workers", 1) > 1:
        raise RuntimeError(
            "Keras 3 cannot fit a model under tf.distribute.MultiWorkerMirroredStrategy "
            "(https://github.com/keras-team/keras/issues/20585); train on the devices of one "
            "machine with tf.distribute.MirroredStrategy, or on several machines with JAX."
        )


def _torch_group() -> Any:
    """`torch.distributed` if this process is one of several, else None."""
    if keras.backend.backend() != "torch":
        return None
    from torch import distributed

    return distributed if distributed.is_available() and distributed.is_initialized() else None


def _mean(numbers: list[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
