"""Multi-scale deformable attention: one function, one module; compiled where possible, plain PyTorch everywhere."""

from .backends import available_backends
from .functional import ms_deform_attn
from .module import MSDeformAttn
