"""``MODEL.COMPILE``: the same results and state dict, and clear messages where PyTorch cannot compile."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from PADing.engine import compilation
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from tests.meta_arch.small import small_batch, small_config
from tests.recorded_graphs import record_graphs

COMPILED = ["MODEL.COMPILE", True]


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are compiled."""
    yield record_graphs(monkeypatch)
    torch._dynamo.reset()


def built(opts=()):
    torch.manual_seed(0)
    return Trainer.build_model(small_config(*opts))


def losses_and_gradients(model):
    torch.manual_seed(1)
    with EventStorage(0):
        losses = model.train()(small_batch())
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_results_losses_gradients_and_keys_stay(graphs):
    plain, model = built(), built(COMPILED)
    assert plain.state_dict().keys() == model.state_dict().keys()
    for want, got in zip(losses_and_gradients(plain), losses_and_gradients(model), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert len(graphs) == 2, "backbone and pixel decoder, without graph breaks"
    image = small_batch()[:1]
    with torch.no_grad():
        want, got = (m.eval().predict(m.preprocess(image)) for m in (plain, model))
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


def test_nothing_is_compiled_without_the_key(graphs):
    losses_and_gradients(built())
    assert not graphs


def test_another_model_is_refused():
    with pytest.raises(UserError, match=r"MODEL.COMPILE is True, but Linear: .*backbone.* Set it to False"):
        compilation.compile_parts(torch.nn.Linear(1, 1))


def test_a_missing_compiler_is_said_before_anything_is_compiled(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"MODEL.COMPILE is True, but there is no C\+\+ compiler .* Set it to False"):
        built(COMPILED)


@pytest.mark.slow
def test_pytorchs_own_compiler_gives_the_same_results():
    (want, gradients), (got, others) = (losses_and_gradients(built(opts)) for opts in ((), COMPILED))
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
    # Rounding may choose other points of a mask for the loss, so single gradients may differ.
    a, b = (torch.cat([part[name].flatten() for name in gradients]) for part in (gradients, others))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99
