"""Heads: a pixel decoder, and a predictor on its maps. Importing this registers all of them."""

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.pixel_decoder.fpn import PixelDecoder, by_stride, select_features
from PADing.modeling.registry import build_pixel_decoder, build_transformer_decoder

# Special values of MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE; any other value names a backbone map.
MULTI_SCALE, ENCODER, PIXELS = "multi_scale_pixel_decoder", "transformer_encoder", "pixel_embedding"


class PixelDecoderHead(nn.Module):
    """Base of heads; keys ``pixel_decoder.*``, ``predictor.*``.

    Args:
        input_shape: of the backbone's maps.
        num_classes: number of classes without "no object".
        pixel_decoder: computes maps from those of the backbone.
        predictor: computes predictions from the maps of ``pixel_decoder``.
        loss_weight: factor of the loss.
        ignore_value: label of pixels without annotation.
        transformer_in_feature: the map that a transformer decoder attends to.
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
        self.in_features = [name for name, _, _ in by_stride(input_shape)]
        self.num_classes, self.loss_weight, self.ignore_value = num_classes, loss_weight, ignore_value
        self.pixel_decoder, self.predictor = pixel_decoder, predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD``, without those of the predictor."""
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
        """``transformer_predictor`` and ``transformer_in_feature`` from ``MODEL.MASK_FORMER``; UserError if wrong."""
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
        # In older checkpoints the head was its own pixel decoder. The key decides, not the version metadata: they are
        # lost when a checkpoint is saved again as a plain dict, and then right keys would be renamed.
        for key in [k for k in state_dict if k.startswith(prefix)]:
            rest = key[len(prefix) :]
            if not rest.startswith(("predictor.", "pixel_decoder.")):
                state_dict[f"{prefix}pixel_decoder.{rest}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(PixelDecoderHead):
    """Pixel decoder and transformer decoder; ``shared``: arguments of the base class."""

    @configurable
    def __init__(self, input_shape: dict[str, ShapeSpec], *, transformer_predictor: nn.Module, **shared) -> None:
        super().__init__(input_shape, predictor=transformer_predictor, **shared)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD`` and ``MODEL.MASK_FORMER``."""
        return {**super().from_config(cfg, input_shape), **cls.transformer_arguments(cfg, input_shape, classify=True)}

    def forward(self, features: dict[str, Tensor], mask: Tensor | None = None) -> dict:
        """The transformer decoder's predictions from the backbone's maps (B, C, h, w) by name."""
        return self.transformer_outputs(features, mask)


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselineHead(PixelDecoderHead):
    """Pixel decoder and a 1 x 1 convolution, or another ``predictor``, with ``num_classes`` outputs per pixel.

    It predicts at ``common_stride``. ``shared``: arguments of the base class.
    """

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, common_stride: int = 4, predictor: nn.Module | None = None, **shared
    ) -> None:
        if predictor is None:
            predictor = Conv2d(shared["pixel_decoder"].mask_dim, shared["num_classes"], kernel_size=1)
            weight_init.c2_msra_fill(predictor)
        super().__init__(input_shape, predictor=predictor, **shared)
        self.common_stride = common_stride

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD``."""
        return {**super().from_config(cfg, input_shape), "common_stride": cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE}

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Classify pixels; ``targets`` (B, H, W) are their labels, needed in training.

        Returns (None, ``{"loss_sem_seg": ...}``) in training and (logits (B, num_classes, H, W), ``{}``) in evaluation.
        """
        logits, *auxiliary = self.layers(features)
        if not self.training:
            return self._to_image_size(logits), {}
        assert targets is not None
        named = {"loss_sem_seg": logits} | {f"loss_sem_seg_{i}": x for i, x in enumerate(auxiliary)}
        return None, {name: self.loss_weight * self._cross_entropy(x, targets) for name, x in named.items()}

    def layers(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Logits at ``common_stride``, then those of earlier layers for deep supervision."""
        return [self.predictor(self.pixel_decoder.forward_features(features)[0])]

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self._to_image_size(logits.float()), targets, ignore_index=self.ignore_value)

    def _to_image_size(self, logits: Tensor) -> Tensor:
        return F.interpolate(logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False)


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselinePlusHead(PerPixelBaselineHead):
    """The baseline with MaskFormer's transformer decoder: query ``k`` predicts the score map of class ``k``.

    With ``deep_supervision`` the loss also applies to earlier layers. ``baseline``: arguments of the base class.
    """

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, transformer_predictor: nn.Module, deep_supervision: bool, **baseline
    ) -> None:
        super().__init__(input_shape, predictor=transformer_predictor, **baseline)
        self.deep_supervision = deep_supervision

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD`` and ``MODEL.MASK_FORMER``."""
        node = cfg.MODEL.MASK_FORMER
        if node.NUM_OBJECT_QUERIES != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            raise UserError(
                "PerPixelBaselinePlusHead has one query for each class: set MODEL.MASK_FORMER.NUM_OBJECT_QUERIES "
                f"({node.NUM_OBJECT_QUERIES}) to MODEL.SEM_SEG_HEAD.NUM_CLASSES ({cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES})"
            )
        baseline = super().from_config(cfg, input_shape)
        transformer = cls.transformer_arguments(cfg, input_shape, classify=False)
        return {**baseline, **transformer, "deep_supervision": node.DEEP_SUPERVISION}

    def layers(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See the base class."""
        outputs = self.transformer_outputs(features)
        auxiliary = [aux["pred_masks"] for aux in outputs["aux_outputs"]] if self.deep_supervision else []
        return [outputs["pred_masks"], *auxiliary]
