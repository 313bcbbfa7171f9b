"""``@configurable``: one function or class, called with its own arguments or with a config."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from yacs.config import CfgNode as AnyConfig  # the base of fvcore's node and of ours


def configurable(init_func: Callable | None = None, *, from_config: Callable | None = None) -> Callable:
    """Let a function accept ``(cfg, ...)`` in place of its own arguments, which ``from_config`` makes from ``cfg``.

    Use it bare on the ``__init__`` of a class with a classmethod ``from_config(cls, cfg, ...)``, or as
    ``@configurable(from_config=function)``. A config is the first positional argument or ``cfg=``. ``from_config`` gets
    positional arguments and the keywords that it names (all with ``*args`` or ``**kwargs``); others replace values
    of its dict.
    """
    if init_func is None:
        assert from_config is None or inspect.isfunction(from_config), "from_config= must be given a function"
        return functools.partial(_on_function, derive=from_config) if from_config else configurable
    assert inspect.isfunction(init_func) and init_func.__name__ == "__init__" and from_config is None, (
        "bare @configurable belongs on __init__; a plain function needs @configurable(from_config=...)"
    )

    @functools.wraps(init_func)
    def init(self, *args, **kwargs):
        derive = getattr(type(self), "from_config", None)
        if not inspect.ismethod(derive):
            wrong = AttributeError if derive is None else TypeError
            raise wrong(f"{type(self).__name__} needs a classmethod from_config(cls, cfg), because of @configurable")
        if _has_config(args, kwargs):
            args, kwargs = (), _derived(derive, args, kwargs)
        init_func(self, *args, **kwargs)

    return init


def _on_function(function: Callable, derive: Callable) -> Callable:
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(**_derived(derive, args, kwargs)) if _has_config(args, kwargs) else function(*args, **kwargs)

    vars(call)["from_config"] = derive
    return call


def _has_config(args: tuple, kwargs: dict) -> bool:
    return isinstance(args[0] if args else kwargs.get("cfg"), AnyConfig)


def _derived(derive: Callable, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments that ``derive`` makes of a call with a config."""
    parameters = inspect.signature(derive).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"the first argument of {derive.__qualname__} must be called cfg; it has {list(parameters)}")
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return derive(*args, **kwargs)
    asked = {name: value for name, value in kwargs.items() if name in parameters}
    return derive(*args, **asked) | {name: value for name, value in kwargs.items() if name not in parameters}
