"""Readers of every kind of file, what may come out of them, and a good file of each kind to spoil.

A reader ends in a result that holds what its users rely on, or in one ``UserError``.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.data.own_data import OwnData, forget_own, make_own

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = {"instance": "coco_instance_lsj", "panoptic": "coco_panoptic_lsj", "semantic": "mask_former_semantic"}
RNG = np.random.default_rng(3)


@dataclass
class Reader:
    """``path``: the good file; ``kind``: of ``tests.mutations``; ``use``: reads it and checks what it gets."""

    path: Path
    kind: str
    use: Callable[[], object]


# ---- what training and evaluation do with a data set


def train(own: OwnData, kind: str, role: str = "val") -> None:
    """Load a data set and map every image, as training does."""
    from PADing.class_space import ClassSpace
    from PADing.config import load_config
    from PADing.data.dataset_mappers import build_mapper
    from PADing.data.loaders import load_data_set
    from PADing.data.splits import load_split

    split = load_split(own.split_file)
    data_set = split.data_set(f"own_{role}_{kind}")
    records = load_data_set(split, data_set)
    more = ["DATASETS.TRAIN", f'("own_{role}_{kind}",)', "INPUT.DATASET_MAPPER_NAME", KEYS[kind]]
    more += ["INPUT.IMAGE_SIZE", 32, "INPUT.MIN_SIZE_TRAIN", "(24,)", "INPUT.FORMAT", "RGB"]
    mapper, space = build_mapper(load_config("", more)), split.class_space(data_set)
    assert isinstance(space, ClassSpace)
    known = set(space.names)
    for record in records:
        sample = mapper(record)
        image, instances = sample["image"], sample["instances"]
        assert image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3, "the image is no image"
        assert instances.gt_masks.dtype == torch.bool and instances.gt_masks.shape[1:] == image.shape[1:], "masks"
        assert len(instances.gt_classes) == len(instances.gt_masks), "masks and classes"
        assert set(instances.gt_classes.tolist()) <= known, "a class that the split does not know"


def evaluate(own: OwnData, kind: str) -> None:
    """What evaluation reads beside the images: the ground truth, once and for every image."""
    from PADing.data.loaders import load_data_set
    from PADing.data.splits import load_split
    from PADing.evaluation import InsSegzeroEvaluator, PanopticzeroEvaluator, SemSegGzeroEvaluator

    split = load_split(own.split_file)
    name = f"own_val_{kind}"
    records = load_data_set(split, split.data_set(name))
    if kind == "instance":
        check_metrics(InsSegzeroEvaluator(name).evaluate())
        return
    evaluator = (PanopticzeroEvaluator if kind == "panoptic" else SemSegGzeroEvaluator)(name)
    for record in records:
        segments = [{"id": 1, "category_id": 3, "isthing": False}]
        output = {"panoptic_seg": (torch.ones(40, 60, dtype=torch.int64), segments), "sem_seg": torch.ones(5, 40, 60)}
        evaluator.process([record], [output])
    check_metrics(evaluator.evaluate())


def check_metrics(results) -> None:
    """Metrics are per cent, or NaN where there is nothing to measure."""
    if isinstance(results, dict):
        for value in results.values():
            check_metrics(value)
    elif isinstance(results, float):
        assert results != results or -1 <= results <= 100.001, f"a metric of {results}"


def verify_then_train(own: OwnData, kind: str) -> None:
    """Whoever has checked the data expects that training starts."""
    from PADing.data.check import check_data_set
    from PADing.data.splits import load_split
    from PADing.errors import UserError

    split = load_split(own.split_file)
    report = check_data_set(split, split.data_set(f"own_train_{kind}"), deep=True)
    if not report.ok:
        raise UserError("; ".join(report.problems))
    train(own, kind, "train")


def split_file(own: OwnData) -> None:
    from PADing.data.registration import register_split
    from PADing.data.splits import load_split

    split = load_split(own.split_file)
    try:
        register_split(split)
        for data_set in split.data_sets:
            space = split.class_space(data_set)
            ids = list(space.names)
            assert ids and len(set(space.names.values())) == len(ids), "class names"
            assert set(space.unseen) <= set(ids), "an unseen class that is no class"
    finally:
        forget_own()


def config_file(path: Path) -> None:
    """Values that the rules accept are finite, and can be written and read again."""
    from detectron2.projects.deeplab import build_lr_scheduler

    from PADing.config import load_config
    from PADing.config_check import value_problems
    from PADing.errors import refuse

    cfg = load_config(str(path))
    refuse(value_problems(cfg, ("model", "train", "test")))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    schedule = build_lr_scheduler(cfg, optimizer)
    assert all(np.isfinite(rate) and rate >= 0 for rate in schedule.get_last_lr()), "the learning rate"
    written = path.with_name("written.yaml")
    written.write_text(cfg.dump(), encoding="utf-8")
    assert load_config(str(written)).dump() == cfg.dump(), "the config differs after it was written and read"


def embeddings(path: Path, names: list[str]) -> None:
    from PADing.data.embeddings import embedding_width, load_class_embeddings

    width = embedding_width(path)
    found = load_class_embeddings(path, names)
    assert found.shape == (len(names), width) and width > 0 and found.isfinite().all(), "numbers or shape"
    assert found.dtype == torch.float32


def vocabulary(path: Path) -> None:
    from PADing.meta_arch.vocabulary_file import read_vocabulary

    entries, _ = read_vocabulary(path)
    assert entries and all(entry.known_as for entry in entries)


def image(path: Path) -> None:
    from PADing.data.images import read_image

    pixels = read_image(path)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


def results_file(own: OwnData) -> None:
    from PADing.evaluation.result_files import coco_eval_revise

    for row in coco_eval_revise(own.folder / "results.json", ["bbox", "segm"], own.folder / "instances.json") or ():
        for value in row:
            check_metrics(float(value))


# ---- weights


def _network() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))


def weights(path: Path) -> None:
    """Loaded into a model, weights are numbers; every method's checkpoint goes this way."""
    from PADing.engine.checkpointer import TrainingCheckpointer, read_weights

    for name, value in read_weights(str(path)).items():
        assert isinstance(name, str) and isinstance(value, torch.Tensor | np.ndarray), "weights"
    model = _network()
    TrainingCheckpointer(model).load(str(path))
    for name, value in model.state_dict().items():
        assert value.isfinite().all(), f"{name} is not finite"


def resume(folder: Path) -> None:
    """A checkpoint of a training goes on to its end, with finite weights."""
    from tests.engine import tiny

    trainer = tiny.TinyTrainer(tiny.config(folder, "TEST.EVAL_PERIOD", 0))
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert trainer.iter >= 7


# ---- a good file of each kind


def _of_own(kind: str, file: str, form: str, use: Callable) -> Callable[[Path], Reader]:
    def prepare(folder: Path) -> Reader:
        from PADing.data.registration import register_split
        from PADing.data.splits import load_split

        own = make_own(folder / "own")
        register_split(load_split(own.split_file))
        return Reader(own.folder / file, form, lambda: use(own, kind))

    return prepare


def _split(folder: Path) -> Reader:
    own = make_own(folder / "own")
    return Reader(own.split_file, "yaml", lambda: split_file(own))


def _config(folder: Path) -> Reader:
    path = folder / "config.yaml"
    path.write_text(
        f"_BASE_: [{REPOSITORY}/configs/mini/panoptic-pretrain.yaml, base.yaml]\n"
        "MODEL:\n  WEIGHTS: ''\n  MASK_FORMER: {NUM_OBJECT_QUERIES: 10, DROPOUT: 0.1, NHEADS: 8,\n"
        "    HIDDEN_DIM: 64, DEC_LAYERS: 3, TRAIN_NUM_POINTS: 112, IMPORTANCE_SAMPLE_RATIO: 0.75}\n"
        "  PIXEL_MEAN: [123.6, 116.2, 103.5]\n  PIXEL_STD: [58.3, 57.1, 57.3]\n"
        "INPUT:\n  MIN_SIZE_TRAIN: [640, 672]\n  CROP: {ENABLED: true, TYPE: absolute, SIZE: [64, 64]}\n"
        "SOLVER: {STEPS: '(10, 20)', BASE_LR: 0.001, MAX_ITER: 30, CLIP_GRADIENTS: {ENABLED: true, CLIP_VALUE: 0.1}}\n"
        "DATASETS:\n  TRAIN: [mini_train_panoptic]\nTEST: {EVAL_PERIOD: 10, AUG: {MIN_SIZES: [400, 500]}}\n"
    )
    (folder / "base.yaml").write_text("INPUT: {FORMAT: RGB}\n")
    return Reader(path, "yaml", lambda: config_file(path))


def _image(suffix: str) -> Callable[[Path], Reader]:
    def prepare(folder: Path) -> Reader:
        path = folder / f"image{suffix}"
        Image.fromarray(RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
        return Reader(path, "png" if suffix == ".png" else "bytes", lambda: image(path))

    return prepare


def _embeddings(suffix: str) -> Callable[[Path], Reader]:
    def prepare(folder: Path) -> Reader:
        names, path, vectors = ["a", "b", "c"], folder / f"vectors{suffix}", RNG.random((3, 4))
        if suffix == ".npz":
            arrays = {"names": np.array(names), "source": np.array("x"), "templates": np.array(["{}"])}
            np.savez_compressed(path, vectors=vectors, **arrays)
            return Reader(path, "npz", lambda: (embeddings(path, names), vocabulary(path)))
        np.savetxt(path, np.column_stack([np.zeros(4), vectors.T]), delimiter=",")
        return Reader(path, "table", lambda: embeddings(path, names))

    return prepare


def _weights(suffix: str) -> Callable[[Path], Reader]:
    def prepare(folder: Path) -> Reader:
        from PADing.checkpoint_files import write_checkpoint

        path, state = folder / f"weights{suffix}", _network().state_dict()
        if suffix == ".pkl":
            arrays = {name: value.numpy() for name, value in state.items()}
            path.write_bytes(pickle.dumps({"model": arrays, "__author__": "the tests"}, protocol=2))
        else:
            write_checkpoint(path, {"model": state, "iteration": 3})
        return Reader(path, suffix.removeprefix("."), lambda: weights(path))

    return prepare


def _resume(folder: Path) -> Reader:
    from tests.engine import tiny

    out = folder / "run"
    tiny.TinyTrainer(tiny.config(out, "TEST.EVAL_PERIOD", 0)).train()
    (out / "last_checkpoint").write_text("model_0000002.pth")
    for path in (out / "model_0000005.pth", out / "model_final.pth"):
        path.unlink(missing_ok=True)
    good = out / "model_0000002.pth"
    content = io.BytesIO(good.read_bytes()).getvalue()

    def use() -> None:
        try:
            resume(out)
        finally:
            for path in out.iterdir():
                if path != good and path.is_file():
                    path.unlink()
            (out / "last_checkpoint").write_text(good.name)

    good.write_bytes(content)
    return Reader(good, "pth", use)


def _results(folder: Path) -> Reader:
    import json

    own = make_own(folder / "own")
    rle = {"size": [40, 60], "counts": [5 * 40 + 5, 10, *[30, 10] * 14, 60 * 40 - 5 * 40 - 5 - 10 - 14 * 40]}
    results = [{"image_id": 900, "category_id": 7, "score": 0.5, "bbox": [5, 5, 15, 10], "segmentation": rle}]
    results.append({**results[0], "image_id": 77, "segmentation": [[1, 1, 9, 1, 9.5, 9]]})
    path = own.folder / "results.json"
    path.write_text(json.dumps(results))
    return Reader(path, "json", lambda: results_file(own))


PNG = "pic_900.png"
# Name -> how many files are spoiled, and what makes the good one.
READERS: dict[str, tuple[int, Callable[[Path], Reader]]] = {
    "split": (800, _split),
    "config": (1000, _config),
    "instances-training": (900, _of_own("instance", "instances.json", "json", train)),
    "instances-evaluation": (600, _of_own("instance", "instances.json", "json", evaluate)),
    "panoptic-training": (900, _of_own("panoptic", "panoptic.json", "json", train)),
    "panoptic-evaluation": (600, _of_own("panoptic", "panoptic.json", "json", evaluate)),
    "panoptic-png": (500, _of_own("panoptic", f"panoptic/{PNG}", "png", train)),
    "panoptic-png-evaluation": (300, _of_own("panoptic", f"panoptic/{PNG}", "png", evaluate)),
    "label-png": (500, _of_own("semantic", f"labels/{PNG}", "png", train)),
    "label-png-evaluation": (300, _of_own("semantic", f"labels/{PNG}", "png", evaluate)),
    "training-image": (200, _of_own("instance", f"images/{PNG}", "png", train)),
    "verified-instances": (200, _of_own("instance", "instances.json", "json", verify_then_train)),
    "verified-panoptic": (200, _of_own("panoptic", "panoptic.json", "json", verify_then_train)),
    "image-jpeg": (600, _image(".jpg")),
    "image-png": (500, _image(".png")),
    **{f"image-{kind}": (60, _image(f".{kind}")) for kind in ("gif", "bmp", "tif", "webp", "ppm")},
    "embeddings-npz": (700, _embeddings(".npz")),
    "embeddings-txt": (500, _embeddings(".txt")),
    "checkpoint-pth": (600, _weights(".pth")),
    "checkpoint-pkl": (500, _weights(".pkl")),
    "checkpoint-safetensors": (600, _weights(".safetensors")),
    "resume": (300, _resume),
    "results": (300, _results),
}
