"""A data set, an evaluator and a mapper of one's own; each takes one new file, and no edit of what is here."""

import sys

import pytest
import yaml

from PADing.config import load_config
from PADing.data.dataset_mappers import MAPPER_REGISTRY
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.evaluation import EVALUATOR_REGISTRY

PARTS = """
import torch
from detectron2.evaluation import DatasetEvaluator

from PADing.data.dataset_mappers import MAPPER_REGISTRY
from PADing.evaluation import EVALUATOR_REGISTRY


@MAPPER_REGISTRY.register("grey_squares")
class GreySquares:
    def __init__(self, cfg):
        self.side = cfg.INPUT.IMAGE_SIZE

    def __call__(self, record):
        return {**record, "image": torch.full((3, self.side, self.side), 128)}


class CountImages(DatasetEvaluator):
    def __init__(self, cfg, data_set, folder):
        self.data_set, self.count = data_set, 0

    def reset(self):
        self.count = 0

    def process(self, inputs, outputs):
        self.count += len(inputs)

    def evaluate(self):
        return {"count": {"images": self.count}}


EVALUATOR_REGISTRY.register("count_images")({"INSTANCE_ON": CountImages})
"""


@pytest.fixture
def options(own, monkeypatch):
    """Options that name the plug-in, and the split file, whose evaluation set asks for the new evaluator."""
    (own.folder / "own_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(own.folder))
    split = own.split()
    next(entry for entry in split["data_sets"] if entry["name"] == "own_val_instance")["evaluator"] = "count_images"
    own.split_file.write_text(yaml.safe_dump(split, allow_unicode=True), encoding="utf-8")
    yield [
        *("PLUGINS", "own_parts", "DATASETS.SPLIT_FILES", f"('{own.split_file}',)"),
        *("DATASETS.TRAIN", "('own_train_instance',)", "DATASETS.TEST", "('own_val_instance',)"),
        *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True, "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2),
    ]
    del sys.modules["own_parts"]
    MAPPER_REGISTRY.pop("grey_squares")
    EVALUATOR_REGISTRY.pop("count_images")


def test_a_data_set_with_an_evaluator_of_its_own(options):
    evaluator = Trainer.build_evaluator(load_config("", options), "own_val_instance")
    evaluator.process([{}, {}], [{}, {}])
    assert evaluator.evaluate() == {"count": {"images": 2}} and evaluator.data_set == "own_val_instance"


def test_a_mapper_is_chosen_by_its_name(options):
    cfg = load_config("", [*options, "INPUT.DATASET_MAPPER_NAME", "grey_squares", "INPUT.IMAGE_SIZE", 24])
    batch = next(iter(Trainer.build_train_loader(cfg)))
    assert len(batch) == 2 and all(example["image"].shape == (3, 24, 24) for example in batch)


def test_a_name_that_nobody_registered_is_refused_with_the_nearest_one(options, own):
    own.split_file.write_text(own.split_file.read_text(encoding="utf-8").replace("count_images", "count_image"))
    with pytest.raises(UserError, match=r"'count_image'.*\(did you mean count_images\?\)"):
        Trainer.build_evaluator(load_config("", options), "own_val_instance")
    with pytest.raises(UserError, match=r"'gray_squares'.*\(did you mean grey_squares\?\)"):
        Trainer.build_train_loader(load_config("", [*options, "INPUT.DATASET_MAPPER_NAME", "gray_squares"]))


def test_two_entries_of_one_name_are_refused():
    with pytest.raises(ValueError, match="already a mapper called 'default'"):
        MAPPER_REGISTRY.register("default")(dict)
