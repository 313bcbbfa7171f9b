"""The pixel decoder reproduces recorded maps and gradients: the masks of every model are made from these maps."""

import re

import pytest
import torch
from detectron2.modeling import build_backbone

from PADing.modeling.pixel_decoder import build_pixel_decoder
from PADing.modeling.position_encoding import PositionEmbeddingSine
from tests.golden.util import (
    GOLDEN,
    assert_close,
    cases,
    check_digest,
    check_grads,
    fill_model,
    golden_cfg,
    load,
    normal,
    requires_golden,
)

pytestmark = requires_golden


def _encodings():
    names = load("pixel_decoder")[0] if (GOLDEN / "pixel_decoder.npz").is_file() else ()
    return [name for name in names if re.fullmatch(r"pe_\d+x\d+", name)]


@pytest.fixture(scope="module")
def built():
    arrays, info = load("pixel_decoder")
    cfg = golden_cfg(info["config"])
    shapes = build_backbone(cfg).output_shape()
    model = fill_model(build_pixel_decoder(cfg, shapes), info["prefix"], info["salt"])
    return cfg, shapes, model, arrays, info


def _every(text: str, name: str) -> int:
    return int(re.search(rf"{name} (?:\([^)]*\) )?every (\d+)", text)[1])


@pytest.mark.parametrize("case", cases("pixel_decoder"))
def test_maps_and_gradients(built, case):
    _, shapes, model, arrays, info = built
    recorded = info["cases"][case]
    strides = info["strides"]
    names = list(recorded["features"])  # coarsest first
    features = {
        name: normal(recorded["features"][name], (recorded["batch"], shapes[name].channels, *size), requires_grad=True)
        for name, size in zip(names, recorded["sizes_res5_to_res2"], strict=True)
    }
    layers = {}
    handle = model.transformer.encoder.layers[0].register_forward_hook(lambda _m, _i, y: layers.update(first=y))
    mask_features, encoded, levels = model.forward_features(features)
    handle.remove()

    key = f"{case}."
    step = _every(strides, "mask_features")
    assert_close(mask_features[:, ::step], arrays[key + "mask_features"], what="mask features")
    check_digest(mask_features, arrays[key + "mask_features_digest"], what="mask features")
    for i, level in enumerate(levels):
        assert_close(level[:, :: _every(strides, "multi_scale")], arrays[f"{key}multi_scale{i}"], what=f"level {i}")
        check_digest(level, arrays[f"{key}multi_scale{i}_digest"], what=f"level {i}")
    assert f"{key}multi_scale{len(levels)}" not in arrays
    assert torch.equal(encoded, levels[0])
    assert_close(layers["first"][:, :, :: _every(strides, "encoder_layer0")], arrays[key + "encoder_layer0"])

    base = f"{info['salt']}pixel_decoder/{case}/"
    total = (mask_features * normal(base + "grad_mask_features", mask_features.shape)).sum()
    for i, level in enumerate(levels):
        total = total + (level * normal(f"{base}grad_ms{i}", level.shape)).sum()
    model.zero_grad()
    total.backward()
    for name, x in features.items():
        check_digest(x.grad, arrays[f"{key}grad_{name}_digest"], gradient=True, what=f"gradient of {name}")
    check_grads(model, arrays, key, info)


@pytest.mark.parametrize("name", _encodings())
def test_sine_encoding(built, name):
    cfg, _, _, arrays, info = built
    height, width = (int(n) for n in name[3:].split("x"))
    pe = PositionEmbeddingSine(cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM // 2, normalize=True)
    got = pe(torch.zeros(arrays[name].shape[0], 1, height, width))
    assert_close(got[:, :: _every(info["strides"], "pe")], arrays[name], rel=2e-6)
