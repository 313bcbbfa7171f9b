"""Activation checkpointing: parts of a network keep only their inputs, and the backward pass computes them again.

Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost". State dicts stay as they are: a part gets a subclass
of its class, and no module around it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from detectron2.layers import CNNBlockBase
from torch import nn
from torch.utils.checkpoint import checkpoint

from PADing.errors import UserError

LISTS = (nn.Sequential, nn.ModuleList)


def recompute(part: nn.Module, method: str = "forward") -> None:
    """From now on ``part``, in training, computes ``method`` again in the backward pass; in place, and only once.

    Losses and gradients stay equal: random numbers of both passes are the same, mixed precision too, and running
    statistics of normalisations are updated by the first pass alone.
    """
    if method not in getattr(part, "_recomputed_methods", ()):
        part.__class__ = _recomputing(cast(Any, type(part)), method)


@functools.cache
def _recomputing(kind: type[nn.Module], method: str) -> type[nn.Module]:
    plain: Callable = getattr(kind, method)

    @functools.wraps(plain)
    def recomputed(self: nn.Module, *args, **kwargs):
        if not (self.training and torch.is_grad_enabled()):
            return plain(self, *args, **kwargs)
        contexts: dict[str, Any] = {}
        if not torch.compiler.is_compiling():  # a compiled graph updates statistics once, whatever it computes again
            contexts["context_fn"] = functools.partial(_contexts, self)
        return checkpoint(plain, self, *args, use_reentrant=False, **contexts, **kwargs)

    methods = (*getattr(kind, "_recomputed_methods", ()), method)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {**names, method: recomputed, "_recomputed_methods": methods})


def _contexts(part: nn.Module):
    return nullcontext(), _buffers_kept(part)


@contextmanager
def _buffers_kept(part: nn.Module) -> Iterator[None]:
    """Inside, the part has copies of its buffers, so that running statistics are not updated again."""
    before = [(module, name, buffer) for module in part.modules() for name, buffer in module._buffers.items()]
    for module, name, buffer in before:
        module._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in before:
            module._buffers[name] = buffer


def recompute_backbone(backbone: nn.Module, name: str) -> None:
    """Recompute the blocks of a backbone, in place; UserError if it has none that are known.

    The blocks are those that its method ``recomputable()`` returns, or Detectron2's ``CNNBlockBase`` (ResNets), or else
    ``repeated_blocks``. ``name`` is for the message.
    """
    told = getattr(backbone, "recomputable", None)
    found = told() if told else [module for module in backbone.modules() if isinstance(module, CNNBlockBase)]
    found = found or repeated_blocks(backbone)
    if not found:
        wrong = f"MODEL.BACKBONE.ACTIVATION_CHECKPOINTING is True, but the blocks of {name} are not known."
        raise UserError(f"{wrong} Set it to False, or give the class a method recomputable() that returns modules.")
    for block in found:
        recompute(block)


def recompute_pixel_decoder(decoder: nn.Module) -> None:
    """Recompute the parts of a pixel decoder that its method ``recomputable()`` yields, as (module, method); in place.

    UserError if it has no such method.
    """
    told = getattr(decoder, "recomputable", None)
    if told is None:
        wrong = f"MODEL.SEM_SEG_HEAD.ACTIVATION_CHECKPOINTING is True, but the parts of {type(decoder).__name__} are"
        cure = "Set it to False, or give the class a method recomputable() that returns pairs (module, name of method)."
        raise UserError(f"{wrong} not known. {cure}")
    for part, method in list(told()):
        recompute(part, method)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of which the stages of a network consist: elements of its lists that hold no lists of blocks.

    A list is an ``nn.Sequential``, an ``nn.ModuleList``, or a module whose children are all blocks of one class.
    """
    found: list[nn.Module] = []
    for child in network.children():
        if _is_list(child):
            found += _elements(child)
        else:
            found += repeated_blocks(child)
    return found


def _elements(parts: nn.Module) -> Iterator[nn.Module]:
    for part in parts.children():
        if _is_list(part):
            yield from _elements(part)
        elif any(_is_list(child) and _are_blocks(child.children()) for child in part.children()):
            yield from repeated_blocks(part)  # a stage
        elif any(True for _ in part.children()):
            yield part


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, LISTS) or _are_blocks(module.children(), least=2)


def _are_blocks(modules: Iterable[nn.Module], least: int = 1) -> bool:
    """Whether modules are of one class and have parts."""
    modules = list(modules)
    return len(modules) >= least and len({type(m) for m in modules}) == 1 and all(list(m.children()) for m in modules)
