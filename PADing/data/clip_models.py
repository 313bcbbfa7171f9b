"""CLIP models of open_clip: where their config and weights are, and the sentence that names one as a source.

A model is named as in open_clip (``RN50``, with weights such as ``openai``), by a folder in open_clip's own format
(``open_clip_config.json`` beside the weights), or by ``hf-hub:OWNER/NAME``. open_clip is imported on first use. Nothing
is downloaded but the weights of a tag and what lies on the Hub.
"""

import hashlib
import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from PADing.checkpoint_files import check_file
from PADing.errors import UserError, did_you_mean
from PADing.files import REPOSITORY, read_json
from PADing.torchvision_users import import_with_torchvision

CONFIG_FILE = "open_clip_config.json"
HUB, LOCAL = "hf-hub:", "local-dir:"
# The names that open_clip prefers, then any other file of weights.
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "*.safetensors", "*.bin", "*.pth", "*.pt")
# Mean and standard deviation of OpenAI's CLIP, which open_clip takes for models that name no others.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CUE = 1 << 20  # bytes at both ends of a file that make its fingerprint
SOURCE = re.compile(r"CLIP (?P<model>\S+), weights (?P<weights>.+), text encoder in (?P<precision>fp16|fp32)\b")


def open_clip_library() -> ModuleType:
    """The package ``open_clip``; UserError if it cannot be imported."""
    return import_with_torchvision("open_clip", 'pip install "pading[text]"')


@dataclass(frozen=True)
class ClipModel:
    """A CLIP model: its architecture, and what it expects of images.

    Attributes:
        name: as open_clip takes it, such as ``RN50``, ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``.
        folder: of a model in a folder; else "".
        embed_dim: the number of dimensions e of its embeddings.
        vision: open_clip's ``vision_cfg``.
        mean, std: of the pixels, red, green, blue, on the scale 0..1.
    """

    name: str
    folder: str
    embed_dim: int
    vision: dict[str, Any]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @classmethod
    def of(cls, name: str, weights: str = "", what: str = "The CLIP model") -> "ClipModel":
        """Find a model by its name.

        Args:
            name: an architecture of open_clip, a folder, or ``hf-hub:OWNER/NAME``.
            weights: a tag of the architecture, which may have a mean and standard deviation of its own.
            what: begins messages, such as a config key.

        Raises:
            UserError: there is no such model, its config is damaged, or open_clip is not installed.
        """
        if not name:
            raise UserError(f"{what} has no name. Name one of open_clip, such as RN50 or convnext_base_w, or a folder.")
        library, folder = open_clip_library(), clip_folder(name)
        if folder:
            return cls._from_config(f"{LOCAL}{folder}", folder, os.path.join(folder, CONFIG_FILE), what)
        if name.startswith(HUB):
            try:
                path = library.download_pretrained_from_hf(name.removeprefix(HUB), filename=CONFIG_FILE)
            except Exception as error:  # of the hub, of HTTP clients
                raise UserError(f"{what} {name!r} cannot be fetched: {_short(error)}.") from error
            return cls._from_config(name, "", path, what)
        config = library.get_model_config(name)
        if config is None:
            if name.startswith(LOCAL) or os.sep in name or os.path.isdir(name):
                cure = f"Name a folder that holds {CONFIG_FILE} and the weights."
                raise UserError(f"{what} {name!r} is no folder of a CLIP model. {cure}")
            hint = did_you_mean(name, library.list_models()) or ". Names are such as RN50, convnext_base_w"
            raise UserError(f"{what} {name!r} is neither one of open_clip{hint} nor a folder with {CONFIG_FILE}.")
        tag = library.get_pretrained_cfg(name, weights) if weights else {}
        own = {key: tuple(tag[key]) for key in ("mean", "std") if tag and tag.get(key)}
        return cls(name, "", config["embed_dim"], config["vision_cfg"], **own)

    @classmethod
    def _from_config(cls, name: str, folder: str, path: str, what: str) -> "ClipModel":
        content = read_json(path, f"{what}:", dict)
        if "trust_remote_code" in json.dumps(content):  # for transformers, which then runs code in the folder
            raise UserError(f"{what}: {path} asks to run code of others (trust_remote_code), which is not done here.")
        config, pixels = content.get("model_cfg", content), content.get("preprocess_cfg") or {}
        try:
            own = {key: tuple(map(float, pixels[key])) for key in ("mean", "std") if pixels.get(key)}
            dim, vision = int(config["embed_dim"]), dict(config["vision_cfg"])
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"{type(error).__name__} {error}"
            raise UserError(f"{what}: {path} is no config of open_clip ({wrong}). Save the model again.") from error
        return cls(name, folder, dim, vision, **own)

    @property
    def label(self) -> str:
        """A name without spaces and places, for the sentence of a source."""
        return "-".join(Path(self.folder).name.split()) if self.folder else self.name

    def weights_file(self, pretrained: str, what: str = "The CLIP model") -> str:
        """The path of the weights; those of a tag and of the Hub are downloaded.

        Args:
            pretrained: a tag of the architecture, or a file; "" for the file in the folder, or on the Hub.
            what: begins messages.

        Raises:
            UserError: there are no weights of this name, or the download fails.
        """
        if pretrained and os.path.isfile(os.path.expanduser(pretrained)):
            return os.path.expanduser(pretrained)
        if self.folder and not pretrained:
            return weights_in(self.folder)
        library = open_clip_library()
        try:
            if self.name.startswith(HUB) and not pretrained:
                return str(library.download_pretrained_from_hf(self.name.removeprefix(HUB)))
            known = library.get_pretrained_cfg(self.name, pretrained)
            if known:
                return str(library.download_pretrained(known))
        except Exception as error:  # of the hub, of HTTP clients
            cure = "Connect; or get the file on another machine, and name it in place of the tag."
            raise UserError(
                f"{what}: the weights {pretrained!r} of {self.label} cannot be downloaded: {_short(error)}. {cure}"
            ) from error
        tags = library.list_pretrained_tags_by_model(self.name)
        there = f"open_clip has: {', '.join(tags)}" if tags else "open_clip has none"
        raise UserError(f"{what}: {pretrained!r} is neither a file nor a name of weights of {self.label}; {there}.")

    def weights_label(self, pretrained: str) -> str:
        """What the sentence of a source says of the weights: a tag, or a file; "" if there are none.

        The file of a folder has its fingerprint behind ``#``, because others may have its name.
        """
        if self.folder and not pretrained:
            try:
                path = weights_in(self.folder)
            except UserError:
                return ""
            return f"{os.path.basename(path)}#{fingerprint(path)}"
        return os.path.basename(pretrained) if os.sep in pretrained or os.path.isfile(pretrained) else pretrained


def clip_folder(name: str) -> str:
    """The absolute path of the folder that a name means; "" if it means none.

    ``datasets/...`` is looked up in the data root first, then relative paths in the current folder and in the
    repository.
    """
    from PADing.data.splits import dataset_root

    path = os.path.expanduser(name.removeprefix(LOCAL))
    first, _, rest = path.partition("/")
    places = [path, os.path.join(REPOSITORY, path)]
    if first == "datasets" and rest:
        places.insert(0, os.path.join(dataset_root(), rest))
    found = next((place for place in places if os.path.isfile(os.path.join(place, CONFIG_FILE))), "")
    return os.path.abspath(found) if found else ""


def weights_in(folder: str) -> str:
    """The file of weights in a model's folder; UserError if there is none."""
    for pattern in WEIGHT_FILES:
        if found := sorted(Path(folder).glob(pattern)):
            return str(found[0])
    raise UserError(f"CLIP model {folder} has no weights beside {CONFIG_FILE}. Copy them there.")


def fingerprint(path: str) -> str:
    """12 hexadecimal digits of a file's size, beginning and end; other weights have others."""
    size = os.path.getsize(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=6)
    with open(path, "rb") as file:
        digest.update(file.read(CUE))
        file.seek(max(size - CUE, 0))
        digest.update(file.read(CUE))
    return digest.hexdigest()


def clip_source(model: str, pretrained: str, checkpoint: str | os.PathLike | None, precision: str) -> str:
    """The sentence by which a file of class embeddings names its text encoder; see ``load_text_encoder``."""
    clip = ClipModel.of(model)
    weights = clip.weights_label(os.fspath(checkpoint) if checkpoint else "" if clip.folder else pretrained)
    return f"CLIP {clip.label}, weights {weights}, text encoder in {precision} (open_clip)"


def read_clip_checkpoint(path: str) -> dict[str, torch.Tensor]:
    """The weights in a CLIP checkpoint, under open_clip's names; UserError if it cannot be read.

    Args:
        path: OpenAI's TorchScript archive, or a state dict of open_clip as ``.pt`` or ``.safetensors``.
    """
    try:
        check_file(path, f"CLIP checkpoint {path}")
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            weights = load_file(path)
        elif _is_torchscript(path):
            weights = dict(torch.jit.load(path, map_location="cpu").state_dict())
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            weights = dict(content.get("state_dict", content))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"CLIP checkpoint {path} cannot be read: {error}") from error
    # Sizes that OpenAI's archives store beside the weights.
    for key in ("input_resolution", "context_length", "vocab_size"):
        weights.pop(key, None)
    return {key.removeprefix("module."): value for key, value in weights.items()}


def _is_torchscript(path: str) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _short(error: Exception) -> str:
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".")
