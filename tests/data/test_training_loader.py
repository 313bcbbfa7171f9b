"""Mappers inside Detectron2's loader, as training runs them."""

import itertools

import numpy as np
import pytest
from detectron2.data import build_detection_test_loader, build_detection_train_loader

from PADing.config import load_config
from PADing.data.dataset_mappers import build_mapper
from PADing.data.registration import register_split_files


def _cfg(kind, mapper, workers=0, *opts):
    names = ["DATASETS.TRAIN", f'("own_train_{kind}",)', "DATASETS.TEST", f'("own_val_{kind}",)']
    return load_config(
        "",
        [
            *names,
            *("INPUT.DATASET_MAPPER_NAME", mapper, "INPUT.IMAGE_SIZE", 48, "INPUT.FORMAT", "RGB"),
            *("SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", workers, "SEED", 3),
            *opts,
        ],
    )


def _batches(cfg, count):
    loader = build_detection_train_loader(cfg, mapper=build_mapper(cfg))
    return list(itertools.islice(iter(loader), count))


@pytest.mark.parametrize(
    "kind, mapper",
    [
        ("instance", "coco_instance_lsj"),
        ("panoptic", "coco_panoptic_lsj"),
        ("semantic", "mask_former_semantic"),
    ],
)
def test_batches(own, kind, mapper):
    """Every task's loader gives full batches, and training sets never show an unseen class."""
    register_split_files([own.split_file])
    cfg = _cfg(kind, mapper, 0, "INPUT.MIN_SIZE_TRAIN", "(40,)")
    for batch in _batches(cfg, 6):
        assert len(batch) == 2
        for example in batch:
            assert "pic_5." not in example["file_name"] or kind == "semantic"
            unseen = {"instance": [2], "panoptic": [2, 4], "semantic": [3, 4]}[kind]
            assert not set(example["instances"].gt_classes.tolist()) & set(unseen)


def test_workers_and_corrupt_images(own):
    """One broken image neither stops a run that may skip it, nor comes up in it, with worker processes too."""
    register_split_files([own.split_file])
    (own.folder / "images" / "pic_300.png").write_bytes(b"broken")
    cfg = _cfg("panoptic", "coco_panoptic_lsj", 1, "INPUT.ON_CORRUPT", "skip")
    names = {example["file_name"] for batch in _batches(cfg, 8) for example in batch}
    assert len(names) == 2 and not any("pic_300" in name for name in names)
    with pytest.raises(Exception, match="pic_300.png"):
        _batches(_cfg("panoptic", "coco_panoptic_lsj", 0), 8)


def test_evaluation_covers_every_image_once(own):
    register_split_files([own.split_file])
    cfg = _cfg("semantic", "mask_former_semantic")
    loader = build_detection_test_loader(cfg, "own_val_semantic", mapper=build_mapper(cfg, is_train=False))
    names = [example["file_name"] for batch in loader for example in batch]
    assert len(names) == len(set(names)) == len(loader) == 5
    assert all(np.char.endswith(names, ".png"))
