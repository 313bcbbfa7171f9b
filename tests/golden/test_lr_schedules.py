"""Learning rates of every shipped config, iteration by iteration, and what PADing's trainer is made of."""

import json
import warnings

import pytest
import torch
from detectron2.data import DatasetCatalog

from PADing.config import load_config
from PADing.engine.trainer import Trainer
from tests.golden.class_vectors import embedding_overrides
from tests.golden.util import GOLDEN, REPOSITORY, requires_golden

pytestmark = requires_golden


def recorded() -> dict:
    path = GOLDEN / "lr_schedules.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def schedules() -> list:
    parts = {owner: part["schedules"] for owner, part in recorded().items() if "schedules" in part}
    return [(owner, config) for owner, part in parts.items() for config in part]


@pytest.mark.parametrize(("owner", "config"), schedules())
def test_learning_rate_by_iteration(owner, config):
    """A schedule that is off by one iteration or by a warm-up changes what a published config means."""
    want = recorded()[owner]["schedules"][config]
    cfg = load_config(REPOSITORY / "configs" / config)
    rate = {"SOLVER.BASE_LR": cfg.SOLVER.BASE_LR, "SOLVER.GENERATOR_LR": cfg.SOLVER.GENERATOR_LR}[want["initial"]]
    assert (cfg.SOLVER.MAX_ITER, list(cfg.SOLVER.STEPS)) == (want["max_iter"], want["steps"])
    assert cfg.SOLVER.LR_SCHEDULER_NAME == want["scheduler"]
    if "classifier_lr_constant" in want:
        assert cfg.SOLVER.BASE_LR == want["classifier_lr_constant"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # steps beyond the end, optimizer never stepped
        scheduler = Trainer.build_lr_scheduler(cfg, optimizer)
        for iteration, value in want["lr_used_at_iteration"]:
            # Closed form: as if all iterations before had been stepped through.
            scheduler.last_epoch = iteration
            got = scheduler.get_lr()[0]
            assert got == pytest.approx(value, rel=1e-9, abs=1e-18), f"iteration {iteration}"


@pytest.mark.parametrize("task", recorded().get("pading_trainer", {}))
def test_pading_trainer_is_made_of_the_recorded_parts(task, tmp_path):
    """Optimizer 1 is scheduled, 2 is not; parameters come in the order by which published checkpoints index them."""
    want = recorded()["pading_trainer"][task]
    cfg = trainer_config(task, tmp_path)
    name = cfg.DATASETS.TRAIN[0]
    loader = DatasetCatalog.pop(name)
    DatasetCatalog.register(name, lambda: [{"file_name": "unread.jpg", "height": 8, "width": 8, "image_id": 0}])
    try:
        trainer = Trainer(cfg)
    finally:
        DatasetCatalog.pop(name)
        DatasetCatalog.register(name, loader)
    names = {id(p): key for key, p in trainer.model.named_parameters()}
    assert [entry["attribute"] for entry in want["optimizers"]] == list(trainer.recipe.optimizers)
    for entry in want["optimizers"]:
        optimizer = trainer.recipe.optimizers[entry["attribute"]]
        assert type(optimizer).__name__ == entry["type"]
        assert len(optimizer.param_groups) == len(entry["groups"])
        for group, recorded_group in zip(optimizer.param_groups, entry["groups"], strict=True):
            assert [names[id(p)] for p in group["params"]] == recorded_group["parameters"]
            for key, value in recorded_group.items():
                # The setting that newer versions of PyTorch have; Adam has no other decay in older ones.
                if key not in {"parameters", "decoupled_weight_decay"} - group.keys():
                    got = list(group[key]) if isinstance(group[key], tuple) else group[key]
                    assert got == value, key
    scheduled = getattr(trainer, want["scheduler_drives"])
    assert trainer.scheduler.optimizer is scheduled
    assert type(trainer.scheduler).__name__ == want["scheduler"]
    own = ("TimedCheckpoint", "StopHook", "ProgressHook")  # by time, for signals, and for the progress bar
    hooks = [type(hook).__name__ for hook in trainer._hooks]
    assert [name for name in hooks if name not in own] == want["hooks_in_order"]
    assert set(want["checkpointables"]) <= set(trainer.checkpointer.checkpointables)


def trainer_config(task, tmp_path):
    config = REPOSITORY / "configs" / f"{task}-segmentation" / "PADing.yaml"
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "SOLVER.AMP.ENABLED", False, "OUTPUT_DIR", str(tmp_path)]
    opts += ["DATALOADER.NUM_WORKERS", 0, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False]
    vectors = embedding_overrides(load_config(config), tmp_path)
    return load_config(config, opts + [item for pair in vectors.items() for item in pair])
