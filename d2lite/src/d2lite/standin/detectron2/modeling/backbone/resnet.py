"""The ResNets of "Deep Residual Learning for Image Recognition" (He et al., CVPR 2016), with 18 to 152 layers."""

import math
from collections.abc import Sequence
from typing import Any

from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu_

from d2lite.omitted import ADVICE

from .backbone import Backbone
from .build import BACKBONE_REGISTRY

# By depth, the number of blocks in each stage (Table 1 of the paper).
BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _conv(channels: tuple[int, int], kernel: int, norm: str, stride: int = 1, groups: int = 1, dilation: int = 1):
    """A convolution with a norm and without a bias, whose output is as large as its input but for the stride."""
    made_norm, padding = get_norm(norm, channels[1]), dilation * (kernel // 2)
    layer = Conv2d(*channels, kernel, stride, padding, dilation, groups, bias=False, norm=made_norm)
    c2_msra_fill(layer)
    return layer


class BasicStem(CNNBlockBase):
    """The stem: a 7x7 convolution and a 3x3 max pooling, each of stride 2."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: str = "BN"):
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = _conv((in_channels, out_channels), 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, ``out_channels``, H/4, W/4)."""
        return max_pool2d(relu_(self.conv1(x)), 3, stride=2, padding=1)


class _ResidualBlock(CNNBlockBase):
    """Convolutions ``conv1``, ... (made of ``layers``, after the ``shortcut``), past which the input goes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str, layers: list[dict]):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _conv((in_channels, out_channels), 1, norm, stride=stride)
        self.names = [f"conv{number}" for number in range(1, len(layers) + 1)]
        for name, layer in zip(self.names, layers, strict=True):
            self.add_module(name, _conv(**layer, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        """(N, ``in_channels``, H, W) to (N, ``out_channels``, H / stride, W / stride)."""
        y = x
        for name in self.names:
            y = getattr(self, name)(y if y is x else relu_(y))
        return relu_(y.add_(x if self.shortcut is None else self.shortcut(x)))


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions; ResNet-18 and -34 are made of these."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN"):
        first = {"channels": (in_channels, out_channels), "kernel": 3, "stride": stride}
        second = {"channels": (out_channels, out_channels), "kernel": 3}
        super().__init__(in_channels, out_channels, stride, norm, [first, second])


class BottleneckBlock(_ResidualBlock):
    """A 3x3 convolution, with groups and dilation, on ``bottleneck_channels`` between two 1x1.

    ``stride_in_1x1``: the first has the stride, as in MSRA's weights, and not the 3x3 one, as in torchvision's.
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
        inner, (early, late) = bottleneck_channels, (stride, 1) if stride_in_1x1 else (1, stride)
        layers = [
            {"channels": (in_channels, inner), "kernel": 1, "stride": early},
            {"channels": (inner, inner), "kernel": 3, "stride": late, "groups": num_groups, "dilation": dilation},
            {"channels": (inner, out_channels), "kernel": 1},
        ]
        super().__init__(in_channels, out_channels, stride, norm, layers)


class ResNet(Backbone):
    """A stem, and stages of blocks "res2", "res3", ..., dropped behind the last of ``out_features``; no classifier."""

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
        names = ["stem", *(f"res{number}" for number in range(2, len(stages) + 2))]
        self._out_features = list(out_features or names[-1:])
        if not set(self._out_features) <= set(names):
            raise ValueError(f"A ResNet has the features {', '.join(names)}; asked for are {self._out_features}.")
        self._parts = names[: 1 + max(map(names.index, self._out_features))]
        self._out_feature_strides, self._out_feature_channels, stride = {}, {}, 1
        for name, blocks in zip(self._parts, [[stem], *stages], strict=False):
            self.add_module(name, stem if name == "stem" else nn.Sequential(*blocks))
            stride *= math.prod(block.stride for block in blocks)
            self._out_feature_strides[name], self._out_feature_channels[name] = stride, blocks[-1].out_channels
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of images (N, C, H, W), the largest first."""
        assert x.ndim == 4, f"Images must come as (N, C, H, W), these are {tuple(x.shape)}."
        maps = {}
        for name in self._parts:
            maps[name] = x = getattr(self, name)(x)
        return {name: maps[name] for name in self._parts if name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Freeze the first parts: 0 none, 1 the stem, 2 also res2, and so on."""
        for name in self._parts[: max(freeze_at, 0)]:
            for part in list(getattr(self, name).modules()):
                if isinstance(part, CNNBlockBase):
                    part.freeze()
        return self


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet from ``cfg.MODEL.RESNETS``, frozen up to ``cfg.MODEL.BACKBONE.FREEZE_AT``."""
    r = cfg.MODEL.RESNETS
    if r.DEPTH not in BLOCKS_PER_STAGE:
        raise ValueError(f"MODEL.RESNETS.DEPTH is {r.DEPTH}; choose from {', '.join(map(str, BLOCKS_PER_STAGE))}")
    if any(r.DEFORM_ON_PER_STAGE):
        raise NotImplementedError(f"MODEL.RESNETS.DEFORM_ON_PER_STAGE needs deformable convolutions: {ADVICE}")
    if r.RES5_DILATION not in (1, 2):
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION is {r.RES5_DILATION}; it must be 1 or 2")
    for key, value in {"RES2_OUT_CHANNELS": 64, "NUM_GROUPS": 1, "RES5_DILATION": 1}.items():
        if r.DEPTH < 50 and r[key] != value:
            raise ValueError(f"MODEL.RESNETS.{key} is {r[key]}; with MODEL.RESNETS.DEPTH {r.DEPTH} it must be {value}")

    assert input_shape.channels is not None
    stem = BasicStem(input_shape.channels, r.STEM_OUT_CHANNELS, r.NORM)
    stages: list[list[CNNBlockBase]] = []
    channels, kind = stem.out_channels, BasicBlock if r.DEPTH < 50 else BottleneckBlock
    options: dict[str, Any] = {"norm": r.NORM}
    for index, number in enumerate(BLOCKS_PER_STAGE[r.DEPTH]):
        # A dilated res5 sees as much of the image as one of half the size, so it keeps the size of res4.
        dilation = r.RES5_DILATION if index == 3 else 1
        if kind is BottleneckBlock:
            options |= {"bottleneck_channels": (r.NUM_GROUPS * r.WIDTH_PER_GROUP) << index, "dilation": dilation}
            options |= {"num_groups": r.NUM_GROUPS, "stride_in_1x1": r.STRIDE_IN_1X1}
        stages.append([])
        for i in range(number):
            stride = 2 if i == 0 and index > 0 and dilation == 1 else 1
            stages[index].append(kind(channels, r.RES2_OUT_CHANNELS << index, stride=stride, **options))
            channels = r.RES2_OUT_CHANNELS << index
    return ResNet(stem, stages, out_features=r.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
