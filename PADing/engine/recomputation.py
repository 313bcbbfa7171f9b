"""Activation checkpointing of a model by the config: ``ACTIVATION_CHECKPOINTING`` of backbone and pixel decoder."""

import logging

from detectron2.config import CfgNode
from torch import nn

from PADing.errors import UserError
from PADing.modeling.recompute import recompute_backbone, recompute_pixel_decoder

logger = logging.getLogger(__name__)
BACKBONE, HEAD = "MODEL.BACKBONE.ACTIVATION_CHECKPOINTING", "MODEL.SEM_SEG_HEAD.ACTIVATION_CHECKPOINTING"


def recompute_activations(cfg: CfgNode, model: nn.Module) -> None:
    """Let the parts that the config names compute their activations again in the backward pass, in place.

    UserError if the model has no such part, or its blocks are not known.
    """
    if cfg.MODEL.BACKBONE.ACTIVATION_CHECKPOINTING:
        backbone = _part(model, "backbone", BACKBONE)
        if any(parameter.requires_grad for parameter in backbone.parameters()):
            recompute_backbone(backbone, cfg.MODEL.BACKBONE.NAME)
        else:
            logger.info("%s has no effect: the backbone is not trained, so it keeps no activations.", BACKBONE)
    if cfg.MODEL.SEM_SEG_HEAD.ACTIVATION_CHECKPOINTING:
        recompute_pixel_decoder(_part(model, "sem_seg_head.pixel_decoder", HEAD))


def _part(model: nn.Module, name: str, key: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise UserError(f"{key} is True, but {type(model).__name__} has no {name}. Set it to False.") from None
