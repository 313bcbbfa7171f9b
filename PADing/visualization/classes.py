"""What the classes of a data set are called in images, and which of them are unseen."""

from detectron2.data import Metadata

from PADing.errors import UserError

__all__ = ["class_names", "unseen_ids"]


def class_names(metadata: Metadata) -> list[str]:
    """Names by contiguous id: of all classes where a set has stuff, else of its things.

    Raises:
        UserError: a data set without class names.
    """
    names = metadata.get("stuff_classes") or metadata.get("thing_classes")
    if not names:
        raise UserError(
            f"Data set {metadata.name!r} has no class names: its metadata lack thing_classes and stuff_classes. "
            "Is it registered? Your own data are, by a split file: DATASETS.SPLIT_FILES."
        )
    return list(names)


def unseen_ids(metadata: Metadata) -> set[int]:
    """Contiguous ids of the classes that no training image shows; empty for a set that names none."""
    names = class_names(metadata)
    return {names.index(name) for name in metadata.get("evaluation_set") or () if name in names}
