"""What the classes of a data set are called in pictures, and which of them are unseen."""

from detectron2.data import Metadata

from PADing.errors import UserError

__all__ = ["class_names", "display_metadata", "unseen_ids"]

UNSEEN_MARK = " (unseen)"


def class_names(metadata: Metadata) -> list[str]:
    """Names by contiguous id: of all classes where a set has stuff, else of its things.

    Raises:
        UserError: a data set without class names.
    """
    names = metadata.get("stuff_classes") or metadata.get("thing_classes")
    if not names:
        raise UserError(
            f"Data set {metadata.name!r} has no class names: its metadata lack thing_classes and stuff_classes. "
            "Is it registered? Data sets of one's own are, by a split file: DATASETS.SPLIT_FILES."
        )
    return list(names)


def unseen_ids(metadata: Metadata) -> set[int]:
    """Contiguous ids of the classes that no training image shows; empty for a set that names none."""
    names = class_names(metadata)
    return {names.index(name) for name in metadata.get("evaluation_set") or () if name in names}


def display_metadata(metadata: Metadata) -> Metadata:
    """Metadata for Detectron2's visualizers: things and stuff are found by contiguous id, unseen names are marked.

    Of a set with stuff, ``thing_classes`` may list the things alone, but visualizers look them up by the id among all
    classes.
    """
    unseen = unseen_ids(metadata)
    names = [name + UNSEEN_MARK * (index in unseen) for index, name in enumerate(class_names(metadata))]
    colors = metadata.get("stuff_colors") or metadata.get("thing_colors")
    shown = {"thing_classes": names, "stuff_classes": names}
    if colors:
        shown |= {"thing_colors": colors, "stuff_colors": colors}
    for key in ("ignore_label", "label_divisor", "thing_dataset_id_to_contiguous_id"):
        if metadata.get(key) is not None:
            shown[key] = metadata.get(key)
    return Metadata().set(**shown)
