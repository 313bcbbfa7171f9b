"""The base class of augmentations, which choose a transform for an input with NumPy's global random generator."""

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

# The fields of an input, and the method of a transform that is meant for each.
_TREATMENT = {"image": "apply_image", "boxes": "apply_box", "sem_seg": "apply_segmentation"}


class AugInput:
    """An image (h, w) or (h, w, c), uint8 or float, with ``boxes`` (n, 4) of corners and labels ``sem_seg`` (h, w)."""

    def __init__(self, image: np.ndarray, *, sem_seg: np.ndarray | None = None, boxes: np.ndarray | None = None):
        assert isinstance(image, np.ndarray), f"AugInput takes an array as its image, not a {type(image).__name__}"
        assert image.dtype == np.uint8 or image.dtype.kind == "f", f"no augmentation works on {image.dtype} images"
        assert image.ndim in (2, 3), f"an image is (h, w) or (h, w, c), not {image.shape}"
        self.image, self.boxes, self.sem_seg = image, boxes, sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to every field that is set."""
        present = {field: value for field in _TREATMENT if (value := getattr(self, field)) is not None}
        for field, value in present.items():
            setattr(self, field, getattr(tfm, _TREATMENT[field])(value))


class Augmentation:
    """Base of augmentations; the parameters of ``get_transform`` are the names of the input's fields that it needs."""

    def get_transform(self, *args: Any, **kwargs: Any) -> Transform:
        """The transform for an input."""
        raise NotImplementedError(f"{type(self).__name__} lacks get_transform")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Choose a transform, apply it to the input, and return it for the annotation of the same image."""
        fields = []
        for parameter in inspect.signature(self.get_transform).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"{type(self).__name__}.get_transform must name each field that it wants, without *")
            if not hasattr(aug_input, parameter.name):
                raise AttributeError(f"{type(self).__name__} wants {parameter.name!r}, which its input lacks")
            fields.append(getattr(aug_input, parameter.name))
        chosen = self.get_transform(*fields)
        assert isinstance(chosen, Transform), f"{type(self).__name__}.get_transform gave a {type(chosen).__name__}"
        aug_input.transform(chosen)
        return chosen

    def _rand_range(self, low=1.0, high=None, size=None):
        """Uniform random numbers between two bounds; between 0 and the one bound that is given."""
        return np.random.uniform(*((0, low) if high is None else (low, high)), size)

    def __repr__(self) -> str:
        """As it would be written in code; arguments with their default value are left out."""
        arguments = [
            f"{name}={getattr(self, name)!r}"
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if hasattr(self, name) and getattr(self, name) is not parameter.default
        ]
        return f"{type(self).__name__}({', '.join(arguments)})"


class _Always(Augmentation):
    """The same transform for every input."""

    def __init__(self, transform: Transform):
        self._transform = transform

    def get_transform(self) -> Transform:
        return self._transform

    def __repr__(self) -> str:
        return repr(self._transform)


class AugmentationList(Augmentation):
    """A sequence of augmentations, transforms and nested lists."""

    def __init__(self, augs: Iterable):
        self.augs = [self._as_augmentation(step) for step in augs]

    @classmethod
    def _as_augmentation(cls, step) -> Augmentation:
        if isinstance(step, list | tuple):
            return cls(step)
        if not isinstance(step, Augmentation | Transform):
            raise TypeError(f"a {type(step).__name__} is neither an augmentation nor a transform, nor a list of them")
        return _Always(step) if isinstance(step, Transform) else step

    def __call__(self, aug_input: AugInput) -> TransformList:
        """Apply all in place; returns the transforms."""
        return TransformList([augmentation(aug_input) for augmentation in self.augs])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.augs})"


def apply_augmentations(augmentations: Iterable, inputs: AugInput | np.ndarray) -> tuple[Any, TransformList]:
    """Apply augmentations and transforms to an image, or to an ``AugInput`` in place; also returns the transforms."""
    carrier = inputs if isinstance(inputs, AugInput) else AugInput(inputs)
    done = AugmentationList(augmentations)(carrier)
    return (carrier if carrier is inputs else carrier.image), done


# Names in older code.
TransformGen = Augmentation
apply_transform_gens = apply_augmentations
