"""Which classes a data set shows, what its annotation calls them, and which of them are unseen: all from metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from detectron2.data import MetadataCatalog

from PADing.errors import UserError

__all__ = ["EvaluatedClasses", "thing_classes", "stuff_classes", "panoptic_classes"]


@dataclass(frozen=True)
class EvaluatedClasses:
    """The classes of one data set, by contiguous id.

    Attributes:
        data_set: registered name, for messages.
        names: class name by contiguous id.
        dataset_ids: id in the annotation by contiguous id (the same number where metadata has no map).
        unseen: contiguous ids of unseen classes.
        things: contiguous ids of thing classes.
    """

    data_set: str
    names: Mapping[int, str]
    dataset_ids: Mapping[int, int]
    unseen: frozenset[int]
    things: frozenset[int] = field(default_factory=frozenset)

    @property
    def seen(self) -> frozenset[int]:
        """Contiguous ids of the classes that are not unseen."""
        return frozenset(self.names) - self.unseen

    @property
    def is_split(self) -> bool:
        """Whether both seen and unseen classes occur: the generalized setting, where a harmonic mean makes sense."""
        return bool(self.unseen) and bool(self.seen)

    @property
    def only_unseen(self) -> bool:
        """Whether every class is unseen: the pure zero-shot setting."""
        return bool(self.unseen) and not self.seen

    def dataset_id(self, contiguous_id: int) -> int:
        """The annotation's id of a predicted class; UserError when the data set has no such class."""
        try:
            return self.dataset_ids[contiguous_id]
        except KeyError:
            hint = ""
            if self.only_unseen:
                hint = " This set holds unseen classes only, so the model must answer with those alone."
            raise UserError(
                f"The model predicted class {contiguous_id}, but data set {self.data_set!r} has the contiguous ids "
                f"{_span(self.dataset_ids)}. The model's class count and DATASETS.TEST do not belong together.{hint}"
            ) from None


def thing_classes(data_set: str) -> EvaluatedClasses:
    """The classes of instance predictions."""
    metadata = MetadataCatalog.get(data_set)
    names = list(_required(metadata, "thing_classes"))
    to_contiguous = metadata.get("thing_dataset_id_to_contiguous_id") or {i: i for i in range(len(names))}
    ids = {contiguous: dataset_id for dataset_id, contiguous in to_contiguous.items()}
    if len(ids) != len(names):
        raise UserError(
            f"Metadata of {data_set!r}: {len(names)} thing_classes but {len(ids)} contiguous ids in "
            "thing_dataset_id_to_contiguous_id. They must describe the same classes."
        )
    by_id = dict(zip(sorted(ids), names, strict=True))
    return EvaluatedClasses(data_set, by_id, ids, _unseen(metadata, by_id), frozenset(by_id))


def stuff_classes(data_set: str) -> EvaluatedClasses:
    """The classes of a semantic map: all of them, things included."""
    metadata = MetadataCatalog.get(data_set)
    by_id = dict(enumerate(_required(metadata, "stuff_classes")))
    to_contiguous = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
    ids = {i: i for i in by_id} | {contiguous: dataset_id for dataset_id, contiguous in to_contiguous.items()}
    return EvaluatedClasses(data_set, by_id, ids, _unseen(metadata, by_id))


def panoptic_classes(data_set: str, categories: list[dict]) -> EvaluatedClasses:
    """The classes of a panoptic map. ``categories``, the annotation's list, decides names and what is a thing."""
    metadata = MetadataCatalog.get(data_set)
    things = dict(_required(metadata, "thing_dataset_id_to_contiguous_id"))
    to_contiguous = dict(metadata.get("stuff_dataset_id_to_contiguous_id") or {}) | things
    ids = {contiguous: dataset_id for dataset_id, contiguous in to_contiguous.items()}
    by_dataset_id = {category["id"]: category for category in categories}
    missing = sorted(set(ids.values()) - set(by_dataset_id))
    if missing:
        raise UserError(
            f"The panoptic annotation of {data_set!r} lacks the categories with the ids {missing[:10]}, which the data "
            "set's split names. Check `panoptic_json` and the category ids of the split file."
        )
    names = {contiguous: by_dataset_id[dataset_id]["name"] for contiguous, dataset_id in sorted(ids.items())}
    is_thing = frozenset(c for c, i in ids.items() if by_dataset_id[i].get("isthing", i in things))
    return EvaluatedClasses(data_set, names, ids, _unseen(metadata, names), is_thing)


def _unseen(metadata, names: Mapping[int, str]) -> frozenset[int]:
    # Names come first: sets that show only some of a split's classes keep the indices of the whole split.
    given = metadata.get("evaluation_set") or metadata.get("val_extra_classes")
    if given is not None:
        given = set(given)
        return frozenset(i for i, name in names.items() if name in given)
    return frozenset(int(i) for i in metadata.get("unseen_index") or () if int(i) in names)


def _required(metadata, key: str):
    value = metadata.get(key)
    if value is None:
        raise UserError(f"Metadata of data set {metadata.name!r} lacks `{key}`, which its evaluator needs.")
    return value


def _span(ids) -> str:
    ids = sorted(ids)
    if ids == list(range(ids[0], ids[-1] + 1)):
        return f"{ids[0]}..{ids[-1]}"
    return ", ".join(map(str, ids))
