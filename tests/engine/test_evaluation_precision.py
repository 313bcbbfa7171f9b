"""``TEST.PRECISION`` changes the networks' arithmetic in evaluation, and nothing else."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from PADing.config_check import value_problems
from PADing.engine.evaluation_precision import use_evaluation_precision
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from tests.meta_arch.small import small_batch, small_config


def built(*opts):
    torch.manual_seed(0)
    return Trainer.build_model(small_config(*opts))


def losses(model):
    torch.manual_seed(1)
    with EventStorage(0):
        return model.train()(small_batch())


@torch.no_grad()
def predictions(model, types):
    """Class and mask logits of one image; ``types`` gets the type of the backbone's maps."""
    hook = model.backbone.register_forward_hook(lambda *call: types.update(map_.dtype for map_ in call[2].values()))
    try:
        return model.eval().predict(model.preprocess(small_batch()[:1]))
    finally:
        hook.remove()


def test_networks_compute_in_bfloat16_and_predictions_are_float32():
    plain, mixed = built(), built("TEST.PRECISION", "bfloat16")
    of_plain, of_mixed = set(), set()
    want, got = predictions(plain, of_plain), predictions(mixed, of_mixed)
    assert of_plain == {torch.float32} and torch.bfloat16 in of_mixed
    for a, b in zip(want, got, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert (a - b).abs().mean() < 0.15 * a.abs().mean()


def test_training_and_the_state_dict_stay():
    plain, mixed = built(), built("TEST.PRECISION", "bfloat16")
    assert plain.state_dict().keys() == mixed.state_dict().keys()
    torch.testing.assert_close(losses(mixed), losses(plain), rtol=0, atol=0)


def test_a_copy_computes_with_its_own_weights():
    mixed = built("TEST.PRECISION", "bfloat16")
    copied = copy.deepcopy(mixed)
    nn.init.zeros_(copied.sem_seg_head.predictor.class_embed.weight)
    nn.init.zeros_(copied.sem_seg_head.predictor.class_embed.bias)
    assert not predictions(copied, set())[0].any() and predictions(mixed, set())[0].any()


@pytest.mark.parametrize(
    ("precision", "kind", "message"),
    [("float16", None, "CPUs have no fast arithmetic"), ("bfloat16", nn.Identity, "Identity has no method predict")],
)
def test_what_cannot_be_is_said(precision, kind, message):
    model = built() if kind is None else kind()
    with pytest.raises(UserError, match=message):
        use_evaluation_precision(small_config("TEST.PRECISION", precision), model)


def test_a_wrong_name_is_refused():
    (problem,) = [text for text in value_problems(small_config("TEST.PRECISION", "half"), {"test"}) if "TEST." in text]
    assert "TEST.PRECISION is 'half'" in problem and "bfloat16" in problem
