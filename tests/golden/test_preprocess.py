"""Conversion of stage-1 weights: which row of the new heads comes from which old one."""

import importlib.util
import json
from collections import OrderedDict

import pytest
import torch

from tests.golden.util import GOLDEN, REPOSITORY, check_digest, fill, requires_golden

pytestmark = requires_golden
HEAD = "sem_seg_head.predictor.class_embed"


def recorded() -> dict:
    path = GOLDEN / "preprocess_weights.json"
    return json.loads(path.read_text())["cases"] if path.is_file() else {}


def stage_1_checkpoint(case: dict) -> dict:
    """A state dict with the recorded sizes: keys of a recorded stage-1 model, its heads as long as this case's."""
    rows = rows_before(case)
    keys = next(json.loads(path.read_text()) for path in sorted((GOLDEN / "keys").glob("maskformer_*.json")))["keys"]
    model = OrderedDict()
    for key, shape, _ in keys:
        if key.startswith(HEAD) or key == "criterion.empty_weight":
            shape = [rows, *shape[1:]]
        value = fill.weight(key, shape)
        model[key] = torch.ones(shape) if value is None else torch.from_numpy(value)
    model._metadata = OrderedDict({"": {"version": 1}, "sem_seg_head": {"version": 2}})
    trainer = {"iteration": case["iteration"], "hooks": {}}
    return {"model": model, "optimizer": {}, "trainer": trainer, "iteration": case["iteration"]}


def rows_before(case: dict) -> int:
    return case["empty_weight_shape_after"][0]  # keeps its old length


@pytest.mark.parametrize("name", recorded())
def test_conversion(name, tmp_path, monkeypatch):
    """Starting weights decide stage 2's numbers: the old no-object row lands on the first unseen class."""
    case = recorded()[name]
    before = stage_1_checkpoint(case)
    torch.save(before, tmp_path / "model_final.pth")
    monkeypatch.chdir(tmp_path)
    tool_file = REPOSITORY / "tools" / "preprocess_pretrained_weight.py"
    spec = importlib.util.spec_from_file_location("preprocess", tool_file)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main(["--task_name", case["task_name"], "--input_file", "model_final.pth"]) == 0

    after = torch.load(case["output_file"], weights_only=True)
    assert list(after) == case["file_keys_after"]
    assert after["iteration"] == case["iteration"]
    model = after["model"]
    assert (len(before["model"]), len(model)) == (case["n_entries_before"], case["n_entries_after"])
    assert list(model)[-len(case["last_keys_in_order"]) :] == case["last_keys_in_order"]
    assert hasattr(model, "_metadata") == case["metadata_preserved"]
    same = model["new_fc.weight"].data_ptr() == model[f"{HEAD}.weight"].data_ptr()
    assert same == case["new_fc_same_storage_as_class_embed"]
    assert list(model["criterion.empty_weight"].shape) == case["empty_weight_shape_after"]

    for key, change in case["changed_or_new"].items():
        assert list(model[key].shape) == change["after"]
        (source,) = [k for k in change if k.startswith("rows_from_old_")]
        old = before["model"][source.removeprefix("rows_from_old_")]
        for piece in change[source]:
            first, last = piece["rows"]
            got = model[key][first : last + 1]
            zero = piece["from_first"] == "zero"
            want = torch.zeros_like(got) if zero else old[piece["from_first"] : piece["from_last"] + 1]
            assert torch.equal(got, want), (key, piece)
        check_digest(model[key], change["digest"], what=key)
    for key, value in before["model"].items():
        if key not in case["changed_or_new"]:
            assert torch.equal(model[key], value), key
