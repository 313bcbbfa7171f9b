"""Augmentations (random policies) and the transforms (deterministic operations) that they choose."""

from fvcore.transforms.transform import (
    BlendTransform,
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    ScaleTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from d2lite.omitted import omitted_names

from .augmentation import (
    AugInput,
    Augmentation,
    AugmentationList,
    TransformGen,
    apply_augmentations,
    apply_transform_gens,
)
from .augmentation_impl import (
    FixedSizeCrop,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
    RandomFlip,
    Resize,
    ResizeScale,
    ResizeShortestEdge,
)
from .transform import ResizeTransform

__getattr__ = omitted_names(__name__)
