"""The numbers of the method, against a plain computation in NumPy and against open_clip itself."""

import numpy as np
import pytest
import torch
from torch import nn

from frozenclip.class_table import ClassTable
from frozenclip.encoder import ImageEncoder
from frozenclip.ensemble import geometric_ensemble
from frozenclip.pooling import attention_pool, mean_pool, region_weights
from PADing.data.clip_models import ClipModel, open_clip_library

KINDS = ["convnext", "resnet"]


def encoder_of(folder) -> ImageEncoder:
    encoder = ImageEncoder(ClipModel.of(str(folder)))
    encoder.load(str(folder / "open_clip_model.safetensors"), "test")
    return encoder


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_the_whole_image_gives_open_clips_own_embedding(kind, clips):
    """Building only the image tower, and pooling over a mask, changes nothing about CLIP."""
    folder = getattr(clips, kind)
    encoder = encoder_of(folder)
    whole = open_clip_library().create_model(f"local-dir:{folder}").eval()
    side = 128 if kind == "convnext" else 64
    images = torch.randn(2, 3, side, side)
    last = encoder.maps(images)[-1]
    got = encoder.embed(last, torch.ones(2, 3, *last.shape[-2:]))
    with torch.no_grad():
        want = whole.encode_image(images, normalize=True)
    for query in range(3):
        torch.testing.assert_close(got[:, query], want, rtol=1e-5, atol=1e-6)
    assert encoder.scale == pytest.approx(whole.logit_scale.exp().item(), rel=1e-6)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def norm(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def masked_mean(features, weights):
    out = np.zeros((*weights.shape[:2], features.shape[1]))
    for b in range(len(weights)):
        for q in range(weights.shape[1]):
            total = weights[b, q].sum()
            for y, x in np.ndindex(weights.shape[2:]):
                if total:
                    out[b, q] += weights[b, q, y, x] * features[b, :, y, x] / total
    return out


def test_regions_are_the_share_of_each_cell_inside_the_mask_and_the_image():
    logits = torch.randn(2, 3, 16, 24)
    got = region_weights(logits, (4, 6), (64, 96), [(64, 96), (40, 70)])
    inside = logits.numpy() > 0
    inside[1, :, 10:] = False  # 40 of 64 pixels are 10 of 16 rows
    inside[1, :, :, 18:] = False  # 70 of 96: the 18th column of 24 begins within the image
    want = inside.reshape(2, 3, 4, 4, 6, 4).mean((3, 5))
    np.testing.assert_allclose(got.numpy(), want, atol=1e-7)


def test_mean_pooling():
    torch.manual_seed(1)
    features, weights = torch.randn(2, 5, 4, 6).double(), torch.rand(2, 3, 4, 6).double().round(decimals=1)
    weights[0, 1] = 0
    want = masked_mean(features.numpy(), weights.numpy())
    np.testing.assert_allclose(mean_pool(features, weights).numpy(), want, rtol=1e-6, atol=1e-7)


def test_attention_pooling_attends_to_the_mean_and_the_positions_of_the_region():
    torch.manual_seed(2)
    pool = open_clip_library().modified_resnet.AttentionPool2d(4, 16, 4, 6).double()
    pool.requires_grad_(False)
    features = torch.randn(2, 16, 4, 4).double()
    weights = (torch.rand(2, 3, 4, 4) > 0.5).double()
    weights[1, 2] = 0
    pool.positional_embedding.data = pool.positional_embedding.data.float().double()
    got = attention_pool(pool, features, weights).numpy()
    linear = {n: (m.weight.numpy(), m.bias.numpy()) for n, m in pool.named_children() if isinstance(m, nn.Linear)}
    positions = pool.positional_embedding.numpy()
    means = masked_mean(features.numpy(), weights.numpy())
    for b, q in np.ndindex(2, 3):
        tokens = [means[b, q] + positions[0]]
        for i, (y, x) in enumerate(np.ndindex(4, 4)):
            if weights[b, q, y, x]:
                tokens.append(features[b, :, y, x].numpy() + positions[1 + i])
        tokens = np.stack(tokens)
        query, key, value = (tokens @ linear[n][0].T + linear[n][1] for n in ("q_proj", "k_proj", "v_proj"))
        parts = []
        for h in range(4):
            own = slice(4 * h, 4 * h + 4)
            attention = softmax(query[0, own] @ key[:, own].T / 2)
            parts.append(attention @ value[:, own])
        want = np.concatenate(parts) @ linear["c_proj"][0].T + linear["c_proj"][1]
        np.testing.assert_allclose(got[b, q], want, rtol=1e-6, atol=1e-7)


def test_cosines_take_the_nearest_synonym():
    torch.manual_seed(3)
    vectors, features = torch.randn(5, 7), nn.functional.normalize(torch.randn(2, 4, 7), dim=-1).requires_grad_()
    owner = torch.tensor([2, 0, 1, 0, 2])
    got = ClassTable(vectors, [True, False, True], owner).cosines(features)
    all_of_them = features.detach().numpy() @ norm(vectors.numpy()).T
    want = np.stack([all_of_them[..., owner.numpy() == k].max(-1) for k in range(3)], axis=-1)
    np.testing.assert_allclose(got.detach().numpy(), want, atol=1e-6)
    got.sum().backward()
    assert features.grad.isfinite().all() and features.grad.abs().sum() > 0


def ensemble(logits, others, share):
    """The formula of the paper, word by word."""
    v = softmax(logits)[..., -1:]
    mixed = softmax(logits[..., :-1]) ** (1 - share) * softmax(others) ** share
    return np.concatenate([(1 - v) * mixed / mixed.sum(-1, keepdims=True), v], axis=-1)


def test_the_ensemble_is_the_weighted_geometric_mean_and_keeps_no_object():
    torch.manual_seed(4)
    table = ClassTable(torch.randn(6, 3), [True, False, True, True, False, True])
    share = table.share(0.4, 0.8)
    np.testing.assert_allclose(share.numpy(), [0.4, 0.8, 0.4, 0.4, 0.8, 0.4], rtol=1e-6)
    logits, others = 5 * torch.randn(2, 4, 7), 5 * torch.randn(2, 4, 6)
    got = geometric_ensemble(logits, others, share).exp().numpy()
    want = ensemble(logits.double().numpy(), others.double().numpy(), share.double().numpy())
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(got[..., -1], logits.softmax(-1)[..., -1].numpy(), atol=1e-6)


def test_exponents_of_0_and_1_are_the_first_and_the_second_classifier():
    logits, others = torch.randn(3, 6), torch.randn(3, 5)
    got = geometric_ensemble(logits, others, torch.zeros(5)).exp()
    torch.testing.assert_close(got, logits.softmax(-1))
    got = geometric_ensemble(logits, others, torch.ones(5)).exp()
    void = logits.softmax(-1)[:, -1:]
    torch.testing.assert_close(got[:, :-1], others.softmax(-1) * (1 - void))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_extreme_logits_excluded_classes_and_empty_masks_give_no_nan(dtype, share):
    """In a half-precision product of probabilities, 1e-30 would be 0 and its logarithm infinite."""
    logits = torch.tensor([[300.0, -300.0, 0.0, -float("inf"), 100.0], [0.0, 0.0, 0.0, -float("inf"), 300.0]])
    others = torch.tensor([[-100.0, 100.0, 0.0, 100.0], [0.0, 0.0, 0.0, 0.0]])
    empty = torch.tensor([False, True])
    got = geometric_ensemble(logits.to(dtype), others.to(dtype), torch.full((4,), share), empty)
    assert got.dtype == torch.float32 and not got.isnan().any()
    assert got[:, 3].isneginf().all() and got[:, :3].isfinite().all()
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(2))
    torch.testing.assert_close(got[1].exp(), logits[1].softmax(-1))
