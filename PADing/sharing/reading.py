"""The config of a shared model.

It comes from somebody else, so no code of its folder is run, and no path in it is followed.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PADing.errors import UserError
from PADing.plugins import plugin_names
from PADing.sharing.classes import read_classes, register_classes
from PADing.sharing.layout import CLASSES, CONFIG, EMBEDDINGS, PERSONAL, WEIGHTS, check_folder
from PADing.yaml_files import check_keys, read_yaml

logger = logging.getLogger(__name__)

# Packages of this program, whose modules a shared config may name under PLUGINS.
BUILT_IN = ("PADing", "baselines", "d2zero", "frozenclip")


def read_shared_config(folder: Path, trust_plugins: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Check a shared model and read its config; also registers its classes.

    Args:
        folder: of the model.
        trust_plugins: keep the modules that PLUGINS names, which are imported later and can do anything. They are never
            looked up in ``folder``.

    Returns:
        the config as nested dicts, with the paths of this machine, and the names under PLUGINS that were left out.

    Raises:
        UserError: the folder is incomplete, damaged or no shared model; its config names files or unknown data sets.
    """
    files, where = check_folder(folder), f"Config file {folder / CONFIG}"
    tree = read_yaml(folder / CONFIG, "Config file", foreign=True)
    check_keys(tree, where)
    if "_BASE_" in tree:
        raise UserError(f"{where} has a _BASE_. That of a shared model must be whole.")
    model, data_sets = _section(tree, "MODEL", where), _section(tree, "DATASETS", where)
    masks = _section(model, "MASK_FORMER", where)
    names = register_classes(read_classes(folder / CLASSES))
    for key in ("TRAIN", "TEST"):
        data_sets[key] = tuple(_known(name, names, f"{where}: DATASETS.{key}") for name in data_sets.get(key) or ())
    data_sets.pop("SPLIT_FILES", None)
    for key in ("OUTPUT_DIR", *PERSONAL):  # where results go is chosen here, not there
        tree.pop(key, None)
    model["WEIGHTS"] = str(folder / WEIGHTS)
    # As on the owner's side, one of two keys names the class embeddings; which one matters for further training.
    path = str(folder / EMBEDDINGS) if EMBEDDINGS in files else ""
    by_vectors = bool(path) and masks.get("VEC_PATH") == EMBEDDINGS
    masks["VEC_PATH"] = path if by_vectors else None
    model["CLASS_EMBEDDINGS"] = "" if by_vectors else path
    return tree, [] if trust_plugins else _leave_out_plugins(tree, folder)


def _leave_out_plugins(tree: dict[str, Any], folder: Path) -> list[str]:
    names = plugin_names(tree.get("PLUGINS", ()))
    foreign = [name for name in names if name.split(".")[0] not in BUILT_IN]
    tree["PLUGINS"] = tuple(name for name in names if name not in foreign)
    if foreign:
        logger.warning(
            "The shared model %s names the plug-ins %s, which are not imported: they can do anything on your machine.",
            folder, ", ".join(foreign),
        )  # fmt: skip
    return foreign


def advice_on_plugins(left_out: list[str]) -> str:
    """The sentence that precedes the mistakes of a config whose plug-ins were left out."""
    names = ", ".join(left_out)
    return (
        f"The shared model's plug-ins {names} were not imported. If you trust them and they are installed: "
        f'from_pretrained(..., trust_plugins=True), or PLUGINS "{tuple(left_out)}" among the overrides.'
    )


def _section(tree: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    section = tree.setdefault(key, {})
    if not isinstance(section, dict):
        raise UserError(f"{where}: {key} must be a section, not {section!r}.")
    return section


def _known(name: Any, names: Mapping[str, str], where: str) -> str:
    if not isinstance(name, str) or name not in names:
        raise UserError(f"{where} names {name!r}, whose classes are not in {CLASSES}. Get the model again.")
    return names[name]
