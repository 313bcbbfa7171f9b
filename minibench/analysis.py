"""What needs a trained model: real and generated class embeddings of a PADing run, for the report's map of them.

    python -m minibench.analysis output/minibench/runs/pading-seed1-0123456789 --data output/minibench/data/...

writes ``analysis.npz`` into the run's folder, unless it is there already and newer than the weights.
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

from minibench.report.predictions import ANALYSIS, Validation, analysis_is_fresh, open_validation
from PADing.command_line import run_command
from PADing.config import load_config
from PADing.errors import UserError
from PADing.files import replacing
from PADing.generation import generate
from PADing.inference import load_model
from PADing.meta_arch import PADing
from PADing.visualization import from_record, read_rgb

__all__ = ["analyse", "generated_embeddings", "real_embeddings"]

logger = logging.getLogger(__name__)
# Images looked at, and embeddings generated for each unseen class.
IMAGES, SAMPLES = 300, 100
SEED = 0


def analyse(run_folder: Path, root: Path, images: int = IMAGES, samples: int = SAMPLES) -> Path:
    """Write ``analysis.npz`` into a run's folder; returns its path.

    It holds ``real`` (M, d) float32, the embeddings of the queries that are matched with ground truth on validation
    images, ``generated`` (U * samples, d) float32, ``real_class`` and ``generated_class`` int64 by contiguous id, the
    class ``names`` and the ``unseen`` ids.

    Args:
        run_folder: of a PADing run, with ``config.yaml`` and ``model_final.pth``.
        root: ``$DETECTRON2_DATASETS`` of the run.
        images: number of validation images, from the first. samples: for each unseen class.

    Raises:
        UserError: the run has no weights or data, or its model generates no embeddings.
    """
    validation = open_validation(run_folder, root)
    weights = run_folder / "model_final.pth"
    opts = ["MODEL.WEIGHTS", str(weights), "MODEL.DEVICE", "cpu", *_vectors(root)]
    cfg = load_config(run_folder / "config.yaml", opts)
    # Matching draws points, and the generator draws noise.
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = load_model(cfg)
        if not isinstance(model, PADing) or model.unseen_vectors is None:
            raise UserError(f"{run_folder} is no PADing run with class vectors, so nothing is generated.")
        real, real_class = real_embeddings(model, cfg, validation, images)
        generated = generated_embeddings(model, samples)
    content = {
        "real": real,
        "real_class": real_class,
        "generated": generated.reshape(-1, generated.shape[-1]),
        "generated_class": np.repeat(model.unseen_index.numpy(), samples),
        "names": np.array(validation.names),
        "unseen": np.array(sorted(validation.unseen)),
    }
    with replacing(run_folder / ANALYSIS) as temporary:
        np.savez_compressed(temporary, **content)
    logger.info("%d real and %d generated embeddings: %s", len(real), len(content["generated"]), run_folder / ANALYSIS)
    return run_folder / ANALYSIS


@torch.no_grad()
def real_embeddings(
    model: PADing, cfg: CfgNode, validation: Validation, images: int = IMAGES
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the queries that match a ground-truth segment: (M, d) float32, and their classes (M,) int64."""
    embeddings, classes = [], []
    for sample in _samples(cfg, validation, images):
        found, _, labels, matched = model.match([sample])
        embeddings.append(found[matched].numpy())
        classes.append(labels.numpy())
    return np.concatenate(embeddings), np.concatenate(classes)


@torch.no_grad()
def generated_embeddings(model: PADing, samples: int = SAMPLES) -> np.ndarray:
    """(U, samples, d) float32: drawn as the classifier saw them in training, with noise and dropout."""
    training = model.generator.training
    model.generator.train()
    primitives = None if model.dict_feature is None else model.dict_feature.weight
    queries = model.fc_projection(model.unseen_vectors).repeat_interleave(samples, dim=0)
    try:
        fake = generate(model.generator, primitives, queries)
    finally:
        model.generator.train(training)
    return fake.reshape(len(model.unseen_vectors), samples, -1).numpy()


def _samples(cfg: CfgNode, validation: Validation, images: int) -> Iterator[dict]:
    """Validation images with their annotation, in the size in which the model is tested, without augmentation."""
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    for record in validation.records[:images]:
        image, truth = read_rgb(record["file_name"]), from_record(record)
        image = image[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else image
        transform = resize.get_transform(image)
        # Whole numbers in floating point: nothing else but uint8 can be resized to the nearest pixel.
        image, ids = transform.apply_image(image), transform.apply_segmentation(truth.ids.astype(np.float64))
        shown = [segment for segment in truth.classes if (ids == segment).any()]
        if not shown:
            continue
        instances = Instances(ids.shape)
        instances.gt_classes = torch.tensor([truth.classes[segment] for segment in shown])
        instances.gt_masks = torch.from_numpy(np.stack([ids == segment for segment in shown]))
        yield {"image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), "instances": instances}


def _vectors(root: Path) -> list[str]:
    """Override of the class vectors' path, for a benchmark folder that was moved."""
    path = root / "class_vectors.npz"
    found = [path] if path.is_file() else sorted(root.glob("*/class_vectors.npz"))
    return ["MODEL.CLASS_EMBEDDINGS", str(found[0])] if len(found) == 1 else []


def main(args: argparse.Namespace) -> None:
    run_folder = args.run_folder.absolute()
    if not analysis_is_fresh(run_folder):
        analyse(run_folder, args.data.absolute(), args.images)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path, help="output folder of a PADing run")
    default = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    parser.add_argument("--data", type=Path, default=default, help="folder of its data sets (%(default)s)")
    parser.add_argument("--images", type=int, default=IMAGES, help="validation images to look at (%(default)s)")
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(run_command(main, make_parser().parse_args()))
