"""Segmentation heads, and pixel decoders, by name."""

from __future__ import annotations

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
SEM_SEG_HEADS_REGISTRY.__doc__ = "Callables ``(cfg, input_shape: dict[str, ShapeSpec]) -> nn.Module``."


def build_sem_seg_head(cfg, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build ``cfg.MODEL.SEM_SEG_HEAD.NAME`` on top of feature maps of the given shapes."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)
