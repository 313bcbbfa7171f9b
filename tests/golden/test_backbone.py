"""The backbone reproduces recorded features: else published weights give another network's predictions."""

import pytest
import torch
from detectron2.modeling import build_backbone

from tests.golden.util import assert_close, cases, check_digest, fill_model, golden_cfg, load, normal, requires_golden

pytestmark = requires_golden
CROP = 4  # corner, in pixels, of which every (C // 16)-th channel is recorded


@pytest.mark.parametrize("case", cases("backbone_r50"))
@torch.no_grad()
def test_features(case):
    arrays, info = load("backbone_r50")
    model = fill_model(build_backbone(golden_cfg(info["config"])), info["prefix"], info["salt"]).eval()
    features = model(normal(info["cases"][case]["x"], info["cases"][case]["shape"]))
    recorded = {key.split(".")[1] for key in arrays if key.startswith(f"{case}.")}
    assert set(features) == recorded
    for name, y in features.items():
        key = f"{case}.{name}"
        assert tuple(y.shape) == tuple(arrays[f"{key}.shape"])
        check_digest(y, arrays[f"{key}.digest"], what=name)
        assert_close(y.mean((2, 3)), arrays[f"{key}.channel_mean"], what=f"{name}, channel means")
        step = max(y.shape[1] // arrays[f"{key}.crop"].shape[1], 1)
        assert_close(y[:, ::step, :CROP, :CROP], arrays[f"{key}.crop"], what=f"{name}, corner")
