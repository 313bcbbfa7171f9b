"""No file, however spoiled, ends in a traceback, a crash or a wait: it is read, or refused in one message."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from PADing.config import load_config
from PADing.data.check import check_data_set
from PADing.data.dataset_mappers import build_mapper
from PADing.data.embeddings import embedding_width, load_class_embeddings
from PADing.data.images import read_image
from PADing.data.loaders import load_data_set
from PADing.data.make_split import make_split
from PADing.data.registration import register_split
from PADing.data.splits import load_split, split_from_dict
from PADing.errors import UserError
from PADing.evaluation import InsSegzeroEvaluator, PanopticzeroEvaluator, SemSegGzeroEvaluator
from PADing.evaluation.result_files import coco_eval_revise
from tests.mutations import mutants, survives

REPOSITORY = Path(__file__).resolve().parents[2]
SCALES = [1, pytest.param(20, marks=pytest.mark.slow)]
KEYS = {"instance": "coco_instance_lsj", "panoptic": "coco_panoptic_lsj", "semantic": "mask_former_semantic"}
RNG = np.random.default_rng(3)


def _check_all(path, kind, count, read, seed=0):
    """Read every mutant of the file at ``path``; some must be refused, or nothing was tested."""
    good = path.read_bytes()
    refused = 0
    for number, data in mutants(good, kind, count, seed):
        path.write_bytes(data)
        refused += not survives(read, f"mutant {number} of {path.name} ({kind}, seed {seed})")
    path.write_bytes(good)
    assert refused > count / 20
    read()


def _forget():
    for name in [name for name in DatasetCatalog.list() if name.startswith("own_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _train(own, kind, role="val"):
    """What training does with a data set: load it, map every image."""
    split = load_split(own.split_file)
    data_set = split.data_set(f"own_{role}_{kind}")
    records = load_data_set(split, data_set)
    mapper = build_mapper(
        load_config(
            "",
            [
                *("DATASETS.TRAIN", f'("own_{role}_{kind}",)', "INPUT.DATASET_MAPPER_NAME", KEYS[kind]),
                *("INPUT.IMAGE_SIZE", 32, "INPUT.MIN_SIZE_TRAIN", "(24,)", "INPUT.FORMAT", "RGB"),
            ],
        )
    )
    for record in records:
        mapper(record)


def _evaluate(own, kind):
    """What evaluation reads besides the images: the ground truth, once and for every image."""
    split = load_split(own.split_file)
    name = f"own_val_{kind}"
    records = load_data_set(split, split.data_set(name))
    if kind == "instance":
        InsSegzeroEvaluator(name).evaluate()
        return
    evaluator = (PanopticzeroEvaluator if kind == "panoptic" else SemSegGzeroEvaluator)(name)
    for record in records:
        segments = [{"id": 1, "category_id": 3, "isthing": False}]
        output = {"panoptic_seg": (torch.ones(40, 60, dtype=torch.int64), segments), "sem_seg": torch.ones(5, 40, 60)}
        evaluator.process([record], [output])
    evaluator.evaluate()


@pytest.fixture
def registered(own):
    register_split(load_split(own.split_file))
    return own


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("use", [_train, _evaluate])
@pytest.mark.parametrize("kind", ["instance", "panoptic"])
def test_annotation(registered, kind, use, scale):
    name = {"instance": "instances.json", "panoptic": "panoptic.json"}[kind]
    _check_all(registered.folder / name, "json", 60 * scale, lambda: use(registered, kind), seed=scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "kind, file, form",
    [
        ("instance", "instances.json", "json"),
        ("panoptic", "panoptic.json", "json"),
        ("panoptic", "panoptic/pic_900.png", "png"),
        ("semantic", "labels/pic_900.png", "png"),
        ("semantic", "images/pic_900.png", "png"),
    ],
)
def test_what_verify_passes_training_accepts(registered, kind, file, form, scale):
    """Whoever has checked the data expects that training starts."""

    def use():
        split = load_split(registered.split_file)
        report = check_data_set(split, split.data_set(f"own_train_{kind}"), deep=True)
        if report.ok:
            _train(registered, kind, "train")
        else:
            raise UserError("; ".join(report.problems))

    _check_all(registered.folder / file, form, 25 * scale, use, seed=100 + scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "kind, folder, use",
    [
        ("instance", "images", _train),
        ("panoptic", "panoptic", _train),
        ("panoptic", "panoptic", _evaluate),
        ("semantic", "labels", _train),
        ("semantic", "labels", _evaluate),
    ],
)
def test_images_and_label_maps_of_a_data_set(registered, kind, folder, use, scale):
    _check_all(registered.folder / folder / "pic_900.png", "png", 30 * scale, lambda: use(registered, kind), seed=scale)


@pytest.mark.parametrize("scale", SCALES)
def test_split_files(own, scale):
    def use():
        split = load_split(own.split_file)
        try:
            register_split(split)
        finally:
            _forget()

    _check_all(own.split_file, "yaml", 60 * scale, use, seed=scale)


@pytest.mark.parametrize("scale", SCALES)
def test_config_files(tmp_path, scale):
    path = tmp_path / "config.yaml"
    path.write_text(
        "_BASE_: base.yaml\nMODEL:\n  WEIGHTS: ''\n  MASK_FORMER: {NUM_OBJECT_QUERIES: 10, DROPOUT: 0.1}\n"
        "INPUT:\n  MIN_SIZE_TRAIN: [640, 672]\nSOLVER: {STEPS: '(10, 20)', BASE_LR: 0.001}\nDATASETS:\n  TRAIN: [a]\n"
    )
    (tmp_path / "base.yaml").write_text("INPUT: {FORMAT: RGB}\n")
    _check_all(path, "yaml", 60 * scale, lambda: load_config(str(path), []), seed=scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("suffix", [".npz", ".txt"])
def test_class_embeddings(tmp_path, suffix, scale):
    names, path = ["a", "b", "c"], tmp_path / f"vectors{suffix}"
    vectors = RNG.random((3, 4))
    if suffix == ".npz":
        np.savez_compressed(
            path, names=np.array(names), vectors=vectors, source=np.array("x"), templates=np.array(["{}"])
        )
    else:
        np.savetxt(path, np.column_stack([np.zeros(4), vectors.T]), delimiter=",")

    def use():
        assert embedding_width(path) > 0
        assert torch.isfinite(load_class_embeddings(path, names)).all()

    _check_all(path, "npz" if suffix == ".npz" else "bytes", 60 * scale, use, seed=scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".tif", ".webp", ".ppm"])
def test_image_files(tmp_path, suffix, scale):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)

    kind = "png" if suffix == ".png" else "bytes"
    _check_all(path, kind, 30 * scale, lambda: read_image(path), seed=scale)


def _script(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _make_split(own):
    train = {"json": str(own.folder / "instances.json"), "images": str(own.folder / "images")}
    val = {
        "json": str(own.folder / "panoptic.json"),
        "images": train["images"],
        "panoptic": str(own.folder / "panoptic"),
    }
    return lambda: make_split("mk", ["四角"], str(own.folder / "made.yaml"), train, val)


def _select_instances(own):
    zsi, source = _script("datasets/prepare_coco_zsi.py"), str(own.folder / "instances.json")
    content = own.split()
    content["data_sets"] = [
        {**d, "json": f"./{d['name']}.json"} for d in content["data_sets"] if d["kind"] == "instance"
    ]
    split = split_from_dict(content, str(own.split_file))
    return lambda: zsi.prepare(split, source, source, str(own.folder), force=True)


def _select_panoptic(own):
    zsp, split = _script("datasets/get_zsp_json.py"), load_split(own.split_file)
    (own.folder / "panoptic_val.json").write_bytes((own.folder / "panoptic.json").read_bytes())

    def use():
        (own.folder / "panoptic_val.json").write_bytes((own.folder / "panoptic.json").read_bytes())
        zsp.prepare(str(own.folder), str(own.folder / "zsp"), split, ["val"], force=True)

    return use


def _paint_labels(own):
    semantic, split = _script("datasets/prepare_coco_semantic_annos_from_panoptic_annos.py"), load_split(own.split_file)
    paths = [str(own.folder / name) for name in ("panoptic.json", "panoptic", "painted")]

    def use():
        shutil.rmtree(paths[-1], ignore_errors=True)
        semantic.prepare(*paths, split)

    return use


def _evaluate_results(own):
    rle = {"size": [40, 60], "counts": [5 * 40 + 5, 10, *[30, 10] * 14, 60 * 40 - 5 * 40 - 5 - 10 - 14 * 40]}
    results = [{"image_id": 900, "category_id": 7, "score": 0.5, "bbox": [5, 5, 15, 10], "segmentation": rle}]
    results.append({**results[0], "image_id": 77, "segmentation": [[1, 1, 9, 1, 9.5, 9]]})
    (own.folder / "results.json").write_text(json.dumps(results))
    return lambda: coco_eval_revise(own.folder / "results.json", ["bbox", "segm"], own.folder / "instances.json")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "tool, file",
    [
        (_make_split, "instances.json"),
        (_make_split, "panoptic.json"),
        (_select_instances, "instances.json"),
        (_select_panoptic, "panoptic.json"),
        (_paint_labels, "panoptic.json"),
        (_evaluate_results, "results.json"),
        (_evaluate_results, "instances.json"),
    ],
)
def test_tools(own, tool, file, scale):
    use = tool(own)
    _check_all(own.folder / file, "json", 25 * scale, use, seed=200 + scale)
