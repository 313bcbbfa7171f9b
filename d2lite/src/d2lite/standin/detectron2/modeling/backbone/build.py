"""From a config to a backbone."""

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

from .backbone import Backbone

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = "Classes and functions that make a backbone from a config and the ShapeSpec of its images."


def build_backbone(cfg, input_shape: ShapeSpec | None = None) -> Backbone:
    """Make the backbone called ``MODEL.BACKBONE.NAME``; KeyError for an unknown name.

    Args:
        input_shape: of the images; without it, they have a channel for each number of ``MODEL.PIXEL_MEAN``.
    """
    name = cfg.MODEL.BACKBONE.NAME
    made = BACKBONE_REGISTRY.get(name)(cfg, input_shape or ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
    assert isinstance(made, Backbone), f"{name} is no backbone: it made a {type(made).__name__}."
    return made
