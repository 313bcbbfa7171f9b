"""The config of a training as it is shared: whole, and without paths of the machine."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from PADing.config_check import value_at
from PADing.data.splits import DataSet
from PADing.meta_arch.contract import architecture_of, contract_of
from PADing.sharing.classes import plain_name
from PADing.sharing.layout import EMBEDDINGS, PERSONAL, WEIGHTS

logger = logging.getLogger(__name__)

# A path outside the folder, or an address with a password.
_MACHINE = re.compile(r"^([/~\\]|[A-Za-z]:[\\/]|file:|\.\.?[/\\])|[/\\]\.\.[/\\]|://[^/]*@")
DEFAULT_OUTPUT = "output"


def config_to_share(
    cfg: CfgNode, train: Sequence[DataSet], tests: Sequence[DataSet], with_embeddings: bool
) -> dict[str, Any]:
    """The values of ``cfg`` as plain nested dicts and lists, with names of the shared folder in place of paths.

    Args:
        cfg: of the training.
        train: its training sets. tests: its evaluation sets.
        with_embeddings: whether the folder has class embeddings.
    """
    shared = cfg.clone()
    shared.defrost()
    shared.OUTPUT_DIR = DEFAULT_OUTPUT
    shared.DATASETS.SPLIT_FILES = ()
    shared.DATASETS.TRAIN = tuple(plain_name(data_set.name) for data_set in train)
    shared.DATASETS.TEST = tuple(plain_name(data_set.name) for data_set in tests)
    shared.MODEL.WEIGHTS, shared.MODEL.WEIGHTS_FROM = WEIGHTS, "auto"  # the file has one kind of weights
    if shared.MODEL.DEVICE.startswith("cuda"):
        shared.MODEL.DEVICE = "cuda"
    by_vectors, path = shared.MODEL.MASK_FORMER.VEC_PATH is not None, EMBEDDINGS if with_embeddings else ""
    shared.MODEL.MASK_FORMER.VEC_PATH = path if by_vectors and path else None
    shared.MODEL.CLASS_EMBEDDINGS = "" if by_vectors else path
    tree = _plain(yaml.safe_load(yaml.safe_dump(_plain(shared))))
    for section in PERSONAL:
        tree.pop(section, None)
    for key in contract_of(architecture_of(cfg)).further_weights(cfg):
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = ""
    _clean(tree, "")
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _clean(tree: dict[str, Any], section: str) -> None:
    """Replace texts that name a place on this machine by the default or "", in place."""
    for key, value in tree.items():
        name = f"{section}{key}"
        if isinstance(value, dict):
            _clean(value, f"{name}.")
        elif isinstance(value, list):
            tree[key] = [item for item in value if not _is_machine_path(item)]
        elif _is_machine_path(value):
            tree[key] = _default(name)
            logger.warning("%s is a path of this machine, so the shared config has %r.", name, tree[key])


def _is_machine_path(value: Any) -> bool:
    return isinstance(value, str) and bool(_MACHINE.search(value))


def _default(name: str) -> Any:
    try:
        default = value_at(get_cfg(), name)
    except (AttributeError, KeyError):
        return ""
    return "" if _is_machine_path(default) else default
