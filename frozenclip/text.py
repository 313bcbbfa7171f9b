"""The text embeddings of a config, which must come from the text encoder of the same CLIP model."""

import logging
import re

from detectron2.config import CfgNode

from frozenclip.backbone import WEIGHTS_KEY, clip_of
from PADing.class_space import ClassSpace
from PADing.data.clip_models import SOURCE, ClipModel
from PADing.data.embeddings import embedding_source, find_embeddings
from PADing.errors import UserError
from PADing.meta_arch.class_embeddings import ClassEmbeddings

logger = logging.getLogger(__name__)

KEY = "MODEL.FROZENCLIP.CLASS_EMBEDDINGS"


def embeddings_config(cfg: CfgNode) -> CfgNode:
    """``cfg``; or, with ``MODEL.FROZENCLIP.CLASS_EMBEDDINGS``, a copy in which this file is that of the model."""
    if not cfg.MODEL.FROZENCLIP.CLASS_EMBEDDINGS:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.CLASS_EMBEDDINGS, cfg.MODEL.MASK_FORMER.VEC_PATH = cfg.MODEL.FROZENCLIP.CLASS_EMBEDDINGS, None
    cfg.freeze()
    return cfg


def clip_text(cfg: CfgNode) -> ClassEmbeddings:
    """The text embeddings of the classes of a config's split.

    Raises:
        UserError: no file, a damaged file, missing classes, or a file that another model than
            ``MODEL.FROZENCLIP.NAME`` has made.
    """
    own = embeddings_config(cfg)
    named = own.MODEL.CLASS_EMBEDDINGS if own.MODEL.MASK_FORMER.VEC_PATH is None else ""
    if named and find_embeddings(named) is None:
        command = making_command(clip_of(cfg), cfg.MODEL.FROZENCLIP.PRETRAINED, named)
        raise UserError(
            f"Class embeddings {named} do not exist. Make them with: {command}; or name others: {KEY} FILE."
        )
    embeddings = ClassEmbeddings.of_config(own, ClassSpace.of_config(cfg))
    check_source(embeddings, cfg)
    return embeddings


def check_source(embeddings: ClassEmbeddings, cfg: CfgNode) -> None:
    """UserError unless class embeddings come from the text encoder of the config's CLIP model, as their file says."""
    clip, pretrained = clip_of(cfg), cfg.MODEL.FROZENCLIP.PRETRAINED
    source, _ = embedding_source(embeddings.path)
    made, weights = SOURCE.match(source), clip.weights_label(pretrained)
    command = making_command(clip, pretrained)
    if not made or made["model"] != clip.label or weights and not _same(made["weights"], weights):
        wanted = f"CLIP {clip.label}" + (f", weights {weights}" if weights else "")
        raise UserError(
            f"Class embeddings {embeddings.path} come from another source ({source}) than the image encoder "
            f"({wanted}), so their cosines would mean nothing. Make a file with: {command}, and name it: {KEY} FILE."
        )
    if embeddings.width != clip.embed_dim:
        raise UserError(
            f"Class embeddings {embeddings.path} have {embeddings.width} dimensions, but CLIP {clip.label} has "
            f"{clip.embed_dim}. Make a file with: {command}."
        )
    if not weights:
        logger.info("%s is empty, so it is not checked that %s has the same weights.", WEIGHTS_KEY, embeddings.path)


def making_command(clip: ClipModel, pretrained: str, output: str = "FILE.npz") -> str:
    """The command that makes class embeddings with a CLIP model."""
    weights = f" --pretrained {pretrained}" if pretrained and not clip.folder else ""
    model = clip.folder or clip.name
    return f"python tools/class_embeddings.py clip --model {model}{weights} --split SPLIT_FILE --output {output}"


def _same(a: str, b: str) -> bool:
    """Whether two names mean the same weights: by their fingerprints, if both have one."""
    marks = [re.search(r"#([0-9a-f]+)$", text) for text in (a, b)]
    if all(marks):
        return marks[0][1] == marks[1][1]  # type: ignore[index]
    return a.partition("#")[0] == b.partition("#")[0]
