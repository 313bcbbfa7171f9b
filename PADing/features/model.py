"""What a feature folder needs of a model: a frozen segmenter whose two calls can be answered without images."""

import hashlib
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import nn

from PADing.class_space import ClassSpace
from PADing.errors import UserError
from PADing.features.folder import FeatureFolder
from PADing.meta_arch.contract import architecture_of

__all__ = ["check_fits", "check_second_stage", "segmenter_hash"]

_NEEDED = ("begin_second_stage", "freeze_segmenter", "match", "segment")
# Kinds of tensors whose bytes NumPy does not know; their values are hashed as float32.
_WIDENED = (torch.bfloat16,)


def check_second_stage(cfg: CfgNode) -> None:
    """UserError if the config's model does not train on a frozen segmenter, or looks at more than its features."""
    kind = architecture_of(cfg)
    if kind is None or not all(hasattr(kind, name) for name in _NEEDED):
        raise UserError(
            f"{cfg.MODEL.META_ARCHITECTURE} does not train on a frozen segmenter, so features cannot take its place. "
            "Name the config of a second stage, such as configs/mini/panoptic-PADing.yaml."
        )
    if cfg.MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS:
        raise UserError(
            "Self-training labels queries by their masks, which features of the part 'train' do not hold. Set "
            "MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS ''."
        )
    if cfg.MODEL.SECOND_CLASSIFIER.NAME:
        raise UserError("A second classifier looks at images. Set MODEL.SECOND_CLASSIFIER.NAME ''.")
    if cfg.TEST.AUG.ENABLED:
        raise UserError("TEST.AUG needs images. Set TEST.AUG.ENABLED False.")


def segmenter_hash(model: nn.Module) -> str:
    """SHA-256 of all weights of backbone and head, by name, type, shape and value; the same on every device."""
    digest = hashlib.sha256()
    for part in ("backbone", "sem_seg_head"):
        for name, value in sorted(getattr(model, part).state_dict().items()):
            value = value.detach().cpu().contiguous()
            digest.update(f"{part}.{name} {value.dtype} {tuple(value.shape)}\n".encode())
            kept = value.float() if value.dtype in _WIDENED else value
            digest.update(kept.numpy().tobytes())
    return digest.hexdigest()


def check_fits(folder: FeatureFolder, cfg: CfgNode, model: nn.Module | None, data_set: str) -> None:
    """UserError if a folder holds features of another data set, of other classes, or (``model``) of other weights."""
    header, space = folder.header, ClassSpace.of_config(cfg)
    if header.data_set != data_set:
        key = "TRAIN" if header.part == "train" else "TEST"
        raise UserError(
            f"{folder.path} holds features of the data set {header.data_set!r}, but DATASETS.{key} names {data_set!r}."
        )
    for what, own, others in (
        ("classes", space.vocabulary, header.classes),
        ("unseen classes", space.unseen_names, header.unseen),
    ):
        if own != others:
            odd = sorted(set(own) ^ set(others))
            found = f"{', '.join(odd[:5])} differ" if odd else "they have another order"
            raise UserError(f"{folder.path} was written for other {what} than the config's: {found}. Write it again.")
    node = cfg.MODEL.MASK_FORMER
    if (header.queries, header.width) != (node.NUM_OBJECT_QUERIES, node.HIDDEN_DIM):
        raise UserError(
            f"{folder.path} holds {header.queries} queries of width {header.width}, but the config has "
            f"{node.NUM_OBJECT_QUERIES} of width {node.HIDDEN_DIM}. Name the config that it was written with."
        )
    if model is not None and segmenter_hash(model) != header.weights_sha256:
        raise UserError(
            f"{folder.path} holds features of another segmenter than that of MODEL.WEIGHTS, so both cannot be "
            "combined. Name the weights that it was written with, or write the features again."
        )


def folder_path(path: str | Path) -> Path:
    """The folder as a path; UserError if it is a file."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file. Name a feature folder.")
    return path
