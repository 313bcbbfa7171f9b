"""The rule for equal names; wrong here means that classes count as seen in training that were not, or the reverse."""

import pytest

from PADing.data.class_names import distinct_names, match_classes, normalized
from PADing.data.splits import evaluation_split_files, load_split, shipped_split_files


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("diningtable", "dining table"),
        ("Traffic-Light", "traffic light"),
        ("traffic_light", "  Traffic   Light "),
        ("tree", "tree-merged"),
        ("sky", "sky-other-merged"),
        ("door", "door-stuff"),
        ("water", "water-other"),
        ("ｔree", "tree"),
    ],
)
def test_equal_names(a, b):
    assert normalized(a) == normalized(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("shelf", "shelves"),
        ("tree", "vegetation"),
        ("wall-brick", "wall-stone"),
        ("table", "dining table"),
        ("other", "merged"),
        ("stuff", ""),
        ("wine glass", "glass"),
        ("other tree", "tree"),
    ],
)
def test_other_names(a, b):
    assert normalized(a) != normalized(b)


def test_a_synonym_of_several_classes_is_nobodys():
    classes = [("screen door", "screen"), ("blind", "screen"), ("pot", "flowerpot"), ("toilet", "pot", "can", "Can")]
    assert distinct_names(classes) == [("screen door",), ("blind",), ("pot", "flowerpot"), ("toilet", "can")]


def test_first_names_come_before_synonyms_and_a_known_class_is_used_once():
    known = ["couch, sofa", "tv", "rock", "stone", "bus"]
    classes = [("settee", "tv"), ("television", "tv set"), ("stone", "rock"), ("Sofa",), ("coach", "bus"), ("bus",)]
    assert match_classes(classes, known) == [1, -1, 3, 0, -1, 4]
    assert match_classes([], known) == [] and match_classes(classes, []) == [-1] * 6


def shared(evaluation_set: str, protocol: str) -> tuple[int, int]:
    files = [*evaluation_split_files(), *shipped_split_files()]
    other, model = (load_split(next(f for f in files if f.endswith(f"/{n}.yaml"))) for n in (evaluation_set, protocol))
    known = [*model.seen, *model.unseen]
    found = [known[i] for i in match_classes([(c.name, *c.synonyms) for c in other.categories], known) if i >= 0]
    assert len(set(found)) == len(found)
    return len(set(found) & set(model.seen)), len(set(found) & set(model.unseen))


@pytest.mark.parametrize(
    ("evaluation_set", "protocol", "seen", "unseen"),
    [
        ("ade20k_150", "coco_panoptic_119_14", 52, 5),
        ("ade20k_150", "coco_stuff_156_15", 59, 4),
        ("context_59", "coco_stuff_156_15", 49, 4),
        ("voc_20", "coco_panoptic_119_14", 19, 1),
        ("voc_20", "coco_zsi_48_17", 12, 6),
        ("cityscapes_19", "coco_panoptic_119_14", 12, 2),
    ],
)
def test_the_numbers_of_the_documentation(evaluation_set, protocol, seen, unseen):
    assert shared(evaluation_set, protocol) == (seen, unseen)
