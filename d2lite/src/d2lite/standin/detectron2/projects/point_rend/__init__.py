"""Point sampling and the colour augmentation of Detectron2's PointRend project."""

from .color_augmentation import ColorAugSSDTransform
