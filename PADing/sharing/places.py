"""Where a shared model's files are: a folder, ``mini``, ``hf://OWNER/NAME[@revision]``, or a bare name for Python."""

import os
from pathlib import Path

from PADing.errors import UserError
from PADing.files import REPOSITORY, or_shipped
from PADing.sharing.hub import Reference, fetch_model, fetch_weights
from PADing.sharing.layout import CONFIG, HUB, WEIGHTS, is_shared

# Trained models that are part of this package: name -> folder.
PACKAGED = {"mini": REPOSITORY / "models" / "mini"}


def is_packaged(path: str) -> bool:
    """Whether ``path`` is the name of a model of this package, or its folder."""
    folder = None if path.startswith(HUB) else shared_folder(path)
    return folder is not None and folder.resolve() in PACKAGED.values()


def local_weights(path: str) -> str:
    """The file of weights that a value such as MODEL.WEIGHTS names; other paths are returned as they are.

    Args:
        path: a file, a folder that holds ``model.safetensors``, or ``hf://OWNER/NAME[@revision]``, which is downloaded.

    Raises:
        UserError: the download fails.
    """
    if path.startswith(HUB):
        return str(fetch_weights(Reference.of(path)))
    inside = os.path.join(path, WEIGHTS)
    return inside if path and os.path.isfile(inside) else path


def shared_folder(path: str) -> Path | None:
    """The folder of the shared model that ``--config-file`` names; None if it names another config.

    Args:
        path: a shared model's folder, its ``config.yaml``, the name of a model of this package, or
            ``hf://OWNER/NAME[@revision]``, which is downloaded.

    Raises:
        UserError: the download fails.
    """
    if path.startswith(HUB):
        return fetch_model(Reference.of(path))
    if path in PACKAGED and not is_shared(path):  # a data set may have this name
        return PACKAGED[path]
    place = Path(or_shipped(path))
    if place.is_dir() and is_shared(place):
        return place
    return place.parent if place.name == CONFIG and place.is_file() and is_shared(place.parent) else None


def local_config(path: str) -> str:
    """The YAML file that ``--config-file`` names; UserError as :func:`shared_folder`."""
    folder = shared_folder(path) if path else None
    return str(folder / CONFIG) if folder else path


def named_model(name_or_folder: str | os.PathLike, revision: str | None) -> str:
    """What Python names a model by, as a folder or ``hf://OWNER/NAME[@revision]``; ``mini`` is that of this package.

    Raises:
        UserError: neither a folder nor the name of a shared model; a folder with a revision.
    """
    name = os.fspath(name_or_folder)
    packaged = name_or_folder in PACKAGED and not is_shared(name)
    if packaged or (not name.startswith(HUB) and (os.path.exists(name) or isinstance(name_or_folder, os.PathLike))):
        if revision is not None:
            raise UserError(f"{name} is a folder, which has no revision. Leave out revision={revision!r}.")
        return str(PACKAGED[name]) if packaged else name
    if not name.startswith(HUB) and (name.count("/") != 1 or name.startswith((".", "~", "/"))):
        raise UserError(f"{name!r} is neither a folder nor a name OWNER/NAME of the Hugging Face Hub. Check the path.")
    reference = Reference.of(name)
    if revision is not None:
        if reference.revision not in (None, revision):
            raise UserError(f"{name} and revision={revision!r} name two revisions. Name one.")
        reference = Reference.of(f"{reference.name}@{revision}")
    return str(reference)
