"""Normalizations and convolutions, against PyTorch's own layers."""

import pytest
import torch
from detectron2.layers import CNNBlockBase, Conv2d, FrozenBatchNorm2d, ShapeSpec, cat, get_norm, shapes_to_tensor
from torch import nn

from tests.d2lite.standin import standin_only


def trained_batch_norm(channels: int, cls=nn.BatchNorm2d) -> nn.Module:
    torch.manual_seed(0)
    norm = cls(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def test_shape_spec_is_optional_everywhere():
    assert ShapeSpec() == ShapeSpec(None, None, None, None)
    assert ShapeSpec(channels=3) == ShapeSpec(3) != ShapeSpec(stride=3)


@pytest.mark.parametrize("grad", [False, True])
def test_frozen_batch_norm_equals_batch_norm_in_eval(grad):
    norm = trained_batch_norm(5).eval()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    x = torch.randn(2, 5, 4, 3, requires_grad=grad)
    y, expected = frozen(x), norm(x)
    assert torch.allclose(y, expected, atol=1e-6)
    if grad:
        (g,), (want,) = torch.autograd.grad(y.square().sum(), x), torch.autograd.grad(expected.square().sum(), x)
        assert torch.allclose(g, want, atol=1e-5)


def test_frozen_batch_norm_has_buffers_only_and_never_changes():
    frozen = FrozenBatchNorm2d(4).train()
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    assert list(before) == ["weight", "bias", "running_mean", "running_var"] and not list(frozen.parameters())
    x = torch.randn(8, 4, 6, 6) * 3 + 1
    assert torch.allclose(frozen(x), x, atol=1e-5), "a new layer is the identity"
    assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())
    assert torch.allclose(before["running_var"], torch.full((4,), 1 - 1e-5))


def test_frozen_batch_norm_keeps_the_dtype():
    x = torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)
    frozen = FrozenBatchNorm2d(4)
    assert frozen(x).dtype == torch.bfloat16 and frozen(x.requires_grad_()).dtype == torch.bfloat16


@pytest.mark.parametrize("nested", [False, True])
def test_old_files_without_statistics_load_as_an_affine_map(nested):
    """The public MSRA backbones have weight and bias only; other statistics would scale every feature."""
    frozen = FrozenBatchNorm2d(3)
    frozen.running_mean.fill_(7)
    frozen.running_var.fill_(7)
    model, prefix = (nn.Sequential(frozen), "0.") if nested else (frozen, "")
    file = {prefix + "weight": torch.tensor([1.0, 2, 3]), prefix + "bias": torch.tensor([4.0, 5, 6])}
    assert str(model.load_state_dict(file)) == "<All keys matched successfully>"
    assert frozen.running_mean.tolist() == [0, 0, 0] and frozen.running_var.tolist() == [1, 1, 1]
    assert frozen.weight.tolist() == [1, 2, 3] and frozen.bias.tolist() == [4, 5, 6]


def test_new_files_without_statistics_are_incomplete():
    state = FrozenBatchNorm2d(3).state_dict()
    del state["running_mean"]
    with pytest.raises(RuntimeError, match="running_mean"):
        FrozenBatchNorm2d(3).load_state_dict(state)


def test_statistics_survive_saving_and_loading():
    source = FrozenBatchNorm2d.convert_frozen_batchnorm(trained_batch_norm(3))
    target = FrozenBatchNorm2d.convert_frozen_batchnorm(nn.BatchNorm2d(3))
    target.load_state_dict(source.state_dict())
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_batch_norms_inside_a_module_are_replaced():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(trained_batch_norm(4), nn.ReLU()), nn.SyncBatchNorm(4))
    expected = model.eval()(torch.ones(1, 3, 2, 2))
    converted = FrozenBatchNorm2d.convert_frozen_batchnorm(model)
    assert converted is model and isinstance(model[1][0], FrozenBatchNorm2d) and isinstance(model[2], FrozenBatchNorm2d)
    assert torch.allclose(model.train()(torch.ones(1, 3, 2, 2)), expected, atol=1e-6)


@pytest.mark.parametrize("cls", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_a_norm_that_was_frozen_keeps_its_count_of_batches(cls):
    """As in the genuine package; a checkpoint written with the one would else lack a key of the other."""
    norm = trained_batch_norm(3, cls)
    norm.num_batches_tracked += 7
    state = FrozenBatchNorm2d.convert_frozen_batchnorm(norm).state_dict()
    assert set(state) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert state["num_batches_tracked"].item() == 7 and state["num_batches_tracked"].dtype == torch.int64


@standin_only  # the genuine package warns of the missing key, which plays no part
def test_a_file_without_the_count_loads_whole():
    """Checkpoints that the stand-in wrote before it kept the count, and backbones that never had it."""
    target = FrozenBatchNorm2d.convert_frozen_batchnorm(trained_batch_norm(3))
    state = FrozenBatchNorm2d(3).state_dict()
    assert str(target.load_state_dict(state)) == "<All keys matched successfully>"
    assert target.running_mean.tolist() == [0, 0, 0] and target.state_dict()["num_batches_tracked"].item() == 0


@pytest.mark.parametrize(
    "name, cls",
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
    ],
)
def test_norms_by_name(name, cls):
    norm = get_norm(name, 64)
    assert type(norm) is cls and norm.num_features == 64


def test_no_norm():
    assert get_norm("", 64) is None and get_norm(None, 64) is None


def test_group_norm_has_32_groups():
    norm = get_norm("GN", 64)
    assert isinstance(norm, nn.GroupNorm) and (norm.num_groups, norm.num_channels) == (32, 64)


def test_norm_from_a_function():
    norm = get_norm(lambda channels: nn.InstanceNorm2d(channels), 8)
    assert isinstance(norm, nn.InstanceNorm2d) and norm.num_features == 8


def test_unknown_norm_is_named():
    with pytest.raises(KeyError, match="NoSuchNorm"):
        get_norm("NoSuchNorm", 8)


def test_layer_norm_normalizes_the_channels_of_each_position():
    norm = get_norm("LN", 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 4)
    mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    expected = (x - mean) / (var + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert torch.allclose(norm(x), expected, atol=1e-5)
    assert set(norm.state_dict()) == {"weight", "bias"}


def test_sync_batch_norm_trains_in_one_process_without_a_group():
    """The configs of large machines must also run on a laptop."""
    sync, plain = trained_batch_norm(4, nn.SyncBatchNorm), trained_batch_norm(4)
    sync.load_state_dict(plain.state_dict())
    assert type(sync) is type(get_norm("SyncBN", 4))
    x = torch.randn(3, 4, 5, 5)
    assert torch.allclose(sync.train()(x), plain.train()(x), atol=1e-6)
    assert torch.allclose(sync.running_var, plain.running_var)


def test_conv2d_applies_norm_then_activation():
    conv = Conv2d(3, 4, 3, padding=1, bias=False, norm=nn.BatchNorm2d(4), activation=torch.relu)
    assert [k for k in conv.state_dict() if not k.startswith("norm.")] == ["weight"]
    x = torch.randn(2, 3, 5, 5)
    expected = nn.functional.conv2d(x, conv.weight, padding=1)
    expected = (expected - expected.mean((0, 2, 3), keepdim=True)) / (
        expected.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    assert torch.allclose(conv(x), expected.clamp(min=0), atol=1e-5)


def test_conv2d_without_additions_is_a_convolution():
    conv = Conv2d(3, 4, 3)
    assert set(conv.state_dict()) == {"weight", "bias"}
    x = torch.randn(1, 3, 5, 5)
    assert torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias))


def test_cat():
    a, b = torch.ones(2, 1), torch.zeros(2, 3)
    assert torch.equal(cat([a, b], dim=1), torch.tensor([[1.0, 0, 0, 0]] * 2)) and torch.equal(cat([a]), a)


def test_shapes_to_tensor():
    shape = shapes_to_tensor([480, 640])
    assert shape.tolist() == [480, 640] and not shape.is_floating_point()


def test_frozen_blocks_have_nothing_to_train():
    class Block(CNNBlockBase):
        def __init__(self):
            super().__init__(3, 4, stride=2)
            self.conv = Conv2d(3, 4, 3, stride=2, norm=nn.BatchNorm2d(4))

    block = Block()
    assert (block.in_channels, block.out_channels, block.stride) == (3, 4, 2)
    assert block.freeze() is block
    assert isinstance(block.conv.norm, FrozenBatchNorm2d) and not any(p.requires_grad for p in block.parameters())


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_takes_in_its_frozen_norm(bias):
    """One pass instead of two, and the numbers and gradients of convolution, norm and activation one after another."""
    layer = Conv2d(3, 5, 3, padding=1, bias=bias, norm=FrozenBatchNorm2d(5), activation=torch.relu)
    for value in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean):
        value.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 6, 7, requires_grad=True)
    y = layer(x)
    expected = torch.relu(layer.norm(nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    inputs = [x, *layer.parameters()]
    got, want = (torch.autograd.grad(out.square().sum(), inputs) for out in (y, expected))
    assert len(got) == 2 + bias
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
