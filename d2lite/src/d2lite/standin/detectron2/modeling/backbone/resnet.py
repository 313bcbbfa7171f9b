"""Residual networks (He et al., "Deep Residual Learning for Image Recognition"), with 18 to 152 layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from fvcore.nn import weight_init
from torch import Tensor, nn

from d2lite.omitted import ADVICE

from .backbone import Backbone
from .build import BACKBONE_REGISTRY

# Blocks per stage, from res2 to res5.
BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: str, **kwargs) -> Conv2d:
    """A convolution without bias, followed by a norm, that keeps height and width at stride 1."""
    padding = kwargs.get("dilation", 1) * (kernel_size // 2)
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=padding,
        bias=False,
        norm=get_norm(norm, out_channels),
        **kwargs,
    )
    weight_init.c2_msra_fill(conv)
    return conv


class BasicStem(CNNBlockBase):
    """7x7 convolution and 3x3 maximum, both with stride 2: (N, C, H, W) to (N, ``out_channels``, H/4, W/4)."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: str = "BN"):
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class _ResidualBlock(CNNBlockBase):
    """``relu(residual(x) + shortcut(x))``, where the shortcut is a 1x1 convolution if the channels change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1, norm, stride=stride)

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.residual(x) + shortcut)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions, the block of ResNet-18 and -34."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN"):
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu_(self.conv1(x)))


class BottleneckBlock(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolution, the block of ResNet-50 and deeper.

    Args:
        bottleneck_channels: channels of the 3x3 convolution.
        num_groups, dilation: of the 3x3 convolution.
        stride_in_1x1: the first 1x1 convolution has the stride (weights of MSRA), else the 3x3 one (torchvision).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ):
        super().__init__(in_channels, out_channels, stride, norm)
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        width = bottleneck_channels
        self.conv1 = _conv(in_channels, width, 1, norm, stride=first)
        self.conv2 = _conv(width, width, 3, norm, stride=second, groups=num_groups, dilation=dilation)
        self.conv3 = _conv(width, out_channels, 1, norm)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))


class ResNet(Backbone):
    """A stem and stages of residual blocks, which return the maps named in ``out_features``.

    Args:
        stem: the first block; its output is called "stem".
        stages: lists of blocks; their outputs are called "res2", "res3", ... Stages after the last one of
            ``out_features`` are left out.
        out_features: any of these names; None: the last stage.
        freeze_at: 0: train everything; 1: freeze the stem; k: freeze also the stages up to res{k}.

    Raises:
        ValueError: for a name in ``out_features`` that does not exist.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ):
        super().__init__()
        names = [f"res{i}" for i in range(2, 2 + len(stages))]
        self._out_features = [names[-1]] if out_features is None else list(out_features)
        unknown = set(self._out_features) - {"stem", *names}
        if unknown or not self._out_features:
            raise ValueError(f"a ResNet has the features stem, {', '.join(names)}, not {sorted(unknown)}")

        self.stem = stem
        self._out_feature_channels = {"stem": stem.out_channels}
        self._out_feature_strides = {"stem": stem.stride}
        self.stage_names = names[: max(names.index(n) + 1 if n != "stem" else 0 for n in self._out_features)]
        stride = stem.stride
        for name, blocks in zip(self.stage_names, stages, strict=False):
            self.add_module(name, nn.Sequential(*blocks))
            for block in blocks:
                stride *= block.stride
            self._out_feature_channels[name] = blocks[-1].out_channels
            self._out_feature_strides[name] = stride
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) to the asked feature maps, from the finest to the coarsest."""
        assert x.dim() == 4, f"a ResNet takes a batch (N, C, H, W), got {tuple(x.shape)}"
        outputs = {}
        for name in ["stem", *self.stage_names]:
            x = getattr(self, name)(x)
            if name in self._out_features:
                outputs[name] = x
        return outputs

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Freeze the stem (``freeze_at >= 1``) and the stages up to res{``freeze_at``}; batch norms become FrozenBN."""
        if freeze_at >= 1:
            self.stem.freeze()
        for index, name in enumerate(self.stage_names, start=2):
            if freeze_at >= index:
                for block in getattr(self, name):
                    block.freeze()
        return self


def _stage(resnets, index: int, in_channels: int) -> list[CNNBlockBase]:
    """The blocks of res{index + 2}; the first one changes the number of channels and, after res2, halves the size."""
    out_channels = resnets.RES2_OUT_CHANNELS * 2**index
    # res5 may keep the size of res4; dilation then gives it the same field of view.
    dilation = resnets.RES5_DILATION if index == 3 else 1
    first_stride = 1 if index == 0 or dilation > 1 else 2
    if resnets.DEPTH < 50:
        block_class, options = BasicBlock, {}
    else:
        block_class = BottleneckBlock
        options = {
            "bottleneck_channels": resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP * 2**index,
            "num_groups": resnets.NUM_GROUPS,
            "stride_in_1x1": resnets.STRIDE_IN_1X1,
            "dilation": dilation,
        }
    blocks = []
    for i in range(BLOCKS_PER_STAGE[resnets.DEPTH][index]):
        stride = first_stride if i == 0 else 1
        blocks.append(block_class(in_channels, out_channels, stride=stride, norm=resnets.NORM, **options))
        in_channels = out_channels
    return blocks


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet from ``cfg.MODEL.RESNETS``, frozen up to ``cfg.MODEL.BACKBONE.FREEZE_AT``.

    Raises:
        ValueError: for settings that do not fit together.
        NotImplementedError: for deformable convolutions.
    """
    resnets = cfg.MODEL.RESNETS
    depth = resnets.DEPTH
    if depth not in BLOCKS_PER_STAGE:
        raise ValueError(f"MODEL.RESNETS.DEPTH is {depth}; choose from {', '.join(map(str, BLOCKS_PER_STAGE))}")
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise NotImplementedError(f"MODEL.RESNETS.DEFORM_ON_PER_STAGE needs deformable convolutions: {ADVICE}")
    if resnets.RES5_DILATION not in (1, 2):
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION is {resnets.RES5_DILATION}; it must be 1 or 2")
    if depth < 50:
        for key, value in (("RES2_OUT_CHANNELS", 64), ("NUM_GROUPS", 1), ("RES5_DILATION", 1)):
            if resnets[key] != value:
                raise ValueError(
                    f"MODEL.RESNETS.{key} is {resnets[key]}; with MODEL.RESNETS.DEPTH {depth} it must be {value}"
                )

    stem = BasicStem(input_shape.channels, resnets.STEM_OUT_CHANNELS, resnets.NORM)
    stages: list[list[CNNBlockBase]] = []
    for index in range(4):
        stages.append(_stage(resnets, index, stages[-1][-1].out_channels if stages else stem.out_channels))
    return ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
