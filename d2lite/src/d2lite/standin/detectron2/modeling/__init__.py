"""Networks by name, and the residual backbones."""

from .backbone import BACKBONE_REGISTRY, Backbone, ResNet, build_backbone, build_resnet_backbone
from .meta_arch import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY, build_model, build_sem_seg_head
from .postprocessing import sem_seg_postprocess
from .test_time_augmentation import DatasetMapperTTA
