"""Class embeddings for the words of a vocabulary: from files, or from the source of the model's own class embeddings.

A model understands vectors of one source only: one text encoder with its prompts, or one file of word vectors. Another
source would give numbers without meaning, so it is refused: by the sentence ``source`` in the files, and by comparing
the vectors of classes that both sides have.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from PADing.data.clip_models import SOURCE, ClipModel, clip_folder
from PADing.data.embedding_sources import clip_embeddings, word_embeddings
from PADing.data.embeddings import CLIP_TEMPLATES, embedding_source, read_class_embeddings
from PADing.data.mini import COLOURS, PATTERNS, SHAPES, SURFACES
from PADing.data.vocabulary import Entry
from PADing.errors import UserError, did_you_mean

logger = logging.getLogger(__name__)

WORD_SOURCE = re.compile(r"word vectors (?P<file>.+?)(?P<unit>, unit length)?$")
# The cosine of two vectors of one class from the same source; half precision differs by less.
SAME_SOURCE = 0.995
COMPARED = 5  # classes
# The source that tools name for the mini data's vectors, and the words that have one.
MINI_SOURCE = "datasets/make_mini_coco.py"
MINI_WORDS = (
    f"one of {', '.join(SURFACES)} with one of {', '.join(SHAPES)}, such as '{SURFACES[1]} {SHAPES[3]}'; and "
    f"one of {', '.join(COLOURS)} with one of {', '.join(PATTERNS)}"
)


class VocabularyVectors:
    """Finds the vectors of words.

    Args:
        path: the model's own file of class embeddings.
        own: the vectors of the model's classes by name, (e) float32 each.
        given: a further ``.npz`` of class embeddings; "": none.
        text_source: the text encoder's weights, or the file of word vectors, that made the model's own; "": the encoder
            is found by name.

    Raises:
        UserError: ``given`` is unreadable, has another number of dimensions, or comes from another source.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        own: Mapping[str, np.ndarray],
        given: str | os.PathLike = "",
        text_source: str | os.PathLike = "",
    ):
        self.path, self.own, self.text_source = os.fspath(path), own, os.fspath(text_source)
        self.source, self.templates = embedding_source(self.path)
        self.width = len(next(iter(own.values())))
        self.given, self.known = os.fspath(given), dict[str, np.ndarray]()
        if self.path.endswith(".npz"):
            self.known |= dict(zip(*read_class_embeddings(self.path), strict=True))
        if self.given:
            self.known |= self._read_given()
        self.known |= own

    def of(self, entries: Sequence[Entry]) -> np.ndarray:
        """Vectors (len(entries), e) float32, as stored for a class of one name.

        Several synonyms get the mean of their unit vectors, at the mean length of their vectors.

        Raises:
            UserError: words without a vector (the message names all of them), or the source cannot be used.
        """
        missing = [name for entry in entries if entry.known_as[0] not in self.known
                   for name in entry.names if name not in self.known]  # fmt: skip
        if missing:
            self.known |= dict(zip(missing, self._make(missing), strict=True))
        if not entries:
            return np.zeros((0, self.width), dtype=np.float32)
        return np.stack([self._vector(entry) for entry in entries])

    def _vector(self, entry: Entry) -> np.ndarray:
        if entry.known_as[0] in self.known:
            return self.known[entry.known_as[0]]
        vectors = np.stack([self.known[name] for name in entry.names]).astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        mean = (vectors / np.maximum(lengths, 1e-12)).mean(axis=0)
        return (mean / max(np.linalg.norm(mean), 1e-12) * lengths.mean()).astype(np.float32)

    def _read_given(self) -> dict[str, np.ndarray]:
        names, vectors = read_class_embeddings(self.given)
        name = f"Class embeddings {self.given}"
        if vectors.shape[1] != self.width:
            raise UserError(
                f"{name} have {vectors.shape[1]} dimensions, but the model's own ({self.path}) have {self.width}. Make "
                f"them with the model's source: {self.source}."
            )
        source, _ = embedding_source(self.given)
        if "unknown" not in (source, self.source) and self.path.endswith(".npz") and _key(source) != _key(self.source):
            raise UserError(
                f"{name} come from another source ({source}) than the model's own ({self.source}), so the model cannot "
                "read them. Make them with the model's source."
            )
        if zero := [n for n, row in zip(names, vectors, strict=True) if not row.any()]:
            raise UserError(f"{name} have only zeros for {', '.join(zero[:5])}. Is the file complete?")
        found = dict(zip(names, vectors, strict=True))
        self._compare({n: found[n] for n in self.own if n in found}, name)
        return found

    def _compare(self, others: Mapping[str, np.ndarray], what: str) -> None:
        """UserError if vectors of the model's classes differ from its own."""
        for name, other in others.items():
            own = self.own[name].astype(np.float64)
            cosine = own @ other / max(float(np.linalg.norm(own)) * float(np.linalg.norm(other)), 1e-12)
            if not cosine >= SAME_SOURCE:
                raise UserError(
                    f"{what}: the vector of {name!r} is not that of the model's own class embeddings ({self.path}; "
                    f"cosine {cosine:.3f}), so they come from another source than {self.source}."
                )

    def _make(self, words: list[str]) -> np.ndarray:
        """Vectors of words that no file has, by the source of the model's own."""
        clip, by_words = SOURCE.match(self.source), WORD_SOURCE.match(self.source)
        make: Callable[[list[str]], np.ndarray]
        if clip:
            make = self._clip(clip)
        elif self.text_source:
            unit = bool(by_words and by_words["unit"])
            make = lambda names: word_embeddings(names, self.text_source, normalize=unit)  # noqa: E731
        else:
            raise self._nothing_to_make(words, by_words)
        what = f"--text-source {self.text_source}" if self.text_source else f"The text encoder {self.source}"
        logger.info("%s makes the vectors of %d words.", what, len(words))
        # Names of several words may have been made of other texts (tools/class_embeddings.py --text).
        checked = [name for name in self.own if name.isalpha()][:COMPARED]
        made = np.asarray(make([*checked, *words]), dtype=np.float32)
        if made.shape[1] != self.width:
            sizes = f"{made.shape[1]} dimensions, but the model's own ({self.path}) have {self.width}"
            raise UserError(f"{what} makes vectors of {sizes}. Name the source of the model's own: {self.source}.")
        if not checked and not (clip and "#" in clip["weights"]):  # a folder has been checked by its fingerprint
            logger.warning("No class name is a single word, so it is not checked that %s is the right source.", what)
        self._compare(dict(zip(checked, made, strict=False)), what)
        return made[len(checked) :]

    def _clip(self, made_by: re.Match) -> Callable[[list[str]], np.ndarray]:
        model, weights, local = made_by["model"], made_by["weights"], self.text_source or None
        if local is not None and (folder := clip_folder(local)):
            model, local = folder, None
            self._check_folder(folder, weights)
        elif local is None and re.search(r"\.(pt|pth|bin|safetensors)(#\w+)?$", weights):
            what = "the folder of that model" if "#" in weights else "that file"
            raise UserError(
                f"The model's class embeddings come from the CLIP weights {weights}. Name {what} with --text-source."
            )
        options = {"checkpoint": local, "precision": made_by["precision"]}
        templates = tuple(self.templates or CLIP_TEMPLATES)
        return lambda names: clip_embeddings(names, model, weights, templates=templates, **options).numpy()

    def _check_folder(self, folder: str, weights: str) -> None:
        """UserError if a CLIP model's folder has other weights than those that made the model's own vectors."""
        found = ClipModel.of(folder).weights_label("")
        if "#" in weights and found.partition("#")[2] != weights.partition("#")[2]:
            raise UserError(
                f"--text-source {folder} has other weights ({found}) than those that made the model's own class "
                f"embeddings ({weights}), so the model cannot read its vectors. Name the folder that made them."
            )

    def _nothing_to_make(self, words: Sequence[str], by_words: re.Match | None) -> UserError:
        what = f"There is no vector of {_listed(words)}{did_you_mean(words[0], self.known, 1)}"
        if self.source.startswith(MINI_SOURCE):
            return UserError(
                f"{what}. The model's class embeddings ({self.source}) are sums of drawn parts, and no text encoder "
                f"makes them. These words are possible: {MINI_WORDS}. For any other word, use a model with class "
                "embeddings of CLIP or of word vectors: docs/vocabulary.md."
            )
        files = ", ".join(dict.fromkeys(Path(p).name for p in (self.given, self.path) if p.endswith(".npz")))
        where = f"vectors are {f'in {files}' if files else 'for the classes of the model alone'}"
        if by_words:
            cure = f"Name the file {by_words['file']} with --text-source, or an .npz with these names"
        else:
            where += f", and their source ({self.source}) encodes no further words by itself"
            cure = f"Use the names that have one: {_listed(list(self.known))}. Or name an .npz from the same source"
        return UserError(f"{what}: {where}. {cure} (--vocabulary-embeddings).")


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


def _key(source: str) -> str:
    """A source without the precision, which may differ between files of one source."""
    return re.sub(r", text encoder in fp\d+", "", source).strip()
