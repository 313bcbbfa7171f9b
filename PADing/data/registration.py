"""Registers the data sets of split files in Detectron2's catalogs; those of the shipped ones when it is imported.

``PADing/__init__.py`` imports it right after ``detectron2.data``. So nothing that it needs may import
``detectron2.data`` on top, in a circle.
"""

import functools
import logging
import os
from collections.abc import Iterable

from detectron2.data import DatasetCatalog, MetadataCatalog

from PADing.data.loaders import load_data_set
from PADing.data.splits import Split, evaluation_split_files, load_split, mini2_split_files, shipped_split_files
from PADing.errors import UserError

logger = logging.getLogger(__name__)

# Data sets that are registered here, with their split and metadata.
_REGISTERED: dict[str, tuple[Split, dict]] = {}


def register_split(split: Split, root: str | None = None) -> None:
    """Register every data set of ``split`` in ``DatasetCatalog`` and ``MetadataCatalog``.

    Registering the same split again does nothing; a changed split file replaces its former data sets. Files are read
    when ``DatasetCatalog.get`` asks for a data set. ``Split.metadata`` describes the metadata.

    Args:
        split: a checked split.
        root: the data root; None: ``$DETECTRON2_DATASETS``, else ``datasets``.

    Raises:
        UserError: another split file has already registered one of the names.
    """
    for data_set in split.data_sets:
        name, metadata = data_set.name, split.metadata(data_set, root)
        if name in _REGISTERED and name in DatasetCatalog:
            source, former = _REGISTERED[name]
            if former == metadata and source.file == split.file:
                continue
            if source.file != split.file:
                taken = f"registers the data set {name!r}, but {source.file} has done so already"
                raise UserError(f"Split file {split.file} {taken}. Choose another name.")
        if name in DatasetCatalog:
            if name not in _REGISTERED:
                # Mask2Former registers one of these names, too, if it is imported in the same process.
                logger.warning("Data set %s of another package is replaced by the one of %s.", name, split.file)
            DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)
        DatasetCatalog.register(name, functools.partial(load_data_set, split, data_set, root))
        MetadataCatalog.get(name).set(**metadata)
        _REGISTERED[name] = (split, metadata)


def registered_split(name: str) -> Split | None:
    """The split that has registered a data set; None if another package has registered it."""
    return _REGISTERED[name][0] if name in _REGISTERED and name in DatasetCatalog else None


def register_split_files(paths: Iterable[str | os.PathLike]) -> list[Split]:
    """Register the data sets of the user's split files; returns the splits. UserError as ``register_split``."""
    splits = [load_split(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    for split in splits:
        register_split(split)
    return splits


def register_builtin() -> None:
    """Register the data sets of all split files that the repository ships."""
    files = shipped_split_files()
    if not files:
        logger.warning(
            "There are no split files beside the package, so no COCO data set is registered. Install from a checkout "
            "(pip install -e .), or name split files under DATASETS.SPLIT_FILES."
        )
    register_split_files([*files, *evaluation_split_files(), *mini2_split_files()])


register_builtin()
