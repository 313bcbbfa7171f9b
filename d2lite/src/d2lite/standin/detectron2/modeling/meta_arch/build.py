"""Builds the model of a config."""

from detectron2.utils.registry import Registry
from torch import nn

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = """Classes and functions that make a model from a config.

A model is an ``nn.Module`` that takes a list with a dict for each image. In training it returns a dict of losses, and
else a list with a dict of results for each image.
"""


def build_model(cfg) -> nn.Module:
    """Make ``MODEL.META_ARCHITECTURE`` on ``MODEL.DEVICE``, with random weights; KeyError for an unknown name."""
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).to(cfg.MODEL.DEVICE)
