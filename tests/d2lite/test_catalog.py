"""The catalogs: if these fail, data sets are looked up, described or protected in another way than code expects."""

import copy
import json
import pickle
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

PANOPTIC_JSON = (
    Path(__file__).resolve().parents[2].parent / "shared/data/panoptic_sample/annotations/panoptic_val2017.json"
)


@pytest.fixture
def name():
    name = "catalog_test"
    yield name
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)


def test_a_data_set_is_loaded_when_asked_for(name):
    calls = []
    DatasetCatalog.register(name, lambda: calls.append(1) or [{"image_id": 5}])
    assert calls == [] and name in DatasetCatalog and name in DatasetCatalog.list()
    assert DatasetCatalog.get(name) == [{"image_id": 5}]
    DatasetCatalog.get(name)
    assert len(calls) == 2
    DatasetCatalog.remove(name)
    assert name not in DatasetCatalog


def test_a_name_is_registered_once(name):
    DatasetCatalog.register(name, list)
    with pytest.raises(AssertionError, match=name):
        DatasetCatalog.register(name, list)
    with pytest.raises(AssertionError):
        DatasetCatalog.register(name + "_2", [])


def test_an_unknown_name_is_answered_with_the_known_ones(name):
    DatasetCatalog.register(name, list)
    with pytest.raises(KeyError, match=f"no_such_set.*{name}"):
        DatasetCatalog.get("no_such_set")


def test_metadata_are_set_once(name):
    meta = MetadataCatalog.get(name)
    assert meta.name == name and MetadataCatalog.get(name) is meta
    assert meta.set(thing_classes=["a", "b"], ignore_label=255) is meta
    meta.thing_classes = ["a", "b"]  # an equal value is fine
    with pytest.raises(AssertionError, match="thing_classes"):
        meta.thing_classes = ["a"]
    assert meta.thing_classes == ["a", "b"]
    del meta.thing_classes
    meta.thing_classes = ["c"]
    assert meta.as_dict() == {"name": name, "thing_classes": ["c"], "ignore_label": 255}


def test_metadata_without_a_name_cannot_be_given_one_later():
    meta = Metadata()
    assert meta.name == "N/A" and meta.get("name") == "N/A"
    with pytest.raises(AssertionError):
        meta.name = "mine"


def test_absent_metadata(name):
    meta = MetadataCatalog.get(name)
    assert not hasattr(meta, "thing_classes") and meta.get("thing_classes", 3) == 3
    with pytest.raises(AttributeError, match=f"thing_classes.*{name}"):
        _ = meta.thing_classes
    with pytest.raises(AssertionError):
        MetadataCatalog.get("")
    assert name in MetadataCatalog.list()
    MetadataCatalog.remove(name)
    assert name not in MetadataCatalog


def test_metadata_can_be_copied_and_pickled():
    # Mappers carry metadata into spawned workers.
    meta = Metadata(name="x", thing_classes=["a"])
    for other in (copy.deepcopy(meta), pickle.loads(pickle.dumps(meta))):
        assert other == meta and other is not meta


def test_coco_categories():
    things = [c["id"] for c in COCO_CATEGORIES if c["isthing"]]
    stuff = [c["id"] for c in COCO_CATEGORIES if not c["isthing"]]
    assert (len(things), len(stuff)) == (80, 53)
    assert [c["id"] for c in COCO_CATEGORIES] == sorted(things) + sorted(stuff)
    assert (things[0], things[-1], stuff[0], stuff[-1]) == (1, 90, 92, 200)
    assert len({c["name"] for c in COCO_CATEGORIES}) == 133


@pytest.mark.skipif(not PANOPTIC_JSON.exists(), reason="shared data (../shared/data/panoptic_sample) are absent")
def test_coco_categories_are_those_of_the_published_panoptic_files():
    published = json.loads(PANOPTIC_JSON.read_text())["categories"]
    keys = ("id", "name", "isthing", "color")
    assert [{k: c[k] for k in keys} for c in published] == [{k: c[k] for k in keys} for c in COCO_CATEGORIES]


def test_coco_is_registered_below_the_environment_variable(run_standin):
    """Other code reads these fields when it is imported."""
    out = run_standin(
        """
import json
from detectron2.data import DatasetCatalog, MetadataCatalog
names = [n for n in DatasetCatalog.list() if n.startswith("coco_")]
print(json.dumps({n: MetadataCatalog.get(n).as_dict() for n in names}))
""",
        DETECTRON2_DATASETS="/some/root",
    )
    meta = json.loads(out.strip().splitlines()[-1])
    panoptic = [f"coco_2017_{s}_panoptic{x}" for s in ("train", "val") for x in ("", "_separated", "_stuffonly")]
    assert sorted(meta) == sorted([f"coco_{y}_{s}" for y in (2014, 2017) for s in ("train", "val")] + panoptic)

    train = meta["coco_2014_train"]
    assert train["image_root"] == "/some/root/coco/train2014"
    assert train["json_file"] == "/some/root/coco/annotations/instances_train2014.json"
    assert train["evaluator_type"] == "coco"
    assert train["thing_classes"][:2] == ["person", "bicycle"] and len(train["thing_colors"]) == 80
    assert train["thing_dataset_id_to_contiguous_id"]["90"] == 79

    val = meta["coco_2017_val_panoptic"]
    assert val["panoptic_root"] == "/some/root/coco/panoptic_val2017"
    assert val["panoptic_json"] == "/some/root/coco/annotations/panoptic_val2017.json"
    assert val["json_file"] == "/some/root/coco/annotations/instances_val2017.json"
    assert val["evaluator_type"] == "coco_panoptic_seg"
    assert (val["ignore_label"], val["label_divisor"]) == (255, 1000)
    assert val["thing_classes"] == val["stuff_classes"] and len(val["stuff_classes"]) == 133
    assert val["stuff_dataset_id_to_contiguous_id"]["92"] == 80
    assert val["stuff_dataset_id_to_contiguous_id"]["200"] == 132

    stuff = meta["coco_2017_val_panoptic_stuffonly"]
    assert stuff["sem_seg_root"] == "/some/root/coco/panoptic_stuff_val2017"
    assert stuff["evaluator_type"] == "sem_seg" and stuff["stuff_classes"][0] == "things"
    assert stuff["stuff_dataset_id_to_contiguous_id"]["92"] == 1


def test_importing_registers_without_reading(run_standin):
    out = run_standin(
        """
from detectron2.data import DatasetCatalog
try:
    DatasetCatalog.get("coco_2017_val")
except FileNotFoundError as error:
    print(error.filename)
""",
        DETECTRON2_DATASETS="/no/such/root",
    )
    assert out.strip().endswith("/no/such/root/coco/annotations/instances_val2017.json")
