"""Multi-scale deformable attention: a function and a module, with compiled kernels or in plain PyTorch."""

from .backends import available_backends
from .functional import ms_deform_attn
from .module import MSDeformAttn
