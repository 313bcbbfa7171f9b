"""Networks that turn images into feature maps."""

from d2lite.omitted import omitted_names

from .backbone import Backbone
from .build import BACKBONE_REGISTRY, build_backbone
from .resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet, build_resnet_backbone

__getattr__ = omitted_names(__name__)
