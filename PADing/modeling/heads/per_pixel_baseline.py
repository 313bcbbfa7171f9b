"""The per-pixel classification baselines of MaskFormer: a class for each pixel instead of masks with classes."""

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.heads.pixel_decoder_head import PixelDecoderHead
from PADing.modeling.pixel_decoder.fpn import PixelDecoder


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselineHead(PixelDecoderHead):
    """Pixel decoder and a 1 x 1 convolution.

    Args:
        pixel_decoder: its ``mask_dim`` is the classifier's input.
        common_stride: stride of the predictions. predictor: another classifier than the convolution.
        shared: see :class:`PixelDecoderHead`; ``num_classes`` outputs for each pixel.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        pixel_decoder: PixelDecoder,
        common_stride: int = 4,
        predictor: nn.Module | None = None,
        **shared,
    ) -> None:
        if predictor is None:
            predictor = Conv2d(pixel_decoder.mask_dim, num_classes, kernel_size=1)
            weight_init.c2_msra_fill(predictor)
        super().__init__(
            input_shape, num_classes=num_classes, pixel_decoder=pixel_decoder, predictor=predictor, **shared
        )
        self.common_stride = common_stride

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD``."""
        return {**super().from_config(cfg, input_shape), "common_stride": cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE}

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
        logits, *auxiliary = self.layers(features)
        if not self.training:
            return self._to_image_size(logits), {}
        assert targets is not None
        named = {"loss_sem_seg": logits} | {f"loss_sem_seg_{i}": x for i, x in enumerate(auxiliary)}
        return None, {name: self.loss_weight * self._cross_entropy(x, targets) for name, x in named.items()}

    def layers(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Logits at ``common_stride``, and behind them those of earlier layers for deep supervision."""
        return [self.predictor(self.pixel_decoder.forward_features(features)[0])]

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self._to_image_size(logits.float()), targets, ignore_index=self.ignore_value)

    def _to_image_size(self, logits: Tensor) -> Tensor:
        return F.interpolate(logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False)


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselinePlusHead(PerPixelBaselineHead):
    """The baseline with MaskFormer's transformer decoder: query ``k`` draws the score map of class ``k``.

    Args:
        transformer_predictor: transformer decoder without classification, one query for each class.
        deep_supervision: also apply the loss to its earlier layers.
        baseline: see :class:`PerPixelBaselineHead`.
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
