"""No file, however spoiled, ends in a traceback, a crash or a wait: it is read, or refused in one message."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from PADing.data.make_split import make_split
from PADing.data.registration import register_split
from PADing.data.splits import load_split, split_from_dict
from PADing.evaluation.result_files import coco_eval_revise
from tests.faults.readers import READERS, evaluate, image, split_file, train, verify_then_train
from tests.mutations import mutants, survives

REPOSITORY = Path(__file__).resolve().parents[2]
SCALES = [1, pytest.param(20, marks=pytest.mark.slow)]
WEIGHTS = ("checkpoint-pth", "checkpoint-pkl", "checkpoint-safetensors")
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


@pytest.fixture
def registered(own):
    register_split(load_split(own.split_file))
    return own


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("use", [train, evaluate])
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

    _check_all(
        registered.folder / file, form, 25 * scale, lambda: verify_then_train(registered, kind), seed=100 + scale
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "kind, folder, use",
    [
        ("instance", "images", train),
        ("panoptic", "panoptic", train),
        ("panoptic", "panoptic", evaluate),
        ("semantic", "labels", train),
        ("semantic", "labels", evaluate),
    ],
)
def test_images_and_label_maps_of_a_data_set(registered, kind, folder, use, scale):
    _check_all(registered.folder / folder / "pic_900.png", "png", 30 * scale, lambda: use(registered, kind), seed=scale)


@pytest.mark.parametrize("scale", SCALES)
def test_split_files(own, scale):
    _check_all(own.split_file, "yaml", 60 * scale, lambda: split_file(own), seed=scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["config", "embeddings-npz", "embeddings-txt", *WEIGHTS])
def test_files_of_their_own(tmp_path, kind, scale):
    reader = READERS[kind][1](tmp_path)
    _check_all(reader.path, reader.kind, 60 * scale, reader.use, seed=scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".tif", ".webp", ".ppm"])
def test_image_files(tmp_path, suffix, scale):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)

    kind = "png" if suffix == ".png" else "bytes"
    _check_all(path, kind, 30 * scale, lambda: image(path), seed=scale)


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
