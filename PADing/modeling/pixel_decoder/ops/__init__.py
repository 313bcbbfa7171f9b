"""Multi-scale deformable attention: a function and a module, with compiled kernels or in plain PyTorch."""

from .backends import available_backends
from .functional import ms_deform_attn, ms_deform_attn_fused
from .module import MSDeformAttn
