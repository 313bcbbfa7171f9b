"""Builds the backbone of a config."""

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

from .backbone import Backbone

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = "Classes and functions that make a backbone from a config and the ShapeSpec of its images."


def build_backbone(cfg, input_shape: ShapeSpec | None = None) -> Backbone:
    """Make ``MODEL.BACKBONE.NAME`` for ``input_shape`` or ``MODEL.PIXEL_MEAN``; KeyError for an unknown name."""
    name = cfg.MODEL.BACKBONE.NAME
    made = BACKBONE_REGISTRY.get(name)(cfg, input_shape or ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
    assert isinstance(made, Backbone), f"{name} is no backbone: it made a {type(made).__name__}."
    return made
