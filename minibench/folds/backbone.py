"""Trains the backbone of the warm start to classify cut-out segments, before any segmenter trains.

A segmenter that starts from random weights learns masks at once, but after 1,000 iterations hardly any class of
version 2 (docs/minibench_v2.md). Mask2Former starts from ImageNet's weights. Here the world `warm-start` has their
role: its segments are the pictures, and the classes and their two parts are the labels.
"""

import json
import time
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn
from torch.nn import functional as F

from minibench.folds.crops import SIDE, Crops, cut, varied
from PADing.checkpoint_files import read_checkpoint, write_checkpoint
from PADing.class_space import ClassSpace
from PADing.data.mini import Category
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.meta_arch import SegmenterBase

__all__ = ["train_backbone"]

BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 1e-3, 0.05
PART_WEIGHT = 0.5  # of the losses of the two parts; that of the class has 1
_PERIOD = 100  # iterations from one saved state to the next


class Classifier(nn.Module):
    """A backbone with three linear classifiers on the means of its maps: of the class, and of its two parts.

    Args:
        cfg: of a segmenter, whose backbone and pixel statistics are used.
        categories: the classes, in the order of labels.
    """

    mean: Tensor
    std: Tensor
    targets: Tensor

    def __init__(self, cfg: CfgNode, categories: tuple[Category, ...]):
        super().__init__()
        model = Trainer.build_model(cfg)
        assert isinstance(model, SegmenterBase)
        self.backbone = model.backbone
        for name, values in (("mean", model.pixel_mean), ("std", model.pixel_std)):
            self.register_buffer(name, values.reshape(1, 3, 1, 1).clone(), persistent=False)
        parts = [sorted({category.parts[i] for category in categories}) for i in (0, 1)]
        width = sum(shape.channels or 0 for shape in self.backbone.output_shape().values())
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in (len(categories), *map(len, parts)))
        targets = [[n, *(parts[i].index(c.parts[i]) for i in (0, 1))] for n, c in enumerate(categories)]
        self.register_buffer("targets", torch.tensor(targets), persistent=False)  # (K, 3)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of the class and of both parts for images (B, 3, h, w) of 0 to 255."""
        maps = self.backbone((images - self.mean) / self.std)
        pooled = torch.cat([level.mean((2, 3)) for level in maps.values()], dim=1)
        return [head(pooled) for head in self.heads]

    def loss(self, logits: list[Tensor], labels: Tensor) -> Tensor:
        """Cross entropy of the class, and with ``PART_WEIGHT`` of its parts."""
        losses = [F.cross_entropy(own, self.targets[labels, i]) for i, own in enumerate(logits)]
        return losses[0] + PART_WEIGHT * (losses[1] + losses[2])


def train_backbone(cfg: CfgNode, categories: tuple[Category, ...], file: Path) -> None:
    """Train for ``SOLVER.MAX_ITER`` iterations, with ``metrics.json`` beside the file.

    A killed training continues from its last saved state with the same result: each iteration draws from its own
    generator.

    Args:
        cfg: names the training and the validation set. categories: their classes.
        file: gets the backbone's weights at the end.

    Raises:
        UserError: the loss became infinite or NaN, or the data are of other classes.
    """
    things = [category.isthing for category in categories]
    sets = [DatasetCatalog.get(cfg.DATASETS[key][0]) for key in ("TRAIN", "TEST")]
    if ClassSpace.of(MetadataCatalog.get(cfg.DATASETS.TRAIN[0])).class_names != tuple(c.name for c in categories):
        raise UserError("The data set has other classes than its world. Draw the data again.")
    crops, others = (cut(records, cfg.INPUT.FORMAT, things) for records in sets)
    run = _Run(cfg, categories, file.with_name("backbone_state.pth"))
    run.train(crops, torch.tensor(things), file.with_name("metrics.json"))
    with open(file.with_name("metrics.json"), "a", encoding="utf-8") as log:
        log.write(json.dumps({"iteration": run.done, **_accuracy(run.model, others)}) + "\n")
    # The counters of batches have no use in the frozen normalization of all later trainings.
    weights = {k: v for k, v in run.model.backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    write_checkpoint(file, {"model": {f"backbone.{key}": value for key, value in weights.items()}})
    run.state.unlink(missing_ok=True)


class _Run:
    """A training that is saved from time to time.

    Attributes:
        model: the classifier. done: finished iterations. state: the file of the saved state.
    """

    def __init__(self, cfg: CfgNode, categories: tuple[Category, ...], state: Path):
        seed_all_rng(cfg.SEED)
        self.seed, self.iterations, self.state, self.done = cfg.SEED, cfg.SOLVER.MAX_ITER, state, 0
        self.model = Classifier(cfg, categories).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        if state.is_file():
            saved = read_checkpoint(state, "State of the backbone's training")
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.done = saved["iteration"]

    def train(self, crops: Crops, colored: Tensor, log: Path) -> None:
        """Run the iterations that are left; ``colored``: (K,) bool, see ``varied``."""
        begun, before, right, losses = time.monotonic(), self.done, 0, list[float]()
        while self.done < self.iterations:
            hits, loss = self._step(crops, colored)
            right, self.done = right + hits, self.done + 1
            losses.append(loss)
            if self.done % _PERIOD == 0 or self.done == self.iterations:
                each = (time.monotonic() - begun) / (self.done - before)
                entry = {"iteration": self.done - 1, "eta_seconds": each * (self.iterations - self.done)}
                entry |= {"total_loss": sum(losses) / len(losses), "accuracy": 100 * right / (len(losses) * BATCH)}
                with open(log, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
                own = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
                write_checkpoint(self.state, {**own, "iteration": self.done})
                right, losses = 0, []

    def _step(self, crops: Crops, colored: Tensor) -> tuple[int, float]:
        """Number of rightly classified crops of a batch, and its loss."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.done)
        chosen = torch.randint(len(crops.labels), (BATCH,), generator=generator)
        labels = crops.labels[chosen]
        logits = self.model(varied(crops.images[chosen], colored[labels], generator))
        loss = self.model.loss(logits, labels)
        if not torch.isfinite(loss):
            raise UserError(f"The loss of the backbone's training is {loss.item()} in iteration {self.done}.")
        # Linear warm-up over a tenth, then linearly to zero.
        up, down = (self.done + 1) / (0.1 * self.iterations), (self.iterations - self.done) / (0.9 * self.iterations)
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(up, down)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return int((logits[0].argmax(1) == labels).sum()), loss.item()


@torch.no_grad()
def _accuracy(model: Classifier, crops: Crops) -> dict[str, float]:
    """Accuracy in percent on crops as they are: of the class and of its two parts."""
    model.eval()
    right, total = torch.zeros(3), 0
    for images, labels in zip(crops.images.split(100), crops.labels.split(100), strict=True):
        smaller = F.interpolate(images.float(), size=(SIDE, SIDE), mode="bilinear", antialias=True)
        targets = model.targets[labels]
        right += torch.stack([(own.argmax(1) == targets[:, i]).sum() for i, own in enumerate(model(smaller))])
        total += len(labels)
    model.train()
    values = (100 * right / max(total, 1)).tolist()
    return {key: round(v, 1) for key, v in zip(("val_accuracy", "val_part_1", "val_part_2"), values, strict=True)}
