"""The usual mistakes at each tool: one message that names what is wrong, status 2, no traceback."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from PADing.commands import coco_eval
from PADing.data import verify
from tests.small_models import REPOSITORY

CONFIG = ["--config-file", str(REPOSITORY / "configs" / "mini" / "panoptic-pretrain.yaml")]
SPLIT = ["--split", str(REPOSITORY / "datasets" / "splits" / "mini.yaml")]
WORDS = str(REPOSITORY / "embeddings" / "coco" / "word_w2v_withbg_48_17.txt")
# {} is a folder with text.txt, empty.json and list.json.
MISTAKES = [
    ("demo/demo.py", [*CONFIG, "--input", "{}/none.jpg", "--output", "{}/o"], "MODEL.WEIGHTS is empty"),
    ("demo/demo.py", [*CONFIG, "--input", "{}/text.txt"], "--output"),
    ("demo/demo.py", [*CONFIG, "--input", "a.jpg", "--confidence-threshold", "1.5"], "from 0 to 1"),
    ("demo/demo.py", [*CONFIG, "--input", "a.jpg", "--num-gpus", "-1"], "at least 0"),
    ("demo/demo.py", ["--input", "a.jpg"], "--output"),
    ("tools/analyze_model.py", [*CONFIG, "--tasks", "speed"], "speed"),
    ("tools/analyze_model.py", [*CONFIG, "--input-size", "0", "9", "--tasks", "flop"], "at least 1"),
    ("tools/analyze_model.py", [*CONFIG, "--tasks", "flop", "--opts", "DATASETS.TEST", "()"], "DATASETS.TEST is empty"),
    ("tools/analyze_model.py", [*CONFIG, "--tasks", "parameter", "--opts", "MODEL.RESNETS.DEPTH", "7"], "DEPTH is 7"),
    ("tools/analyze_model.py", ["--config-file", "{}/text.txt", "--tasks", "parameter"], "text.txt"),
    ("tools/benchmark.py", ["msda", "--rounds", "0"], "at least 1"),
    ("tools/benchmark.py", ["msda", "--case", "1x1"], "1x1"),
    ("tools/class_embeddings.py", ["matrix", "--file", "{}/text.txt", *SPLIT, "--output", "{}/a.npz"], "text.txt"),
    ("tools/class_embeddings.py", ["matrix", "--file", WORDS, *SPLIT, "--output", "{}/a.npz"], "22 names"),
    ("tools/class_embeddings.py", ["matrix", "--file", "{}/zeros.npy", *SPLIT, "--output", "{}/a.npz"], "only zeros"),
    ("tools/class_embeddings.py", ["matrix", "--file", "{}", *SPLIT, "--output", "{}/a.npz"], "does not exist"),
    ("tools/class_embeddings.py", ["words", "--file", "{}/none", *SPLIT, "--output", "{}/a.npz"], "none"),
    ("tools/class_embeddings.py", ["words", "--file", "x", "--names", "{}/empty.json", "--output", "x.npz"], "empty"),
    ("tools/make_split.py", ["--name", "x", "--unseen", "a", "--output", "{}/s.yaml"], "--train-json"),
    ("tools/make_split.py", ["--name", "x", "--unseen", "a"], "--output"),
    ("tools/make_split.py", ["--name", "x", "--unseen", "a", "--output", "{}/list.json"], "must end with .yaml"),
    ("tools/analyze_model.py", [*CONFIG, "--tasks", "flop", "--input-size", "99999", "99999"], "more pixels"),
    ("tools/preprocess_pretrained_weight.py", ["--input", "{}/none.pth"], "none.pth"),
    ("tools/preprocess_pretrained_weight.py", ["--input_file", "{}/text.txt"], "text.txt"),
    ("tools/preprocess_pretrained_weight.py", ["--input", "x", "--split", "49_17"], "49_17"),
    ("tools/visualize_data.py", [*CONFIG, "--source", "dataloader", "--number", "0"], "--number 0"),
    ("tools/visualize_data.py", [*CONFIG, "--source", "annotation", "--number", "-2"], "at least 0"),
    ("tools/visualize_data.py", [*CONFIG, "--source", "annotation", "DATASETS.TRAIN", "mini"], "TRAIN is 'mini'"),
    ("tools/visualize_predictions.py", [*CONFIG, "--output", "{}/o", "--scale", "-1"], "at least 0"),
    ("tools/visualize_predictions.py", [*CONFIG, "--output", "{}/o", "MODEL.WEIGHTS", "{}/x.pth"], "x.pth"),
    ("tools/visualize_json_results.py", ["--input", "x", "--output", "y", "--dataset", "mini_val"], "mini_val"),
    ("tools/visualize_json_results.py", ["--input", "x", "--output", "y"], "--dataset"),
    ("datasets/make_mini_coco.py", ["--out", "{}/mini", "--train", "-3"], "at least 1"),
    ("datasets/make_mini_coco.py", ["--out", "{}/text.txt/mini", "--train", "1"], "text.txt"),
    ("datasets/get_zsp_json.py", ["--annotation_dir", "{}"], "panoptic_train2017.json"),
    ("datasets/prepare_coco_zsi.py", ["--train-json", "{}/list.json", "--split", "48_17", "--force"], "list.json"),
    ("datasets/prepare_coco_stuff_sem_seg.py", ["--workers", "0"], "at least 1"),
    ("datasets/prepare_coco_semantic_annos_from_panoptic_annos.py", ["--json", "x"], "belong together"),
    ("gzsi", ["{}/empty.json", "--ann", "{}/list.json"], "list.json"),
    ("zsi", ["{}/none.json", "--ann", "{}/empty.json", "--max-dets", "0"], "at least 1"),
    ("verify", ["--split-file", "{}/none.yaml"], "none.yaml"),
    ("verify", ["--images", "-1"], "at least 0"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("no numbers: no images\n")
    (tmp_path / "empty.json").write_text("")
    np.save(tmp_path / "zeros.npy", np.zeros((22, 3)))
    (tmp_path / "list.json").write_text(json.dumps([1, 2]))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("name", "arguments", "words"), MISTAKES)
def test_one_message_and_status_2(tool, folder, capsys, name, arguments, words):
    before = sorted(path.name for path in folder.iterdir())
    assert _status(tool, name, [argument.format(folder) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and said.count("error:") == 1
    assert sorted(path.name for path in folder.iterdir() if path.name != "coco") == before


def _status(tool, name: str, arguments: list[str]) -> int:
    try:
        if name == "verify":
            return verify.main(arguments)
        if name in ("gzsi", "zsi"):
            return coco_eval.main("A test.", generalized=name == "gzsi", argv=arguments)
        return tool(name).main(arguments)
    except SystemExit as end:  # argparse
        return end.code


def test_flags_of_former_days_keep_working(tool, folder, drawn, model_options):
    (flag, file), opts = model_options("MaskFormer")
    shutil.rmtree(folder / "o", ignore_errors=True)
    for name in ("--output-dir", "--output"):
        arguments = [flag, file, "--source", "annotation", name, str(folder / "o" / name), "--number", "1", *opts]
        assert _status(tool, "tools/visualize_data.py", arguments) == 0
        assert len(list(Path(folder / "o" / name).iterdir())) == 1
