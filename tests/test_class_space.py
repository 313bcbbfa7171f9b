"""Which classes there are. A wrong place or a wrong "unseen" here is a wrong number in every table."""

import pytest
from detectron2.data import Metadata, MetadataCatalog

from PADing.class_space import ClassSpace
from PADing.data.splits import load_split, shipped_split_files, split_from_dict
from PADing.errors import UserError

CATEGORIES = [
    {"id": 4, "name": "cat"},
    {"id": 9, "name": "grass", "isthing": 0},
    {"id": 11, "name": "dog"},
    {"id": 2, "name": "sky", "isthing": 0},
]


def _space(kind: str, **entry) -> ClassSpace:
    paths = {"image_root": "a", "json": "a.json", "panoptic_root": "b", "panoptic_json": "b.json", "sem_seg_root": "c"}
    data_set = {"name": "mine", "kind": kind, "role": "val", **paths, **entry}
    content = {"name": "split", "categories": CATEGORIES, "unseen": ["cat", "sky"], "data_sets": [data_set]}
    split = split_from_dict(content, "/split.yaml")
    return split.class_space(split.data_sets[0])


def test_generalized_instance_set_has_seen_classes_first():
    space = _space("instance")
    assert space.names == {0: "dog", 1: "cat"} and space.dataset_ids == {0: 11, 1: 4}
    assert space.contiguous_ids == {11: 0, 4: 1}
    assert (space.seen, space.unseen, space.unseen_outputs, space.offset) == ({0}, {1}, (1,), 0)
    assert space.is_generalized and not space.only_unseen


def test_unseen_only_set_counts_from_its_first_class_and_knows_the_outputs_behind():
    space = _space("semantic", subset="unseen")
    assert space.class_names == ("cat", "sky") and space.vocabulary == ("grass", "dog", "cat", "sky")
    assert space.offset == 2 and space.unseen_outputs == (2, 3) and space.unseen == {0, 1}
    assert space.only_unseen and not space.is_generalized and space.things == frozenset()


def test_panoptic_things_come_first_and_can_be_looked_at_alone():
    space = _space("panoptic")
    assert space.class_names == ("cat", "dog", "grass", "sky") and space.things == {0, 1}
    things = ClassSpace.of(Metadata(name="mine", **space.to_metadata()), "instance")
    assert things.names == {0: "cat", 1: "dog"} and things.unseen == {0} and len(things) == 2
    assert space.seen_names == ("dog", "grass") and space.unseen_names == ("cat", "sky")


@pytest.mark.parametrize("file", shipped_split_files(), ids=lambda file: file.rpartition("/")[2])
def test_metadata_hold_all_of_it(file):
    split = load_split(file)
    for data_set in split.data_sets:
        assert ClassSpace.of(MetadataCatalog.get(data_set.name)) == split.class_space(data_set)


def test_metadata_of_other_packages():
    """Detectron2's own sets know nothing of splits; published code names unseen classes in one of three ways."""
    plain = ClassSpace.of(Metadata(name="a", thing_classes=["x", "y"]))
    assert plain.names == {0: "x", 1: "y"} == plain.dataset_ids | {0: "x", 1: "y"} and plain.unseen == frozenset()
    assert plain.vocabulary == ("x", "y") and plain.subset == ""
    for key, value in (("evaluation_set", ["y"]), ("val_extra_classes", ["y"]), ("unseen_index", [1])):
        assert ClassSpace.of(Metadata(name="a", thing_classes=["x", "y"], **{key: value})).unseen == {1}
    interleaved = Metadata(
        name="b",
        thing_classes=["y"],
        stuff_classes=["x", "y"],
        thing_dataset_id_to_contiguous_id={7: 1},
        stuff_dataset_id_to_contiguous_id={5: 0, 7: 1},
    )
    space = ClassSpace.of(interleaved)
    assert space.kind == "panoptic" and space.things == {1} and space.dataset_ids == {0: 5, 1: 7}
    things, labels = ClassSpace.of(interleaved, "instance"), ClassSpace.of(interleaved, "semantic")
    assert things.kind == "instance" and things.names == {1: "y"} and things.dataset_ids == {1: 7}
    assert labels.kind == "semantic" and labels.names == space.names and labels.things == frozenset()


def test_sets_without_classes_or_with_contradicting_ones_are_refused():
    with pytest.raises(UserError, match="'a' has no class names"):
        ClassSpace.of(Metadata(name="a"))
    with pytest.raises(UserError, match="lack stuff_classes"):
        ClassSpace.of(Metadata(name="a", thing_classes=["x"]), "semantic")
    with pytest.raises(UserError, match="2 thing_classes but 1 contiguous ids"):
        ClassSpace.of(Metadata(name="a", thing_classes=["x", "y"], thing_dataset_id_to_contiguous_id={3: 0}))


def test_a_prediction_of_a_class_that_is_not_there_is_named():
    with pytest.raises(UserError, match="predicted class 2.*0..1.*unseen classes only"):
        _space("semantic", subset="unseen").dataset_id(2)
    assert _space("semantic", subset="unseen").dataset_id(1) == 2
