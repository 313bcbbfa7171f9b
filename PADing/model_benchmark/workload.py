"""One process of the model benchmark: runs one task with the full R-50 model, and writes its times.

The driver starts it as a file, with the package that it shall measure first in ``PYTHONPATH``: this checkout or an
older one. So it uses only long-lived functions of the package. Its arguments and its result are those of any contender,
see ``docs/benchmarks.md``.
"""

import argparse
import contextlib
import ctypes
import functools
import importlib.util
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__" and "transformers-network" not in sys.argv:
    import PADing  # noqa: F401  # before PyTorch, as in its own programs, because it chooses how threads wait

import torch
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

CONFIGS = {"second-stage": "configs/panoptic-segmentation/PADing.yaml"}
PRETRAINING = "configs/panoptic-segmentation/pretrain.yaml"
TRAINING_SIDE, TRAINING_IMAGES = 512, 2
SEGMENTS, THINGS = 24, 16  # of each picture: all, and those that are things
SURE = 8.0  # logit of a query's class and, in the middle of its mask, of its pixels


def main() -> None:
    """Run the task of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True, help="folder of configs/")
    parser.add_argument("--height", type=int, default=640)
    parser.add_argument("--width", type=int, default=853)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--coco", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    stages = Stages()
    run, images = (TASKS[args.task](args, stages), 1) if args.task in TASKS else _task_on_data(args)
    run()  # the first call compiles, allocates and fills caches
    before = _start_of_memory()
    stages.seconds.clear()
    seconds, cpu = [], []
    for _ in range(args.repeats):
        start, used = time.perf_counter(), time.process_time()
        run()
        seconds.append((time.perf_counter() - start) / images)
        cpu.append((time.process_time() - used) / images)
    result = {
        "task": args.task,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "stages": {name: statistics.median(taken) for name, taken in stages.seconds.items()},
        "peak_mb": None if before is None else (_status("VmHWM") - before) / 2**10,
        "resident_mb": None if before is None else before / 2**10,
        "software": f"torch {torch.__version__}",
    }
    args.output.write_text(json.dumps(result, indent=2))


def _task_on_data(args: argparse.Namespace) -> tuple[Callable[[], Any], int]:
    """A task of the data benchmark, and its number of images; the file beside this one, not that of the checkout."""
    path = Path(__file__).with_name("data_workload.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task, kind = module.TASKS[args.task]
    return task(args, kind)


class Stages:
    """The time between the beginning and the end of each part of a model, in seconds, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Time every call of a method."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[name].append(time.perf_counter() - start)

        setattr(owner, method, timed)


def inference(args: argparse.Namespace, stages: Stages, results: tuple[str, ...]) -> Callable[[], Any]:
    """One image in evaluation, from pixels to ``results``."""
    model = _model(args, stages, [item for name in RESULTS for item in (RESULTS[name], name in results)]).eval()
    fixed = query_predictions(args.height, args.width, model.num_queries, model.criterion.num_classes)
    inner = model.predict if hasattr(model, "predict") else None

    def predict(images):
        # Random weights find nothing. So results are made of fixed predictions, beside the network's own.
        inner(images)
        return fixed

    model.predict = predict
    stages.watch(model, "infer", "results")
    image = {"image": picture(args.height, args.width), "height": args.height, "width": args.width}

    def run():
        with torch.no_grad(), autocast(args.dtype):
            return model([image])

    return run


def training(args: argparse.Namespace, stages: Stages) -> Callable[[], Any]:
    """One step of a recipe on 2 images of 512 x 512: losses, backward pass and update."""
    from PADing.engine.recipes import build_recipe

    model = _model(args, stages, ["SOLVER.AMP.ENABLED", args.dtype != "float32", "SOLVER.AMP.PRECISION", "bfloat16"])
    model.train()
    recipe = build_recipe(model.benchmark_config, model)
    batch = [training_sample(i, model.criterion.num_classes) for i in range(TRAINING_IMAGES)]
    stages.watch(model.criterion.matcher, "match", "matcher")
    stages.watch(model.criterion, "forward", "criterion, with the matcher")
    for name, optimizer in recipe.optimizers.items():
        stages.watch(optimizer, "step", f"update of {name}")
    stages.watch(recipe, "backward", "backward")

    def run():
        with EventStorage(0):
            recipe.step(model, batch, 0.0)

    return run


def _model(args: argparse.Namespace, stages: Stages, opts: list) -> Any:
    from PADing.config import load_config
    from PADing.engine.trainer import Trainer

    config = str(args.root / CONFIGS.get(args.task, PRETRAINING))
    opts = ["MODEL.DEVICE", "cpu", *opts]
    if args.task == "second-stage":
        opts += ["MODEL.CLASS_EMBEDDINGS", _random_embeddings(load_config(config, opts), args.output.parent)]
    cfg = load_config(config, opts)
    model: Any = Trainer.build_model(cfg)
    model.benchmark_config = cfg
    if args.compile:  # before the stages are watched, because a clock cannot be compiled
        from PADing.engine.compilation import compile_parts

        compile_parts(model)
    head = model.sem_seg_head
    stages.watch(model.backbone, "_compiled_call_impl" if args.compile else "forward", "backbone")
    stages.watch(head.pixel_decoder, "forward_features", "pixel decoder")
    stages.watch(head.predictor, "forward", "transformer decoder")
    return model


def _random_embeddings(cfg: Any, folder: Path) -> str:
    """A file of class embeddings, which the repository does not ship for COCO's panoptic classes."""
    from detectron2.data import MetadataCatalog

    from PADing.class_space import ClassSpace
    from PADing.data.embeddings import save_class_embeddings

    names = ClassSpace.of(MetadataCatalog.get(cfg.DATASETS.TRAIN[0])).vocabulary
    path = folder / "class_embeddings.npz"
    save_class_embeddings(path, names, torch.randn(len(names), 512).numpy(), "random")
    return str(path)


def transformers_network(args: argparse.Namespace, stages: Stages) -> Callable[[], Any]:
    """The network of transformers' Mask2Former with the same ResNet-50, layers and queries; no results are made."""
    from PADing.torchvision_users import import_with_torchvision

    peer: Any = import_with_torchvision(
        "transformers.models.mask2former.modeling_mask2former", "pip install transformers"
    )
    from transformers import Mask2FormerConfig, ResNetConfig

    options: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    options = {"backbone_config": ResNetConfig(**options), "num_queries": 100, "num_labels": 133}
    model = peer.Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**options)).eval()
    pixels = (picture(args.height, args.width).float() / 128 - 1)[None]

    def run():
        with torch.no_grad(), autocast(args.dtype):
            return model(pixels)

    return run


def network(args: argparse.Namespace, stages: Stages) -> Callable[[], Any]:
    """Our network alone, from pixels to class and mask logits."""
    model = _model(args, stages, []).eval()

    def run():
        with torch.no_grad(), autocast(args.dtype):
            return model.predict(model.preprocess([{"image": picture(args.height, args.width)}]))

    return run


def floor(args: argparse.Namespace, stages: Stages) -> Callable[[], Any]:
    """What this machine reaches: a matrix product and 3 x 3 convolutions, each of 8.6 or 9.7 GFLOP."""
    a, b = torch.randn(2, 1626, 1626)
    maps, kernel = torch.randn(1, 256, 90, 91), torch.randn(256, 256, 3, 3)
    for name, function in {
        "matrix product": lambda: a @ b,
        "convolution, channels first": lambda: nn.functional.conv2d(maps, kernel, padding=1),
        "convolution, channels last": lambda: nn.functional.conv2d(
            maps.to(memory_format=torch.channels_last), kernel, padding=1
        ),
    }.items():
        setattr(stages, name, function)
        stages.watch(stages, name, name)

    def run():
        for name in ("matrix product", "convolution, channels first", "convolution, channels last"):
            getattr(stages, name)()

    return run


RESULTS = {
    "panoptic": "MODEL.MASK_FORMER.TEST.PANOPTIC_ON",
    "semantic": "MODEL.MASK_FORMER.TEST.SEMANTIC_ON",
    "instance": "MODEL.MASK_FORMER.TEST.INSTANCE_ON",
}
TASKS: dict[str, Callable[[argparse.Namespace, Stages], Callable[[], Any]]] = {
    **{name: functools.partial(inference, results=(name,)) for name in RESULTS},
    "all-results": functools.partial(inference, results=tuple(RESULTS)),
    "network": network,
    "transformers-network": transformers_network,
    "training": training,
    "second-stage": training,
    "floor": floor,
}


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth noise: (3, H, W) uint8."""
    coarse = torch.rand(1, 3, height // 16 + 2, width // 16 + 2, generator=torch.Generator().manual_seed(seed))
    return (255 * nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]).to(torch.uint8)


def blobs(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """``count`` ellipses, large ones first: (count, H, W), 1 in the middle, 0 on the edge, below outside."""
    centre = torch.rand(count, 2, 1, 1, generator=generator)
    radius = (0.06 + 0.4 * torch.rand(count, 2, 1, 1, generator=generator) ** 2).sort(0, descending=True).values
    rows = (torch.linspace(0, 1, height)[None, :, None] - centre[:, 0]) / radius[:, 0]
    columns = (torch.linspace(0, 1, width)[None, None] - centre[:, 1]) / radius[:, 1]
    return 1 - (rows**2 + columns**2)


def query_predictions(height: int, width: int, queries: int, classes: int) -> tuple[Tensor, Tensor]:
    """Predictions as of a trained model: ``SEGMENTS`` sure queries, the others "no object": logits of one image."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = (-(-side // 32) * 8 for side in (height, width))  # of the padded image, at stride 4
    logits = torch.randn(1, queries, classes + 1, generator=generator)
    logits[0, :, -1] += SURE
    labels = torch.randint(0, classes, (SEGMENTS,), generator=generator)
    logits[0, range(SEGMENTS), labels] += 2 * SURE
    masks = SURE * blobs(queries, rows, columns, generator).clamp(min=-1)
    return logits, masks[None]


def training_sample(seed: int, classes: int, side: int = TRAINING_SIDE) -> dict:
    """A picture with ``SEGMENTS`` annotated segments, or fewer if there are fewer classes."""
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((side, side))
    instances.gt_classes = torch.randperm(classes, generator=generator)[:SEGMENTS]
    instances.gt_masks = BitMasks(blobs(len(instances.gt_classes), side, side, generator) > 0).tensor
    return {"image": picture(side, side, seed), "height": side, "width": side, "instances": instances}


def autocast(dtype: str) -> contextlib.AbstractContextManager:
    """Mixed precision, unless ``dtype`` is float32."""
    return contextlib.nullcontext() if dtype == "float32" else torch.autocast("cpu", getattr(torch, dtype))


def _start_of_memory() -> int | None:
    """The resident memory in KiB, from which the high-water mark starts anew; None if the system does not tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # reused memory would not be counted
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except (OSError, AttributeError, StopIteration):
        return None


def _status(key: str) -> int:
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


if __name__ == "__main__":
    main()
