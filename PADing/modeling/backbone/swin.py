"""The Swin Transformer (Liu et al., 2021) as a backbone."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.cached_table import cached_table
from PADing.modeling.recompute import recompute


class DropPath(nn.Module):
    """Drops a residual branch for whole images with probability ``rate``, in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """For each image zeros, or x / (1 - rate): (B, ...) -> (B, ...)."""
        if not (self.training and self.rate):
            return x
        keep = 1 - self.rate
        mask = torch.rand(x.shape[0], *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device) < keep
        return x * mask / keep


def perceptron(width: int, hidden: int, drop: float) -> nn.Sequential:
    """Linear, GELU, linear: (..., C) -> (..., C); keys ``fc1, fc2``."""
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, width)
    layers = {"fc1": first, "gelu": nn.GELU(), "drop1": nn.Dropout(drop), "fc2": second, "drop2": nn.Dropout(drop)}
    return nn.Sequential(OrderedDict(layers))


class WindowAttention(nn.Module):
    """Self-attention inside square windows, with a learned bias for each relative position (Sec. 3.2).

    Keys: ``relative_position_bias_table ((2w - 1)^2, heads), relative_position_index (w^2, w^2), qkv, proj``.
    """

    relative_position_index: Tensor

    def __init__(self, swin: CfgNode, width: int, heads: int) -> None:
        super().__init__()
        window, self.heads, self.attn_drop = swin.WINDOW_SIZE, heads, swin.ATTN_DROP_RATE
        self.scale = swin.QK_SCALE or (width // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offset = place[:, :, None] - place[:, None, :] + window - 1
        self.register_buffer("relative_position_index", offset[0] * (2 * window - 1) + offset[1])
        self.qkv = nn.Linear(width, 3 * width, bias=swin.QKV_BIAS)
        self.proj = nn.Linear(width, width)
        self.drop = nn.Dropout(swin.DROP_RATE)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B * windows, w^2, C); mask: (windows, w^2, w^2), added to the scores. Returns (B * windows, w^2, C)."""
        count, places, width = x.shape
        q, k, v = self.qkv(x).view(count, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.view(places, places, self.heads).permute(2, 0, 1)
        if mask is not None:
            bias = (bias + mask.unsqueeze(1)).repeat(count // len(mask), 1, 1, 1)  # (B * windows, heads, w^2, w^2)
        else:
            bias = bias.unsqueeze(0).expand(count, -1, -1, -1)
        x = F.scaled_dot_product_attention(
            q, k, v, bias.to(q.dtype), dropout_p=self.attn_drop if self.training else 0.0, scale=self.scale
        )
        return self.drop(self.proj(x.transpose(1, 2).reshape(count, places, width)))


class SwinTransformerBlock(nn.Module):
    """Window attention, shifted by half a window in every second block, and a perceptron (Sec. 3.2)."""

    def __init__(self, swin: CfgNode, width: int, heads: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.window, self.shift = swin.WINDOW_SIZE, swin.WINDOW_SIZE // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(swin, width, heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = perceptron(width, int(width * swin.MLP_RATIO), swin.DROP_RATE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        window, shift = self.window, self.shift
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        padded_height, padded_width = x.shape[1:3]
        mask = _shift_mask(padded_height, padded_width, window, shift, x.device) if shift else None
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
        rows, columns = padded_height // window, padded_width // window
        x = x.view(batch, rows, window, columns, window, channels).transpose(2, 3).reshape(-1, window**2, channels)
        x = self.attn(x, mask)
        x = x.view(batch, rows, columns, window, window, channels).transpose(2, 3)
        x = x.reshape(batch, padded_height, padded_width, channels)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :height, :width]


@cached_table
def _shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """(windows, w^2, w^2): 0 between positions that were neighbours before the shift, -100 between others."""

    def parts(length: int) -> Tensor:
        # Along one side: part 0 was together before the shift; parts 1 and 2 of the last window come from both ends.
        place = torch.arange(length, device=device)
        return (place >= length - window).long() + (place >= length - shift).long()

    part = parts(height)[:, None] * 3 + parts(width)
    part = part.unflatten(1, (-1, window)).unflatten(0, (-1, window)).transpose(1, 2).reshape(-1, window**2)
    return torch.where(part.unsqueeze(1) == part.unsqueeze(2), 0.0, -100.0)


class PatchMerging(nn.Module):
    """Halves the resolution: merges four neighbours to one position of twice the width; keys ``norm, reduction``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, ceil(h / 2), ceil(w / 2), 2 C)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=-1)
        return self.reduction(self.norm(x))


class PatchEmbed(nn.Module):
    """Cut an image into patches and embed them; keys ``proj, norm``."""

    def __init__(self, patch: int, in_channels: int, width: int, norm: bool) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w, C), sizes rounded up."""
        x = F.pad(x, (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """The blocks of one resolution, and the step to the next; keys ``blocks.{i}``, ``downsample``."""

    def __init__(self, swin: CfgNode, width: int, heads: int, drop_paths: Sequence[float], last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(swin, width, heads, i % 2 == 1, drop_path) for i, drop_path in enumerate(drop_paths)
        )
        self.downsample = None if last else PatchMerging(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h, w, C) -> this stage's map, next stage's input."""
        for block in self.blocks:
            x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


# Not timm's Swin: it shifts before it pads, so its maps differ where a side of the image is no multiple of the windows.
@BACKBONE_REGISTRY.register()
class D2SwinTransformer(Backbone):
    """Swin Transformer with the keys of its published checkpoints; its outputs are ``OUT_FEATURES`` of res2 to res5.

    The input is (B, C, H, W) of any size. Output res2 has stride ``PATCH_SIZE`` and width ``EMBED_DIM``; each further
    output doubles both. A LayerNorm follows each output. All keys are in ``MODEL.SWIN``. UserError for unknown outputs.
    """

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        swin = cfg.MODEL.SWIN
        assert input_shape.channels is not None
        stages = len(swin.DEPTHS)
        names = [f"res{i + 2}" for i in range(stages)]
        unknown = set(swin.OUT_FEATURES) - set(names)
        if unknown:
            raise UserError(f"MODEL.SWIN.OUT_FEATURES: {sorted(unknown)} do not exist; there are {', '.join(names)}")
        widths = [swin.EMBED_DIM * 2**i for i in range(stages)]
        self._out_features = list(swin.OUT_FEATURES)
        self._out_feature_channels = dict(zip(names, widths, strict=True))
        self._out_feature_strides = {name: swin.PATCH_SIZE * 2**i for i, name in enumerate(names)}
        self._stage_names = names

        self.patch_embed = PatchEmbed(swin.PATCH_SIZE, input_shape.channels, swin.EMBED_DIM, swin.PATCH_NORM)
        self.absolute_pos_embed: nn.Parameter | None = None
        if swin.APE:
            side = swin.PRETRAIN_IMG_SIZE // swin.PATCH_SIZE
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, swin.EMBED_DIM, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(swin.DROP_RATE)
        rates = torch.linspace(0, swin.DROP_PATH_RATE, sum(swin.DEPTHS), device="cpu").split(list(swin.DEPTHS))
        self.layers = nn.ModuleList(
            Stage(swin, width, heads, drop_paths.tolist(), last=i == stages - 1)
            for i, (width, heads, drop_paths) in enumerate(zip(widths, swin.NUM_HEADS, rates, strict=True))
        )
        for i, name in enumerate(names):
            if name in self._out_features:
                self.add_module(f"norm{i}", nn.LayerNorm(widths[i]))
        self.apply(_initialise)
        for block in self.recomputable() if swin.USE_CHECKPOINT else ():
            recompute(block)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) -> name: (B, width, H / stride, W / stride), sizes rounded up."""
        if x.dim() != 4:
            raise ValueError(f"SwinTransformer takes (B, C, H, W), not {tuple(x.shape)}")
        x = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            positions = F.interpolate(self.absolute_pos_embed, size=x.shape[1:3], mode="bicubic")
            x = x + positions.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        outputs = {}
        for i, (name, stage) in enumerate(zip(self._stage_names, self.layers, strict=True)):
            result, x = stage(x)
            if name in self._out_features:
                outputs[name] = getattr(self, f"norm{i}")(result).permute(0, 3, 1, 2).contiguous()
        return outputs

    def recomputable(self) -> list[nn.Module]:
        """The parts for activation checkpointing: blocks, and steps to the next resolution."""
        kinds = (SwinTransformerBlock, PatchMerging)
        return [module for module in self.layers.modules() if isinstance(module, kinds)]

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this."""
        return 32


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
