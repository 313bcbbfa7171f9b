"""The optimizer of stage 1, and of every method that trains the whole network, with Mask2Former's parameter groups."""

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from PADing.engine.merged_steps import SGD, AdamW
from PADing.errors import UserError

# The first is the base class of all batch and instance normalisations.
NORM_TYPES = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
# Position tables of Swin backbones; they get no weight decay.
POSITION_TABLES = ("relative_position_bias_table", "absolute_pos_embed")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW with one group per trainable parameter; UserError for another ``SOLVER.OPTIMIZER``.

    The learning rate of the backbone is ``BACKBONE_MULTIPLIER`` times ``BASE_LR``, with ``BACKBONE_LAYER_DECAY`` for
    each layer behind. Weight decay is ``WEIGHT_DECAY_NORM`` in normalisation layers, ``WEIGHT_DECAY_EMBED`` in
    embedding tables, 0 in position tables and where the backbone says so, ``WEIGHT_DECAY`` elsewhere. The recipe
    applies ``CLIP_TYPE full_model``, because it needs the gradients after unscaling; Detectron2 applies the other clip
    types.
    """
    solver = cfg.SOLVER
    groups = parameter_groups(cfg, model)
    optimizer: torch.optim.Optimizer
    if solver.OPTIMIZER == "SGD":
        optimizer = SGD(groups, solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)
    elif solver.OPTIMIZER == "ADAMW":
        optimizer = AdamW(groups, solver.BASE_LR)
    else:
        raise UserError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}, but must be 'SGD' or 'ADAMW'.")
    if not clips_full_model(cfg):
        maybe_add_gradient_clipping(cfg, optimizer)  # changes the class of this object
    return optimizer


def clips_full_model(cfg: CfgNode) -> bool:
    """Whether the config clips gradients by one norm over all parameters."""
    return cfg.SOLVER.CLIP_GRADIENTS.ENABLED and cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE == "full_model"


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict]:
    """One ``{"params": [p], "lr": ..., "weight_decay": ...}`` per trainable parameter, in the model's order.

    A backbone may have ``learning_rate_factors(multiplier, decay)``, factors of ``BASE_LR`` by parameter, and
    ``undecayed()``, parameters without weight decay. UserError for a layer decay that the backbone does not know.
    """
    solver = cfg.SOLVER
    factors, undecayed = _backbone_options(cfg, getattr(model, "backbone", None))
    groups, met = [], set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in met:
                continue
            met.add(parameter)
            decay = solver.WEIGHT_DECAY
            full = f"{module_name}.{name}"
            if name in POSITION_TABLES or full in undecayed:
                decay = 0.0
            elif isinstance(module, NORM_TYPES):
                decay = solver.WEIGHT_DECAY_NORM
            elif isinstance(module, nn.Embedding):
                decay = solver.WEIGHT_DECAY_EMBED
            scale = factors.get(full, solver.BACKBONE_MULTIPLIER if "backbone" in module_name else 1.0)
            groups.append({"params": [parameter], "lr": solver.BASE_LR * scale, "weight_decay": decay})
    return groups


def _backbone_options(cfg: CfgNode, backbone: nn.Module | None) -> tuple[dict[str, float], set[str]]:
    """What the backbone says of its parameters, by their names in the model."""
    multiplier, decay = cfg.SOLVER.BACKBONE_MULTIPLIER, cfg.SOLVER.BACKBONE_LAYER_DECAY
    factors = getattr(backbone, "learning_rate_factors", None)
    if factors is None and decay != 1:
        wrong = f"SOLVER.BACKBONE_LAYER_DECAY is {decay}, but {cfg.MODEL.BACKBONE.NAME} does not tell its layers."
        raise UserError(f"{wrong} Set it to 1, or use a TimmBackbone.")
    undecayed: set[str] = getattr(backbone, "undecayed", set)()
    found = factors(multiplier, decay) if factors else {}
    return {f"backbone.{name}": factor for name, factor in found.items()}, {f"backbone.{name}" for name in undecayed}
