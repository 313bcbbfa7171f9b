"""ClassSpace: the classes of a data set, their order, which are unseen and which are things.

A split file defines it (``PADing.data.splits``), and the metadata of a registered data set store it:
``ClassSpace.of(MetadataCatalog.get(name))`` reads it. No other code reads these metadata keys.

A class has two numbers. Its *contiguous id* is its label in one data set. Its *output* is its position in
``vocabulary``, the classes that a model of the split predicts. They differ only in data sets of unseen classes alone,
where ``output = contiguous id + offset``.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PADing.errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["ClassSpace"]


@dataclass(frozen=True)
class ClassSpace:
    """The classes of one data set; see the module.

    Attributes:
        data_set: registered name, for messages.
        kind: "instance", "panoptic" or "semantic".
        names: contiguous id -> class name, in ascending order of ids.
        dataset_ids: contiguous id -> id in the annotation.
        things: contiguous ids of the things; empty for semantic labels, which do not tell things from stuff.
        vocabulary: names of all classes of the split, seen and unseen, by output; without a split those of ``names``.
        unseen_names: classes that no training image shows, in the order of ``vocabulary``.
        subset: which classes the data set shows: "seen", "all" or "unseen"; "" without a split.
        offset: output minus contiguous id.
        evaluation_only: no model is trained on these classes; a model of other classes predicts them by name.
        synonyms: contiguous id -> other names of the class, for classes that have some.
    """

    data_set: str
    kind: str
    names: Mapping[int, str]
    dataset_ids: Mapping[int, int]
    things: frozenset[int]
    vocabulary: tuple[str, ...]
    unseen_names: tuple[str, ...] = ()
    subset: str = ""
    offset: int = 0
    evaluation_only: bool = False
    synonyms: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Any, kind: str = "") -> "ClassSpace":
        """The classes in a data set's metadata, which a split file or another package has set.

        Args:
            metadata: an entry of ``MetadataCatalog``.
            kind: part of a panoptic data set: "instance" for its things alone, "semantic" for all its classes without
                the distinction of things and stuff; "" for the data set as it is.

        Raises:
            UserError: no class names, or names and ids that do not describe the same classes.
        """
        things = () if kind == "semantic" else tuple(metadata.get("thing_classes") or ())
        stuff = () if kind == "instance" else tuple(metadata.get("stuff_classes") or ())
        name = str(metadata.get("name"))
        if not things and not stuff:
            keys = {"instance": "thing_classes", "semantic": "stuff_classes"}
            raise UserError(
                f"Data set {name!r} has no class names: its metadata lack "
                f"{keys.get(kind, 'thing_classes and stuff_classes')}. Is it registered? Register your own data by a "
                "split file: DATASETS.SPLIT_FILES."
            )
        thing_ids = _by_contiguous_id(metadata, "thing_dataset_id_to_contiguous_id") if things else {}
        if stuff:
            names = dict(enumerate(stuff))
        else:
            thing_ids = thing_ids or {i: i for i in range(len(things))}
            if len(thing_ids) != len(things):
                raise UserError(
                    f"Metadata of {name!r}: {len(things)} thing_classes but {len(thing_ids)} contiguous ids in "
                    "thing_dataset_id_to_contiguous_id. They must describe the same classes."
                )
            names = dict(zip(sorted(thing_ids), things, strict=True))
        stuff_ids = _by_contiguous_id(metadata, "stuff_dataset_id_to_contiguous_id") if stuff else {}
        vocabulary = tuple(metadata.get("vocabulary") or names.values())
        return cls(
            data_set=name,
            kind="instance" if not stuff else "panoptic" if things else "semantic",
            names=names,
            dataset_ids={i: i for i in names} | stuff_ids | thing_ids,
            things=frozenset(thing_ids),
            vocabulary=vocabulary,
            unseen_names=_unseen_names(metadata, vocabulary),
            subset=metadata.get("subset") or "",
            offset=metadata.get("label_offset") or 0,
            evaluation_only=bool(metadata.get("evaluation_only")),
            synonyms={i: own for i, own in (metadata.get("synonyms") or {}).items() if i in names},
        )

    @classmethod
    def of_config(cls, cfg: "CfgNode") -> "ClassSpace":
        """The classes of a config's first training set; ``vocabulary`` holds those of its whole split.

        Raises:
            UserError: as :meth:`of`; the config names no training set.
        """
        if not cfg.DATASETS.TRAIN:
            raise UserError("DATASETS.TRAIN is empty. Name a data set: its classes are those of the model.")
        from detectron2.data import MetadataCatalog  # imports PyTorch

        return cls.of(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))

    def to_metadata(self) -> dict[str, Any]:
        """The metadata keys that :meth:`of` reads, with those that Detectron2 has for this kind of data set."""
        entry: dict[str, Any] = {
            "evaluation_set": list(self.unseen_names),
            "unseen_index": list(self.unseen_outputs),
            "vocabulary": list(self.vocabulary),
            "label_offset": self.offset,
            "subset": self.subset,
        }
        if self.evaluation_only:
            entry["evaluation_only"] = True
        if self.synonyms:
            entry["synonyms"] = dict(self.synonyms)
        if self.kind != "semantic":
            entry["thing_classes"] = [self.names[i] for i in sorted(self.things)]
            entry["thing_dataset_id_to_contiguous_id"] = {self.dataset_ids[i]: i for i in sorted(self.things)}
        if self.kind != "instance":
            entry["stuff_classes"] = list(self.names.values())
            entry["stuff_dataset_id_to_contiguous_id"] = {self.dataset_ids[i]: i for i in self.names}
        return entry

    def __len__(self) -> int:
        return len(self.names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of contiguous ids."""
        return tuple(self.names.values())

    @property
    def contiguous_ids(self) -> dict[int, int]:
        """Id in the annotation -> contiguous id."""
        return {dataset_id: i for i, dataset_id in self.dataset_ids.items()}

    @property
    def unseen(self) -> frozenset[int]:
        """Contiguous ids of the data set's unseen classes."""
        unseen = set(self.unseen_names)
        return frozenset(i for i, name in self.names.items() if name in unseen)

    @property
    def seen(self) -> frozenset[int]:
        """Contiguous ids of the data set's seen classes."""
        return frozenset(self.names) - self.unseen

    @property
    def is_generalized(self) -> bool:
        """Whether the data set has seen and unseen classes: the generalized setting, which has a harmonic mean."""
        return bool(self.unseen) and bool(self.seen)

    @property
    def only_unseen(self) -> bool:
        """Whether the data set has unseen classes alone: the zero-shot setting."""
        return bool(self.unseen) and not self.seen

    @property
    def seen_names(self) -> tuple[str, ...]:
        """The seen classes of the vocabulary, in its order."""
        unseen = set(self.unseen_names)
        return tuple(name for name in self.vocabulary if name not in unseen)

    @property
    def unseen_outputs(self) -> tuple[int, ...]:
        """Positions of the unseen classes in the vocabulary."""
        unseen = set(self.unseen_names)
        return tuple(i for i, name in enumerate(self.vocabulary) if name in unseen)

    def dataset_id(self, contiguous_id: int) -> int:
        """The annotation's id of a predicted class; UserError if the data set has no such class."""
        if contiguous_id in self.dataset_ids:
            return self.dataset_ids[contiguous_id]
        hint = " This set has unseen classes only, so the model must predict those alone."
        raise UserError(
            f"The model predicted class {contiguous_id}, but data set {self.data_set!r} has the contiguous ids "
            f"{_span(self.dataset_ids)}. The model's class count and DATASETS.TEST do not belong together."
            f"{hint if self.only_unseen else ''}"
        )


def _by_contiguous_id(metadata: Any, key: str) -> dict[int, int]:
    return {contiguous: dataset_id for dataset_id, contiguous in (metadata.get(key) or {}).items()}


def _unseen_names(metadata: Any, vocabulary: tuple[str, ...]) -> tuple[str, ...]:
    # Names come first, because data sets of unseen classes alone store positions in the whole split.
    given = metadata.get("evaluation_set") or metadata.get("val_extra_classes")
    if given is not None:
        return tuple(given)
    return tuple(vocabulary[i] for i in metadata.get("unseen_index") or () if 0 <= i < len(vocabulary))


def _span(ids: Collection[int]) -> str:
    ordered = sorted(ids)
    if ordered and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}..{ordered[-1]}"
    return ", ".join(map(str, ordered))
