"""The config keys of FrozenCLIP, beyond those of the host; ``config_keys.yaml`` says what they mean."""

from collections.abc import Iterator

from detectron2.config import CfgNode

from PADing.config_check import Joint
from PADing.config_rules import Rule, from_to

PARTS = {"MODEL.BACKBONE.NAME": "FrozenCLIPBackbone"}
PARTS["MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME"] = "MultiScaleMaskedCLIPDecoder"


def add_config(cfg: CfgNode) -> None:
    """Add the keys of FrozenCLIP to ``cfg``, in place."""
    cfg.MODEL.FROZENCLIP = CfgNode()
    cfg.MODEL.FROZENCLIP.update(
        NAME="", PRETRAINED="", CLASS_EMBEDDINGS="", ALPHA=0.4, BETA=0.8, POOL_MASK_FEATURES=True
    )


def _parts(cfg: CfgNode) -> Iterator[str]:
    found = {"MODEL.BACKBONE.NAME": cfg.MODEL.BACKBONE.NAME}
    found["MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME"] = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    whole = cfg.MODEL.META_ARCHITECTURE == "FrozenCLIP"
    for key, wanted in PARTS.items():
        if whole and found[key] != wanted:
            yield f"{key} is {found[key]!r}, but MODEL.META_ARCHITECTURE is FrozenCLIP. Set {key} {wanted}."
    if whole and cfg.MODEL.SECOND_CLASSIFIER.NAME == "FrozenCLIPClassifier":
        yield "MODEL.SECOND_CLASSIFIER.NAME is FrozenCLIPClassifier, which FrozenCLIP has already. Set it to ''."
    if not whole and found["MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME"] == "MultiScaleMaskedCLIPDecoder":
        cure = "Set MODEL.META_ARCHITECTURE FrozenCLIP."
        yield f"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME is MultiScaleMaskedCLIPDecoder, FrozenCLIP's. {cure}"


# Which values make sense; see PADing.config_check.
CONFIG_RULES = [
    Rule("model test", "MODEL.FROZENCLIP", from_to(0, 1), "ALPHA BETA", "0: the decoder's classifier alone; 1: CLIP's"),
    Joint("model", _parts),
]
