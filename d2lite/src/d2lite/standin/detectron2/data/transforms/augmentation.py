"""Augmentations: policies that look at an input, draw from numpy's global generator, and return a transform."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = [
    "Augmentation",
    "AugmentationList",
    "AugInput",
    "StandardAugInput",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]


class Augmentation:
    """A policy. Subclasses define ``get_transform``, whose parameters name the attributes of the input that it needs.

    Calling an augmentation with an :class:`AugInput` chooses a transform, applies it to the input in place and returns
    it, so that it can be applied to other things of the same image (annotations).
    """

    input_args: tuple[str, ...] | None = None
    """Names of the attributes that ``get_transform`` gets; None takes them from its signature."""

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Turn a constructor's ``locals()`` into attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args) -> Transform:
        raise NotImplementedError(f"{type(self).__name__} does not define get_transform.")

    def __call__(self, aug_input: "AugInput") -> Transform:
        transform = self.get_transform(*self._arguments(aug_input))
        assert isinstance(transform, Transform), (
            f"{type(self).__name__}.get_transform must return a Transform, not {type(transform).__name__}."
        )
        aug_input.transform(transform)
        return transform

    def _arguments(self, aug_input: "AugInput") -> list:
        if self.input_args is None:
            parameters = inspect.signature(self.get_transform).parameters.values()
            if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
                raise TypeError(
                    f"get_transform of {type(self).__name__} must name its parameters, as attributes of the input "
                    "(image, boxes, sem_seg), or the class must set input_args."
                )
            self.input_args = tuple(p.name for p in parameters)
        for name in self.input_args:
            if not hasattr(aug_input, name):
                raise AttributeError(f"{type(self).__name__} needs {name!r}, which the input does not have.")
        return [getattr(aug_input, name) for name in self.input_args]

    def _rand_range(self, low: float = 1.0, high: float | None = None, size=None):
        """Uniform numbers from numpy's global generator: in [0, low) when ``high`` is None, else in [low, high)."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, size)

    def __repr__(self) -> str:
        """The constructor's call, as far as its parameters are attributes; defaults are left out."""
        parts = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name == "self" or not hasattr(self, name):
                continue
            value = getattr(self, name)
            if parameter.default is not value:
                parts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    __str__ = __repr__


TransformGen = Augmentation  # its name in older code


class _Fixed(Augmentation):
    """A transform in the place of an augmentation."""

    def __init__(self, transform: Transform):
        self.transform = transform

    def get_transform(self) -> Transform:
        return self.transform

    def __repr__(self) -> str:
        return repr(self.transform)

    __str__ = __repr__


def _as_augmentation(x: "Augmentation | Transform | Sequence") -> Augmentation:
    if isinstance(x, Augmentation):
        return x
    if isinstance(x, Transform):
        return _Fixed(x)
    if isinstance(x, list | tuple):
        return AugmentationList(x)
    raise TypeError(f"An Augmentation, a Transform or a list of them was expected, not {type(x).__name__}.")


class AugmentationList(Augmentation):
    """Augmentations and transforms applied in sequence, each to the result of those before it."""

    def __init__(self, augs: Sequence):
        self.augs = [_as_augmentation(x) for x in augs]

    def __call__(self, aug_input: "AugInput") -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(str(aug) for aug in self.augs)}]"

    __str__ = __repr__


class AugInput:
    """What augmentations look at and change: attributes ``image``, ``boxes``, ``sem_seg``."""

    def __init__(self, image: np.ndarray, *, boxes: np.ndarray | None = None, sem_seg: np.ndarray | None = None):
        """
        Args:
            image: (h, w) or (h, w, c); uint8 in 0..255, or floating point.
            boxes: (n, 4), as x0, y0, x1, y1 in pixels; or None.
            sem_seg: (h, w) labels; or None.
        """
        assert isinstance(image, np.ndarray), f"The image must be a numpy array, not {type(image).__name__}."
        assert image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating), (
            f"The image must be uint8 or floating point, not {image.dtype}."
        )
        assert image.ndim in (2, 3), f"The image must have 2 or 3 dimensions, not the shape {image.shape}."
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to all attributes."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations: Sequence) -> TransformList:
        """Apply augmentations and transforms in sequence; returns the transforms that were used."""
        return AugmentationList(augmentations)(self)


StandardAugInput = AugInput  # its name in older code


def apply_augmentations(augmentations: Sequence, inputs: "AugInput | np.ndarray") -> "tuple[Any, TransformList]":
    """Apply augmentations and transforms in sequence.

    Args:
        augmentations: :class:`Augmentation` and ``Transform`` objects.
        inputs: an image, or an :class:`AugInput`, which is changed in place.

    Returns:
        The image (for an image) or the same input, and the transforms that were used.
    """
    if isinstance(inputs, np.ndarray):
        aug_input = AugInput(inputs)
        transforms = aug_input.apply_augmentations(augmentations)
        return aug_input.image, transforms
    return inputs, inputs.apply_augmentations(augmentations)


apply_transform_gens = apply_augmentations  # its name in older code
