"""The head of MaskFormer and its descendants: a pixel decoder, then a transformer decoder."""

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from PADing.errors import UserError
from PADing.modeling.heads.legacy_keys import insert_pixel_decoder
from PADing.modeling.pixel_decoder import build_pixel_decoder, select_features
from PADing.modeling.transformer_decoder import build_transformer_decoder

# Values of MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE with a meaning of their own; any other names a backbone map.
MULTI_SCALE, ENCODER, PIXELS = "multi_scale_pixel_decoder", "transformer_encoder", "pixel_embedding"


def decoder_channels(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> int:
    """Channels of the maps that ``MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE`` hands to the transformer decoder."""
    feature = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
    if feature in (MULTI_SCALE, ENCODER):
        return cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM
    if feature == PIXELS:
        return cfg.MODEL.SEM_SEG_HEAD.MASK_DIM
    if feature not in input_shape:
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {feature!r}; it must be one of {MULTI_SCALE!r}, {ENCODER!r}, "
            f"{PIXELS!r} or a map of the backbone: {', '.join(input_shape)}"
        )
    return input_shape[feature].channels


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Pixel decoder and transformer decoder; keys ``pixel_decoder.*``, ``predictor.*``.

    Args:
        input_shape: channels and strides of the backbone's maps.
        num_classes: classes without "no object".
        pixel_decoder: has ``forward_features``, see :mod:`PADing.modeling.pixel_decoder`.
        loss_weight, ignore_value: kept for callers that ask the head for them.
        transformer_predictor: the transformer decoder.
        transformer_in_feature: which maps the transformer decoder attends to.
    """

    _version = 2

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        pixel_decoder: nn.Module,
        loss_weight: float = 1.0,
        ignore_value: int = -1,
        transformer_predictor: nn.Module,
        transformer_in_feature: str,
    ) -> None:
        super().__init__()
        self.in_features = [name for name, _ in sorted(input_shape.items(), key=lambda item: item[1].stride)]
        self.num_classes, self.loss_weight, self.ignore_value = num_classes, loss_weight, ignore_value
        self.pixel_decoder = pixel_decoder
        self.predictor = transformer_predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        channels = decoder_channels(cfg, input_shape)
        return {
            "input_shape": select_features(cfg, input_shape),
            "num_classes": head.NUM_CLASSES,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
            "transformer_predictor": build_transformer_decoder(cfg, channels, mask_classification=True),
            "transformer_in_feature": cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE,
        }

    def forward(self, features: dict[str, Tensor], mask: Tensor | None = None) -> dict:
        """Backbone maps -> the transformer decoder's predictions."""
        return self.layers(features, mask)

    def layers(self, features: dict[str, Tensor], mask: Tensor | None = None) -> dict:
        mask_features, encoded, levels = self.pixel_decoder.forward_features(features)
        if self.transformer_in_feature == MULTI_SCALE:
            source = levels
        elif self.transformer_in_feature == ENCODER:
            if encoded is None:
                raise UserError(
                    f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {ENCODER!r}, but {type(self.pixel_decoder).__name__} "
                    "has no transformer encoder"
                )
            source = encoded
        elif self.transformer_in_feature == PIXELS:
            source = mask_features
        else:
            source = features[self.transformer_in_feature]
        return self.predictor(source, mask_features, mask)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        insert_pixel_decoder(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
