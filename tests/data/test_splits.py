"""Split files: class lists, order, and messages that name what is wrong."""

import pytest

from PADing.data.splits import load_split, shipped_split_files, split_from_dict
from PADing.errors import UserError


def _content(**changes) -> dict:
    content = {
        "name": "s",
        "categories": [
            {"id": 9, "name": "sky", "isthing": 0},
            {"id": 4, "name": "cat"},
            {"id": 30, "name": "dog"},
            {"id": 2, "name": "sea", "isthing": 0},
            {"id": 11, "name": "cow"},
        ],
        "unseen": ["dog", "sky"],
        "data_sets": [
            {"name": f"s_{kind}_{role}", "kind": kind, "role": role, "image_root": "i", **paths}
            for kind, paths in (
                ("instance", {"json": "a.json"}),
                ("semantic", {"sem_seg_root": "l"}),
                ("panoptic", {"panoptic_root": "p", "panoptic_json": "./p.json"}),
            )
            for role in ("train", "val")
        ],
    }
    return {**content, **changes}


def _names(split, name):
    return [category.name for category in split.classes(split.data_set(name))]


def test_class_order_of_each_kind():
    """A wrong order would train or score one class as another."""
    split = split_from_dict(_content(), "/x/s.yaml")
    assert split.seen == ("cat", "sea", "cow")
    assert _names(split, "s_instance_train") == ["cat", "cow"]
    assert _names(split, "s_instance_val") == ["cat", "cow", "dog"]
    assert _names(split, "s_semantic_train") == ["cat", "sea", "cow"]
    assert _names(split, "s_semantic_val") == ["cat", "sea", "cow", "dog", "sky"]
    # Panoptic: always the whole list, things before stuff.
    assert _names(split, "s_panoptic_train") == _names(split, "s_panoptic_val") == ["cat", "dog", "cow", "sky", "sea"]


def test_metadata_points_at_unseen_classes():
    """unseen_index must be the unseen classes' places in the model's output, also for a set of seen ones only."""
    split = split_from_dict(_content(), "/x/s.yaml")
    train = split.metadata(split.data_set("s_semantic_train"), root="/data")
    assert train["unseen_index"] == [3, 4] and train["vocabulary"] == ["cat", "sea", "cow", "dog", "sky"]
    assert train["evaluation_set"] == ["dog", "sky"] and "val_extra_classes" not in train
    assert train["ignore_label"] == 255, "what unlabelled pixels have in label PNGs of one byte"
    panoptic = split.metadata(split.data_set("s_panoptic_val"), root="/data")
    assert panoptic["unseen_index"] == [1, 3]
    assert panoptic["thing_dataset_id_to_contiguous_id"] == {4: 0, 30: 1, 11: 2}
    assert panoptic["stuff_dataset_id_to_contiguous_id"] == {4: 0, 30: 1, 11: 2, 9: 3, 2: 4}
    assert panoptic["panoptic_root"] == "/data/p" and panoptic["panoptic_json"] == "/x/p.json"


def test_listed_order_keeps_every_class_in_place():
    """With unseen classes in between, a list cut to the seen ones would shift training's ids against validation's."""
    split = split_from_dict(_content(class_order="listed"), "/x/s.yaml")
    assert _names(split, "s_instance_train") == _names(split, "s_instance_val") == ["cat", "dog", "cow"]
    assert split.metadata(split.data_set("s_instance_train"))["unseen_index"] == [1]
    # Panoptic and semantic sets can share label maps.
    assert _names(split, "s_semantic_val") == _names(split, "s_panoptic_val")


def test_unseen_only_set_says_its_offset():
    """Without the offset, a model's class 3 could not be told to be class 0 of an unseen-only set."""
    content = _content()
    content["data_sets"] = [{**content["data_sets"][3], "subset": "unseen"}]
    split = split_from_dict(content, "/x/s.yaml")
    metadata = split.metadata(split.data_sets[0])
    assert metadata["stuff_classes"] == ["dog", "sky"] and metadata["label_offset"] == 3


def test_seen_list_may_leave_classes_out():
    """Classes in neither list count for neither side."""
    split = split_from_dict(_content(seen=["cow", "cat"]), "/x/s.yaml")
    assert _names(split, "s_semantic_val") == ["cow", "cat", "dog", "sky"]


def test_default_root_is_detectron2s(monkeypatch):
    """Users set DETECTRON2_DATASETS once for all their projects."""
    split = split_from_dict(_content(), "/x/s.yaml")
    data_set = split.data_set("s_instance_val")
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert split.metadata(data_set)["json_file"] == "datasets/a.json"
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    assert split.metadata(data_set)["json_file"] == "/elsewhere/a.json"


def test_generated_colors_differ():
    """Classes drawn in one color cannot be told apart."""
    split = split_from_dict(_content(), "/x/s.yaml")
    assert len({category.color for category in split.categories}) == len(split.categories)


def _first(key, value):
    def change(content):
        content["data_sets"][0][key] = value

    return change


def _category(**entry):
    def change(content):
        content["categories"].append(entry)

    return change


@pytest.mark.parametrize(
    "change, parts",
    [
        (lambda c: c.pop("unseen"), ["lacks the key `unseen`"]),
        (lambda c: c.update(unseen=["dgo"]), ["'dgo'", "did you mean dog"]),
        (lambda c: c.update(unseen=["dog", "dog"]), ["'dog' occurs twice"]),
        (lambda c: c.update(seen=["dog", "cat"]), ["['dog']", "both"]),
        (lambda c: c.update(unseen=[x["name"] for x in c["categories"]]), ["there is no seen class"]),
        (lambda c: c.update(clas_order="listed"), ["unknown key `clas_order`", "did you mean class_order?"]),
        (lambda c: c.update(class_order="sorted"), ["seen_first, listed", "'sorted'"]),
        (_category(id=4, name="lion"), ["category id 4 occurs twice"]),
        (_category(id=5, name="cat"), ["category name 'cat' occurs twice"]),
        (_category(id="5", name="lion"), ["'lion'", "whole number", "'5'"]),
        (_category(id=5, name=True), ["id 5", "must be text", "quotes"]),
        (_category(id=5, name="lion", isthing=2), ["'lion'", "isthing", "2"]),
        (_category(id=5, name="lion", color=[1, 2, 300]), ["'lion'", "color", "300"]),
        (_category(id=5, name="lion", colour=[1, 2, 3]), ["unknown key `colour`", "did you mean color?"]),
        (_first("kind", "instances"), ["data_sets[0] (s_instance_train)", "`kind`", "'instances'"]),
        (_first("role", "test"), ["`role`", "train, val", "'test'"]),
        (_first("subset", "novel"), ["`subset`", "'novel'"]),
        (_first("json", None), ["kind instance needs the path `json`"]),
        (_first("name", "s_instance_val"), ["data set name 's_instance_val' occurs twice"]),
        (lambda c: c["data_sets"][4].update(class_order="seen_first"), ["panoptic", "listed"]),
    ],
)
def test_mistakes_are_named(change, parts):
    """A message that does not name file and entry sends people searching through hundreds of lines."""
    content = _content()
    change(content)
    with pytest.raises(UserError) as error:
        split_from_dict(content, "/x/s.yaml")
    for part in ["/x/s.yaml", *parts]:
        assert part in str(error.value)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_split(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_split(broken)
    broken.write_text("name: a\ncategories: nowhere.yaml\nunseen: []\ndata_sets: []\n")
    with pytest.raises(UserError, match="nowhere.yaml does not exist"):
        load_split(broken)


def test_shipped_files_are_valid_and_distinct():
    """Import registers them all, so a broken or clashing file would break every command."""
    splits = [load_split(path) for path in shipped_split_files()]
    names = [data_set.name for split in splits for data_set in split.data_sets]
    assert len(splits) >= 4 and len(set(names)) == len(names)


def test_numbers_too_long_to_print_are_refused(own):
    """Python refuses to print them, so that a message about one could itself end in a traceback."""
    content = own.split_file.read_text(encoding="utf-8").replace("id: 40", f"id: 0x{'f' * 5000}")
    own.split_file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="id must be a whole number >= 0, but is a huge int"):
        load_split(own.split_file)


@pytest.mark.parametrize("images", [0, -3, True, 2.0, "2", [2, 0], [True]])
def test_a_number_of_images_is_at_least_one(images):
    content = _content()
    content["data_sets"][0]["images"] = images
    with pytest.raises(UserError, match=r"data_sets\[0\].*at least 1"):
        split_from_dict(content, "/x/s.yaml")


@pytest.mark.parametrize(("images", "kept"), [(1, (1,)), ([1, 30], (1, 30)), ([], ())])
def test_numbers_of_images_are_kept(images, kept):
    content = _content()
    content["data_sets"][0]["images"] = images
    assert split_from_dict(content, "/x/s.yaml").data_sets[0].images == kept
