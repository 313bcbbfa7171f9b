"""What a toy CLIP has learned: zero-shot accuracy on pictures that it has not seen, of seen and of unseen classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from minibench.toy_clip.pictures import SCENE, Scene, object_window, resized
from minibench.toy_clip.training import normalized, region_features
from PADing.data.clip_models import LOCAL, ClipModel, clip_source, open_clip_library
from PADing.data.embedding_sources import clip_embeddings
from PADing.data.embeddings import CLIP_TEMPLATES, save_class_embeddings
from PADing.data.mini import Category, categories

__all__ = ["accuracies", "crop_features", "mask_features", "measure_folder", "write_class_vectors"]

SIZES = (SCENE, 2 * SCENE)  # of whole scenes whose features are pooled under masks
_MARGIN = 1.25  # side of a crop, relative to the object's box


def measure_folder(folder: Path, scenes: Sequence[Scene], unseen: Sequence[Category]) -> dict[str, Any]:
    """Accuracies of the model that open_clip loads from ``folder``, by the way its pictures are encoded.

    "crops" are pictures of single objects; "masks at N px" are features of whole scenes under the true masks.
    """
    model, _, preprocess = open_clip_library().create_model_and_transforms(f"{LOCAL}{folder}")
    model.eval()
    classes = categories()
    vectors = clip_embeddings([category.name for category in classes], str(folder))
    found = {"crops": crop_features(model, preprocess, scenes)}
    found |= {f"masks at {size} px": mask_features(model, scenes, size) for size in SIZES}
    held_out = {category.name for category in unseen}
    return {way: accuracies(*pair, classes, vectors, held_out) for way, pair in found.items()}


def write_class_vectors(folder: Path, known_as: Path, path: Path) -> None:
    """Vectors of all classes by the folder's text encoder, in the file that ``MODEL.CLASS_EMBEDDINGS`` names.

    ``known_as``: where the folder will lie, for the file's source.
    """
    names = [category.name for category in categories()]
    vectors = clip_embeddings(names, str(folder)).numpy()
    source = clip_source(str(folder), "", None, "fp32")
    label = ClipModel.of(str(folder)).label
    source = source.replace(label, "-".join(known_as.name.split()), 1)
    save_class_embeddings(path, names, vectors, source, CLIP_TEMPLATES)


@torch.no_grad()
def crop_features(model: Any, preprocess: Callable, scenes: Sequence[Scene]) -> tuple[Tensor, list[str]]:
    """Unit features (n, e) of a square crop of each object, by the model's own preprocessing, with their classes."""
    images, names = [], []
    for scene in scenes:
        for category, mask in scene.objects:
            x, y, side = object_window(mask, _MARGIN)
            images.append(preprocess(Image.fromarray(scene.image[y : y + side, x : x + side])))
            names.append(category.name)
    features = [model.encode_image(torch.stack(images[i : i + 64])) for i in range(0, len(images), 64)]
    return F.normalize(torch.cat(features), dim=1), names


@torch.no_grad()
def mask_features(model: Any, scenes: Sequence[Scene], size: int) -> tuple[Tensor, list[str]]:
    """Unit features (n, e) of each segment of whole scenes, scaled to ``size`` pixels, with their classes.

    The last feature map is averaged under the segment's mask; then it takes the way of a pooled picture.
    """
    features, names = [], []
    for scene in scenes:
        masks = np.stack([mask for _, mask in scene.segments])
        features.append(region_features(model, normalized(resized(scene.image, size)[None]), [masks]))
        names += [category.name for category, _ in scene.segments]
    return F.normalize(torch.cat(features), dim=1), names


def accuracies(
    features: Tensor, names: Sequence[str], classes: Sequence[Category], vectors: Tensor, unseen: set[str]
) -> dict[str, Any]:
    """Zero-shot accuracies in percent, means over classes, among all classes of one kind (things or stuff).

    Args:
        features: (n, e), unit length. names: their true classes (n).
        classes: all classes (C). vectors: theirs, (C, e), unit length. unseen: names of the unseen ones.
    """
    result: dict[str, Any] = {}
    for kind, isthing in (("things", True), ("stuff", False)):
        known = [i for i, category in enumerate(classes) if category.isthing == isthing]
        labels = [classes[i].name for i in known]
        rows = [i for i, name in enumerate(names) if name in labels]
        if not rows:
            continue
        predicted = (features[rows] @ vectors[known].T).argmax(dim=1).tolist()
        truth = [names[i] for i in rows]
        by_class = {
            label: float(np.mean([labels[p] == label for p, t in zip(predicted, truth, strict=True) if t == label]))
            for label in labels
            if label in truth
        }
        result[kind] = {"classes": len(labels), "chance": round(100 / len(labels), 1), "pictures": len(rows)}
        for which, wanted in (("seen", False), ("unseen", True)):
            found = [value for label, value in by_class.items() if (label in unseen) == wanted]
            result[kind][which] = round(100 * float(np.mean(found)), 1) if found else None
        result[kind]["by class"] = {label: round(100 * value, 1) for label, value in by_class.items()}
    return result
