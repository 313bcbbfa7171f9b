"""Metrics on miniatures of the evaluation sets, compared with slow computations from what was drawn."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from PADing.class_space import ClassSpace
from PADing.commands.evaluation_set import main
from PADing.config import load_config
from PADing.data.embeddings import save_class_embeddings
from PADing.data.registration import register_split
from PADing.data.splits import evaluation_split_files, load_split
from PADing.engine.predicted_classes import predicted_classes
from PADing.engine.trainer import Trainer
from PADing.meta_arch.contract import ModelContract
from PADing.meta_arch.named_classes import NamedClasses
from tests.end_to_end.command_line import SMALL
from tests.evaluation.metrics_by_hand import ap_by_hand, average, iou_by_hand, pq_by_hand
from tests.fake_downloads import DOWNLOADS

SPLITS = dict(zip(("ade20k", "cityscapes", "context", "voc"), map(load_split, evaluation_split_files()), strict=True))


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """All four downloads, prepared: the data root and the truth by set."""
    root = tmp_path_factory.mktemp("downloads")
    truth = {name: download(root) for name, download in DOWNLOADS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        for name in DOWNLOADS:
            assert main([name, "--workers", "1", "--subset"]) == 0
    return root, truth


@contextmanager
def registered(root: Path):
    for split in SPLITS.values():
        register_split(split, root=str(root))
    try:
        yield
    finally:
        for split in SPLITS.values():
            register_split(split)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Random vectors of all names: COCO's classes of both splits, and those of the four sets."""
    coco = [load_split(f"datasets/splits/{name}.yaml") for name in ("coco_panoptic_119_14", "coco_zsi_65_15")]
    names = list(dict.fromkeys(name for split in (*coco, *SPLITS.values()) for name in split.names_to_embed()))
    path = tmp_path_factory.mktemp("vectors") / "all.npz"
    save_class_embeddings(path, names, np.random.RandomState(0).randn(len(names), 16).astype(np.float32), "drawn")
    return str(path)


CONFIGS = {
    "PADing": ("configs/panoptic-segmentation/PADing.yaml", ["MODEL.MASK_FORMER.DEC_LAYERS", "2"]),
    "D2Zero": ("configs/d2zero_65_15.yaml", ["MODEL.D2ZERO.SEMANTIC_DIM", "16"]),
}


@pytest.fixture(scope="module")
def models(vectors):
    made = {}

    def function(method: str, *further):
        file, own = CONFIGS[method]
        test = "MODEL.MASK_FORMER.TEST"
        common = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.CLASS_EMBEDDINGS", vectors]
        common += ["MODEL.MASK_FORMER.VEC_PATH", "None"]
        common += [f"{test}.OBJECT_MASK_THRESHOLD", "0.0", f"{test}.OVERLAP_THRESHOLD", "0.0"]
        cfg = load_config(file, [*SMALL, *common, *own, *map(str, further)])
        if method not in made:
            torch.manual_seed(1)
            made[method] = build_model(cfg).eval()
        return cfg, made[method]

    return function


def image_name(path) -> str:
    """The name of an image below the image folder."""
    return re.sub(r".*/(images/validation|JPEGImages|leftImg8bit/val)/", "", str(path))


def predictions(cfg, model, data_set: str):
    """Image name -> the model's results."""
    loader, found = Trainer.build_test_loader(cfg, data_set), {}
    with predicted_classes(cfg, model, data_set), torch.no_grad():
        for batch in loader:
            found[image_name(batch[0]["file_name"])] = model(batch)[0]
    return found


class Noisy(torch.nn.Module, ModelContract):
    """Predicts the truth with errors, by the names of its vocabulary: shifted masks, wrong classes, missed objects."""

    def __init__(self, truth):
        super().__init__()
        self.truth, self.names = truth, ()

    def set_vocabulary(self, vocabulary):
        self.names = vocabulary.space.class_names if vocabulary else ()
        self.things = vocabulary.space.things if vocabulary else frozenset()

    def forward(self, batch):
        truth = self.truth[image_name(batch[0]["file_name"])]
        wanted = list(truth.objects)
        stuff = set(truth.classes.ravel()) - {""} - {label for label, *_ in wanted}
        wanted = [(label, truth.classes == label, False) for label in sorted(stuff)] + wanted
        wanted = [one for one in wanted if one[0] in self.names]  # an instance set has no stuff
        ids, listed = torch.zeros(truth.classes.shape, dtype=torch.int32), []
        scores = torch.zeros(len(self.names), *truth.classes.shape)
        masks, labels = [], []
        for k, (name, mask, _) in enumerate(wanted, 1):
            label = (self.names.index(name) + (k % 3 == 0)) % len(self.names)
            moved = torch.from_numpy(np.roll(mask, k % 4, axis=1))
            scores[:, moved], scores[label, moved] = 0.0, 1.0
            if k % 5 == 4:
                continue
            ids[moved] = k
            listed.append({"id": k, "category_id": label, "isthing": label in self.things})
            if label in self.things or not self.things:
                masks.append(moved.float())
                labels.append(label)
        result = Instances(truth.classes.shape)
        result.pred_masks = torch.stack(masks) if masks else torch.zeros(0, *truth.classes.shape)
        result.pred_boxes = Boxes(torch.zeros(len(masks), 4))
        result.scores = 1 / torch.arange(1.0, len(masks) + 1)
        result.pred_classes = torch.tensor(labels, dtype=torch.int64)
        return [{"panoptic_seg": (ids, listed), "sem_seg": scores, "instances": result}]


CASES = [
    ("noisy", "ade20k", "ade20k_val_panoptic", ("panoptic_seg", "sem_seg", "segm")),
    ("noisy", "ade20k", "ade20k_val_semantic", ("sem_seg",)),
    ("noisy", "ade20k", "ade20k_val_instance", ("segm",)),
    ("noisy", "cityscapes", "cityscapes_val_panoptic", ("panoptic_seg", "sem_seg", "segm")),
    ("noisy", "cityscapes", "cityscapes_val_semantic", ("sem_seg",)),
    ("noisy", "cityscapes", "cityscapes_val_instance", ("segm",)),
    ("noisy", "context", "context_val_semantic", ("sem_seg",)),
    ("noisy", "voc", "voc_val_semantic", ("sem_seg",)),
    ("noisy", "voc", "voc_val_instance", ("segm",)),
    ("PADing", "cityscapes", "cityscapes_val_panoptic", ("panoptic_seg", "sem_seg", "segm")),
    ("PADing", "voc", "voc_val_semantic", ("sem_seg",)),
    ("D2Zero", "cityscapes", "cityscapes_val_instance", ("segm",)),
]


@pytest.mark.parametrize(("method", "name", "data_set", "tasks"), CASES)
def test_metrics(downloads, models, tmp_path, method, name, data_set, tasks):
    """Metrics are those of the drawing's truth, over all classes and over each group of classes."""
    root, truths = downloads
    noisy = method == "noisy"
    method = method if not noisy else "D2Zero" if tasks == ("segm",) else "PADing"
    cfg, model = models(method, "DATASETS.TEST", f"('{data_set}',)", "OUTPUT_DIR", tmp_path)
    if noisy:
        model = Noisy(truths[name]).eval()
    with registered(root):
        results = Trainer.test(cfg, model)
        space = ClassSpace.of(MetadataCatalog.get(data_set))
        groups = NamedClasses(cfg, MetadataCatalog.get(data_set)).groups
        found = predictions(cfg, model, data_set)
    names, truth = list(space.class_names), truths[name]
    things = {c.name for c in SPLITS[name].categories if c.isthing}
    by_hand = {
        "sem_seg": ("mIoU", lambda: iou_by_hand(found, truth, names)),
        "panoptic_seg": ("PQ", lambda: pq_by_hand(found, truth, names, things)),
        "segm": ("AP", lambda: ap_by_hand(found, truth, [n for n in names if n in things])),
    }
    assert set(truth) == set(found)
    for task in tasks:
        metric, function = by_hand[task]
        values = function()
        assert values and (not noisy or 0 < average(values.values()) < 100)
        assert results[task][metric] == pytest.approx(average(values.values()))
        for group, ids in groups.members.items():
            wanted = average(values[names[i]] for i in ids if names[i] in values)
            assert results[f"{task}_by_training"][f"{metric}_{group}"] == pytest.approx(wanted, nan_ok=True)
    written = json.loads((tmp_path / "results.json").read_text())[data_set]
    entry = written[f"{tasks[0]}_by_training"]
    assert entry["classes_seen"] + entry["classes_not_seen"] == entry["classes_all"] == len(names)
    assert entry["share_seen"] == pytest.approx(100 * entry["classes_seen"] / len(names))
