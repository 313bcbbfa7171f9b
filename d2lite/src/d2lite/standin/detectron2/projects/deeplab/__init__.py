"""The config keys and the polynomial learning rate schedule of Detectron2's DeepLab project."""

from .build_solver import build_lr_scheduler
from .config import add_deeplab_config
from .lr_scheduler import WarmupPolyLR
