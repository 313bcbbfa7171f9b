"""From split file to metrics on drawn data; wrong here means that truth itself would not be scored as perfect."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from panopticapi.utils import rgb2id
from PIL import Image

from PADing.config import load_config
from PADing.data.registration import register_split
from PADing.data.splits import split_from_dict
from PADing.evaluation import build_evaluator

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The mini data set, a few images, under names of its own: ``{shipped name: name}``. Some come without files."""
    folder = tmp_path_factory.mktemp("drawn") / "mini"
    script = REPOSITORY / "datasets" / "make_mini_coco.py"
    command = [sys.executable, str(script), "--out", str(folder), "--train", "2", "--val", "8", "--size", "64"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    content = yaml.safe_load((REPOSITORY / "datasets" / "splits" / "mini.yaml").read_text())
    bare = next(dict(d) for d in content["data_sets"] if d["name"] == "mini_val_panoptic")
    bare["name"] = "bare_val_panoptic"
    del bare["json"], bare["sem_seg_root"]
    content["data_sets"].append(bare)
    content["name"] = "evaluation_mini"
    names = {}
    for entry in content["data_sets"]:
        names[entry["name"]] = entry["name"] = f"evaluation_{entry['name']}"
    register_split(split_from_dict(content, str(folder / "split.yaml")), root=str(folder.parent))
    yield names
    for name in names.values():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _cfg():
    switches = [f"MODEL.MASK_FORMER.TEST.{task}_ON" for task in ("SEMANTIC", "INSTANCE", "PANOPTIC")]
    return load_config("", [item for switch in switches for item in (switch, True)] + ["TEST.SEM_SEG_NAN_AWARE", True])


def _read(path):
    return np.asarray(Image.open(path))


def _panoptic_truth(record, classes):
    ids = rgb2id(_read(record["pan_seg_file_name"]))
    masks = [(s["category_id"], s["isthing"], ids == s["id"]) for s in record["segments_info"]]
    things = [(label, mask) for label, isthing, mask in masks if isthing]
    semantic = torch.zeros(classes, *ids.shape)
    for label, _, mask in masks:
        semantic[label][torch.as_tensor(mask)] = 1
    segments = [{key: s[key] for key in ("id", "category_id", "isthing")} for s in record["segments_info"]]
    return {
        "panoptic_seg": (torch.as_tensor(ids), segments),
        "instances": _instances(things, ids.shape),
        "sem_seg": semantic,
    }


def _instances(labelled_masks, size):
    instances = Instances(size)
    masks = np.array([mask for _, mask in labelled_masks], dtype=np.uint8).reshape(-1, *size)
    boxes = [mask_util.toBbox(mask_util.encode(np.asfortranarray(mask))) for mask in masks]
    boxes = torch.as_tensor(np.array(boxes).reshape(-1, 4))
    boxes[:, 2:] += boxes[:, :2]
    instances.pred_boxes = Boxes(boxes)
    instances.pred_classes = torch.tensor([label for label, _ in labelled_masks], dtype=torch.int64)
    instances.scores = torch.linspace(0.5, 1, len(labelled_masks))
    instances.pred_masks = torch.as_tensor(masks).bool()
    return instances


def _evaluate(name, folder, truth_of):
    evaluator = build_evaluator(_cfg(), name, str(folder))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [truth_of(record)])
    return evaluator.evaluate()


@pytest.mark.parametrize("kind", ["mini_val_panoptic", "bare_val_panoptic"])
def test_panoptic_truth_is_perfect_with_and_without_files_for_the_other_tasks(mini, kind, tmp_path):
    name = mini[kind]
    classes = len(MetadataCatalog.get(name).stuff_classes)
    results = _evaluate(name, tmp_path, lambda record: _panoptic_truth(record, classes))
    assert list(results) == ["panoptic_seg", "bbox", "segm", "sem_seg"]
    for metric in ("PQ", "PQ_th", "PQ_st"):
        assert results["panoptic_seg"][metric] == pytest.approx(100)
    for metric in ("AP", "AP50_seen", "AP50_unseen", "AP50_hm", "AR50_unseen"):
        assert results["segm"][metric] == pytest.approx(100)
        assert results["bbox"][metric] == pytest.approx(100)
    for metric in ("mIoU", "pACC", "seen_IoU", "unseen_IoU", "hIoU"):
        assert results["sem_seg"][metric] == pytest.approx(100)
    files = {path.name for path in tmp_path.iterdir()}
    assert {"panoptic_results.json", "instance_results.json", "sem_seg_results.json"} <= files


@pytest.mark.parametrize("kind", ["mini_val_instance", "mini_val_instance_unseen_only"])
def test_instance_truth_is_perfect(mini, kind, tmp_path):
    def truth(record):
        size = (record["height"], record["width"])
        masks = []
        for annotation in record["annotations"]:
            rle = annotation["segmentation"]
            if isinstance(rle, list):
                rle = mask_util.merge(mask_util.frPyObjects(rle, *size))
            masks.append((annotation["category_id"], mask_util.decode(rle)))
        return {"instances": _instances(masks, size)}

    results = _evaluate(mini[kind], tmp_path, truth)
    assert results["segm"]["AP"] == pytest.approx(100)
    if kind.endswith("unseen_only"):
        assert list(results["segm_zsi"].values()) == pytest.approx([100] * 6)
    else:
        assert results["segm"]["AP50_hm"] == pytest.approx(100)


def test_semantic_truth_is_perfect(mini, tmp_path):
    name = mini["mini_val_semantic"]
    classes = len(MetadataCatalog.get(name).stuff_classes)

    def truth(record):
        labels = torch.as_tensor(_read(record["sem_seg_file_name"]).astype(np.int64))
        labels[labels == 255] = 0  # a model has no "ignore"
        return {"sem_seg": torch.nn.functional.one_hot(labels, classes).permute(2, 0, 1)}

    result = _evaluate(name, tmp_path, truth)["sem_seg"]
    assert result["mIoU"] == pytest.approx(100) and result["hIoU"] == pytest.approx(100)
