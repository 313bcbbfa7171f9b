"""Point sampling and the color augmentation of Detectron2's PointRend project."""

from .color_augmentation import ColorAugSSDTransform
