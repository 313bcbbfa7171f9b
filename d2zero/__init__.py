"""D2Zero (He et al., CVPR 2023): zero-shot instance segmentation on the Mask2Former host of :mod:`PADing`.

The files: config keys (``config``), the classes of a data set (``protocol``), the input-conditional classifier with the
image-adaptive background (``decoder``), the unseen-constrained loss (``unseen_loss``), and the meta-architecture with
its three kinds of inference (``meta_arch``). A YAML file loads it with ``PLUGINS: ("d2zero",)``.
"""

from .config import CONFIG_RULES, add_config
from .decoder import MultiScaleMaskedD2ZeroDecoder
from .meta_arch import D2Zero
from .unseen_loss import UnseenConstrainedCriterion

__all__ = ["CONFIG_RULES", "D2Zero", "MultiScaleMaskedD2ZeroDecoder", "UnseenConstrainedCriterion", "add_config"]
