"""Computes query features and generated features of a PADing run, for the report's map.

    python -m minibench.analysis output/minibench/runs/pading-seed1-0123456789 --data output/minibench/data/...

writes ``analysis.npz`` into the run's folder, unless a file is there that is newer than the weights.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.structures import Instances

from minibench.report.embeddings import ANALYSIS, analysis_is_fresh
from minibench.report.predictions import Validation, open_validation
from PADing.command_line import CommandParser, run_command
from PADing.config import load_config
from PADing.errors import UserError
from PADing.files import replacing
from PADing.generation import PADing
from PADing.inference import load_model
from PADing.visualization import from_record, read_rgb

logger = logging.getLogger(__name__)
# Number of images, and of generated features for each unseen class.
IMAGES, SAMPLES = 300, 100
SEED = 0


def analyse(run_folder: Path, root: Path, images: int = IMAGES, samples: int = SAMPLES) -> Path:
    """Write ``analysis.npz`` into a run's folder; returns its path.

    Its arrays: ``real`` (M, d) float32, the features of the queries that are matched with ground truth of validation
    images; ``generated`` (U * samples, d) float32, ``real_class`` and ``generated_class`` int64 by contiguous id, the
    class ``names`` and the ``unseen`` ids.

    Args:
        run_folder: of a PADing run, with ``config.yaml`` and ``model_final.pth``. root: its ``$DETECTRON2_DATASETS``.
        images: number of validation images, from the first. samples: for each unseen class.

    Raises:
        UserError: the run has no weights or data, or its model generates no features.
    """
    validation = open_validation(run_folder, root)
    opts = ["MODEL.WEIGHTS", str(run_folder / "model_final.pth"), "MODEL.DEVICE", "cpu"]
    embeddings = [root / "class_vectors.npz"]  # the config's path is wrong if the benchmark's folder was moved
    embeddings = embeddings if embeddings[0].is_file() else list(root.glob("*/class_vectors.npz"))
    opts += ["MODEL.CLASS_EMBEDDINGS", str(embeddings[0])] if len(embeddings) == 1 else []
    cfg = load_config(run_folder / "config.yaml", opts)
    # Matching and the generator draw random numbers.
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = load_model(cfg)
        if not isinstance(model, PADing) or model.classes.missing:
            raise UserError(f"{run_folder} is not a PADing run with class embeddings, so it generates no features.")
        real, real_class = query_features(model, cfg, validation, images)
        generated = generated_features(model, samples)
    names, unseen = np.array(validation.names), np.array(sorted(validation.unseen))
    made_class = np.repeat(model.classes.unseen.numpy(), samples)
    content = {"real": real, "real_class": real_class, "generated_class": made_class, "names": names, "unseen": unseen}
    with replacing(run_folder / ANALYSIS) as temporary:
        made = generated.reshape(-1, generated.shape[-1])
        np.savez_compressed(temporary, allow_pickle=False, generated=made, **content)
    logger.info("%d query and %d generated features: %s", len(real), generated.size, run_folder / ANALYSIS)
    return run_folder / ANALYSIS


@torch.no_grad()
def query_features(model: PADing, cfg: CfgNode, validation: Validation, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of the queries that match a ground-truth segment: (M, d) float32, and their classes (M,) int64."""
    features, classes = [], []
    for sample in _samples(cfg, validation, images):
        found, _, labels, matched = model.match([sample])
        features.append(found[matched].numpy())
        classes.append(labels.numpy())
    return np.concatenate(features), np.concatenate(classes)


@torch.no_grad()
def generated_features(model: PADing, samples: int = SAMPLES) -> np.ndarray:
    """(U, samples, d) float32, with noise and dropout, as in training."""
    generator, unseen = model.feature_generator, model.classes.unseen_embeddings
    training = model.training
    generator.train()
    queries = generator.fc_projection(unseen).repeat_interleave(samples, dim=0)
    try:
        generated = generator.generate(queries)
    finally:
        generator.train(training)
    return generated.reshape(len(unseen), samples, -1).numpy()


def _samples(cfg: CfgNode, validation: Validation, images: int) -> Iterator[dict]:
    """Validation images with their annotation, in the size of the evaluation, without augmentation."""
    size = cfg.INPUT.MIN_SIZE_TEST
    resize = T.ResizeShortestEdge((size, size), cfg.INPUT.MAX_SIZE_TEST)
    for record in validation.records[:images]:
        image, truth = read_rgb(record["file_name"]), from_record(record)
        image = image[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else image
        transform = resize.get_transform(image)
        # Whole numbers as floats: only floats and uint8 can be resized to the nearest pixel.
        image, ids = transform.apply_image(image), transform.apply_segmentation(truth.ids.astype(np.float64))
        shown = [segment for segment in truth.classes if (ids == segment).any()]
        if not shown:
            continue
        instances = Instances(ids.shape)
        instances.gt_classes = torch.tensor([truth.classes[segment] for segment in shown])
        instances.gt_masks = torch.from_numpy(np.stack([ids == segment for segment in shown]))
        yield {"image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), "instances": instances}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("run_folder", type=Path, help="output folder of a PADing run")
    default = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    parser.add_argument("--data", type=Path, default=default, help="folder of its data sets")
    parser.add_argument("--images", type=int, default=IMAGES, help="number of validation images")
    return run_command(_work, parser.parse_args(argv))


def _work(args: argparse.Namespace) -> None:
    run_folder = args.run_folder.absolute()
    if not analysis_is_fresh(run_folder):
        analyse(run_folder, args.data.absolute(), args.images)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
