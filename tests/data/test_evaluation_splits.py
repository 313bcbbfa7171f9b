"""The class lists of the evaluation sets; wrong here means that figures are not those of the field."""

import pytest
import yaml

from PADing.data.embeddings import CLIP_TEMPLATES
from PADing.data.evaluation_vectors import same_source_command
from PADing.data.splits import evaluation_split_files, load_split, split_from_dict
from PADing.errors import UserError

SPLITS = {split.name: split for split in map(load_split, evaluation_split_files())}


@pytest.mark.parametrize(
    ("name", "classes", "things", "images"),
    [
        ("ade20k_150", 150, 100, {(2000,)}),
        ("context_59", 59, None, {(5105, 5104)}),
        ("voc_20", 20, 20, {(1449,)}),
        ("cityscapes_19", 19, 8, {(500,)}),
    ],
)
def test_numbers(name, classes, things, images):
    split = SPLITS[name]
    assert len(split.categories) == len({c.name for c in split.categories}) == classes
    assert things is None or sum(c.isthing for c in split.categories) == things
    assert {data_set.images for data_set in split.data_sets} == images
    assert split.evaluation_only and not split.unseen and len(SPLITS) == 4


@pytest.mark.parametrize(
    ("name", "places"),
    [
        # position in the official order, id, name
        ("ade20k_150", [(0, 1, "wall"), (12, 13, "person"), (89, 90, "television"), (149, 150, "flag")]),
        ("context_59", [(0, 2, "aeroplane"), (36, 284, "person"), (54, 427, "tvmonitor"), (58, 458, "wood")]),
        ("voc_20", [(0, 1, "aeroplane"), (10, 11, "diningtable"), (14, 15, "person"), (19, 20, "tvmonitor")]),
        ("cityscapes_19", [(0, 7, "road"), (5, 17, "pole"), (10, 23, "sky"), (16, 31, "train"), (18, 33, "bicycle")]),
    ],
)  # fmt: skip
def test_ids_and_order(name, places):
    """A semantic set has the official order: the position is the class number of published results."""
    split = SPLITS[name]
    data_set = next(d for d in split.data_sets if d.kind == "semantic")
    classes = split.classes(data_set)
    assert [(i, classes[i].id, classes[i].name) for i, *_ in places] == places
    if name != "cityscapes_19":
        assert [c.id for c in classes] == sorted(c.id for c in classes)


def test_things_of_ade20k():
    """The instance annotation counts them 1..100 in this order."""
    things = [c.name for c in SPLITS["ade20k_150"].categories if c.isthing]
    for number, name in (
        (1, "bed"),
        (2, "windowpane"),
        (4, "person"),
        (9, "car"),
        (50, "bus"),
        (83, "bicycle"),
        (100, "flag"),
    ):
        assert things[number - 1] == name  # fmt: skip
    stuff = {c.name for c in SPLITS["ade20k_150"].categories if not c.isthing}
    assert {"wall", "sky", "plant", "skyscraper", "crt screen", "shower", "blanket"} < stuff and len(stuff) == 50


def test_things_of_cityscapes():
    things = [c.name for c in SPLITS["cityscapes_19"].categories if c.isthing]
    assert things == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]


def test_names_to_embed():
    names = SPLITS["ade20k_150"].names_to_embed()
    assert names[:2] == ("wall", "building") and len(names) == len(set(names)) > 250
    assert names[150:152] == ("edifice", "flooring")
    # "screen" is a class, not also a synonym of two others; "pot" is not the toilet.
    assert names.index("screen") < 150 and names.index("pot") < 150 and "ground" not in names


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unseen": ["cat"]}, "the model says which classes are unseen"),
        ({"role": "train"}, "`role: val`"),
        ({"subset": "seen"}, "`subset: all`"),
        ({"evaluation_only": "yes please"}, "must be true or false"),
        ({"images": 0}, "at least 1"),
        ({"images": "many"}, "at least 1"),
        ({"synonyms": "kitty"}, "synonyms must be a list"),
        ({"synonyms": [7]}, "must be text"),
    ],
)
def test_mistakes_in_a_split_file(change, said):
    data_set = {"name": "a", "kind": "semantic", "role": "val", "image_root": "a", "sem_seg_root": "b"}
    category = {"id": 1, "name": "cat"}
    content = {"name": "own", "evaluation_only": True, "categories": [category, {"id": 2, "name": "dog"}], "unseen": []}
    for key, value in change.items():
        place = category if key == "synonyms" else data_set if key in ("role", "subset", "images") else content
        place[key] = value
    with pytest.raises(UserError, match=said):
        split_from_dict({**content, "data_sets": [data_set]}, "own.yaml")


def test_the_table_of_a_split_may_be_shared(tmp_path):
    (tmp_path / "table.yaml").write_text(yaml.safe_dump([{"id": 1, "name": "cat", "synonyms": ["kitty"]}]))
    content = {"name": "own", "evaluation_only": True, "categories": "table.yaml", "unseen": [], "data_sets": []}
    (category,) = split_from_dict(content, str(tmp_path / "own.yaml")).categories
    assert category.synonyms == ("kitty",)


@pytest.mark.parametrize(
    ("source", "templates", "command"),
    [
        ("CLIP ViT-B-16-quickgelu, weights openai, text encoder in fp32 (open_clip)", CLIP_TEMPLATES, "clip"),
        (
            "CLIP ViT-L-14, weights mine.pt, text encoder in fp16 (open_clip)",
            ["a {}."],
            "clip --model ViT-L-14 --checkpoint mine.pt --precision fp16 --template 'a {}.'",
        ),
        ("CLIP RN50, weights cc12m, text encoder in fp32", CLIP_TEMPLATES, "clip --model RN50 --pretrained cc12m"),
        ("CLIP own, weights a.pt#00ff, text encoder in fp32", CLIP_TEMPLATES, "clip --model path/to/own"),
        ("word vectors glove.6B.300d.txt, unit length", [], "words --file glove.6B.300d.txt --normalize"),
        ("the file word_w2v_withbg_48_17.txt", [], ""),
    ],
)  # fmt: skip
def test_the_command_for_vectors_of_the_same_source(source, templates, command):
    made = same_source_command(source, templates, "x/own.yaml", "out.npz")
    wanted = f"python tools/class_embeddings.py {command} --split x/own.yaml --output out.npz" if command else ""
    assert made == wanted
