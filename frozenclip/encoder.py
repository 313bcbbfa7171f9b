"""The convolutional image encoder of a CLIP model of open_clip, frozen: feature maps, and embeddings of regions."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from frozenclip.pooling import attention_pool, mean_pool
from PADing.data.clip_models import ClipModel, open_clip_library, read_clip_checkpoint
from PADing.errors import UserError

logger = logging.getLogger(__name__)

STRIDES = (4, 8, 16, 32)
FIRST_SCALE = math.log(1 / 0.07)  # of a CLIP model before its training
HEAD_WIDTH = 64  # of ModifiedResNet's attention pooling, unless the config says another


class ImageEncoder(nn.Module):
    """The image tower of a CLIP model. Nothing in it is trained, and it stays in evaluation mode.

    State-dict keys: ``visual.*`` and ``logit_scale``, as in open_clip's checkpoints.

    Args:
        clip: the model; its ``vision`` names a ConvNeXt or another convolutional trunk of timm, or a ModifiedResNet.

    Attributes:
        loaded: whether it has weights of a file or checkpoint; otherwise they are random.
        channels: of the four maps.
        width: the number of dimensions e of an embedding.

    Raises:
        UserError: the model is not convolutional, or pools in a way that cannot be restricted to a mask.
    """

    logit_scale: Tensor

    def __init__(self, clip: ClipModel) -> None:
        super().__init__()
        self.clip, self.width, self.loaded = clip, clip.embed_dim, False
        self.visual: Any = _image_tower(clip)
        self.register_buffer("logit_scale", torch.tensor(FIRST_SCALE))
        self.from_timm = hasattr(self.visual, "trunk")
        self.requires_grad_(False)
        super().train(False)
        with torch.no_grad():
            maps = self.maps(torch.zeros(1, 3, 64, 64))
        self.channels = [x.shape[1] for x in maps]
        if [64 // x.shape[2] for x in maps] != list(STRIDES):
            raise _not_convolutional(clip, "its maps have other strides than 4, 8, 16 and 32")

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Stay in evaluation mode: statistics of batch norms are fixed, nothing is dropped."""
        return super().train(False)

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, C, H / stride, W / stride).

        Images are normalised as CLIP expects; H and W are multiples of 32. The last one is what :meth:`embed` pools.
        """
        visual = self.visual
        if self.from_timm:
            last, maps = visual.trunk.forward_intermediates(images)
            return [*maps[-4:-1], last]
        x, maps = visual.stem(images), []
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    @torch.no_grad()
    def embed(self, last: Tensor, weights: Tensor) -> Tensor:
        """Embeddings of regions in CLIP's space: (B, Q, e) float32 of unit length.

        Args:
            last: (B, C, h, w), the last map.
            weights: (B, Q, h, w), how much of each position belongs to a region, 0 to 1; with a region of weights 1,
                the embedding is that of the whole image. Of an empty region it means nothing, but is finite.
        """
        with torch.autocast(device_type=last.device.type, enabled=False):
            last, weights = last.float(), weights.float()
            if self.from_timm:
                pooled = mean_pool(last, weights)
                batch, queries, _ = pooled.shape
                # The trunk's own pooling of one position gives this position.
                vectors = self.visual.trunk.forward_head(pooled.flatten(0, 1)[..., None, None])
                found = self.visual.head(vectors).view(batch, queries, -1)
            else:
                found = attention_pool(self.visual.attnpool, last, weights)
            return nn.functional.normalize(found, dim=-1)

    @property
    def scale(self) -> Tensor:
        """CLIP's factor of cosines: a scalar."""
        return self.logit_scale.float().exp()

    def load(self, path: str, what: str) -> None:
        """Load the image tower of a CLIP checkpoint; the text tower in it is left out.

        Raises:
            UserError: which begins with ``what``: the file is damaged, or of another model.
        """
        given = read_clip_checkpoint(path)
        wanted = self.state_dict()
        counters = {key for key in wanted if key.endswith("num_batches_tracked")}
        missing = sorted(wanted.keys() - given.keys() - counters)
        if missing:
            lacking = f"{len(missing)} of {len(wanted)} weights are missing, such as {missing[0]}"
            raise UserError(f"{what}: {path} has not the image encoder of {self.clip.label}: {lacking}.")
        found = {
            key: given[key].float().view(()) if key == "logit_scale" else given[key] for key in wanted.keys() & given
        }
        wrong = [key for key in sorted(found) if found[key].shape != wanted[key].shape]
        if wrong:
            has, needs = tuple(found[wrong[0]].shape), tuple(wanted[wrong[0]].shape)
            misfit = f"{wrong[0]} is {has} in the file, {needs} in the model"
            raise UserError(f"{what}: {path} does not fit {self.clip.label}: {misfit}.")
        self.load_state_dict(found, strict=False)
        logger.info("The image encoder of CLIP %s has the weights of %s.", self.clip.label, path)

    def _load_from_state_dict(self, state_dict: Mapping, prefix: str, *args, **kwargs) -> None:
        self.loaded = self.loaded or f"{prefix}logit_scale" in state_dict
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _image_tower(clip: ClipModel) -> nn.Module:
    """The network with random weights, without stochastic depth."""
    open_clip_library()
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel

    vision, side = clip.vision, clip.vision.get("image_size", 224)
    if isinstance(vision.get("layers"), list | tuple):
        width = vision.get("width", 64)
        heads = width * 32 // vision.get("head_width", HEAD_WIDTH)
        return ModifiedResNet(vision["layers"], clip.embed_dim, heads, side, width)
    name, pool = vision.get("timm_model_name"), vision.get("timm_pool", "avg")
    if not name:
        raise _not_convolutional(clip, "it is a plain ViT")
    if pool not in ("", "avg"):
        raise _not_convolutional(clip, f"it pools by {pool!r}, which cannot be restricted to a mask")
    options = {
        "pool": pool,
        "proj": vision.get("timm_proj", "linear"),
        "proj_bias": vision.get("timm_proj_bias", False),
    }
    try:
        tower = TimmModel(name, clip.embed_dim, side, **options)
        tower.eval()
        tower.trunk.forward_intermediates(torch.zeros(1, 3, 64, 64))
    except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _not_convolutional(clip, reason) from error
    return tower


def _not_convolutional(clip: ClipModel, why: str) -> UserError:
    advice = "Choose one that is convolutional: convnext_base_w, convnext_large_d_320, RN50, RN101, ..."
    return UserError(
        f"MODEL.FROZENCLIP.NAME is {clip.label!r}, whose image encoder gives no maps to pool: {why}. {advice}"
    )
