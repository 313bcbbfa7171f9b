"""Whole models by name."""

from d2lite.omitted import omitted_names

from .build import META_ARCH_REGISTRY, build_model
from .semantic_seg import SEM_SEG_HEADS_REGISTRY, build_sem_seg_head

__all__ = ["META_ARCH_REGISTRY", "SEM_SEG_HEADS_REGISTRY", "build_model", "build_sem_seg_head"]

__getattr__ = omitted_names(
    __name__,
    ["FCOS", "GeneralizedRCNN", "PanopticFPN", "ProposalNetwork", "RetinaNet", "SemSegFPNHead", "SemanticSegmentor"],
)
