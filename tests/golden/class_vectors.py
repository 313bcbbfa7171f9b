"""Class-vector files by the golden rule, for the configs that need one."""

from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog

from PADing.data.embeddings import save_class_embeddings
from tests.golden.util import fill


def embedding_overrides(cfg, folder: Path) -> dict[str, str]:
    """Write the file that ``cfg`` needs into ``folder``; returns the overrides that point to it."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    if cfg.MODEL.MASK_FORMER.VEC_PATH is not None:
        path = folder / "word_vectors.txt"
        np.savetxt(path, fill.word_vector_table(metadata.thing_classes), fmt="%.9g", delimiter=",")
        return {"MODEL.MASK_FORMER.VEC_PATH": str(path)}
    path, names = folder / "text_features.npz", metadata.get("stuff_classes") or metadata.thing_classes
    save_class_embeddings(path, names, np.stack([fill.text_feature(name) for name in names]), "golden rule, by name")
    return {"MODEL.CLASS_EMBEDDINGS": str(path)}
