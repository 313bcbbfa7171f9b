"""Unreadable images in evaluation: named, or left out of every metric with a result that says so."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances

from PADing.config import load_config
from PADing.data.dataset_mappers import CorruptFile
from PADing.data.registration import register_split_files
from PADing.engine.trainer import Trainer
from PADing.errors import UserError


class _Guesses(torch.nn.Module):
    """Answers that depend on the image alone: some right, some wrong."""

    def forward(self, batch):
        return [self._answer(record) for record in batch]

    def _answer(self, record):
        height, width = record["height"], record["width"]
        rng = np.random.default_rng(record["image_id"])
        ids = torch.ones(height, width, dtype=torch.int64)
        ids[5:15, 5:20] = 2
        instances = Instances((height, width))
        blob = torch.zeros(height, width, dtype=torch.bool)
        blob[4:14, 20:45] = True  # right for image 300
        instances.pred_masks = torch.stack([ids == 2, blob])
        instances.scores, instances.pred_classes = torch.from_numpy(rng.random(2)), torch.tensor([0, 0])
        segments = [{"id": 1, "category_id": 3, "isthing": False}, {"id": 2, "category_id": 0, "isthing": True}]
        scores = torch.from_numpy(rng.random((5, height, width)))
        return {"panoptic_seg": (ids, segments), "instances": instances, "sem_seg": scores}


def _cfg(tmp_path, *opts):
    test = "MODEL.MASK_FORMER.TEST."
    return load_config(
        "",
        [
            *("DATASETS.TEST", '("own_val_panoptic",)', "OUTPUT_DIR", str(tmp_path / "out")),
            *(f"{test}PANOPTIC_ON", True, f"{test}INSTANCE_ON", True, f"{test}SEMANTIC_ON", True),
            *("INPUT.MIN_SIZE_TEST", 40, "INPUT.FORMAT", "RGB", "DATALOADER.NUM_WORKERS", 0, *opts),
        ],
    )


def _without(own, image_id):
    own.panoptic["images"] = [image for image in own.panoptic["images"] if image["id"] != image_id]
    own.panoptic["annotations"] = [a for a in own.panoptic["annotations"] if a["image_id"] != image_id]
    own.write()
    for name in [name for name in DatasetCatalog.list() if name.startswith("own_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_metrics_are_those_without_the_unreadable_image(own, tmp_path, caplog):
    """Otherwise one bad file would lower some metrics and not others; and nobody must take them for all images'."""
    register_split_files([own.split_file])
    (own.folder / "images" / "pic_900.png").write_bytes(b"broken")
    skipped = Trainer.test(_cfg(tmp_path, "INPUT.ON_CORRUPT", "skip"), _Guesses())
    assert skipped.pop("left_out") == {"images": 1}
    assert json.loads((tmp_path / "out" / "results.json").read_text())["own_val_panoptic"]["left_out"] == {"images": 1}
    assert "pic_900.png" in caplog.text and "not comparable" in caplog.text
    _without(own, 900)
    register_split_files([own.split_file])
    wanted = Trainer.test(_cfg(tmp_path), _Guesses())
    assert {"panoptic_seg", "sem_seg", "segm"} <= wanted.keys() == skipped.keys()
    for task, metrics in wanted.items():
        assert metrics == pytest.approx(skipped[task], nan_ok=True), task
    assert wanted["panoptic_seg"]["PQ"] > 0 and wanted["segm"]["AP50"] > 0


def test_unreadable_image_is_fatal_by_default_and_named(own, tmp_path):
    register_split_files([own.split_file])
    path = own.folder / "images" / "pic_12.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(CorruptFile, match=f"{path}.*INPUT.ON_CORRUPT skip"):
        Trainer.test(_cfg(tmp_path), _Guesses())


def test_no_readable_image_and_evaluators_that_cannot_leave_out(own, tmp_path):
    """Metrics over nothing, and metrics that count what is not there, are refused."""
    register_split_files([own.split_file])
    cfg = _cfg(tmp_path, "INPUT.ON_CORRUPT", "skip")

    class Counts(DatasetEvaluator):
        def evaluate(self):
            return {}

    images = sorted((own.folder / "images").iterdir())
    images[0].write_bytes(b"broken")
    with pytest.raises(UserError, match="Counts cannot leave out unreadable images.*leave_out"):
        Trainer.test(cfg, _Guesses(), [Counts()])
    for path in images:
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="No image of the evaluation set can be read"):
        Trainer.test(cfg, _Guesses())


def test_thin_images_are_named(own, tmp_path):
    """Of 1 x 5000 pixels nothing is left after resizing; that is one message, not a traceback of Pillow's."""
    from PIL import Image

    register_split_files([own.split_file])
    Image.new("RGB", (5000, 1)).save(own.folder / "images" / "pic_5.png")
    own.panoptic["images"][1].update(height=1, width=5000)
    own.write()
    with pytest.raises(CorruptFile, match="pic_5.png of 1 x 5000 pixels.*too thin"):
        Trainer.test(_cfg(tmp_path), _Guesses())


def test_metrics_of_the_first_images_are_those_of_a_smaller_set(own, tmp_path, caplog):
    """Annotation of images that are not evaluated would count as missed objects."""
    register_split_files([own.split_file])
    few = Trainer.test(_cfg(tmp_path, "TEST.MAX_IMAGES", 1), _Guesses())
    left_out = few.pop("left_out")["images"]
    assert left_out > 0 and "those of a trial" in caplog.text
    images = sorted((own.folder / "images").iterdir())
    assert left_out < len(images)
    plenty = Trainer.test(_cfg(tmp_path, "TEST.MAX_IMAGES", 1000), _Guesses())
    assert "left_out" not in plenty
