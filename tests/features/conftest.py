"""Feature folders of a small untrained model on drawn images."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.drawn_mini import drawn_mini


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """Ten training and three validation images, a small PADing with random weights, and its feature folders."""
    from PADing.commands.features import main
    from PADing.config import load_config
    from PADing.engine.trainer import Trainer
    from tests.small_models import REPOSITORY, SMALL

    folder = tmp_path_factory.mktemp("features")
    with drawn_mini(folder / "mini", "feat_", train=10, val=3) as split:
        values = {
            **SMALL,
            "MODEL.CLASS_EMBEDDINGS": folder / "mini" / "class_vectors.npz",
            "DATASETS.TRAIN": ("feat_mini_train_panoptic",),
            "DATASETS.TEST": ("feat_mini_val_panoptic",),
            "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.0,
            "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": 0.0,
            "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 9,
            "SOLVER.IMS_PER_BATCH": 3,
            "SOLVER.MAX_ITER": 5,
            "SEED": 4,
        }
        options = [str(item) for pair in values.items() for item in pair]
        config = str(REPOSITORY / "configs" / "mini" / "panoptic-PADing.yaml")
        torch.manual_seed(1)
        model = Trainer.build_model(load_config(config, options))
        nn.init.normal_(model.new_fc.weight, std=0.3)
        weights = folder / "start.pth"
        torch.save({"model": model.state_dict()}, weights)
        options += ["MODEL.WEIGHTS", str(weights)]
        made = SimpleNamespace(folder=folder, config=config, options=options, split=split, weights=weights)

        def command(name: str, *flags: str | Path, opts: tuple = ()) -> int:
            words = [name, *map(str, flags)]
            if name in ("write", "train", "eval"):
                words += ["--config-file", config, "--num-gpus", "0", *options, *map(str, opts)]
            return main(words)

        made.command = command
        exact = ("--dtype", "float32")
        assert command("write", "--part", "train", "--output", folder / "train", "--passes", "2", *exact) == 0
        assert command("write", "--part", "val", "--output", folder / "val", "--masks", "float32", *exact) == 0
        yield made


@pytest.fixture
def copied(scene, tmp_path):
    """``copied("train")``: a copy of a feature folder, to be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(scene.folder / name, tmp_path / name))

    return copy
