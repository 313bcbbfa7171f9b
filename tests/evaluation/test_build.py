"""Which evaluator a data set gets; wrong here means an evaluation that silently reports nothing."""

import pytest
from detectron2.evaluation import DatasetEvaluators

from PADing.config import load_config
from PADing.errors import UserError
from PADing.evaluation import (
    InsSegzeroEvaluator,
    InsSegzsiEvaluator,
    PanopticzeroEvaluator,
    SemSegGzeroEvaluator,
    build_evaluator,
)

PREFIX = "MODEL.MASK_FORMER.TEST."


def _cfg(semantic=False, instance=False, panoptic=False, *more):
    switches = {"SEMANTIC_ON": semantic, "INSTANCE_ON": instance, "PANOPTIC_ON": panoptic}
    return load_config("", [item for key, value in switches.items() for item in (PREFIX + key, value)] + list(more))


@pytest.fixture
def names(register, tmp_path, save_json):
    """A name per evaluator type."""
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a", "isthing": 1}]}
    metadata = {
        "panoptic_json": save_json(tmp_path / "panoptic.json", content),
        "thing_classes": ["a"],
        "stuff_classes": ["a"],
        "thing_dataset_id_to_contiguous_id": {1: 0},
    }
    types = ("sem_seg", "sem_seg_gzero", "coco", "coco_instance_gzero", "coco_panoptic_seg", "lvis")
    return {kind: register(evaluator_type=kind, **metadata) for kind in types}


@pytest.mark.parametrize("kind", ["sem_seg", "sem_seg_gzero"])
def test_semantic_sets(names, kind):
    assert type(build_evaluator(_cfg(semantic=True), names[kind])) is SemSegGzeroEvaluator


@pytest.mark.parametrize("kind", ["coco", "coco_instance_gzero"])
def test_instance_sets(names, kind):
    assert type(build_evaluator(_cfg(instance=True), names[kind])) is InsSegzsiEvaluator


def test_panoptic_sets_get_the_parts_that_are_switched_on(names):
    name = names["coco_panoptic_seg"]
    assert type(build_evaluator(_cfg(panoptic=True), name)) is PanopticzeroEvaluator
    assert type(build_evaluator(_cfg(instance=True), name)) is InsSegzeroEvaluator
    every = build_evaluator(_cfg(True, True, True), name)
    assert type(every) is DatasetEvaluators
    assert [type(part) for part in every._evaluators] == [
        PanopticzeroEvaluator,
        InsSegzeroEvaluator,
        SemSegGzeroEvaluator,
    ]


def test_results_of_several_sets_do_not_overwrite_each_other(names, tmp_path):
    name = names["sem_seg"]
    for sets, folder in ((f"('{name}',)", "inference"), (f"('{name}','other')", f"inference/{name}")):
        cfg = _cfg(True, False, False, "OUTPUT_DIR", str(tmp_path), "DATASETS.TEST", sets)
        assert build_evaluator(cfg, name).output_dir == str(tmp_path / folder)


def test_nothing_is_skipped_in_silence(names):
    with pytest.raises(UserError, match="'lvis'.*Known types: sem_seg, "):
        build_evaluator(_cfg(True, True, True), names["lvis"])
    with pytest.raises(UserError, match="SEMANTIC_ON"):
        build_evaluator(_cfg(instance=True), names["sem_seg_gzero"])
