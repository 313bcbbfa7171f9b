from collections import OrderedDict

import pytest
import torch

from PADing.data.splits import split_from_dict
from PADing.errors import UserError
from PADing.generation.convert import convert_checkpoint, convert_file, total_classes

HEAD = "sem_seg_head.predictor.class_embed"


def checkpoint(seen, width=3):
    model = OrderedDict({"backbone.x": torch.ones(2), f"{HEAD}.weight": torch.randn(seen + 1, width)})
    model[f"{HEAD}.bias"] = torch.randn(seen + 1)
    model._metadata = OrderedDict({"": {"version": 2}})
    return {"model": model, "trainer": {"iteration": 9, "_trainer": {"optimizer": {}}}, "iteration": 9, "optimizer": {}}


def split(name="s", seen=4, unseen=2, kind="instance"):
    categories = [{"id": i, "name": f"c{i}"} for i in range(seen + unseen)]
    paths = {"image_root": "x", "json": "y", "sem_seg_root": "z"}
    sets = [{"name": f"{name}_{role}", "role": role, "kind": kind, **paths} for role in ("train", "val")]
    content = {"name": name, "categories": categories, "unseen": [f"c{seen + i}" for i in range(unseen)]}
    return split_from_dict({**content, "data_sets": sets}, f"{name}.yaml")


def test_reference_layout_keeps_old_rows_on_top():
    """Published starting weights have the old no-object row on the first unseen class; equal numbers need the same."""
    source = checkpoint(4)
    old = source["model"][f"{HEAD}.weight"].clone()
    model = convert_checkpoint(source, total=6)["model"]
    torch.testing.assert_close(model[f"{HEAD}.weight"], torch.cat([old, torch.zeros(2, 3)]))
    assert torch.equal(model["new_fc.weight"], model[f"{HEAD}.weight"])
    assert torch.equal(model["new_fc.bias"], model[f"{HEAD}.bias"])
    assert list(model)[-2:] == ["new_fc.weight", "new_fc.bias"]


def test_clean_layout_keeps_the_no_object_row_last():
    source = checkpoint(4)
    old = source["model"][f"{HEAD}.bias"].clone()
    model = convert_checkpoint(source, total=6, layout="clean")["model"]
    torch.testing.assert_close(model[f"{HEAD}.bias"], torch.cat([old[:4], torch.zeros(2), old[4:]]))


@pytest.mark.parametrize("layout", ["reference", "clean"])
def test_head_with_all_classes_stays_as_it_is(layout):
    source = checkpoint(4)
    old = source["model"][f"{HEAD}.weight"].clone()
    assert torch.equal(convert_checkpoint(source, total=4, layout=layout)["model"]["new_fc.weight"], old)


def test_metadata_survive_and_optimizers_do_not():
    """Without version metadata, published loaders rename every key of the pixel decoder."""
    converted = convert_checkpoint(checkpoint(4), total=6)
    assert converted["model"]._metadata == {"": {"version": 2}}
    assert set(converted) == {"model", "trainer", "iteration"}
    assert converted["trainer"] == {"iteration": 9}


def test_converted_file_is_refused():
    converted = convert_checkpoint(checkpoint(4), total=6)
    with pytest.raises(UserError, match="converted"):
        convert_checkpoint(converted, total=8)


def test_more_classes_than_the_split_are_refused():
    with pytest.raises(UserError, match="has 8 classes, but the split has only 6"):
        convert_checkpoint(checkpoint(8), total=6)


def test_total_comes_from_the_split_that_fits():
    splits = [split("a", 4, 2), split("b", 5, 3), split("c", 4, 9, kind="semantic")]
    assert total_classes("instance", 4, splits) == 6
    assert total_classes("instance", 5, splits) == 8
    assert total_classes("semantic", 4, splits) == 13


def test_file_of_no_known_split_and_ambiguous_file_are_refused():
    with pytest.raises(UserError, match=r"7 classes.*4 \(a\)"):
        total_classes("instance", 7, [split("a", 4, 2)])
    with pytest.raises(UserError, match="a, b"):
        total_classes("instance", 4, [split("a", 4, 2), split("b", 4, 3)])


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(UserError, match="absent.pth does not exist"):
        convert_file(tmp_path / "absent.pth", tmp_path / "out.pth", "instance", [split()])
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="broken.pth cannot be read"):
        convert_file(tmp_path / "broken.pth", tmp_path / "out.pth", "instance", [split()])
    torch.save({"model": {"x": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not a Mask2Former checkpoint"):
        convert_file(tmp_path / "other.pth", tmp_path / "out.pth", "instance", [split()])
    assert not list(tmp_path.glob("out*"))


def test_an_existing_file_stays_unless_asked_otherwise(tmp_path):
    source, output = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save(checkpoint(4), source)
    output.write_bytes(b"earlier")
    with pytest.raises(UserError, match="out.pth"):
        convert_file(source, output, "instance", [split()])
    assert output.read_bytes() == b"earlier"
    convert_file(source, output, "instance", [split()], overwrite=True)
    assert "new_fc.weight" in torch.load(output, weights_only=True)["model"]


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_an_average_of_another_model_is_refused(tmp_path, change):
    content = checkpoint(4)
    average = dict(content["model"])
    average["y"] = torch.ones(1)
    if change == "fewer":
        del average["y"], average["backbone.x"]
    torch.save({**content, "ema": {"weights": average}}, tmp_path / "in.pth")
    named = "y" if change == "more" else "backbone.x"
    with pytest.raises(UserError, match=rf"averaged and ordinary weights are not of one model: {named}\."):
        convert_file(tmp_path / "in.pth", tmp_path / "out.pth", "instance", [split()], weights_from="ema")
