"""Zero-shot segmentation on Mask2Former: PADing, and the host model that all methods share.

Importing this package registers the shipped data sets (``datasets/splits/*.yaml``). Models, evaluators and mappers are
imported on first use, so that small tools start fast.
"""

import importlib
import sys

try:
    from PADing.data.registration import register_builtin
except KeyboardInterrupt:  # importing PyTorch takes seconds: exit without a traceback, except in an interactive session
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

register_builtin()


def __getattr__(name: str):
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'PADing' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
