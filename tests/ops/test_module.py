"""The MSDeformAttn module: same keys, same start, same numbers, whatever form its shapes take; one graph."""

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import MSDeformAttn, backends, ms_deform_attn

SHAPES = [(3, 4), (6, 8), (12, 16)]
STARTS = [0, 12, 60]
PIXELS = 252


def _inputs(coordinates=2, batch=2, width=32):
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(batch, PIXELS, width, generator=generator)
    reference = torch.rand(batch, PIXELS, len(SHAPES), coordinates, generator=generator)
    return query, reference, torch.randn(batch, PIXELS, width, generator=generator)


def _trained(width=32, **sizes) -> MSDeformAttn:
    torch.manual_seed(2)
    module = MSDeformAttn(width, len(SHAPES), **({"n_heads": 4, "n_points": 3} | sizes))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_state_dict_is_that_of_published_checkpoints():
    shapes = {key: tuple(t.shape) for key, t in MSDeformAttn(256, 3, 8, 4).state_dict().items()}
    assert shapes == {
        "sampling_offsets.weight": (192, 256),
        "sampling_offsets.bias": (192,),
        "attention_weights.weight": (96, 256),
        "attention_weights.bias": (96,),
        "value_proj.weight": (256, 256),
        "value_proj.bias": (256,),
        "output_proj.weight": (256, 256),
        "output_proj.bias": (256,),
    }


def test_untrained_heads_look_in_different_directions():
    """All heads at one place would get equal gradients and stay equal."""
    module = MSDeformAttn(256, 3, 8, 4)
    assert (module.sampling_offsets.weight == 0).all() and (module.attention_weights.weight == 0).all()
    offsets = module.sampling_offsets.bias.view(8, 3, 4, 2)
    assert torch.equal(offsets[:, 0], offsets[:, 2])
    reach = offsets[:, 0].abs().amax(-1)
    torch.testing.assert_close(reach, torch.arange(1.0, 5.0).expand(8, 4))
    angles = torch.atan2(offsets[:, 0, 0, 1], offsets[:, 0, 0, 0]).rad2deg().round() % 360
    assert angles.tolist() == [0, 45, 90, 135, 180, 225, 270, 315]
    assert offsets.requires_grad and module.value_proj.weight.std() > 0 and (module.output_proj.bias == 0).all()


def test_points_are_pixels_around_the_reference_and_fractions_of_a_box():
    module = _trained()
    query, boxes, source = _inputs(coordinates=4)
    points = boxes[..., :2].contiguous()
    sizes = torch.tensor(SHAPES, dtype=torch.float32).flip(-1)
    # A box of 2 P pixels makes "half a box divided by P" one pixel.
    boxes[..., 2:] = 2 * module.n_points / sizes
    around_points, in_boxes = (module(query, reference, source, SHAPES) for reference in (points, boxes))
    torch.testing.assert_close(around_points, in_boxes, rtol=0, atol=1e-4)


def test_the_module_is_projections_around_the_function():
    module = _trained()
    query, reference, source = _inputs()
    offsets = module.sampling_offsets(query).view(2, PIXELS, 4, 3, 3, 2)
    weights = module.attention_weights(query).view(2, PIXELS, 4, 9).softmax(-1).view(2, PIXELS, 4, 3, 3)
    sizes = torch.tensor(SHAPES, dtype=torch.float32).flip(-1)
    locations = reference[:, :, None, :, None] + offsets / sizes[:, None]
    output = ms_deform_attn(module.value_proj(source).view(2, PIXELS, 4, 8), SHAPES, STARTS, locations, weights)
    torch.testing.assert_close(module(query, reference, source, SHAPES), module.output_proj(output))


def test_shapes_as_tensors_are_the_same():
    module, inputs = _trained(), _inputs()
    tensors = module(*inputs, torch.tensor(SHAPES), torch.tensor(STARTS))
    assert torch.equal(module(*inputs, SHAPES, STARTS), tensors)
    assert torch.equal(module(*inputs, SHAPES), tensors)


def test_padding_is_never_seen():
    module, (query, reference, source) = _trained(), _inputs()
    mask = torch.zeros(2, PIXELS, dtype=torch.bool)
    mask[0, 200:], mask[1, 5:60] = True, True
    wanted = module(query, reference, source, SHAPES, STARTS, mask)
    source[mask] = torch.nan
    torch.testing.assert_close(module(query, reference, source, SHAPES, STARTS, mask), wanted)


def test_mixed_precision_keeps_positions_exact(compiled_cpu):
    """Half-precision positions would miss by a pixel on a map of 256 columns."""
    module, inputs = _trained(), _inputs()
    wanted = module(*inputs, SHAPES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(*inputs, SHAPES)
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output.float(), wanted, rtol=0, atol=0.05 * wanted.abs().max().item())


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="multiple of n_heads"):
        MSDeformAttn(30, 1, 8, 4)
    query, reference, source = _inputs()
    with pytest.raises(ValueError, match="2 or 4"):
        _trained()(query, torch.cat([reference, reference[..., :1]], -1), source, SHAPES)


@pytest.mark.parametrize("backend", ["cpu", "pytorch"])
@pytest.mark.parametrize("shapes", [SHAPES, torch.tensor(SHAPES)], ids=["ints", "tensor"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(request, monkeypatch, backend, shapes, dynamic):
    if backend == "cpu":
        request.getfixturevalue("compiled_cpu")
    monkeypatch.setenv(backends.ENVIRONMENT, backend)
    torch.compiler.reset()
    module, inputs = _trained(), _inputs()
    # aot_eager traces forward and backward and needs no C++ compiler of its own.
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    results = []
    for function in (module, compiled):
        module.zero_grad()
        output = function(*inputs, shapes)
        output.square().sum().backward()
        results.append([output, *(p.grad.clone() for p in module.parameters())])
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-5 * eager.abs().max().item())


def test_a_dry_run_leaves_nothing_behind():
    """Tracing with tensors that hold no numbers must not leave one of them in a cache for the real run."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    shapes = [(3, 4), (6, 8), (12, 16)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = MSDeformAttn(32, 3, 4, 3)
        query = torch.empty(2, PIXELS, 32)
        assert fake(query, torch.empty(2, PIXELS, 3, 2), query, shapes).shape == (2, PIXELS, 32)
    assert _trained()(*_inputs(), shapes).isfinite().all()


def test_exports(compiled_cpu):
    module, inputs = _trained().eval(), _inputs()
    program = torch.export.export(module, (*inputs, SHAPES))
    assert any("ms_deform_attn" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*inputs, SHAPES), module(*inputs, SHAPES))


@pytest.mark.parametrize("shapes", [[(3, 4), (0, 5)], torch.tensor([(3, 4), (0, 5)])], ids=["ints", "tensor"])
def test_an_empty_map_leaves_gradients_finite(backend, shapes):
    """Offsets are divided by the map's size, which is 0 here; nothing is read, so nothing may become NaN."""
    module = MSDeformAttn(16, n_levels=2, n_heads=2, n_points=2)
    x = torch.randn(1, 12, 16)
    module(x, torch.full((1, 12, 2, 2), 0.5), x, shapes).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
