"""A frozen vision-language classifier (FC-CLIP, "Convolutions Die Hard", Yu et al., NeurIPS 2023) on the host.

The files: config keys (``config``), CLIP's image encoder (``encoder``) with the pooling of regions (``pooling``), the
encoder as a backbone (``backbone``), text embeddings (``text``, ``classes``, ``class_table``), the decoder with the
classifier of the training (``decoder``), the ensemble of two classifiers (``ensemble``, ``ensembled``), the
meta-architecture (``meta_arch``), and the second classifier for models of other methods (``second``). A YAML file loads
it with ``PLUGINS: ("frozenclip",)``.
"""

from .backbone import FrozenCLIPBackbone
from .config import CONFIG_RULES, add_config
from .decoder import MultiScaleMaskedCLIPDecoder
from .meta_arch import FrozenCLIP
from .second import FrozenCLIPClassifier

__all__ = [
    "CONFIG_RULES",
    "FrozenCLIP",
    "FrozenCLIPBackbone",
    "FrozenCLIPClassifier",
    "MultiScaleMaskedCLIPDecoder",
    "add_config",
]
