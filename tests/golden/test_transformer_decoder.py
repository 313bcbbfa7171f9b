"""The masked transformer decoder reproduces recorded predictions, attention masks and gradients, layer by layer."""

import re

import numpy as np
import pytest

from PADing.modeling.transformer_decoder import build_transformer_decoder
from tests.golden.util import (
    assert_close,
    cases,
    check_digest,
    check_grads,
    fill_model,
    golden_cfg,
    load,
    normal,
    requires_golden,
    unpack,
)

pytestmark = requires_golden


def _strided(text: str, name: str, value):
    """``value`` cut as ``text`` says: "aux_logits [head, b, ::4, ::4]; ..."; whole when it does not say."""
    found = re.search(rf"{name} \[([^]]*)\]", text)
    if not found:
        return value
    steps = [re.fullmatch(r"\s*::(\d+)\s*", item) for item in found[1].split(",")]
    return value[tuple(slice(None, None, int(step[1]) if step else None) for step in steps)]


@pytest.mark.parametrize("case", cases("transformer_decoder"))
def test_predictions_attention_masks_and_gradients(case):
    arrays, info = load("transformer_decoder")
    recorded = info["cases"][case]
    cfg = golden_cfg(info["config"], {"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": recorded["queries"]})
    channels = cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM
    model = fill_model(build_transformer_decoder(cfg, channels), info["prefix"], info["salt"]).train()
    *sizes, mask_size = recorded["sizes"]
    x = [
        normal(name, (recorded["batch"], channels, *size), requires_grad=True)
        for name, size in zip(recorded["x"], sizes, strict=True)
    ]
    shape = (recorded["batch"], cfg.MODEL.SEM_SEG_HEAD.MASK_DIM, *mask_size)
    mask_features = normal(recorded["mask_features"], shape, requires_grad=True)
    seen, attention_mask = [], model.attention_mask
    model.attention_mask = lambda *inputs: seen.append(attention_mask(*inputs)) or seen[-1]
    outputs = model(x, mask_features)

    key = f"{case}."
    for j, masked in enumerate(seen):
        want = unpack(arrays[f"{key}attention_mask{j}_packed"], masked.shape)
        assert np.array_equal(masked.numpy(), want), f"attention mask of head {j}"
    assert f"{key}attention_mask{len(seen)}_packed" not in arrays
    for name in ("pred_logits", "pred_embed", "pred_masks"):
        assert_close(_strided(recorded["strides"], name, outputs[name].detach()), arrays[key + name], what=name)
    for name, field in (("aux_logits", "pred_logits"), ("aux_masks", "pred_masks")):
        got = np.stack([aux[field].detach().numpy() for aux in outputs["aux_outputs"]])
        assert_close(_strided(recorded["strides"], name, got), arrays[key + name], what=name)

    found = re.fullmatch(
        r"sum\(pred_logits\*normal\((\S+)\)\) \+ ([\d.]+)\*sum\(pred_masks\*normal\((\S+)\)\)", recorded["gradients_of"]
    )
    logits, masks = outputs["pred_logits"], outputs["pred_masks"]
    total = (logits * normal(found[1], logits.shape)).sum()
    (total + float(found[2]) * (masks * normal(found[3], masks.shape)).sum()).backward()
    for i, value in enumerate([*x, mask_features]):
        check_digest(value.grad, arrays[f"{key}grad_input{i}_digest"], gradient=True, what=f"gradient of input {i}")
    check_grads(model, arrays, key, info)
