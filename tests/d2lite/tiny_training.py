"""A model of one weight that learns within 40 iterations, for the tests of trainers."""

import itertools
import json

import torch
from detectron2.config import get_cfg
from detectron2.engine import (
    DefaultTrainer,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn


@META_ARCH_REGISTRY.register()
class TinyRegression(nn.Module):
    """Fits y = 2 x; in training mode returns losses, else predictions."""

    def __init__(self, cfg):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, batch):
        x = torch.tensor([[d["x"]] for d in batch])
        out = self.layer(x)
        if not self.training:
            return [{"y": float(value)} for value in out]
        error = out - torch.tensor([[d["y"]] for d in batch])
        return {"loss_square": (error**2).mean(), "loss_abs": 0.1 * error.abs().mean()}


DATA = [{"x": float(i % 5) / 5, "y": 2.0 * (i % 5) / 5} for i in range(10)]


class ErrorEvaluator(DatasetEvaluator):
    def reset(self):
        self.errors = []

    def process(self, inputs, outputs):
        self.errors += [abs(i["y"] - o["y"]) for i, o in zip(inputs, outputs, strict=True)]

    def evaluate(self):
        return {"fit": {"error": sum(self.errors) / len(self.errors)}}


class Trainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return itertools.cycle([DATA[:5], DATA[5:]])

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return [[d] for d in DATA]

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return ErrorEvaluator()


def make_cfg(folder, *opts):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "TinyRegression", "OUTPUT_DIR", str(folder), "SEED", 1]
    )
    cfg.merge_from_list(["SOLVER.MAX_ITER", 40, "SOLVER.STEPS", (30,), "SOLVER.WARMUP_ITERS", 8, "SOLVER.BASE_LR", 0.1])
    cfg.merge_from_list(["SOLVER.CHECKPOINT_PERIOD", 10, "TEST.EVAL_PERIOD", 25, "DATASETS.TEST", ("tiny_test",)])
    cfg.merge_from_list(list(opts))
    cfg.freeze()
    return cfg


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
