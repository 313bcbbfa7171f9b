"""Networks by name, and the residual backbones."""

from d2lite.omitted import omitted_names

from .backbone import BACKBONE_REGISTRY, Backbone, ResNet, build_backbone, build_resnet_backbone
from .meta_arch import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY, build_model, build_sem_seg_head
from .postprocessing import sem_seg_postprocess
from .test_time_augmentation import DatasetMapperTTA

__all__ = [
    "BACKBONE_REGISTRY",
    "Backbone",
    "DatasetMapperTTA",
    "META_ARCH_REGISTRY",
    "ResNet",
    "SEM_SEG_HEADS_REGISTRY",
    "build_backbone",
    "build_model",
    "build_resnet_backbone",
    "build_sem_seg_head",
    "sem_seg_postprocess",
]

__getattr__ = omitted_names(
    __name__,
    [
        "ANCHOR_GENERATOR_REGISTRY",
        "FPN",
        "GeneralizedRCNN",
        "GeneralizedRCNNWithTTA",
        "PROPOSAL_GENERATOR_REGISTRY",
        "PanopticFPN",
        "ROI_BOX_HEAD_REGISTRY",
        "ROI_HEADS_REGISTRY",
        "ROI_MASK_HEAD_REGISTRY",
        "RetinaNet",
        "SemanticSegmentor",
        "build_anchor_generator",
        "build_proposal_generator",
        "build_roi_heads",
        "detector_postprocess",
    ],
)
