"""What surrounds a callback in `fit`: the other callbacks, and the exceptions that end it."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from typing import Any

import keras

__all__ = ["asked_first_epoch", "on_exception", "other_callbacks"]


def asked_first_epoch(model: Any) -> int | None:
    """Returns the `initial_epoch` that the running `fit` of a model was given; None if not found.

    Keras tells no callback of it, and `on_epoch_begin` of the epoch that is continued at.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            epoch = frame.f_locals.get("initial_epoch")
            return epoch if isinstance(epoch, int) else None
        frame = frame.f_back
    return None


def other_callbacks(callback: Any) -> list[str]:
    """Names the callbacks that are in the same `fit`, but for those that Keras adds."""
    found = _callback_list(callback)
    theirs = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    others = [] if found is None else found.callbacks
    return [type(c).__name__ for c in others if c is not callback and not isinstance(c, theirs)]


def on_exception(callback: Any, act: Callable[[], None]) -> Callable[[], None]:
    """Calls `act` if validation, or any callback at the turn of an epoch, raises in this `fit`.

    Keras tells no callback of an exception. So the methods in which it can arise are put on the
    model and on the list of callbacks anew, with a call of `act` on its way out.

    Args:
        callback: A callback inside `fit`.
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


def _guard(owner: Any, name: str, act: Callable[[], None]) -> None:
    method = getattr(owner, name)

    def guarded(*arguments: Any, **keywords: Any) -> Any:
        try:
            return method(*arguments, **keywords)
        except BaseException:
            act()
            raise

    vars(owner)[name] = guarded


def _callback_list(callback: Any) -> Any:
    """The list that Keras goes through; it shows itself to no callback, but shares `params`."""
    for holder in gc.get_referrers(callback.params):
        # Up to Python 3.10 it is the attributes' dict that refers to a value, not the object.
        owners = gc.get_referrers(holder) if isinstance(holder, dict) else [holder]
        for owner in owners:
            if isinstance(owner, keras.callbacks.CallbackList):
                return owner
    return None
