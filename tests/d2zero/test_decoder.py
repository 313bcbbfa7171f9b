"""The classifier and the background prototype, on cases that can be worked out by hand."""

import pytest
import torch
from detectron2.data import MetadataCatalog
from torch.testing import assert_close


def features_and_masks():
    """Two images of 1 x 2 pixels with features (3, 4) and (0, 2); one query each."""
    features = torch.tensor([[3.0, 0.0], [4.0, 2.0]]).view(1, 2, 1, 2).repeat(2, 1, 1, 1)
    return features, torch.zeros(2, 1, 1, 2)


@pytest.fixture(scope="module")
def predictors(model):
    return {each: model("MODEL.D2ZERO.BACKGROUND_PER_IMAGE", each).sem_seg_head.predictor for each in (False, True)}


def test_background_is_where_no_mask_is(predictors):
    """A logit of exactly 0 is not above one half, so it is background."""
    features, masks = features_and_masks()
    masks[0, 0, 0] = torch.tensor([0.0, 1.0])  # left is background
    masks[1, 0, 0] = torch.tensor([1.0, -1.0])  # right is
    for predictor in predictors.values():
        assert_close(predictor.background(masks, features), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_any_query_covers_the_background(predictors):
    features, _ = features_and_masks()
    masks = torch.tensor([[5.0, -5.0], [-5.0, -5.0]]).view(1, 2, 1, 2).repeat(2, 1, 1, 1)
    assert_close(predictors[False].background(masks, features), torch.tensor([[0.0, 1.0]] * 2))


def test_without_any_background_every_pixel_is(predictors):
    features, masks = features_and_masks()
    want = torch.nn.functional.normalize(torch.tensor([[3.0, 6.0]] * 2))
    for predictor in predictors.values():
        assert_close(predictor.background(masks + 1, features), want)


def test_one_image_without_background(predictors):
    """As published the batch decides, and the image gets no prototype; per image it gets that of all its pixels."""
    features, masks = features_and_masks()
    masks[0, 0, 0] = torch.tensor([-1.0, 1.0])
    masks[1] = 1.0
    assert_close(predictors[False].background(masks, features), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    want = torch.stack([torch.tensor([0.6, 0.8]), torch.nn.functional.normalize(torch.tensor([3.0, 6.0]), dim=0)])
    assert_close(predictors[True].background(masks, features), want)


def inputs(batch=2, queries=5):
    generator = torch.Generator().manual_seed(2)
    shapes = (batch, queries, 64), (batch, queries, 6, 6), (batch, 64, 6, 6)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@torch.no_grad()
def test_logits_are_scaled_cosines(model):
    """With an identity for a classifier, a query's logit is 100 times its cosine to the projected text."""
    predictor = model().sem_seg_head.predictor
    state, masks, features = inputs()

    class Identity(torch.nn.Module):
        def forward(self, target, memory):
            return target[None]

    predictor.transformer = Identity()
    logits = predictor.classify(state, masks, features, last=True)
    cosine = torch.nn.functional.cosine_similarity
    queries, texts = predictor.fc_semantic(state), predictor.text_projection(predictor.text_features_test)
    assert logits.shape == (2, 5, len(texts) + 1)
    assert_close(logits[..., :-1], 100 * cosine(queries.unsqueeze(2), texts, dim=-1), rtol=1e-4, atol=1e-3)
    background = predictor.text_projection_2(predictor.background(masks, features))
    assert_close(logits[..., -1], 100 * cosine(queries, background.unsqueeze(1), dim=-1), rtol=1e-4, atol=1e-3)


def test_no_gradient_through_the_background(model):
    predictor = model().sem_seg_head.predictor
    state, masks, features = (x.requires_grad_() for x in inputs())
    predictor.classify(state, masks, features, last=True).square().sum().backward()
    assert masks.grad is None and features.grad is None and state.grad.abs().sum() > 0
    assert predictor.logit_scale.grad is None
    assert float(predictor.logit_scale.exp()) == pytest.approx(100)


@torch.no_grad()
def test_logits_are_exact_under_autocast(model):
    """Half-precision logits near 100 have steps of 0.5 in bfloat16: classes would tie."""
    predictor = model().sem_seg_head.predictor
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = predictor.classify(*inputs(), last=True)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


@torch.no_grad()
def test_evaluation_classifies_once(model, images):
    """Nine of ten classifications would be thrown away."""
    network, calls = model(), []
    network.sem_seg_head.predictor.transformer.register_forward_hook(lambda *_: calls.append(1))
    network(images)
    assert len(calls) == 1


@torch.no_grad()
def test_train_and_test_texts(model):
    """Training tells apart the seen classes, evaluation those of the evaluation set; the background comes last."""
    predictor = model().sem_seg_head.predictor
    for training, name in ((True, "mini_train_instance"), (False, "mini_val_instance")):
        logits = predictor.train(training).classify(*inputs(), last=True)
        assert logits.shape[-1] == len(MetadataCatalog.get(name).thing_classes) + 1
