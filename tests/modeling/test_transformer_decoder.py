"""The masked decoder: what evaluation leaves out, what masks do to attention, and the seam for other classifiers."""

import pytest
import torch
from torch.nn import functional as F

from PADing.modeling import MultiScaleMaskedTransformerDecoder, StandardTransformerDecoder

ARGUMENTS = {
    "num_classes": 5,
    "hidden_dim": 32,
    "num_queries": 7,
    "nheads": 4,
    "dim_feedforward": 40,
    "dec_layers": 4,
    "pre_norm": False,
    "mask_dim": 16,
    "enforce_input_project": False,
}


def _decoder(kind=MultiScaleMaskedTransformerDecoder, in_channels=32, **changes):
    torch.manual_seed(0)
    return kind(in_channels, True, **{**ARGUMENTS, **changes})


def _inputs(channels=32, batch=2):
    g = torch.Generator().manual_seed(4)
    levels = [torch.randn(batch, channels, *size, generator=g) for size in ((2, 3), (4, 6), (8, 12))]
    return levels, torch.randn(batch, 16, 16, 24, generator=g)


def test_evaluation_gives_the_last_prediction_of_training():
    model = _decoder()
    training, evaluation = model.train()(*_inputs()), model.eval()(*_inputs())
    assert len(training["aux_outputs"]) == 4 and evaluation["aux_outputs"] == []
    for name in ("pred_logits", "pred_masks", "pred_embed"):
        assert torch.equal(training[name], evaluation[name])
    assert evaluation["pred_logits"].shape == (2, 7, 6) and evaluation["pred_masks"].shape == (2, 7, 16, 24)
    torch.testing.assert_close(model.class_embed(evaluation["pred_embed"]), evaluation["pred_logits"])
    assert _decoder(deep_supervision=False).train()(*_inputs())["aux_outputs"] == []


def test_an_attention_mask_is_the_resized_mask_below_one_half():
    """Resizing the features once must mask what resizing every predicted mask would mask."""
    model, (levels, mask_features) = _decoder(), _inputs()
    seen, original = [], model.attention_mask
    model.attention_mask = lambda *inputs: seen.append(original(*inputs)) or seen[-1]
    outputs = model.train()(levels, mask_features)
    for i, masked in enumerate(seen):
        size = levels[i % 3].shape[-2:]
        logits = outputs["aux_outputs"][i]["pred_masks"]
        resized = F.interpolate(logits, size, mode="bilinear", align_corners=False).flatten(2)
        sure = resized.abs() > 1e-4
        assert torch.equal(masked[sure], resized.sigmoid()[sure] < 0.5)
        assert not masked.requires_grad


def test_a_query_without_any_place_looks_everywhere():
    """Softmax over nothing is not a number, which would spread to all queries in the next layer."""
    model = _decoder().eval()
    reference = _decoder().eval()
    model.attention_mask = lambda kernels, level: torch.ones(2, 7, level.shape[2], dtype=torch.bool)
    reference.attention_mask = lambda kernels, level: torch.zeros(2, 7, level.shape[2], dtype=torch.bool)
    got, want = model(*_inputs()), reference(*_inputs())
    torch.testing.assert_close(got["pred_logits"], want["pred_logits"])


def test_only_allowed_places_count():
    model, (levels, mask_features) = _decoder(dec_layers=1).eval(), _inputs()

    def left_half(kernels, level):
        masked = torch.zeros(2, 7, 2, 3, dtype=torch.bool)
        masked[..., 1:] = True
        return masked.flatten(2)

    model.attention_mask = left_half
    want = model(levels, mask_features)["pred_embed"]
    changed = levels[0].clone()
    changed[..., 1:] = 9
    assert torch.equal(model([changed, *levels[1:]], mask_features)["pred_embed"], want)
    changed[..., 0] = 9
    assert not torch.equal(model([changed, *levels[1:]], mask_features)["pred_embed"], want)


def test_another_class_head():
    """D2Zero and whoever comes next replace the classifier and keep everything else, names of weights included."""

    class Cosine(MultiScaleMaskedTransformerDecoder):
        def add_class_head(self, hidden_dim, num_classes):
            self.calls = []

        def classify(self, state, mask_logits, mask_features, last):
            self.calls.append((tuple(state.shape), tuple(mask_logits.shape), tuple(mask_features.shape), last))
            return state[..., :3] if last else None

    model = _decoder(Cosine).train()
    outputs = model(*_inputs())
    shapes = ((2, 7, 32), (2, 7, 16, 24), (2, 16, 16, 24))
    assert model.calls == [(*shapes, False)] * 4 + [(*shapes, True)]
    assert outputs["pred_logits"].shape == (2, 7, 3) and outputs["aux_outputs"][0]["pred_logits"] is None
    model.calls.clear()
    model.eval()(*_inputs())
    assert model.calls == [(*shapes, True)]
    assert set(_decoder().state_dict()) - set(model.state_dict()) == {"class_embed.weight", "class_embed.bias"}


def test_old_name_of_the_first_queries():
    """The first published checkpoints of Mask2Former have it; without it, the queries would start from scratch."""
    torch.manual_seed(1)
    for whole in (_decoder(), torch.nn.ModuleDict({"predictor": _decoder()})):
        state = {key: torch.rand_like(value) for key, value in whole.state_dict().items()}
        old = {key.replace("query_feat", "static_query"): value for key, value in state.items()}
        assert old.keys() != state.keys()
        for given in (old, state):
            for value in given.values():
                value.add_(1)
            whole.load_state_dict(given)
            assert all(torch.equal(whole.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize("changes", [{"pre_norm": True}, {"in_channels": 24}, {"enforce_input_project": True}])
def test_variants_train(changes):
    model = _decoder(**changes).train()
    outputs = model(*_inputs(changes.get("in_channels", 32)))
    predictions = [outputs, *outputs["aux_outputs"]]
    sum(p["pred_logits"].square().mean() + p["pred_masks"].square().mean() for p in predictions).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert ("input_proj.0.weight" in model.state_dict()) == ("pre_norm" not in changes)


def test_it_is_one_graph():
    model, inputs = _decoder().eval(), _inputs()
    want = model(*inputs)
    got = torch.compile(model, fullgraph=True, backend="eager")(*inputs)
    torch.testing.assert_close(got["pred_masks"], want["pred_masks"])


def test_wrong_number_of_levels_is_refused():
    levels, mask_features = _inputs()
    with pytest.raises(ValueError, match="3 feature levels"):
        _decoder()(levels[:2], mask_features)


def test_the_standard_decoder():
    changes = {"dropout": 0.0, "enc_layers": 1, "dec_layers": 3, "deep_supervision": True, "num_queries": 5}
    model = _decoder(StandardTransformerDecoder, in_channels=24, **changes).train()
    levels, mask_features = _inputs(24)
    outputs = model(levels[0], mask_features)
    assert len(outputs["aux_outputs"]) == 2 and outputs["pred_masks"].shape == (2, 5, 16, 24)
    torch.testing.assert_close(model.class_embed(outputs["pred_embed"]), outputs["pred_logits"])
    predictions = [outputs, *outputs["aux_outputs"]]
    sum(p["pred_logits"].square().mean() + p["pred_masks"].square().mean() for p in predictions).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    evaluation = model.eval()(levels[0], mask_features)
    torch.testing.assert_close(evaluation["pred_logits"], outputs["pred_logits"])
    assert evaluation["aux_outputs"] == []
    torch.manual_seed(0)
    masks_only = StandardTransformerDecoder(24, False, **{**ARGUMENTS, **changes})
    assert "pred_logits" not in masks_only(levels[0], mask_features)
