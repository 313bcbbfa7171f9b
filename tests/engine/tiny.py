"""A data set without files and two networks without images: what the trainer needs, and nothing that takes time."""

import random

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn
from torch.nn import functional as F

from PADing.config import load_config
from PADing.engine.stream import build_stream_loader
from PADing.engine.trainer import Trainer

DATA = "tiny_numbers"
WIDTH = 6


def mapper(record):
    """A vector that depends on the image and on all three random generators."""
    noise = torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])
    x = torch.cat([torch.full((WIDTH - 3,), float(record["image_id"])) / 10, noise])
    return {**record, "x": x}


class TinyBase(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(8, 2)
        self.seen = []

    @property
    def device(self):
        return self.head.weight.device

    def inputs(self, batch):
        self.seen.append([sample["image_id"] for sample in batch])
        x = torch.stack([sample["x"] for sample in batch]).to(self.device)
        return x, x.sum(1, keepdim=True).repeat(1, 2)


@META_ARCH_REGISTRY.register()
class TinyOneOptimizer(TinyBase):
    def forward(self, batch):
        if not self.training:
            torch.rand(3)
            return [{} for _ in batch]
        x, y = self.inputs(batch)
        out = self.head(self.net(x))
        return {"loss_square": F.mse_loss(out, y), "loss_small": 1e-3 * out.abs().mean()}


@META_ARCH_REGISTRY.register()
class TinyTwoSteps(TinyBase):
    """The protocol of PADing's second stage: a generator (net) and a classifier (head)."""

    training_recipe = "GeneratorClassifier"

    def begin_second_stage(self):
        self.begun = True

    def learn_from(self, weights, score, max_overlap):
        """There is no second round."""

    def generator_parameters(self):
        return list(self.net.parameters())

    def classifier_parameters(self):
        return list(self.head.parameters())

    def forward(self, batch, *, real_embeddings=None, target_classes=None):
        if not self.training:
            return [{} for _ in batch]
        if real_embeddings is not None:
            fake = self.net(real_embeddings).detach()
            return {"dis_loss": F.mse_loss(self.head(fake), target_classes)}
        x, y = self.inputs(batch)
        return {"generate_loss": F.mse_loss(self.head(self.net(x)), y)}, x, y


class Evaluator(DatasetEvaluator):
    """Counts images, and draws random numbers as some evaluators may."""

    def reset(self):
        self.count = 0

    def process(self, inputs, outputs):
        self.count += len(inputs)
        random.random()
        np.random.rand()

    def evaluate(self):
        return {"tiny": {"images": float(self.count)}}


class TinyTrainer(Trainer):
    """``stop_before``: raise at the beginning of this iteration, as if the process had been killed."""

    stop_before = None

    @classmethod
    def build_train_loader(cls, cfg):
        return build_stream_loader(cfg, mapper)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return [[mapper(record)] for record in DatasetCatalog.get(dataset_name)]

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return Evaluator()

    def before_step(self):
        super().before_step()
        if self.iter == self.stop_before:
            raise KeyboardInterrupt


def register(n=11):
    if DATA in DatasetCatalog:
        return
    # Wide and tall images in an order that leaves some in the grouping's buckets.
    sizes = [(20, 10) if i % 3 else (10, 20) for i in range(n)]
    records = [{"image_id": i, "width": w, "height": h, "file_name": ""} for i, (w, h) in enumerate(sizes)]
    DatasetCatalog.register(DATA, lambda: [dict(record) for record in records])
    MetadataCatalog.get(DATA).set(evaluator_type="tiny")


def config(folder, *opts, architecture="TinyOneOptimizer"):
    register()
    base = {
        "MODEL.META_ARCHITECTURE": architecture,
        "MODEL.DEVICE": "cpu",
        "DATASETS.TRAIN": (DATA,),
        "DATASETS.TEST": (DATA,),
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.GENERATOR_LR": 0.01,
        "SOLVER.MAX_ITER": 8,
        "SOLVER.STEPS": (6,),
        "SOLVER.WARMUP_ITERS": 3,
        "SOLVER.CHECKPOINT_PERIOD": 3,
        "TEST.EVAL_PERIOD": 2,
        "SEED": 3,
        "OUTPUT_DIR": str(folder),
    }
    return load_config("", [*(item for pair in base.items() for item in pair), *opts])
