"""Reads class embeddings from a file, by class name. Nothing here downloads or runs a text encoder.

There are two formats. ``.npz`` has ``names`` (C strings), ``vectors`` (C, e), ``source`` (a sentence) and ``templates``
(the prompts of a text encoder; empty for word vectors); classes are matched by name. ``.txt`` is the older word-vector
layout: comma separated, one row per dimension, column 0 the background, then one column per class. It has no names, so
the caller gives the order of classes. ``tools/class_embeddings.py`` makes ``.npz`` files.
"""

import logging
import os
import shlex
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from PADing.data.splits import dataset_root, load_split, shipped_split_files
from PADing.errors import UserError
from PADing.files import REPOSITORY, replacing

logger = logging.getLogger(__name__)

# A limit against crafted files: 130,000 classes with 1024 numbers each.
MAX_UNPACKED_BYTES = 2**29

# The prompts of the published PADing and D2Zero models, in the same order and spelling. The first seven are those that
# OpenAI's CLIP (MIT licence) recommends for ImageNet; the set of eight came with ZegFormer's code.
CLIP_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "A photo of a {} in the scene",
)


class OtherClasses(UserError):
    """An intact file of class embeddings for another split: it has none of the wanted classes."""


def load_class_embeddings(
    path: str | os.PathLike, names: Sequence[str], file_names: Sequence[str] | None = None
) -> torch.Tensor:
    """The class embeddings of ``names``: float32 tensor (len(names), e) on the CPU, not normalised.

    Args:
        path: an ``.npz`` or ``.txt`` file.
        names: the wanted classes, in the wanted order.
        file_names: the classes of a ``.txt`` file in column order, without the background; default ``names``.

    Raises:
        OtherClasses: the file has none of ``names``, or is a ``.txt`` file with another number of columns.
        UserError: the file is missing or damaged, or lacks some classes (the message names all of them).
    """
    path = os.fspath(path)
    if path.endswith(".npz"):
        held, embeddings = _read_npz(path)
    else:
        held, embeddings = _read_txt(path, list(names) if file_names is None else list(file_names))
    row = {name: i for i, name in enumerate(held)}
    missing = [name for name in names if name not in row]
    if missing:
        raise (OtherClasses if len(missing) == len(names) else UserError)(
            f"Class embeddings {path} lack {len(missing)} of {len(names)} classes: {', '.join(missing)}. "
            f"Make a file with them by tools/class_embeddings.py, or correct the names in the split file."
        )
    return torch.from_numpy(np.ascontiguousarray(embeddings[[row[name] for name in names]], dtype=np.float32))


def read_class_embeddings(path: str | os.PathLike) -> tuple[list[str], np.ndarray]:
    """All names (C) and embeddings (C, e) float32 of an ``.npz`` file; UserError as ``load_class_embeddings``."""
    path = os.fspath(path)
    if not path.endswith(".npz"):
        raise UserError(f"Class embeddings {path} hold no names. Name a .npz of tools/class_embeddings.py.")
    return _read_npz(path)


def embedding_width(path: str | os.PathLike) -> int:
    """The number of dimensions e of the embeddings in ``path``; UserError as ``load_class_embeddings``."""
    path = os.fspath(path)
    return _read_npz(path)[1].shape[1] if path.endswith(".npz") else _read_table(path).shape[0]


def embedding_source(path: str | os.PathLike) -> tuple[str, list[str]]:
    """Where the embeddings of a readable file come from: a sentence, and the templates (empty for word vectors)."""
    path = os.fspath(path)
    if not path.endswith(".npz"):
        return f"the file {os.path.basename(path)}", []
    with np.load(path, allow_pickle=False) as arrays:
        sources = _texts(arrays["source"]) if "source" in arrays.files else []
        return next(iter(sources), "unknown"), _texts(arrays["templates"]) if "templates" in arrays.files else []


def load_synonyms(path: str | os.PathLike, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Several embeddings of each class, where a file keeps synonyms apart; None if it does not.

    Args:
        path: an ``.npz`` with ``synonym_vectors`` (S, e) and ``synonym_of`` (S,), positions in its ``names``.
        names: K classes in the file. A class without synonyms has its one embedding.

    Returns:
        embeddings (T, e) float32, and the position (T,) int64 of each one's class in ``names``.

    Raises:
        UserError: the file is damaged, or lacks classes.
    """
    path = os.fspath(path)
    if not path.endswith(".npz"):
        return None
    held, embeddings = _read_npz(path)
    with np.load(path, allow_pickle=False) as arrays:
        if "synonym_of" not in arrays.files or "synonym_vectors" not in arrays.files:
            return None
        owner, vectors = arrays["synonym_of"], arrays["synonym_vectors"]
    whole = owner.dtype.kind in "iu" and owner.ndim == 1 and vectors.dtype.kind in "fiu"
    if not (whole and vectors.shape == (len(owner), embeddings.shape[1]) and np.isfinite(vectors).all()):
        raise UserError(f"Class embeddings {path} have damaged synonyms. Make them again: tools/class_embeddings.py.")
    rows: list[np.ndarray] = []
    classes: list[int] = []
    place = {name: i for i, name in enumerate(held)}
    if missing := [name for name in names if name not in place]:
        raise UserError(f"Class embeddings {path} lack {', '.join(missing)}.")
    for k, name in enumerate(names):
        own = vectors[owner == place[name]]
        own = own if len(own) else embeddings[place[name]][None]
        rows.append(own)
        classes += [k] * len(own)
    return torch.from_numpy(np.concatenate(rows).astype(np.float32)), torch.tensor(classes)


def resolve_embedding_path(cfg: CfgNode) -> str:
    """The path of a config's embedding file, which exists.

    It is ``MODEL.MASK_FORMER.VEC_PATH`` if set, else ``MODEL.CLASS_EMBEDDINGS``, else the file that the split file of
    the first evaluation (or training) set names. ``find_embeddings`` describes relative paths.

    Raises:
        UserError: no file is named, or it does not exist; the message has the command that makes it.
    """
    metadata = [MetadataCatalog.get(name) for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)]
    metadata = [m for m in metadata if not m.get("evaluation_only")]
    default, split_file = next(
        ((m.class_embeddings, m.split_file) for m in metadata if m.get("class_embeddings")), ("", "")
    )
    split_file = split_file or next((m.split_file for m in metadata if m.get("split_file")), "")
    if cfg.MODEL.MASK_FORMER.VEC_PATH is not None:
        key, path = "MODEL.MASK_FORMER.VEC_PATH", str(cfg.MODEL.MASK_FORMER.VEC_PATH)
    elif cfg.MODEL.CLASS_EMBEDDINGS:
        key, path = "MODEL.CLASS_EMBEDDINGS", str(cfg.MODEL.CLASS_EMBEDDINGS)
    elif default:
        key, path = f"class_embeddings in {split_file}", default
    else:
        raise UserError(
            f"No class embeddings are named for {list(cfg.DATASETS.TEST)}. Set MODEL.CLASS_EMBEDDINGS to the file "
            f"that this command makes: {making_command(split_file, 'embeddings/mine.npz')}"
        )
    found = find_embeddings(path)
    if found is not None:
        return found
    command = making_command(split_file, path)
    raise UserError(f"Class embeddings {path} ({key}) do not exist. Make them with: {command}.{_others(path)}")


def save_class_embeddings(
    path: str | os.PathLike,
    names: Sequence[str],
    embeddings: np.ndarray,
    source: str,
    templates: Sequence[str] = (),
    further: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write an ``.npz`` file for ``load_class_embeddings``; it appears when it is complete.

    Args:
        path: the file, which ends in ``.npz``.
        names: C distinct class names.
        embeddings: (C, e) finite numbers; float16 and float32 are kept, other types become float32.
        source: where the embeddings come from, for the reader.
        templates: the prompts of a text encoder.
        further: arrays of other names to store beside these.

    Raises:
        UserError: another suffix; a name that occurs twice; a wrong shape; NaN or infinite numbers.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise UserError(f"Class embeddings are written as .npz, but the output is {path}. Name a .npz file.")
    embeddings = np.asarray(embeddings)
    if embeddings.dtype not in (np.float16, np.float32):
        embeddings = embeddings.astype(np.float32)
    _check(str(path), list(names), embeddings)
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            names=np.array(list(names), dtype=np.str_),
            vectors=embeddings,
            dimension=np.array(embeddings.shape[1]),
            source=np.array(source, dtype=np.str_),
            templates=np.array(list(templates), dtype=np.str_),
            **cast(dict[str, Any], further or {}),
        )


def _read_npz(path: str) -> tuple[list[str], np.ndarray]:
    if not os.path.isfile(path):
        raise UserError(f"Class embeddings {path} do not exist. tools/class_embeddings.py makes such files.")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise ValueError(f"it unpacks to {unpacked / 2**20:.0f} MiB; the limit is {MAX_UNPACKED_BYTES // 2**20}")
        with np.load(path, allow_pickle=False) as arrays:
            content = {key: arrays[key] for key in arrays.files}
        names, embeddings = _texts(content["names"]), content["vectors"]
        templates = _texts(content["templates"]) if "templates" in content else []
        source = _texts(content["source"])[0] if "source" in content else "unknown"
        if embeddings.dtype.kind not in "fiu":
            raise ValueError(f"`vectors` hold {embeddings.dtype}, not real numbers")
    except Exception as error:  # zipfile, zlib and NumPy raise many types for a damaged archive
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"Class embeddings {path} cannot be read ({reason}): an .npz with the arrays `names` and `vectors` is "
            "expected. tools/class_embeddings.py makes such files."
        ) from error
    with np.errstate(over="ignore"):
        embeddings = embeddings.astype(np.float32)  # before the check, because too large numbers become infinite
    _check(path, names, embeddings)
    if templates and tuple(templates) != CLIP_TEMPLATES:
        logger.warning(
            f"Class embeddings {path} come from {len(templates)} templates that differ from the published models' "
            f"{len(CLIP_TEMPLATES)} (source: {source}), so results will differ, too. tools/class_embeddings.py uses "
            "the published templates."
        )
    else:
        logger.info("Class embeddings %s: %d classes x %d, source: %s", path, *embeddings.shape, source)
    return names, embeddings


def _texts(array: np.ndarray) -> list[str]:
    if array.dtype.kind != "U" and array.size or array.ndim > 1:
        raise ValueError(f"an array has {array.ndim} dimensions and type {array.dtype}, but must be a list of texts")
    return array.reshape(-1).tolist()


def _read_txt(path: str, names: list[str]) -> tuple[list[str], np.ndarray]:
    table = _read_table(path)
    if table.shape[1] != 1 + len(names):
        raise OtherClasses(
            f"Class embeddings {path} have {table.shape[1]} columns, but background and {len(names)} classes "
            f"({names[0] if names else ''} ...) make {1 + len(names)}. Is it the file of another split?"
        )
    embeddings = np.ascontiguousarray(table[:, 1:].T)
    _check(path, names, embeddings)
    return names, embeddings


def _read_table(path: str) -> np.ndarray:
    if not os.path.isfile(path):
        raise UserError(f"Class embeddings {path} do not exist. tools/class_embeddings.py makes embedding files.")
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("the file is empty")
        return np.loadtxt(path, dtype=np.float32, delimiter=",", ndmin=2)
    except (ValueError, OSError) as error:
        raise UserError(
            f"Class embeddings {path} cannot be read ({error}): comma-separated numbers are expected, one row per "
            "dimension, one column per class, column 0 the background; or an .npz made by tools/class_embeddings.py."
        ) from error


def _check(path: str, names: list[str], embeddings: np.ndarray) -> None:
    if embeddings.ndim != 2 or len(embeddings) != len(names) or not len(names):
        raise UserError(f"Class embeddings {path}: {len(names)} names, but numbers of shape {embeddings.shape}.")
    twice = sorted(name for name, number in Counter(names).items() if number > 1)
    if twice:
        raise UserError(f"Class embeddings {path}: these names occur twice: {', '.join(twice)}.")
    bad = [name for name, ok in zip(names, np.isfinite(embeddings).all(axis=1), strict=True) if not ok]
    if bad:
        raise UserError(f"Class embeddings {path}: those of {', '.join(bad)} have NaN or infinite numbers.")
    if not embeddings.shape[1]:
        raise UserError(f"Class embeddings {path} have no numbers.")


def making_command(split_file: str, output: str) -> str:
    """The command that makes the file ``output`` with the embeddings of a split's classes.

    If the file is in the folder of the data, it is the command that makes the data. Otherwise it is the CLIP command,
    for all shipped splits that share the file.
    """
    split = load_split(split_file) if split_file else None
    for data_set in split.data_sets if split else ():
        folder = Path("datasets", *Path(data_set.image_root).parts[:1])
        if data_set.made_by and Path(output).parent == folder:
            return data_set.made_by
    sharing = [file for file in shipped_split_files() if load_split(file).class_embeddings == output]
    splits = sharing if split_file in sharing else [split_file]
    files = shlex.join(file.removeprefix(f"{REPOSITORY}{os.sep}") for file in splits) if split_file else "SPLIT_FILE"
    return f"python tools/class_embeddings.py clip --split {files} --output {shlex.quote(output)}"


def find_embeddings(path: str) -> str | None:
    """The existing path of a file that a config names; None if there is none.

    A relative path that begins with ``datasets/`` is looked up in the data root first. Then relative paths are looked
    up in the working directory and in the repository root.
    """
    return next((place for place in _places(path) if os.path.isfile(place)), None)


def _others(path: str) -> str:
    """A sentence that names the embedding files in the folder of a missing one."""
    folder = next((str(f) for f in _places(os.path.dirname(path)) if os.path.isdir(f)), "")
    others = sorted(name for name in os.listdir(folder) if name.endswith(".npz")) if folder else []
    if not others:
        return ""
    return f" Its folder has {', '.join(others)}; such a file is used only when you name it as MODEL.CLASS_EMBEDDINGS."


def _places(path: str) -> list[str]:
    expanded = os.path.expanduser(path)
    places = [expanded, os.path.join(REPOSITORY, expanded)]
    first, _, rest = expanded.partition("/")
    if first == "datasets" and rest:
        places.insert(0, os.path.join(dataset_root(), rest))
    return places
