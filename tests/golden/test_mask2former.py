"""The whole of Mask2Former: training losses and gradients, decisions inside, and all three kinds of inference."""

import re

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

import PADing.meta_arch  # noqa: F401  registers
from tests.golden.util import (
    Draws,
    assert_close,
    batch,
    check_digest,
    check_grads,
    check_instances,
    check_losses,
    check_map,
    check_panoptic,
    check_semantic,
    fill_model,
    golden_cfg,
    golden_files,
    load,
    normal,
    requires_golden,
    unpack,
)

pytestmark = requires_golden


@pytest.fixture(scope="module", params=golden_files("mask2former_*.npz"))
def run(request):
    arrays, info = load(request.param)
    model = build_model(golden_cfg(info["config"], info["overrides"]))
    return fill_model(model, salt=info["salt"]), arrays, info


def test_training_step(run):
    model, arrays, info = run
    model.train()
    model.zero_grad()
    outputs, seen = {}, []
    handle = model.sem_seg_head.register_forward_hook(lambda _m, _i, y: outputs.update(y))
    predictor, match, matched = model.sem_seg_head.predictor, model.criterion.matcher.match, []
    attention_mask = predictor.attention_mask
    predictor.attention_mask = lambda *inputs: seen.append(attention_mask(*inputs)) or seen[-1]
    model.criterion.matcher.match = lambda *inputs: matched.extend(match(*inputs)) or matched
    try:
        with Draws(info["train.draws"]):
            losses = model(batch(info["inputs"], info["target_classes"], train=True))
    finally:
        handle.remove()
        del predictor.attention_mask, model.criterion.matcher.match

    masks = unpack_each(arrays["train.attention_masks_packed"], [mask.shape for mask in seen])
    for j, (got, want) in enumerate(zip(seen, masks, strict=True)):
        assert np.array_equal(got.numpy(), want), f"attention mask of head {j}"
    for name in ("pred_logits", "pred_masks", "pred_embed"):
        assert_close(outputs[name], arrays[f"train.{name}"], what=name)
    for name in ("logits", "masks"):
        for j, aux in enumerate(outputs["aux_outputs"]):
            check_digest(aux[f"pred_{name}"], arrays[f"train.aux_{name}_digest"][j], what=f"{name} of head {j}")
    got = [[[q.tolist(), t.tolist()] for q, t in images] for images in matched]
    assert got == info["train.matcher_indices"]
    check_losses(losses, info["train.loss_names"], arrays["train.losses"])
    sum(losses.values()).backward()
    check_grads(model, arrays, "train.", info)


def unpack_each(packed: np.ndarray, shapes) -> list[np.ndarray]:
    """Bool arrays that were packed one by one and put behind each other."""
    result, start = [], 0
    for shape in shapes:
        end = start + -(-int(np.prod(shape)) // 8)
        result.append(unpack(packed[start:end], shape))
        start = end
    assert start == len(packed)
    return result


@torch.no_grad()
def test_batches_with_few_or_no_objects(run):
    model, arrays, info = run
    model.train()
    for key in [key.removesuffix(".loss_names") for key in info if re.fullmatch(r"empty\d+\.loss_names", key)]:
        with Draws(info[f"{key}.draws"]):
            losses = model(batch(info[f"{key}_inputs"], info["target_classes"], train=True))
        check_losses(losses, info[f"{key}.loss_names"], arrays[f"{key}.losses"])


@torch.no_grad()
def test_inference_on_a_batch(run):
    model, arrays, info = run
    _check_results(model.eval()(batch(info["inputs"], info["target_classes"], train=False)), arrays, info, "")


@torch.no_grad()
def test_inference_on_one_image_at_its_own_size(run):
    model, arrays, info = run
    inputs = [{"image": batch(info["inputs"], info["target_classes"], train=False)[1]["image"]}]
    _check_results(model.eval()(inputs), arrays, info, "single.")


def _check_results(results: list[dict], arrays: dict, info: dict, prefix: str) -> None:
    names = {"sem_seg": "sem_seg{}.argmax", "panoptic_seg": "panoptic{}.map", "instances": "inst{}.scores"}
    for i, result in enumerate(results):
        assert set(result) == {name for name, key in names.items() if prefix + key.format(i) in arrays}
        if "sem_seg" in result:
            check_semantic(result["sem_seg"], arrays, f"{prefix}sem_seg{i}")
        if "panoptic_seg" in result:
            name = f"{prefix}panoptic{i}"
            check_panoptic(result["panoptic_seg"], arrays[f"{name}.map"], info[f"{name}.segments_info"], name)
        if "instances" in result:
            check_instances(result["instances"], arrays, f"{prefix}inst{i}")


@torch.no_grad()
def test_inference_functions_alone(run):
    model, arrays, info = run
    classes, masks = direct_inputs(info["direct"])
    assert_close(model.semantic_inference(classes, masks)[::2, ::4, ::4], arrays["direct.semantic"])
    if "direct.inst0.scores" in arrays:
        check_instances(model.instance_inference(classes, masks), arrays, "direct.inst0")
    thresholds = model.object_mask_threshold, model.overlap_threshold
    try:
        for n, case in enumerate(info["direct"]["thresholds"]):
            model.object_mask_threshold, model.overlap_threshold = (
                case["object_mask_threshold"],
                case["overlap_threshold"],
            )
            result = model.panoptic_inference(classes, masks)
            check_panoptic(result, arrays[f"direct.panoptic{n}"], case["segments_info"], f"thresholds {n}")
            check_map(result[0], arrays[f"direct.panoptic{n}"])
    finally:
        model.object_mask_threshold, model.overlap_threshold = thresholds


def direct_inputs(direct: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits from their description in the file."""
    factor, name, q, k, favoured, n, bonus = re.fullmatch(
        r"(\S+)\*normal\((\S+), \[(\d+),(\d+)\]\); then for even k: \[k, \[([\d, ]+)\]\[\(k//2\)%(\d+)\]\] \+= (\S+)",
        direct["mask_cls"],
    ).groups()
    classes = float(factor) * normal(name, (int(q), int(k)))
    favoured = [int(c) for c in favoured.split(",")]
    assert len(favoured) == int(n)
    for i in range(0, int(q), 2):
        classes[i, favoured[(i // 2) % len(favoured)]] += float(bonus)
    factor, name, q, r, fine_factor, fine_name, rows, value = re.fullmatch(
        r"(\S+)\*normal\((\S+), \[(\d+),h,w\]\) repeated (\d+)x\d+, plus (\S+)\*normal\((\S+), \[\d+,\d+h,\d+w\]\); "
        r"last (\d+) rows set to (\S+)",
        direct["mask_pred"],
    ).groups()
    q, r, h, w = int(q), int(r), direct["h"], direct["w"]
    masks = (float(factor) * normal(name, (q, h, w))).repeat_interleave(r, 1).repeat_interleave(r, 2)
    masks = masks + float(fine_factor) * normal(fine_name, (q, r * h, r * w))
    masks[:, -int(rows) :] = float(value)
    return classes, masks
