"""Makes class embeddings with a CLIP text encoder, or from word-vector files or an existing matrix.

``tools/class_embeddings.py`` uses it to write the file that models read. open_clip and gensim are imported only by the
functions that need them.
"""

import gzip
import logging
import os
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from PADing.data.clip_models import ClipModel, open_clip_library, read_clip_checkpoint, weights_in
from PADing.data.embeddings import CLIP_TEMPLATES
from PADing.errors import UserError
from PADing.files import read_json

logger = logging.getLogger(__name__)

FASTTEXT_MAGIC = 793712314
MOST_DIMENSIONS = 100_000
GENSIM_ENDINGS = (".kv", ".model")
# Environment variable: 1 lets gensim read its own format, a pickle, which can run code of the file's author.
UNSAFE_VARIABLE = "PADING_UNSAFE_PICKLE"


def clip_embeddings(
    names: Sequence[str],
    model: str = "ViT-B-16-quickgelu",
    pretrained: str = "openai",
    checkpoint: str | os.PathLike | None = None,
    templates: Sequence[str] = CLIP_TEMPLATES,
    precision: str = "fp32",
    texts: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> torch.Tensor:
    """CLIP text embeddings, averaged over templates: float32 (C, e), unit length.

    For each class, every template is filled with the class name, encoded and normalised; the mean is normalised again.
    A name that lists synonyms ("couch, sofa") is encoded with each of them.

    Args:
        names: class names.
        model, pretrained: an open_clip architecture and its weights (OpenAI's need ``-quickgelu``), or a folder.
        checkpoint: a local file of weights instead of ``pretrained``; see ``load_text_encoder``.
        templates: prompts with one ``{}`` each.
        precision: "fp32", or "fp16" for encoding and normalising in half precision, as for the published models.
        texts: class name -> text to encode instead, e.g. ``{"tree-merged": "tree"}``.
        device: where the text encoder runs.

    Raises:
        UserError: a template without exactly one ``{}``; as ``load_text_encoder``.
    """
    bad = [template for template in templates if template.count("{}") != 1]
    if bad or not templates:
        raise UserError(f"Each template needs exactly one {{}} for the class name; wrong: {bad or 'no template'}.")
    encode = load_text_encoder(model, pretrained, checkpoint, precision, device)
    return encode_prompts(encode, names, templates, texts)


def encode_prompts(
    encode: Callable[[list[str]], torch.Tensor],
    names: Sequence[str],
    templates: Sequence[str] = CLIP_TEMPLATES,
    texts: Mapping[str, str] | None = None,
) -> torch.Tensor:
    """The mean of unit text features over prompts, normalised again: float32 (C, e) on the CPU.

    ``encode`` maps n prompts to features (n, e). See ``clip_embeddings`` for the other arguments.
    """
    rows = []
    for name in names:
        synonyms = (texts or {}).get(name, name).split(", ")
        features = encode([template.format(synonym) for template in templates for synonym in synonyms])
        features = F.normalize(features, dim=-1)
        rows.append(F.normalize(features.mean(dim=0), dim=-1).float().cpu())
    return torch.stack(rows)


def load_text_encoder(
    model: str,
    pretrained: str = "openai",
    checkpoint: str | os.PathLike | None = None,
    precision: str = "fp32",
    device: str = "cpu",
) -> Callable[[list[str]], torch.Tensor]:
    """An open_clip text tower as a function: prompts (n) -> features (n, e), before normalisation.

    Args:
        model: an open_clip architecture, or a folder with ``open_clip_config.json`` and weights.
        pretrained: its weights, which open_clip downloads; not used with ``checkpoint`` or a folder.
        checkpoint: OpenAI's ``ViT-B-16.pt`` (a TorchScript archive), or a state dict of open_clip as ``.pt`` or
            ``.safetensors``. The image tower may be missing in it.
        precision: "fp32" or "fp16".
        device: where it runs.

    Raises:
        UserError: open_clip is not installed; there is no such model, or no such weights; the checkpoint is damaged or
            of another architecture.
    """
    library, clip = open_clip_library(), ClipModel.of(model)
    if precision not in ("fp32", "fp16"):
        raise UserError(f"precision must be fp32 or fp16, but is {precision!r}.")
    if checkpoint is not None and not os.path.isfile(checkpoint):
        raise UserError(f"CLIP checkpoint {checkpoint} does not exist.")
    if clip.folder and checkpoint is None:
        checkpoint = weights_in(clip.folder)
    options: dict[str, Any] = {"load_weights": False} if checkpoint else {"pretrained": pretrained}
    try:
        with _without_talk():
            network = library.create_model(clip.name, precision=precision, device=device, **options)
    except Exception as error:  # of the hub, of the file
        raise UserError(
            f"open_clip cannot provide {model} with weights {pretrained!r}: {error}. Without a network, download the "
            "weights on another machine and name the file with --checkpoint."
        ) from error
    if checkpoint is not None:
        _load_text_weights(network, os.fspath(checkpoint), model)
    with _without_talk():
        tokenizer = library.get_tokenizer(clip.name)
    network.eval()

    @torch.inference_mode()
    def encode(prompts: list[str]) -> torch.Tensor:
        return network.encode_text(tokenizer(prompts).to(device))

    return encode


@contextmanager
def _without_talk() -> Iterator[None]:
    """Inside, open_clip does not log each step, nor that a network is random whose weights are read next."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _load_text_weights(network: torch.nn.Module, path: str, model: str) -> None:
    weights = read_clip_checkpoint(path)
    try:
        result = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"CLIP checkpoint {path} does not fit {model}: {error}") from error
    missing = [key for key in result.missing_keys if not key.startswith("visual.") and key != "logit_scale"]
    unexpected = [key for key in result.unexpected_keys if not key.startswith("visual.")]
    if missing or unexpected:
        raise UserError(
            f"CLIP checkpoint {path} is not one of {model}: {len(missing)} weights missing ({missing[:3]} ...), "
            f"{len(unexpected)} unexpected ({unexpected[:3]} ...). Name the right architecture with --model."
        )


def word_embeddings(
    names: Sequence[str],
    path: str | os.PathLike,
    texts: Mapping[str, str] | None = None,
    normalize: bool = False,
    optional: Collection[str] = (),
) -> np.ndarray:
    """Class embeddings from word vectors: float32 (C, e); a name of several words gets their mean.

    Formats: word2vec text and binary (``.bin``), fastText ``.vec`` and GloVe ``.txt``, each also with ``.gz``; they are
    read as a stream, which keeps only the needed words. gensim reads fastText's binary models, which have a vector for
    any word, and its own ``.kv``. A word is looked up as written, then in lower case, capitalised, and in upper case.
    Words that the file lacks are logged, and the mean is over the other words of the name.

    Args:
        names: class names.
        path: the file of word vectors.
        texts: class name -> words to look up instead.
        normalize: scale each embedding to unit length.
        optional: names whose row is NaN if the file has no word of them.

    Raises:
        UserError: a missing or damaged file; other names without a word in the file (the message names all of them).
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"Word vectors {path} do not exist.")
    words = {name: re.findall(r"[^-_,\s]+", (texts or {}).get(name, name)) for name in names}
    wanted = {variant for parts in words.values() for word in parts for variant in _variants(word)}
    try:
        found = dict(_reader(path)(path, wanted))
    except UserError:
        raise
    except Exception as error:  # gzip, struct and gensim raise many types for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        text = f"Word vectors {path} cannot be read ({reason}). Is the format supported, and the file complete?"
        raise UserError(text) from error
    rows, missing_words, missing_names = [], [], []
    for name, parts in words.items():
        hits = [next((found[v] for v in _variants(word) if v in found), None) for word in parts]
        missing_words += [f"{word} (of {name})" for word, hit in zip(parts, hits, strict=True) if hit is None]
        known = [hit for hit in hits if hit is not None]
        if known:
            rows.append(np.mean(known, axis=0, dtype=np.float64))
            continue
        rows.append(np.full((), np.nan))
        if name not in optional:
            missing_names.append(name)
    if missing_names:
        raise UserError(
            f"Word vectors {path} have no word of: {', '.join(missing_names)}. Give other words to look up, e.g. "
            f'--text "{missing_names[0]}=some words".'
        )
    if missing_words:
        logger.warning("Word vectors %s lack %s; the other words of the name are used.", path, ", ".join(missing_words))
    embeddings = np.stack(np.broadcast_arrays(*rows)) if any(np.ndim(row) for row in rows) else np.zeros((0, 0))
    if normalize:
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings.astype(np.float32)


def _variants(word: str) -> list[str]:
    return list(dict.fromkeys((word, word.lower(), word.capitalize(), word.upper())))


def _reader(path: str) -> Callable[[str, set[str]], Iterator[tuple[str, np.ndarray]]]:
    with _open(path) as file:
        if path.endswith(GENSIM_ENDINGS) or file.read(4) == struct.pack("<i", FASTTEXT_MAGIC):
            return _from_gensim
    return _from_word2vec_binary if path.removesuffix(".gz").endswith(".bin") else _from_text


def _open(path: str):
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _from_text(path: str, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    keys = {word.encode() for word in wanted}
    dim = 0
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            word, _, rest = line.partition(b" ")
            if number == 1:
                first = rest.split()
                # word2vec and fastText begin with "words dimensions", GloVe does not.
                if len(first) == 1:
                    dim = int(first[0])
                    continue
                dim = len(first)
            if word not in keys:
                continue
            numbers = rest.split()
            if len(numbers) != dim:  # GloVe has entries with spaces, such as "at name@domain.com"
                continue
            keys.remove(word)  # use the first occurrence: files are sorted by frequency
            try:
                yield word.decode(), np.array([float(x) for x in numbers], dtype=np.float32)
            except ValueError as error:
                raise UserError(f"Word vectors {path}, line {number}: {error}.") from error
            if not keys:
                return


def _from_word2vec_binary(path: str, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    keys = {word.encode() for word in wanted}
    with _open(path) as file:
        header = file.readline().split()
        if len(header) != 2:
            raise UserError(f"Word vectors {path} do not begin with the header of word2vec's binary format.")
        count, dim = int(header[0]), int(header[1])
        if count < 1 or not 0 < dim <= MOST_DIMENSIONS:
            raise UserError(f"Word vectors {path}: the header has {count} words of {dim} dimensions. Is it damaged?")
        buffer, position = b"", 0
        for _ in range(count):
            space = buffer.find(b" ", position)
            while space < 0 or space + 1 + 4 * dim > len(buffer):
                chunk = file.read(1 << 24)
                if not chunk:
                    raise UserError(f"Word vectors {path} end early. Is the download complete?")
                buffer, position = buffer[position:] + chunk, 0
                space = buffer.find(b" ")
            word = buffer[position:space].lstrip(b"\n")
            position = space + 1 + 4 * dim
            if word in keys:
                keys.remove(word)
                yield word.decode(), np.frombuffer(buffer[space + 1 : position], dtype="<f4")
                if not keys:
                    return


def _from_gensim(path: str, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Read fastText's binary models, which have a vector for any word, or gensim's own format."""
    pickled = path.endswith(GENSIM_ENDINGS)
    if pickled and os.environ.get(UNSAFE_VARIABLE) != "1":
        raise UserError(
            f"Word vectors {path} are a gensim pickle, and loading one can run code in it. Save them in word2vec's "
            "format (KeyedVectors.save_word2vec_format). If you trust the file's author, you can set "
            f"{UNSAFE_VARIABLE}=1."
        )
    try:
        from gensim.models import KeyedVectors
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError as error:
        cure = 'pip install "pading[text]", or gensim alone'
        raise UserError(f"This word-vector format needs gensim: {cure}.") from error
    vectors = KeyedVectors.load(path, mmap="r") if pickled else load_facebook_vectors(path)
    vectors = getattr(vectors, "wv", vectors)
    for word in wanted:
        if not pickled or word in vectors.key_to_index:
            yield word, np.array(vectors[word], dtype=np.float32)


def matrix_embeddings(names: Sequence[str], path: str | os.PathLike, file_names: Sequence[str]) -> np.ndarray:
    """Rows of an existing matrix, by class name: (C, e), in the type of the file.

    Args:
        names: the wanted classes.
        path: ``.npy`` (one row per class), or ``.txt`` (comma separated: one row per dimension, column 0 background).
        file_names: the classes of the file in its order, without the background.

    Raises:
        UserError: a missing or damaged file; the sizes disagree; names are missing (the message names all of them).
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"Matrix {path} does not exist.")
    try:
        if path.endswith(".npy"):
            # Memory-mapped, so that a damaged header cannot allocate more bytes than the file has.
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        elif os.path.getsize(path) == 0:
            raise ValueError("it is empty")
        else:
            matrix = np.loadtxt(path, dtype=np.float32, delimiter=",", ndmin=2).T[1:]
        if getattr(matrix, "dtype", np.dtype(object)).kind not in "fiu":
            raise ValueError("it does not hold real numbers")
    except Exception as error:  # NumPy's readers raise many types for damaged files
        reason = " ".join(str(error).split())
        raise UserError(
            f"Matrix {path} cannot be read ({reason}): a .npy with one row per class is expected, or comma-separated "
            "text with one row per dimension and column 0 the background."
        ) from error
    if matrix.ndim != 2 or len(matrix) != len(file_names):
        raise UserError(f"Matrix {path} has the shape {matrix.shape}, but {len(file_names)} names are given.")
    row = {name: i for i, name in enumerate(file_names)}
    missing = [name for name in names if name not in row]
    if missing:
        raise UserError(f"Matrix {path} has no class called: {', '.join(missing)}.")
    return matrix[[row[name] for name in names]]


def read_names(path: str | os.PathLike) -> list[str]:
    """Class names from a ``.json`` list or a text file with one name per line; UserError if there are none."""
    if os.fspath(path).endswith(".json"):
        names = read_json(path, "Name file", list)
    else:
        try:
            with open(path, encoding="utf-8") as file:
                names = [line.strip() for line in file if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"Name file {path} cannot be read: {reason}.") from error
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"Name file {path} must hold a list of names: a JSON list, or one name per line.")
    return names
