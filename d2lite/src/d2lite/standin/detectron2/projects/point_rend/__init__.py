"""Point sampling and the colour augmentation of Detectron2's PointRend project."""

from d2lite.omitted import omitted_names

from .color_augmentation import ColorAugSSDTransform

__getattr__ = omitted_names(__name__)
