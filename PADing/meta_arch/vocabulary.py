"""A vocabulary at inference: the classes that a user names, in place of those of the training's split.

``make_vocabulary`` turns names into a :class:`Vocabulary`, ``use_vocabulary`` hands it to a model, whose
meta-architecture implements one method of the contract for it (docs/vocabulary.md).
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from torch import Tensor, nn

from PADing.class_space import ClassSpace
from PADing.data.categories import generated_color
from PADing.data.vocabulary import Entry, check_entries
from PADing.data.vocabulary_vectors import VocabularyVectors
from PADing.errors import UserError
from PADing.meta_arch.class_embeddings import ClassEmbeddings
from PADing.meta_arch.contract import architecture_of, check_takes_vocabulary, contract_of
from PADing.meta_arch.second_classifier import classes_of, use_classes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Vocabulary:
    """The K classes that a model predicts from now on; output i of the model is class i.

    Attributes:
        space: names, things, which are unseen; ids in the order of the outputs.
        metadata: the same for drawings and evaluators.
        entries: the classes as the user has named them.
        kept: for each class its position among the model's own classes (``ClassSpace.vocabulary``), or -1 for a new
            one. A classifier with a row for each class keeps these rows.
        embeddings: (K, e) float32 class embeddings on the CPU; None if the model's own are missing and no class is new.
        state: what the model has computed for new classes, to be stored with the vocabulary; the model fills it.
    """

    space: ClassSpace
    metadata: Metadata
    entries: tuple[Entry, ...]
    kept: tuple[int, ...]
    embeddings: Tensor | None
    state: dict[str, Tensor] = field(default_factory=dict)


def use_vocabulary(model: nn.Module, vocabulary: Vocabulary | None) -> None:
    """Let a model predict the classes of a vocabulary; None: its own classes again, as before.

    Raises:
        UserError: the model takes no vocabulary, or cannot take this one.
    """
    check_takes_vocabulary(model)
    second = getattr(model, "second_classifier", None)
    if second is not None and vocabulary is not None:
        use_classes(second, classes_of(model, vocabulary))  # first, because it may refuse them
    contract_of(model).set_vocabulary(vocabulary)
    model.vocabulary = vocabulary  # type: ignore[assignment]  # SegmenterBase asks it which outputs are things


def own_classes(cfg: CfgNode, test: Metadata) -> ClassSpace:
    """All classes of a model's split, seen and unseen, by position in ``vocabulary``.

    Args:
        cfg: of the model; ``DATASETS.TRAIN[0]`` has the split.
        test: metadata of the evaluation set, which may know ids and kinds of further classes.
    """
    spaces = [ClassSpace.of(metadata) for metadata in (MetadataCatalog.get(cfg.DATASETS.TRAIN[0]), test)]
    names = spaces[0].vocabulary
    ids = {name: space.dataset_ids[i] for space in spaces for i, name in space.names.items()}
    things = {space.names[i] for space in spaces for i in space.things}
    free = max(ids.values(), default=0)
    for name in names:
        if name not in ids:
            ids[name] = free = free + 1
    return ClassSpace(
        data_set=spaces[1].data_set,
        kind=spaces[1].kind,
        names=dict(enumerate(names)),
        dataset_ids={i: ids[name] for i, name in enumerate(names)},
        things=frozenset(i for i, name in enumerate(names) if name in things),
        vocabulary=names,
        unseen_names=spaces[0].unseen_names or spaces[1].unseen_names,
        subset="all",
    )


class VocabularyMaker:
    """Makes vocabularies for one model.

    Args:
        cfg: of the model.
        own: see :func:`own_classes`.
    """

    def __init__(self, cfg: CfgNode, own: ClassSpace):
        self.cfg, self.own = cfg, own
        self._position = {name: i for i, name in enumerate(own.vocabulary)}
        self._vectors: dict[tuple[str, str], VocabularyVectors] = {}
        self.vectors_from: Callable[..., VocabularyVectors] = VocabularyVectors

    def make(
        self,
        entries: Sequence[Entry],
        keep_own: bool = False,
        given: str = "",
        text_source: str = "",
        in_order: bool = False,
        found: Sequence[int] | None = None,
    ) -> Vocabulary:
        """The vocabulary of some classes.

        A class that the model knows by one of its names keeps the model's row, its place in the annotation and its kind
        (thing or stuff, seen or unseen); every other one is new and unseen. Things come before stuff.

        Args:
            entries: the classes.
            keep_own: the model's own classes come first.
            given: a ``.npz`` of class embeddings; text_source: see :class:`VocabularyVectors`.
            in_order: class i is entry i, even if stuff comes before things.
            found: for each entry its position among the model's own classes, or -1; None: by :meth:`known`. If given,
                class i is entry i, and the entries say which classes are things.

        Raises:
            UserError: a class is named twice, stuff for a model of instances, no vectors, or vectors of another source.
        """
        as_written = found is not None
        found = [self.known(entry) for entry in entries] if found is None else list(found)
        if keep_own:
            there = {i for i in found if i >= 0}
            rest = [i for i in range(len(self.own)) if i not in there]
            own = [Entry((self.own.names[i],), i in self.own.things) for i in rest]
            entries, found = [*own, *entries], [*rest, *found]
        check_entries(entries, "The vocabulary with the model's own classes" if keep_own else "The vocabulary")
        if stuff := [e.name for e in entries if not e.isthing]:
            self._check_stuff(stuff)
        things = [e.isthing if as_written else self._is_thing(e, i) for e, i in zip(entries, found, strict=True)]
        # As in panoptic splits: a thing has the same number among the things.
        if self.own.kind == "panoptic" and not in_order and not as_written:
            order = sorted(range(len(entries)), key=lambda i: not things[i])
            entries, found, things = [entries[i] for i in order], [found[i] for i in order], [things[i] for i in order]
        space = self._space(entries, found, things)
        embeddings = self._embeddings(entries, found, given, text_source)
        return Vocabulary(space, metadata_of(space), tuple(entries), tuple(found), embeddings)

    def known(self, entry: Entry) -> int:
        """The position of a class among the model's own, -1 for a new one; UserError if its names are of several."""
        known = list(dict.fromkeys(self._position[name] for name in entry.known_as if name in self._position))
        if len(known) > 1:
            both = ", ".join(self.own.names[i] for i in known)
            raise UserError(f"The class {entry} of the vocabulary names {len(known)} classes of the model: {both}.")
        return known[0] if known else -1

    def _check_stuff(self, names: Sequence[str]) -> None:
        if self.own.kind == "instance":
            raise UserError(
                f"The vocabulary marks {', '.join(names[:5])} as stuff, but this model segments instances, that is "
                "things. Leave such classes out."
            )

    def _is_thing(self, entry: Entry, known: int) -> bool:
        return entry.isthing if known < 0 or self.own.kind == "semantic" else known in self.own.things

    def _space(self, entries: Sequence[Entry], found: Sequence[int], things: Sequence[bool]) -> ClassSpace:
        names = tuple(entry.name for entry in entries)
        free = iter(range(max(self.own.dataset_ids.values(), default=0) + 1, 2**62))
        ids = [self.own.dataset_ids[i] if i >= 0 else next(free) for i in found]
        count = Counter(found)
        if twice := [name for name, known in zip(names, found, strict=True) if known >= 0 and count[known] > 1]:
            raise UserError(f"Several names of the vocabulary stand for one class of the model: {', '.join(twice)}.")
        seen = set(self.own.seen_names)
        return ClassSpace(
            data_set=f"vocabulary of {len(names)} classes",
            kind=self.own.kind,
            names=dict(enumerate(names)),
            dataset_ids=dict(enumerate(ids)),
            things=frozenset(i for i, thing in enumerate(things) if thing and self.own.kind != "semantic"),
            vocabulary=names,
            unseen_names=tuple(
                name for name, i in zip(names, found, strict=True) if i < 0 or self.own.names[i] not in seen
            ),
            subset="all",
        )

    def _embeddings(self, entries: Sequence[Entry], found: Sequence[int], given: str, text_source: str):
        new = [entry for entry, known in zip(entries, found, strict=True) if known < 0]
        if new and not text_source:
            text_source = contract_of(architecture_of(self.cfg)).text_source(self.cfg)
        try:
            own = ClassEmbeddings.of_config(self.cfg, ClassSpace.of_config(self.cfg))
        except UserError as error:
            if not new:
                return None
            names = ", ".join(entry.name for entry in new[:5])
            why = "The model's own class embeddings say which source understands"
            raise UserError(f"{why} {names}, but they cannot be used. {error}") from error
        table = own.of(self.own.vocabulary)
        result = torch.empty(len(entries), own.width)
        known = torch.tensor([i >= 0 for i in found])
        result[known] = table[[i for i in found if i >= 0]]
        if new:
            key = str(given), str(text_source)
            if key not in self._vectors:
                rows = dict(zip(self.own.vocabulary, table.numpy(), strict=True))
                self._vectors[key] = self.vectors_from(own.path, rows, *key)
            vectors = self._vectors[key].of(new)
            if not np.isfinite(vectors).all():
                raise UserError("The vectors of the vocabulary have NaN or infinite numbers. Is their source damaged?")
            result[~known] = torch.from_numpy(vectors)
        return result


def metadata_of(space: ClassSpace) -> Metadata:
    """Metadata of a vocabulary, with the fields of a data set of its kind; in no catalog."""
    colors = [generated_color(i) for i in space.names]
    metadata = Metadata(name=space.data_set)
    metadata.set(**space.to_metadata())
    if space.kind != "semantic":
        metadata.set(thing_colors=[colors[i] for i in sorted(space.things)])
    if space.kind != "instance":
        metadata.set(ignore_label=255, stuff_colors=colors)
    if space.kind == "panoptic":
        metadata.set(label_divisor=1000)
    return metadata
