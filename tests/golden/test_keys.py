"""State dicts have the published names: else public checkpoints load partly, with no more than a warning."""

import copy
import json
from collections import OrderedDict

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

import PADing.meta_arch  # noqa: F401  registers
from tests.golden.util import GOLDEN, golden_cfg, requires_golden

pytestmark = requires_golden
FILES = sorted(GOLDEN.glob("keys/maskformer_*.json"))


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def recorded_and_model(request):
    recorded = json.loads(request.param.read_text())
    torch.manual_seed(0)
    return recorded, build_model(golden_cfg(recorded["config"]))


def test_names_order_and_shapes(recorded_and_model):
    recorded, model = recorded_and_model
    buffers = dict(model.named_buffers())
    got = [[key, list(value.shape), key in buffers] for key, value in model.state_dict().items()]
    assert got == [list(entry) for entry in recorded["keys"]]


def test_parameters_and_counts(recorded_and_model):
    recorded, model = recorded_and_model
    parameters = dict(model.named_parameters())
    assert [name for name, p in parameters.items() if p.requires_grad] == recorded["trainable"]
    assert [name for name, p in parameters.items() if not p.requires_grad] == recorded["frozen"]
    assert sum(p.numel() for p in parameters.values()) == recorded["elements_in_parameters"]
    assert sum(v.numel() for v in model.state_dict().values()) == recorded["elements_in_state_dict"]


def test_buffers_that_are_not_saved(recorded_and_model):
    recorded, model = recorded_and_model
    state = model.state_dict()
    got = [[name, list(b.shape)] for name, b in model.named_buffers() if name not in state]
    assert got == [list(entry) for entry in recorded["non_persistent_buffers"]]


def test_module_versions(recorded_and_model):
    """Other programs decide by these versions how to read our checkpoints."""
    recorded, model = recorded_and_model
    metadata = model.state_dict()._metadata
    got = {name: entry["version"] for name, entry in metadata.items() if entry.get("version", 1) != 1}
    assert got == dict(recorded["module_versions"])


def _forms(model):
    """One state dict as programs have saved it: with metadata, without, and with older names."""
    state = model.state_dict()
    yield "as saved", state
    yield "metadata lost", dict(state)
    yield "metadata of version 1", _with_version(state, 1)
    old = OrderedDict()
    for key, value in state.items():
        key = key.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.").replace("query_feat", "static_query")
        old[key] = value
    yield "older names", old
    old = copy.copy(old)
    old._metadata = _with_version(state, 1)._metadata
    yield "older names and versions", old


def _with_version(state, version):
    state = copy.copy(state)
    state._metadata = {name: {"version": version} for name in state._metadata}
    return state


def test_every_form_of_a_state_dict_loads_whole(recorded_and_model):
    _, model = recorded_and_model
    for form, state in _forms(model):
        expected = {key: value.clone() for key, value in model.state_dict().items()}
        result = model.load_state_dict(state, strict=False)
        assert not result.missing_keys and not result.unexpected_keys, form
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items()), form


def test_class_weights_of_another_length_are_skipped(recorded_and_model, tmp_path, caplog):
    """Stage 2 has more classes than stage 1; its checkpoint must load, apart from what depends on their number."""
    _, model = recorded_and_model
    state = dict(model.state_dict())
    state["criterion.empty_weight"] = torch.ones(3)
    torch.save({"model": state}, tmp_path / "other.pth")
    before = model.criterion.empty_weight.clone()
    with caplog.at_level("WARNING"):
        DetectionCheckpointer(model).load(str(tmp_path / "other.pth"))
    assert torch.equal(model.criterion.empty_weight, before)
    assert "empty_weight" in caplog.text
