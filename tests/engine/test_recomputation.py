"""Activation checkpointing saves memory and changes nothing else: losses, gradients, statistics, draws, state dicts."""

import copy
from pathlib import Path

import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from PADing.config import load_config
from PADing.engine.recipes import build_recipe
from PADing.engine.start_check import BUILDING, start_problems
from PADing.engine.trainer import Trainer, wrap_for_processes
from PADing.errors import UserError
from tests.engine.test_accumulation import CASES, batch, config
from tests.engine.test_distributed import in_two_processes
from tests.meta_arch.small import small_batch, small_config

BACKBONE, HEAD = "MODEL.BACKBONE.ACTIVATION_CHECKPOINTING", "MODEL.SEM_SEG_HEAD.ACTIVATION_CHECKPOINTING"
BOTH = [BACKBONE, True, HEAD, True]
TIMM = ["MODEL.BACKBONE.NAME", "TimmBackbone", "MODEL.TIMM.NAME"]
SWIN = ["MODEL.BACKBONE.NAME", "D2SwinTransformer", "MODEL.SWIN.EMBED_DIM", 16, "MODEL.SWIN.DEPTHS", [2, 2, 1, 1]]
SWIN += ["MODEL.SWIN.NUM_HEADS", [1, 2, 2, 4], "MODEL.SWIN.DROP_PATH_RATE", 0.3, "MODEL.SWIN.DROP_RATE", 0.1]
PLAIN_DECODER = ["MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "TransformerEncoderPixelDecoder"]
# Batch norm in training, drop path, dropout, a frozen beginning, other pixel decoders.
MODELS = {
    "ResNet": [],
    "ResNet, half frozen": ["MODEL.BACKBONE.FREEZE_AT", 3],
    "Swin": SWIN,
    "timm's ConvNeXt": [*TIMM, "test_convnext", "MODEL.TIMM.DROP_PATH", 0.2],
    "timm's ResNet": [*TIMM, "test_resnet"],
    "timm's ViT": [*TIMM, "test_vit"],
    "Transformer encoder": [*PLAIN_DECODER, "MODEL.MASK_FORMER.DROPOUT", 0.1],
    "FPN": ["MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"],
    "Dropout": ["MODEL.MASK_FORMER.DROPOUT", 0.1],
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(cfg, batches, wrap=False, compiled=False):
    """State dict, gradients, losses and the next random number after some updates; bytes kept by a forward pass."""
    torch.manual_seed(1)
    model = Trainer.build_model(cfg).train()
    recipe = build_recipe(cfg, model)
    if compiled:
        model.backbone.compile(backend="aot_eager")
        model.sem_seg_head.pixel_decoder.transformer.compile(backend="aot_eager")
    wrapped = wrap_for_processes(model, recipe.find_unused_parameters) if wrap else model
    torch.manual_seed(2 + comm.get_rank())
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with EventStorage(0) as storage, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for samples in batches:
            recipe.step(wrapped, samples, 0.0)
        logged = {name: value for name, (value, _) in storage.latest().items() if name != "data_time"}
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return model.state_dict(), grads, logged, torch.rand(()), sum(kept.values())


def assert_equal(one, other):
    for mine, theirs in zip(one[:2], other[:2], strict=True):
        assert list(mine) == list(theirs)
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert one[2] == other[2]
    assert torch.equal(one[3], other[3])


@pytest.mark.parametrize("name", MODELS)
def test_everything_but_memory_is_equal_bit_by_bit(name):
    """A recomputed batch norm updates its statistics again, and dropout draws again, unless that is prevented."""
    batches = [small_batch(), small_batch()]
    plain = trained(small_config(*MODELS[name]), batches)
    again = trained(small_config(*MODELS[name], *BOTH), batches)
    assert_equal(again, plain)
    assert again[4] < 0.9 * plain[4], "nothing was saved"


@pytest.mark.parametrize("key", [BACKBONE, HEAD])
def test_each_part_saves_memory_by_itself(key):
    deep = ["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 6]
    plain, again = (trained(small_config(key, on, *deep), [small_batch()]) for on in (False, True))
    assert_equal(again, plain)
    assert again[4] < 0.97 * plain[4]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "opts",
    [["SOLVER.ACCUMULATE", 2], ["SOLVER.AMP.ENABLED", True], ["SOLVER.OPTIMIZER", "ADAMW", "SOLVER.EMA.ENABLED", True]],
)
def test_with_other_settings_of_a_training(case, opts, tmp_path):
    """With batch norm, several objects, and the methods' own networks on top."""
    opts = [*opts, "MODEL.RESNETS.NORM", "BN"]
    batches = [batch(case, [1, 3]), batch(case, [2, 2], seed=5)]
    plain, again = (trained(config(case, tmp_path, *opts, *extra), batches) for extra in ([], BOTH))
    assert_equal(again, plain)


def test_with_deterministic_algorithms(tmp_path):
    torch.use_deterministic_algorithms(True)
    try:
        plain, again = (trained(small_config(*extra), [small_batch()]) for extra in ([], BOTH))
    finally:
        torch.use_deterministic_algorithms(False)
    assert_equal(again, plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet", "Swin"])
def test_with_compiled_parts(name):
    """A compiled part is equal to a compiled one without it, but for rounding."""
    opts = [*MODELS[name], "MODEL.SWIN.DROP_PATH_RATE", 0.0, "MODEL.SWIN.DROP_RATE", 0.0]
    plain, again = (trained(small_config(*opts, *extra), [small_batch()], compiled=True) for extra in ([], BOTH))
    for mine, theirs in zip(again[:2], plain[:2], strict=True):
        for key in mine:
            torch.testing.assert_close(mine[key], theirs[key], rtol=1e-3, atol=1e-5)


def check_processes(folder):
    for case, opts in (("MaskFormer", ["SOLVER.ACCUMULATE", 2]), ("D2Zero", [])):
        batches = [batch(case, [1, 3], seed=comm.get_rank()), batch(case, [2, 2], seed=5 + comm.get_rank())]
        opts = [*opts, "MODEL.RESNETS.NORM", "BN"]
        plain, again = (trained(config(case, folder, *opts, *extra), batches, wrap=True) for extra in ([], BOTH))
        assert_equal(again, plain)
    (Path(folder) / f"done{comm.get_rank()}").touch()


def test_in_several_processes(tmp_path):
    in_two_processes(check_processes, tmp_path)
    assert {path.name for path in tmp_path.glob("done*")} == {"done0", "done1"}


def test_a_copy_of_a_model_computes_with_its_own_weights():
    model = Trainer.build_model(small_config(*BOTH)).train()
    twin = copy.deepcopy(model)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.zero_()
    assert twin.backbone(x)["res5"].abs().sum() > 0


def test_evaluation_computes_once():
    model = Trainer.build_model(small_config(*BOTH)).eval()
    calls = []
    model.backbone.res2[0].conv1.register_forward_pre_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    model.backbone(x)["res5"].sum().backward()
    assert len(calls) == 1


def test_keys_of_one_backbone_do_not_add_up():
    """Otherwise blocks would be computed three times."""
    model = Trainer.build_model(small_config(*SWIN, "MODEL.SWIN.USE_CHECKPOINT", True, *BOTH)).train()
    calls = []
    model.backbone.layers[0].blocks[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    model.backbone(torch.randn(1, 3, 64, 64))["res5"].sum().backward()
    assert len(calls) == 2


# ---- mistakes


@BACKBONE_REGISTRY.register()
class BackboneOfOneLayer(Backbone):
    def __init__(self, cfg, input_shape):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4)
        self._out_features = [f"res{i}" for i in (2, 3, 4, 5)]
        self._out_feature_channels = dict.fromkeys(self._out_features, 8)
        self._out_feature_strides = {f"res{i}": 2**i for i in (2, 3, 4, 5)}

    def forward(self, x):
        raise AssertionError


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.BACKBONE.NAME", "BackboneOfOneLayer"], "the blocks of BackboneOfOneLayer are not known.*recomputable"),
        ([*TIMM, "vgg11"], "timm's vgg11 cannot recompute activations.*Set it"),
    ],
)
def test_a_backbone_without_blocks_is_named(opts, message):
    with pytest.raises(UserError, match=message):
        Trainer.build_model(small_config(*opts, BACKBONE, True))


def test_a_frozen_backbone_is_told_in_one_line(caplog):
    opts = [*TIMM, "test_convnext", "MODEL.TIMM.FROZEN", 5, BACKBONE, True]
    with caplog.at_level("INFO"):
        model = Trainer.build_model(small_config(*opts))
    assert caplog.text.count(f"{BACKBONE} has no effect: the backbone is not trained") == 1
    assert not hasattr(model.backbone.model.stages[0].blocks[0], "_recomputed_methods")


def test_a_model_without_these_parts_is_named(tmp_path):
    from tests.engine.tiny import config as tiny_config

    with pytest.raises(UserError, match="TinyOneOptimizer has no sem_seg_head.pixel_decoder"):
        Trainer.build_model(tiny_config(tmp_path, HEAD, True))


def test_other_values_are_refused(tmp_path):
    with pytest.raises(UserError, match="ACTIVATION_CHECKPOINTING.*True or False"):
        load_config("", [BACKBONE, "res4"])
    cfg = small_config("SOLVER.SHARDING", "full")
    problems = start_problems(cfg, BUILDING | {"train"}, 1)
    assert any("SOLVER.SHARDING is 'full'. Set one of none, optimizer" in problem for problem in problems)
