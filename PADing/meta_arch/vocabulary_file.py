"""Vocabularies in a ``.npz`` file: names, class embeddings, and what a model has computed for them.

It is a file of class embeddings (``PADing.data.embeddings``) with further arrays: ``entries``, the classes as a user
writes them, and ``state/...``, the model's own numbers. So any file of class embeddings is a vocabulary, too.
"""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from PADing.data.embeddings import embedding_source, read_class_embeddings, save_class_embeddings
from PADing.data.vocabulary import Entry, check_entries, parse_vocabulary
from PADing.errors import UserError
from PADing.meta_arch.vocabulary import Vocabulary

_STATE = "state/"


def is_vocabulary_file(words: object) -> bool:
    """Whether a vocabulary is given as the path of an ``.npz`` file."""
    return isinstance(words, str | os.PathLike) and os.fspath(words).strip().lower().endswith(".npz")


def save_vocabulary(path: str | os.PathLike, vocabulary: Vocabulary, own_embeddings: str) -> None:
    """Write a vocabulary; the file appears when it is complete.

    Args:
        path: the file, which ends in ``.npz``.
        vocabulary: of a model; with its ``state``.
        own_embeddings: the model's file of class embeddings, whose source the vectors have.

    Raises:
        UserError: no vectors, another suffix, a file that is no vocabulary, or the file cannot be written.
    """
    if vocabulary.embeddings is None:
        raise UserError(f"{path} is not written: the model knows all classes by name, so there is nothing to keep.")
    if os.path.exists(path) and not _holds_vocabulary(path):
        raise UserError(f"{path} exists and is no vocabulary, so it is not replaced. Choose another name.")
    source, templates = embedding_source(own_embeddings)
    further = {"entries": np.array([str(entry) for entry in vocabulary.entries], dtype=np.str_)}
    further |= {_STATE + name: value.numpy() for name, value in vocabulary.state.items()}
    names = [entry.known_as[0] for entry in vocabulary.entries]
    save_class_embeddings(path, names, vocabulary.embeddings.numpy(), source, templates, further)


def read_vocabulary(path: str | os.PathLike) -> tuple[tuple[Entry, ...], dict[str, Tensor]]:
    """The classes of a file of :func:`save_vocabulary`, or of any file of class embeddings, and the state in it.

    Raises:
        UserError: a missing or damaged file.
    """
    names, _ = read_class_embeddings(path)  # checks the file, its size, and the types of its arrays
    with _explained(path), np.load(path, allow_pickle=False) as arrays:
        state = {
            key.removeprefix(_STATE): torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith(_STATE)
        }
        written = [str(text) for text in arrays["entries"]] if "entries" in arrays.files else None
    if written is None:
        entries: tuple[Entry, ...] = tuple(Entry((name,)) for name in names)
    else:
        entries = parse_vocabulary(written)
        if [entry.known_as[0] for entry in entries] != names:
            raise UserError(f"Vocabulary {path} is damaged: its entries are not those of its names.")
    check_entries(entries, f"Vocabulary {path}")
    return entries, state


def _holds_vocabulary(path: str | os.PathLike) -> bool:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return "entries" in arrays.files
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError):
        return False


@contextmanager
def _explained(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise UserError(f"Vocabulary {path} cannot be read ({error}). Save it again.") from error
