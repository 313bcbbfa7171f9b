"""The drawing tools on drawn data; wrong here means that users look at drawings of something else."""

import json
import shutil

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from PADing.visualization.comparison import most_unseen_first
from PADing.visualization.image_files import read_rgb
from PADing.visualization.panoptic import UNSEEN_RGB


@pytest.fixture(scope="module")
def run(tool):
    def function(name, *args):
        return tool(f"tools/{name}.py").main([str(arg) for arg in args])

    return function


def _names(folder):
    return sorted(p.name for p in folder.iterdir())


# predictions ----------------------------------------------------------------------------------------------------------


def test_predictions_beside_truth_and_baseline(run, drawn, model_options, tmp_path):
    """input | truth | baseline | prediction; the same model twice gives the same column twice."""
    (flag, file), opts = model_options("MaskFormer")
    args = [flag, file, "--num-gpus", "0", "--output", tmp_path / "out", "--number", "1", "--scale", "1"]
    tiny = [item for pair in zip(opts[0::2], opts[1::2], strict=True) for item in pair]
    # The baseline gets its sizes from its own config file.
    own = tmp_path / "baseline.yaml"
    keys = {key: value for key, value in zip(opts[0::2], opts[1::2], strict=True) if key.startswith(("MODEL", "INPUT"))}
    own.write_text(json.dumps(_tree({"_BASE_": file, **keys})))
    assert run("visualize_predictions", *args, "--baseline", own, opts[-1], *tiny) == 0
    name, overview = _names(tmp_path / "out")
    assert overview == "overview.png"
    drawing = read_rgb(tmp_path / "out" / name)
    assert drawing.shape == (22 + 64 + 4 + 20, 4 * (64 + 4), 3)
    column = {i: drawing[22 : 22 + 64, i * 68 + 2 : i * 68 + 66] for i in range(4)}
    assert np.array_equal(column[2], column[3]) and not np.array_equal(column[1], column[2])
    shown = next(r for r in DatasetCatalog.get("tools_mini_val_panoptic") if name[:-4] in r["file_name"])
    assert np.array_equal(column[0], read_rgb(shown["file_name"]))


def _tree(flat):
    tree = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def test_images_with_unseen_classes_come_first(drawn):
    order = most_unseen_first("tools_mini_val_panoptic")
    unseen = set(MetadataCatalog.get("tools_mini_val_panoptic").unseen_index)
    counts = [len(unseen & {s["category_id"] for s in record["segments_info"]}) for record in order]
    assert counts == sorted(counts, reverse=True) and len(counts) == 2


# data -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["panoptic", "instance", "semantic"])
@pytest.mark.parametrize("source", ["annotation", "dataloader"])
def test_data(run, drawn, model_options, tmp_path, source, kind):
    """All kinds of data are drawn, as annotated and as training sees them."""
    (flag, file), opts = model_options("MaskFormer")
    mapper = {"panoptic": "coco_panoptic_lsj", "instance": "coco_instance_lsj", "semantic": "mask_former_semantic"}
    more = ["DATASETS.TRAIN", f"('tools_mini_train_{kind}',)", "INPUT.DATASET_MAPPER_NAME", mapper[kind]]
    more += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "(64, 64)", "SOLVER.IMS_PER_BATCH", "1"]
    args = ["--source", source, flag, file, "--output-dir", tmp_path / "out", "--number", "1", *opts, *more]
    assert run("visualize_data", *args) == 0
    (name,) = _names(tmp_path / "out")
    assert name.startswith("00001-")
    record = next(r for r in DatasetCatalog.get(f"tools_mini_train_{kind}") if name[6:-4] in r["file_name"])
    drawing = read_rgb(tmp_path / "out" / name)
    assert drawing.shape == (384, 384, 3)
    if source == "annotation":
        small, original = drawing[3::6, 3::6].astype(int), read_rgb(record["file_name"])
        assert (np.abs(small - original).max(axis=2) > 20).mean() > 0.05


def test_data_of_own_choice_without_end(run, drawn, model_options, tmp_path, capsys):
    (flag, file), opts = model_options("MaskFormer")
    assert run("visualize_data", "--source", "dataloader", flag, file, "--number", "0", *opts) == 2
    assert "--number 0" in capsys.readouterr().err


def test_images_of_one_name_and_hostile_names(tool, run, drawn, model_options, tmp_path, monkeypatch):
    """Two images of one name keep both drawings, "overview.jpg" keeps the overview, nothing leaves the folder."""
    name = "tools_mini_val_panoptic"
    records = [dict(record) for record in DatasetCatalog.get(name)]
    source = records[0]["file_name"]
    records = [{**records[0], "file_name": str(tmp_path / file)} for file in ("a/1.jpg", "b/1.jpg", "a/overview.jpg")]
    for record in records:
        (tmp_path / "b").mkdir(exist_ok=True), (tmp_path / "a").mkdir(exist_ok=True)
        shutil.copy(source, record["file_name"])
    monkeypatch.setattr(DatasetCatalog, "get", lambda wanted: records)
    (flag, file), opts = model_options("MaskFormer")
    assert run("visualize_predictions", flag, file, "--num-gpus", "0", "--output", tmp_path / "out", *opts) == 0
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert found == ["a/1.png", "a/overview.png", "b/1.png", "overview.png"]


def test_drawings_never_replace_the_images(run, drawn, model_options, tmp_path, monkeypatch, capsys):
    """--output is the folder of the data set, whose images are PNGs."""
    name = "tools_mini_val_panoptic"
    record = dict(DatasetCatalog.get(name)[0], file_name=str(tmp_path / "1.png"))
    Image.open(DatasetCatalog.get(name)[0]["file_name"]).save(record["file_name"])
    before = (tmp_path / "1.png").read_bytes()
    monkeypatch.setattr(DatasetCatalog, "get", lambda wanted: [record])
    (flag, file), opts = model_options("MaskFormer")
    assert run("visualize_predictions", flag, file, "--num-gpus", "0", "--output", tmp_path, *opts) == 2
    assert "would replace images" in capsys.readouterr().err
    assert (tmp_path / "1.png").read_bytes() == before and _names(tmp_path) == ["1.png"]


def test_drawings_of_absurd_size_are_refused(run, drawn, model_options, tmp_path, capsys):
    """Such a drawing takes all memory of the machine."""
    (flag, file), opts = model_options("MaskFormer")
    args = [flag, file, "--num-gpus", "0", "--output", tmp_path / "out", "--scale", "1000"]
    assert run("visualize_predictions", *args, *opts) == 2
    assert "--scale 1000" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_annotation_is_not_drawn_into_the_data_set(run, drawn, model_options, capsys):
    """A semantic data set would take the drawings for its images."""
    (flag, file), opts = model_options("MaskFormer")
    folder = drawn.images[0].parent.parent / "train"
    before = _names(folder)
    assert run("visualize_data", "--source", "annotation", flag, file, "--output", folder, *opts) == 2
    assert "would replace images" in capsys.readouterr().err and _names(folder) == before


# results in a file ----------------------------------------------------------------------------------------------------


def test_json_results(run, drawn, tmp_path):
    """A detection of an unseen class gets the magenta outline; one below the threshold is not there."""
    name = "tools_mini_val_instance"
    record = DatasetCatalog.get(name)[0]
    metadata = MetadataCatalog.get(name)
    ids = {contiguous: own for own, contiguous in metadata.thing_dataset_id_to_contiguous_id.items()}
    unseen = ids[metadata.unseen_index[0]]

    def detection(rows, score):
        mask = np.zeros((64, 64), dtype=np.uint8, order="F")
        mask[rows, 8:56] = 1
        rle = mask_util.encode(mask)
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        return {"image_id": record["image_id"], "category_id": unseen, "score": score, "segmentation": segmentation}

    results = tmp_path / "coco_instances_results.json"
    results.write_text(json.dumps([detection(slice(4, 28), 0.9), detection(slice(36, 60), 0.3)]))
    args = ["--input", results, "--dataset", name, "--output", tmp_path / "out", "--conf-threshold", "0.5"]
    assert run("visualize_json_results", *args) == 0
    assert len(_names(tmp_path / "out")) == 2
    drawing = read_rgb(tmp_path / "out" / f"{record['file_name'].split('/')[-1][:-4]}.png")
    side = 6 * 64
    detections = drawing[22 : 22 + side, 2 * (side + 4) + 2 : 3 * (side + 4) - 2].astype(int)
    outlined = np.abs(detections - UNSEEN_RGB).max(axis=2) < 40
    assert outlined[4 * 6 : 28 * 6].any(axis=1).all() and not outlined[36 * 6 :].any()


@pytest.mark.parametrize(
    "case", ["no file", "no list", "no masks", "other image size", "other data set", "mistyped data set"]
)
def test_json_mistakes(run, drawn, tmp_path, capsys, case):
    results, name = tmp_path / "results.json", "tools_mini_val_instance"
    content = [{"image_id": 5, "category_id": 1, "score": 1.0, "segmentation": []}]
    if case == "no list":
        content = {"annotations": []}
    if case == "no masks":
        del content[0]["segmentation"]
    if case == "other image size":
        record = DatasetCatalog.get(name)[0]
        own = next(iter(MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id))
        content[0] |= {"image_id": record["image_id"], "category_id": own}
        content[0]["segmentation"] = {"size": [5, 5], "counts": [25]}
    if case != "no file":
        results.write_text(json.dumps(content))
    if case == "mistyped data set":
        name = "tools_mini_val_instanc"
    assert run("visualize_json_results", "--input", results, "--dataset", name, "--output", tmp_path / "out") == 2
    said = {
        "no file": "does not exist",
        "no list": "must hold a list",
        "no masks": "coco_instances_results.json",
        "other image size": "size [5, 5]",
        "other data set": "Is --dataset right",
        "mistyped data set": "did you mean tools_mini_val_instance",
    }
    assert said[case] in capsys.readouterr().err
