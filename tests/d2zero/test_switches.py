"""D2Zero with its input-conditional classifier or its image-adaptive background switched off."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch.testing import assert_close

from PADing.errors import UserError

from .test_decoder import inputs

NODE = "MODEL.D2ZERO."
PLAIN, LEARNED = [NODE + "INPUT_CONDITIONAL", False], [NODE + "BACKGROUND", "learned"]
PREDICTOR = "sem_seg_head.predictor."
IMAGE_WISE = {"transformer", "text_projection_2"}
# Overrides; modules of the whole method that must not be there; modules that take their place.
VARIANTS = {
    "plain": (PLAIN, {"transformer"}, set()),
    "learned": (LEARNED, {"text_projection_2"}, {"background_embed"}),
    "plain, learned": (PLAIN + LEARNED, IMAGE_WISE, {"background_embed"}),
}


def parts(model) -> set[str]:
    return {key.removeprefix(PREDICTOR).split(".")[0] for key in model.state_dict() if key.startswith(PREDICTOR)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_built_trained_and_saved(variant, model, config, tmp_path):
    """A training step gives a gradient to every parameter but the frozen scale, and a checkpoint holds all of it."""
    opts, gone, new = VARIANTS[variant]
    network = model(*opts).train()
    assert parts(network) == parts(model()) - gone | new
    before = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1e-4)
    square = torch.zeros(1, 64, 64, dtype=torch.bool)
    square[:, 8:40, 8:40] = True
    instances = Instances((64, 64), gt_classes=torch.tensor([3]), gt_masks=square)
    image = 255 * torch.rand(3, 64, 64)
    record = {"image": image, "instances": instances, "height": 64, "width": 64}
    sum(network([record, record]).values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == [PREDICTOR + "logit_scale"]
    optimizer.step()
    for module in {"fc_semantic", "text_projection", *new}:
        name = f"{PREDICTOR}{module}.weight"
        assert not torch.equal(network.get_parameter(name), before[name]), module

    torch.save(network.state_dict(), tmp_path / "model.pth")
    torch.manual_seed(9)
    again = build_model(config(*opts))
    again.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    with torch.no_grad():
        one, two = (each.eval()([record])[0]["instances"] for each in (network, again))
    assert torch.equal(one.scores, two.scores) and len(one) > 0


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_plain_semantic_classifier_is_scaled_cosines(model, training):
    """Without the classifier's transformer, a logit is 100 times the cosine of query and projected text."""
    predictor = model(*PLAIN).sem_seg_head.predictor.train(training)
    state, masks, features = inputs()
    logits = predictor.classify(state, masks, features, last=True)
    queries = predictor.fc_semantic(state)
    texts = predictor.text_projection(predictor.text_features if training else predictor.text_features_test)
    background = predictor.text_projection_2(predictor.background(masks, features))
    for b in range(2):
        centres = torch.cat([texts, background[b : b + 1]]).double()
        rows = queries[b].double()
        cosine = (rows @ centres.T) / (rows.norm(dim=1)[:, None] * centres.norm(dim=1))
        assert_close(logits[b], 100 * cosine.float(), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_learned_background_is_the_same_for_all_images(model):
    predictor = model(*PLAIN, *LEARNED).sem_seg_head.predictor
    state, masks, features = inputs()
    logits = predictor.classify(state, masks, features, last=True)
    assert torch.equal(logits, predictor.classify(state, -masks, features.flip(0), last=True))
    vector = predictor.background_embed.weight[0]
    queries = predictor.fc_semantic(state)
    cosine = torch.nn.functional.cosine_similarity(queries, vector, dim=-1)
    assert_close(logits[..., -1], 100 * cosine, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_learned_background_still_adapts_to_the_queries_through_the_classifier(model):
    """BACKGROUND alone switches off the prototype, not the input-conditional classifier."""
    predictor = model(*LEARNED).sem_seg_head.predictor
    state, masks, features = inputs()
    one = predictor.classify(state, masks, features, last=True)
    assert torch.equal(one, predictor.classify(state, -masks, features, last=True))
    other = state.clone()
    other[:, 1:] = -other[:, 1:]
    # The first query is the same; what it is compared with has looked at the others.
    assert not torch.allclose(one[:, 0], predictor.classify(other, masks, features, last=True)[:, 0])


def test_unknown_background(config):
    with pytest.raises(UserError, match="BACKGROUND is 'none'.*image or learned"):
        build_model(config(NODE + "BACKGROUND", "none"))
