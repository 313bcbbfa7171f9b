"""Whole models by name."""

from __future__ import annotations

import torch
from detectron2.utils.registry import Registry
from torch import nn

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = """
Callables ``(cfg) -> nn.Module``. The module is called with a list of dicts, one per image; it returns a dict of losses
in training and one dict of results per image otherwise.
"""


def build_model(cfg) -> nn.Module:
    """Build ``cfg.MODEL.META_ARCHITECTURE`` on ``cfg.MODEL.DEVICE``; ``cfg.MODEL.WEIGHTS`` is not loaded."""
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(torch.device(cfg.MODEL.DEVICE))
