"""What transformer decoders share: each of their queries draws a mask."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d
from fvcore.nn import weight_init
from torch import Tensor, nn


class QueryDecoder(nn.Module):
    """Base of transformer decoders, with the arguments that all of them take.

    Args:
        in_channels: channels of the feature maps.
        mask_classification: predict a class for each query; else query ``k`` stands for class ``k``.
        num_classes: classes without "no object".
        hidden_dim: width C of the queries. num_queries: their number Q. nheads: attention heads.
        dim_feedforward: width inside the feed-forward networks. dec_layers: their number. pre_norm: LayerNorm first.
        mask_dim: channels of the mask features.
        enforce_input_project: project the features even where their width already is ``hidden_dim``.
        deep_supervision: in training, predict after every layer; else only once, behind the last one.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict:
        """Arguments from ``MODEL.MASK_FORMER``."""
        node = cfg.MODEL.MASK_FORMER
        return {
            "in_channels": in_channels,
            "mask_classification": mask_classification,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "hidden_dim": node.HIDDEN_DIM,
            "num_queries": node.NUM_OBJECT_QUERIES,
            "nheads": node.NHEADS,
            "dim_feedforward": node.DIM_FEEDFORWARD,
            "dec_layers": node.DEC_LAYERS,
            "pre_norm": node.PRE_NORM,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "enforce_input_project": node.ENFORCE_INPUT_PROJ,
            "deep_supervision": node.DEEP_SUPERVISION,
        }

    @staticmethod
    def input_projection(in_channels: int, width: int, enforce: bool) -> nn.Module:
        """What brings a feature map to the width of the queries; nothing where it has it, unless ``enforce``."""
        if in_channels == width and not enforce:
            return nn.Identity()
        projection = Conv2d(in_channels, width, kernel_size=1)
        weight_init.c2_xavier_fill(projection)
        return projection

    @staticmethod
    def draw(kernels: Tensor, mask_features: Tensor) -> Tensor:
        """Mask logits: (B, Q, mask_dim) and (B, mask_dim, h, w) -> (B, Q, h, w)."""
        return torch.bmm(kernels, mask_features.flatten(2)).unflatten(2, mask_features.shape[-2:])
