"""Which classes of an evaluation set a model has seen in training, and metrics over these groups of classes."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

GROUPS = {
    "all": "All",
    "seen": "Seen in training",
    "not_seen": "Not seen",
    "unseen": "  unseen classes of the model's split",
    "other": "  other classes",
}


@dataclass(frozen=True)
class TrainingGroups:
    """The groups of an evaluation set's classes for one model.

    Attributes:
        class_names: of the evaluation set, by contiguous id.
        matched: contiguous id -> the model's class of the same name (``PADing.data.class_names``).
        unseen: ids in ``matched`` whose class the model's split names as unseen: known by name, not seen in training.
    """

    class_names: tuple[str, ...]
    matched: Mapping[int, str]
    unseen: frozenset[int]

    @cached_property
    def members(self) -> dict[str, frozenset[int]]:
        """The contiguous ids of each group; keys as of ``GROUPS``. "not_seen" is "unseen" and "other" together."""
        every = frozenset(range(len(self.class_names)))
        seen = frozenset(self.matched) - self.unseen
        return {
            "all": every,
            "seen": seen,
            "not_seen": every - seen,
            "unseen": self.unseen,
            "other": every - frozenset(self.matched),
        }

    def of(self, classes: Collection[int]) -> "TrainingGroups":
        """The groups of some of the classes, such as the things: ids keep their numbers, which must be 0, 1, 2, ..."""
        count = len(classes)
        return TrainingGroups(
            self.class_names[:count],
            {i: name for i, name in self.matched.items() if i < count},
            frozenset(i for i in self.unseen if i < count),
        )

    @property
    def share(self) -> float:
        """Which percentage of the classes is seen in training."""
        return 100 * len(self.members["seen"]) / len(self.class_names)

    def summary(self, metrics: Mapping[str, Callable[[frozenset[int]], float]]) -> dict[str, float]:
        """Numbers, share and means: ``{"share_seen": ..., "classes_all": ..., "<metric>_all": ..., ...}``.

        Args:
            metrics: name -> function that returns the metric over some contiguous ids.
        """
        result = {"share_seen": self.share}
        result |= {f"classes_{group}": float(len(ids)) for group, ids in self.members.items()}
        for name, metric in metrics.items():
            result |= {f"{name}_{group}": float(metric(ids)) for group, ids in self.members.items()}
        return result

    def per_class(self) -> list[dict]:
        """For each class its name, its group ("seen", "unseen", "other"), and the model's class of the same name."""
        names = {i: group for group in ("seen", "unseen", "other") for i in self.members[group]}
        return [
            {"name": name, "group": names[i], "model_class": self.matched.get(i)}
            for i, name in enumerate(self.class_names)
        ]
