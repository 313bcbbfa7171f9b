"""The ResNets of "Deep Residual Learning for Image Recognition" (He et al., CVPR 2016), with 18 to 152 layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu_

from d2lite.omitted import ADVICE

from .backbone import Backbone
from .build import BACKBONE_REGISTRY

# By depth, the number of blocks in each stage (Table 1 of the paper).
BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: str, **options) -> Conv2d:
    """A convolution with a norm and without a bias, whose output is as large as its input but for the stride."""
    reach = options.get("dilation", 1) * (kernel_size // 2)
    layer = Conv2d(
        in_channels, out_channels, kernel_size, padding=reach, bias=False, norm=get_norm(norm, out_channels), **options
    )
    c2_msra_fill(layer)
    return layer


class BasicStem(CNNBlockBase):
    """What comes first: a 7x7 convolution and a 3x3 maximum, each of stride 2."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: str = "BN"):
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, ``out_channels``, H/4, W/4)."""
        return max_pool2d(relu_(self.conv1(x)), 3, stride=2, padding=1)


class _ResidualBlock(CNNBlockBase):
    """Convolutions ``conv1``, ``conv2``, ... past which the input goes, through ``shortcut`` where channels change.

    Args:
        layers: for each convolution its input channels, output channels, kernel size, and further options.
        stride: of the block; one of the layers must have it.
    """

    def __init__(self, layers: Sequence[tuple[int, int, int, dict]], stride: int, norm: str):
        first, last = layers[0][0], layers[-1][1]
        super().__init__(first, last, stride)
        self.shortcut = None if first == last else _conv(first, last, 1, norm, stride=stride)
        self.depth = len(layers)
        for number, (*shape, options) in enumerate(layers, start=1):
            self.add_module(f"conv{number}", _conv(*shape, norm, **options))

    def forward(self, x: Tensor) -> Tensor:
        """(N, ``in_channels``, H, W) to (N, ``out_channels``, H / stride, W / stride)."""
        y = self.conv1(x)
        for number in range(2, self.depth + 1):
            y = getattr(self, f"conv{number}")(relu_(y))
        return relu_(y + (x if self.shortcut is None else self.shortcut(x)))


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions; ResNet-18 and -34 are made of these."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN"):
        layers = [(in_channels, out_channels, 3, {"stride": stride}), (out_channels, out_channels, 3, {})]
        super().__init__(layers, stride, norm)


class BottleneckBlock(_ResidualBlock):
    """A 3x3 convolution on fewer channels between two 1x1; the deeper ResNets are made of these.

    Args:
        bottleneck_channels: of the 3x3 convolution. num_groups, dilation: its options.
        stride_in_1x1: which convolution has the stride: the first, as in MSRA's weights, or the 3x3 one, as in
            torchvision's.
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
        spatial = {"stride": 1 if stride_in_1x1 else stride, "groups": num_groups, "dilation": dilation}
        layers = [
            (in_channels, bottleneck_channels, 1, {"stride": stride if stride_in_1x1 else 1}),
            (bottleneck_channels, bottleneck_channels, 3, spatial),
            (bottleneck_channels, out_channels, 1, {}),
        ]
        super().__init__(layers, stride, norm)


class ResNet(Backbone):
    """A stem, and stages of blocks called "res2", "res3" and so on.

    Args:
        stem: its output is called "stem".
        stages: the blocks of each. Those behind the last output are dropped.
        num_classes: must be None; the classifier of the genuine class is left out here.
        out_features: the names of the outputs; without them, the last stage's.
        freeze_at: see :meth:`freeze`.

    Raises:
        ValueError: a name in ``out_features`` is of no part.
        NotImplementedError: with ``num_classes``.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ):
        super().__init__()
        if num_classes is not None:
            raise NotImplementedError(f"ResNet(num_classes={num_classes}) needs a classifier: {ADVICE}")
        blocks_of = {"stem": [stem]} | {f"res{number}": blocks for number, blocks in enumerate(stages, start=2)}
        names = list(blocks_of)
        self._out_features = list(out_features or names[-1:])
        if not set(self._out_features) <= set(names):
            raise ValueError(f"A ResNet has the features {', '.join(names)}; asked for are {self._out_features}.")
        self._parts = names[: 1 + max(map(names.index, self._out_features))]
        strides = accumulate((_stride_of(blocks_of[name]) for name in self._parts), int.__mul__)
        self._out_feature_strides = dict(zip(self._parts, strides, strict=True))
        self._out_feature_channels = {name: blocks_of[name][-1].out_channels for name in self._parts}
        self.stem = stem
        for name in self._parts[1:]:
            self.add_module(name, nn.Sequential(*blocks_of[name]))
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of images (N, C, H, W), the largest first."""
        assert x.ndim == 4, f"Images must come as (N, C, H, W), these are {tuple(x.shape)}."
        maps = {}
        for name in self._parts:
            maps[name] = x = getattr(self, name)(x)
        return {name: maps[name] for name in self._parts if name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Take the first parts out of training: 0 none, 1 the stem, 2 also res2, and so on."""
        for name in self._parts[: max(freeze_at, 0)]:
            for part in list(getattr(self, name).modules()):
                if isinstance(part, CNNBlockBase):
                    part.freeze()
        return self


def _stride_of(blocks: Sequence[CNNBlockBase]) -> int:
    """By what some blocks in a row shrink a feature map."""
    return math.prod(block.stride for block in blocks)


def _stage(resnets, index: int, in_channels: int) -> list[CNNBlockBase]:
    """The blocks of res{index + 2}. The first one has the stride, and doubles the channels except in res2."""
    dilation = resnets.RES5_DILATION if index == 3 else 1
    options = {"norm": resnets.NORM}
    if resnets.DEPTH >= 50:
        inner = (resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP) << index
        options |= {"bottleneck_channels": inner, "num_groups": resnets.NUM_GROUPS, "dilation": dilation}
        options |= {"stride_in_1x1": resnets.STRIDE_IN_1X1}
    block = BottleneckBlock if resnets.DEPTH >= 50 else BasicBlock
    out_channels = resnets.RES2_OUT_CHANNELS << index
    # A dilated res5 sees as much of the image as one of half the size, so it keeps the size of res4.
    halved = index > 0 and dilation == 1
    first = block(in_channels, out_channels, stride=2 if halved else 1, **options)
    others = range(BLOCKS_PER_STAGE[resnets.DEPTH][index] - 1)
    return [first, *(block(out_channels, out_channels, **options) for _ in others)]


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
    channels = [stem.out_channels] + [resnets.RES2_OUT_CHANNELS << index for index in range(3)]
    stages = [_stage(resnets, index, before) for index, before in enumerate(channels)]
    return ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
