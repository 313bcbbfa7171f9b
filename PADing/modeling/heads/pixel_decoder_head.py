"""What all heads share: a pixel decoder in front, and a predictor behind it."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from PADing.errors import UserError
from PADing.modeling.pixel_decoder.fpn import PixelDecoder, by_stride, select_features
from PADing.modeling.registry import build_pixel_decoder, build_transformer_decoder

# Values of MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE with a meaning of their own; any other names a backbone map.
MULTI_SCALE, ENCODER, PIXELS = "multi_scale_pixel_decoder", "transformer_encoder", "pixel_embedding"


class PixelDecoderHead(nn.Module):
    """Base of heads; keys ``pixel_decoder.*``, ``predictor.*``.

    Args:
        input_shape: channels and strides of the backbone's maps.
        num_classes: classes without "no object".
        pixel_decoder: a :class:`PixelDecoder`, or what else has its ``forward_features``.
        predictor: what makes predictions of the pixel decoder's maps.
        loss_weight: factor of the loss. ignore_value: label of pixels without annotation.
        transformer_in_feature: which maps a transformer decoder attends to.
    """

    _version = 2

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        pixel_decoder: PixelDecoder,
        predictor: nn.Module,
        loss_weight: float = 1.0,
        ignore_value: int = -1,
        transformer_in_feature: str = "",
    ) -> None:
        super().__init__()
        self.in_features = [feature.name for feature in by_stride(input_shape)]
        self.num_classes, self.loss_weight, self.ignore_value = num_classes, loss_weight, ignore_value
        self.pixel_decoder, self.predictor = pixel_decoder, predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD``, those of the predictor left out."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": select_features(cfg, input_shape),
            "num_classes": head.NUM_CLASSES,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
        }

    @staticmethod
    def transformer_arguments(cfg: CfgNode, input_shape: dict[str, ShapeSpec], classify: bool) -> dict:
        """``transformer_predictor`` and ``transformer_in_feature`` from ``MODEL.MASK_FORMER``."""
        feature, head = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE, cfg.MODEL.SEM_SEG_HEAD
        channels = {name: channels for name, channels, _ in by_stride(input_shape)}
        channels |= {MULTI_SCALE: head.CONVS_DIM, ENCODER: head.CONVS_DIM, PIXELS: head.MASK_DIM}
        if feature not in channels:
            raise UserError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {feature!r}; it must be one of {MULTI_SCALE!r}, "
                f"{ENCODER!r}, {PIXELS!r} or a map of the backbone: {', '.join(input_shape)}"
            )
        decoder = build_transformer_decoder(cfg, channels[feature], mask_classification=classify)
        return {"transformer_predictor": decoder, "transformer_in_feature": feature}

    def transformer_outputs(self, features: dict[str, Tensor], mask: Tensor | None = None) -> dict:
        """Run the pixel decoder, and the transformer decoder on the map or maps that it attends to."""
        mask_features, encoded, levels = self.pixel_decoder.forward_features(features)
        own = {MULTI_SCALE: levels, ENCODER: encoded, PIXELS: mask_features}
        source = own.get(self.transformer_in_feature, features.get(self.transformer_in_feature))
        if source is None:
            raise UserError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {ENCODER!r}, but {type(self.pixel_decoder).__name__} "
                "has no transformer encoder"
            )
        return self.predictor(source, mask_features, mask)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # In older checkpoints the head was its own pixel decoder. Decided by the key alone: version metadata get lost
        # when a checkpoint is saved again as a plain dict, and a rule that trusts them then renames what is right.
        for key in [k for k in state_dict if k.startswith(prefix)]:
            rest = key[len(prefix) :]
            if not rest.startswith(("predictor.", "pixel_decoder.")):
                state_dict[f"{prefix}pixel_decoder.{rest}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
