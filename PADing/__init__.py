"""Zero-shot segmentation on Mask2Former: PADing, and the host model that all methods share.

Importing this package imports neither PyTorch nor Detectron2, so that ``--help`` answers at once. The shipped data sets
(``datasets/splits/*.yaml``) are registered as soon as both this package and ``detectron2.data`` are imported, in either
order. Models, evaluators and mappers are imported on first use.
"""

import importlib
import sys
import warnings

from PADing.after_import import import_after
from PADing.allocator import keep_memory
from PADing.waiting import wait_briefly

# fvcore calls it when it is imported; its users can do nothing about it.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

wait_briefly()
keep_memory()

try:
    import_after("detectron2.data", "PADing.data.registration")
except KeyboardInterrupt:  # it may take seconds: exit without a traceback, except in an interactive session
    if hasattr(sys, "ps1"):
        raise
    sys.exit(130)

# Modules that register the methods of this package; reading a config imports them (PADing.plugins).
METHODS = ("PADing.meta_arch", "PADing.generation", "baselines.mlp_generator", "baselines.projection")

_PUBLIC = {
    "PADing.config": "add_maskformer2_config load_config",
    "PADing.generation": "PADing",
    "PADing.meta_arch": "MaskFormer",
    "PADing.data.dataset_mappers": "COCOInstanceNewBaselineDatasetMapper COCOPanopticNewBaselineDatasetMapper "
    "MaskFormerInstanceDatasetMapper MaskFormerPanopticDatasetMapper MaskFormerSemanticDatasetMapper",
    "PADing.evaluation": "InsSegzeroEvaluator InsSegzsiEvaluator PanopticzeroEvaluator SemSegGzeroEvaluator",
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'PADing' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
