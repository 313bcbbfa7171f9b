"""The per-pixel classification baselines of MaskFormer: a class for each pixel instead of masks with classes."""

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.heads.legacy_keys import insert_pixel_decoder
from PADing.modeling.heads.mask_former_head import ENCODER, PIXELS, decoder_channels
from PADing.modeling.pixel_decoder import build_pixel_decoder, select_features
from PADing.modeling.transformer_decoder import build_transformer_decoder


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselineHead(nn.Module):
    """Pixel decoder and a 1 x 1 convolution; keys ``pixel_decoder.*``, ``predictor.*``.

    Args:
        input_shape: channels and strides of the backbone's maps.
        num_classes: outputs for each pixel.
        pixel_decoder: see :mod:`PADing.modeling.pixel_decoder`; its ``mask_dim`` is the classifier's input.
        loss_weight: factor of the loss. ignore_value: label of pixels without annotation.
        common_stride: stride of the predictions.
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
        common_stride: int = 4,
    ) -> None:
        super().__init__()
        self.in_features = [name for name, _ in sorted(input_shape.items(), key=lambda item: item[1].stride)]
        self.num_classes, self.loss_weight, self.ignore_value = num_classes, loss_weight, ignore_value
        self.common_stride = common_stride
        self.pixel_decoder = pixel_decoder
        self.predictor = self.build_predictor()

    def build_predictor(self) -> nn.Module:
        predictor = Conv2d(self.pixel_decoder.mask_dim, self.num_classes, kernel_size=1)
        weight_init.c2_msra_fill(predictor)
        return predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": select_features(cfg, input_shape),
            "num_classes": head.NUM_CLASSES,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
            "common_stride": head.COMMON_STRIDE,
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Classify pixels.

        Args:
            features: backbone maps. targets: (B, H, W) labels, needed in training.

        Returns:
            training: (None, ``{"loss_sem_seg": ...}``); evaluation: ((B, num_classes, H, W) logits at the size of the
            image, ``{}``).
        """
        logits, auxiliary = self.layers(features)
        if self.training:
            return None, self.losses(logits, auxiliary, targets)
        return self._to_image_size(logits), {}

    def layers(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits at ``common_stride``, and those of earlier layers for deep supervision."""
        return self.predictor(self.pixel_decoder.forward_features(features)[0]), []

    def losses(self, logits: Tensor, auxiliary: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
        named = {"loss_sem_seg": logits} | {f"loss_sem_seg_{i}": x for i, x in enumerate(auxiliary)}
        return {name: self.loss_weight * self._cross_entropy(x, targets) for name, x in named.items()}

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self._to_image_size(logits.float()), targets, ignore_index=self.ignore_value)

    def _to_image_size(self, logits: Tensor) -> Tensor:
        return F.interpolate(logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        insert_pixel_decoder(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselinePlusHead(PerPixelBaselineHead):
    """The baseline with MaskFormer's transformer decoder: query ``k`` draws the score map of class ``k``.

    Args:
        transformer_predictor: transformer decoder without classification, one query for each class.
        transformer_in_feature: which map it attends to.
        deep_supervision: also apply the loss to its earlier layers.
        Others: see :class:`PerPixelBaselineHead`.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_predictor: nn.Module,
        transformer_in_feature: str,
        deep_supervision: bool,
        **baseline,
    ) -> None:
        self._transformer_predictor = (transformer_predictor,)  # in a tuple: not a submodule under this name
        super().__init__(input_shape, **baseline)
        del self._transformer_predictor
        self.transformer_in_feature, self.deep_supervision = transformer_in_feature, deep_supervision

    def build_predictor(self) -> nn.Module:
        return self._transformer_predictor[0]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        node = cfg.MODEL.MASK_FORMER
        if node.NUM_OBJECT_QUERIES != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            raise UserError(
                "PerPixelBaselinePlusHead has one query for each class: set MODEL.MASK_FORMER.NUM_OBJECT_QUERIES "
                f"({node.NUM_OBJECT_QUERIES}) to MODEL.SEM_SEG_HEAD.NUM_CLASSES ({cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES})"
            )
        channels = decoder_channels(cfg, input_shape)
        return {
            **super().from_config(cfg, input_shape),
            "transformer_predictor": build_transformer_decoder(cfg, channels, mask_classification=False),
            "transformer_in_feature": node.TRANSFORMER_IN_FEATURE,
            "deep_supervision": node.DEEP_SUPERVISION,
        }

    def layers(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        mask_features, encoded, _ = self.pixel_decoder.forward_features(features)
        source = {ENCODER: encoded, PIXELS: mask_features}.get(self.transformer_in_feature)
        if source is None:
            source = features[self.transformer_in_feature]
        outputs = self.predictor(source, mask_features)
        auxiliary = [aux["pred_masks"] for aux in outputs["aux_outputs"]] if self.deep_supervision else []
        return outputs["pred_masks"], auxiliary
