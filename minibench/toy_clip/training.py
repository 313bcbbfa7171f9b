"""The toy CLIP's training: open_clip's contrastive loss on pictures and captions that share a part.

In one batch of everything, a model learns that nothing striped is a disc if no seen disc is striped: the caption "a
plain disc" is wrong for each striped picture. So each loss compares only classes that share a part, such as all striped
things, or all discs, and some grounds that share a part. Then no pair of captions speaks against an unseen composition.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from minibench.toy_clip.captions import Captions
from minibench.toy_clip.network import IMAGE_SIZE
from minibench.toy_clip.pictures import Scene, sample_windows
from PADing.data.clip_models import MEAN, STD, open_clip_library
from PADing.data.mini import Category

__all__ = ["normalized", "region_features", "sharing_groups", "train"]

WINDOWS, SCENES = 80, 7  # of one iteration: small pictures, and whole scenes whose regions have captions
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 3e-3, 0.05, 0.05
ONE_PART = (1.0, 0.2)  # share of captions with one part of a name, at first and at last: words before compositions
LARGEST_SCALE = 100.0  # of the logits, as CLIP has it

Group = list[tuple[int, int]]  # of each member its place in the list of classes, and the part that tells it apart


def normalized(images: np.ndarray) -> Tensor:
    """Pictures (n, h, w, 3) uint8 -> the encoder's input (n, 3, h, w) float32."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def region_features(model: Any, images: Tensor, masks: Sequence[np.ndarray]) -> Tensor:
    """Features (n, e) of regions: the last feature map, averaged under masks, then as a pooled picture.

    Args:
        images: (B, 3, h, w).
        masks: for each image (k, h', w') bool, n in sum; they may be finer than the picture.
    """
    visual, pooled = model.visual, []
    for grid, found in zip(visual.trunk.forward_features(images), masks, strict=True):
        weights = F.adaptive_avg_pool2d(torch.from_numpy(found.astype(np.float32)), grid.shape[-2:]).flatten(1)
        pooled.append(weights @ grid.flatten(1).T / weights.sum(dim=1, keepdim=True))
    return visual.head(visual.trunk.forward_head(torch.cat(pooled)[:, :, None, None]))


def sharing_groups(rng: np.random.Generator, classes: Sequence[Category]) -> list[Group]:
    """Groups of things that share one part and differ in the other, each class once, with grounds that do so, too.

    Args:
        classes: of the pictures at hand; a class may occur several times.
    """
    groups: dict[bool, list[Group]] = {True: [], False: []}
    order = [int(i) for i in rng.permutation(len(classes))]
    for telling in (0, 1):
        found: dict[tuple[bool, str], dict[str, int]] = {}
        for i in order:
            shared = classes[i].isthing, classes[i].parts[1 - telling]
            found.setdefault(shared, {}).setdefault(classes[i].name, i)
        for (isthing, _), members in found.items():
            if len(members) > 1:
                groups[isthing].append([(i, telling) for i in members.values()])
    grounds = groups[False]
    things = [group + (grounds[int(rng.integers(len(grounds)))] if grounds else []) for group in groups[True]]
    return things + grounds


def train(
    model: Any,
    scenes: Sequence[Scene],
    captions: Captions,
    iterations: int,
    seed: int,
    step: Callable[[float], object] = lambda loss: None,
) -> None:
    """Train ``model`` in place.

    Args:
        model: open_clip's CLIP.
        scenes: of learned classes only.
        iterations: of ``WINDOWS`` windows, and of the regions of ``SCENES`` whole scenes.
        seed: of the choice of pictures and captions.
        step: called with the loss after each iteration.
    """
    library, rng = open_clip_library(), np.random.default_rng([seed, 6])
    tokenizer = library.get_tokenizer("", context_length=model.context_length)
    loss_of = library.ClipLoss()
    model.visual.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(_groups(model), lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    model.train()
    for iteration in range(iterations):
        done = (iteration + 0.5) / iterations
        rate = LEARNING_RATE * _schedule(done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        pictures, classes = _features(model, rng, scenes)
        groups = sharing_groups(rng, classes)
        members = [member for group in groups for member in group]
        alone = ONE_PART[0] + done * (ONE_PART[1] - ONE_PART[0])
        texts = [captions.of(rng, classes[i], telling, alone) for i, telling in members]
        words = F.normalize(model.encode_text(tokenizer(texts)), dim=1)
        shown = pictures[[i for i, _ in members]]
        sizes = [len(group) for group in groups]
        pairs = zip(shown.split(sizes), words.split(sizes), strict=True)
        loss = torch.stack([loss_of(*pair, model.logit_scale.exp()) for pair in pairs]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(LARGEST_SCALE))
        step(loss.item())
    model.visual.to(memory_format=torch.contiguous_format)
    model.eval()


def _features(model: Any, rng: np.random.Generator, scenes: Sequence[Scene]) -> tuple[Tensor, list[Category]]:
    """Unit features (n, e) of random windows, and of all regions of random scenes, with their n classes."""
    images, classes = sample_windows(rng, scenes, WINDOWS, IMAGE_SIZE)
    chosen = [scenes[int(i)] for i in rng.integers(len(scenes), size=SCENES)]
    chosen = [scene.flipped() if rng.random() < 0.5 else scene for scene in chosen]
    masks = [np.stack([mask for _, mask in scene.segments]) for scene in chosen]
    regions = region_features(model, normalized(np.stack([scene.image for scene in chosen])), masks)
    features = torch.cat([model.encode_image(normalized(images)), regions])
    return F.normalize(features, dim=1), classes + [category for scene in chosen for category, _ in scene.segments]


def _groups(model: Any) -> list[dict]:
    """Weight matrices decay. Embeddings of tokens do not: most of them never occur and would shrink to nothing."""
    decays = {n for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n}
    groups = [[p for n, p in model.named_parameters() if (n in decays) == decay] for decay in (True, False)]
    return [{"params": p, "weight_decay": w} for p, w in zip(groups, (WEIGHT_DECAY, 0.0), strict=True)]


def _schedule(done: float) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine."""
    if done < WARM_UP:
        return done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
