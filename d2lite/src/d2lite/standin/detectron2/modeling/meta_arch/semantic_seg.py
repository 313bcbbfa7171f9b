"""Builds the segmentation head of a config."""

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
SEM_SEG_HEADS_REGISTRY.__doc__ = "Classes and functions that make a head from a config and a dict of ShapeSpecs."


def build_sem_seg_head(cfg, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Make ``MODEL.SEM_SEG_HEAD.NAME`` for a backbone's feature maps; KeyError for an unknown name."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)
