"""Forty mistakes and more: each ends, before anything starts, in one message that names key and cure, and status 2."""

import json
import os
import re
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from PADing.config import load_config
from PADing.data.embeddings import save_class_embeddings
from PADing.data.registration import register_builtin
from PADing.data.splits import load_split
from PADing.engine import main as main_module
from PADing.engine.main import main
from PADing.engine.start_check import (
    BUILDING,
    EVALUATION,
    PREDICTION,
    TRAINING,
    checked_config,
    on_present_device,
    start_problems,
)
from PADing.errors import UserError
from PADing.inference import Predictor
from tests.golden.util import REPOSITORY
from tests.small_models import SMALL

CONFIGS = REPOSITORY / "configs"
D2ZERO = ["--config-file", str(CONFIGS / "mini" / "d2zero.yaml"), "--num-gpus", "0"]
PADING = ["--config-file", str(CONFIGS / "mini" / "panoptic-PADing.yaml"), "--num-gpus", "0"]
PADING += ["MODEL.MASK_FORMER.RANDOM_SEGMENTER", "True"]
STAGE_1 = ["--config-file", str(CONFIGS / "mini" / "panoptic-pretrain.yaml"), "--num-gpus", "0"]
NODE, HEAD = "MODEL.MASK_FORMER.", "MODEL.SEM_SEG_HEAD."


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A data root with the mini data set's folders and files, empty: nothing of them is read."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("train", "val", "panoptic_train", "panoptic_val", "annotations"):
        (root / "mini" / folder).mkdir(parents=True)
    for name in ("panoptic_train_seen", "panoptic_val", "instances_train_seen", "instances_val"):
        (root / "mini" / "annotations" / f"{name}.json").write_text("{}")
    return root


@pytest.fixture
def data_in():
    """``data_in(folder)`` makes the folder the data root, until the test ends."""
    with pytest.MonkeyPatch.context() as patch:

        def function(folder):
            patch.setenv("DETECTRON2_DATASETS", str(folder))
            register_builtin()

        yield function
    register_builtin()


@pytest.fixture
def message(mini, data_in, tmp_path, monkeypatch, capsys):
    """``message(argv)``: what the command says; it must say it once, with status 2, and not begin to train."""
    monkeypatch.setattr(main_module, "train_or_evaluate", lambda args: pytest.fail("training began"))
    data_in(mini)
    vectors = ["MODEL.CLASS_EMBEDDINGS", str(_vectors(tmp_path)), "OUTPUT_DIR", str(tmp_path / "out")]

    def function(argv, recipes=()):
        opts = argv if any(item.startswith("MODEL.CLASS_EMB") for item in argv) else [*argv, *vectors]
        assert main(opts, recipes) == 2
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err and err.count("error:") == 1 and not (tmp_path / "out").exists()
        return err

    return function


def _vectors(folder):
    split = load_split(REPOSITORY / "datasets" / "splits" / "mini.yaml")
    names = [category.name for category in split.categories]
    save_class_embeddings(folder / "vectors.npz", names, np.eye(len(names), dtype=np.float32), "a test")
    return folder / "vectors.npz"


# Key, wrong value, and what the message says to set.
MISTAKES = """
SOLVER.MAX_ITER                              | 0                            | at least 1
SOLVER.MAX_ITER                              | -5                           | at least 1
SOLVER.CHECKPOINT_PERIOD                     | 0                            | at least 1
SOLVER.IMS_PER_BATCH                         | 0                            | at least 1
SOLVER.IMS_PER_BATCH                         | -1                           | at least 1
SOLVER.BASE_LR                               | -1                           | at least 0
SOLVER.BASE_LR                               | nan                          | finite
SOLVER.GENERATOR_LR                          | inf                          | finite
SOLVER.MOMENTUM                              | 1.0                          | below 1
SOLVER.STEPS                                 | (200, 100)                   | ascend
SOLVER.WARMUP_ITERS                          | -1                           | at least 0
SOLVER.WARMUP_METHOD                         | cosine                       | one of linear, constant
SOLVER.CLIP_GRADIENTS.CLIP_TYPE              | all                          | one of value, norm, full_model
SOLVER.AMP.PRECISION                         | fp16                         | one of float16, bfloat16
DATALOADER.NUM_WORKERS                       | -1                           | at least 0
INPUT.IMAGE_SIZE                             | 0                            | at least 1
INPUT.MIN_SCALE                              | 3.0                          | INPUT.MAX_SCALE
INPUT.MIN_SIZE_TRAIN                         | ()                           | 1 or more values
INPUT.FORMAT                                 | GRB                          | one of RGB, BGR
INPUT.ON_CORRUPT                             | ignore                       | one of fatal, skip
SEED                                         | 4294967296                   | 2**32
TEST.DETECTIONS_PER_IMAGE                    | 0                            | at least 1
MODEL.SEM_SEG_HEAD.NUM_CLASSES               | 0                            | -1
MODEL.SEM_SEG_HEAD.CONVS_DIM                 | 40                           | multiple of 32
MODEL.MASK_FORMER.HIDDEN_DIM                 | 66                           | multiple of 8
MODEL.MASK_FORMER.NHEADS                     | 0                            | at least 1
MODEL.MASK_FORMER.NUM_OBJECT_QUERIES         | 0                            | at least 1
MODEL.MASK_FORMER.DEC_LAYERS                 | 0                            | at least 1
MODEL.MASK_FORMER.DROPOUT                    | 1.5                          | from 0 to below 1
MODEL.MASK_FORMER.TRAIN_NUM_POINTS           | 0                            | at least 1
MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO    | 1.1                          | from 0 to 1
MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD | 1.5                          | from 0 to 1
MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD     | -0.1                         | from 0 to 1
MODEL.MASK_FORMER.NUM_CHOOSE                 | 0                            | at least 1
MODEL.MASK_FORMER.GENERATOR                  | gan                          | one of primitive,
MODEL.MASK_FORMER.SELF_TRAINING.SCORE        | 2                            | from 0 to 1
MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE     | res5                         | multi_scale_pixel_decoder
MODEL.PIXEL_STD                              | [0, 1, 1]                    | above 0
MODEL.PIXEL_MEAN                             | [1.0]                        | 3 values
MODEL.RESNETS.DEPTH                          | 19                           | one of 18, 34, 50, 101, 152
MODEL.RESNETS.RES2_OUT_CHANNELS              | 256                          | MODEL.RESNETS.RES2_OUT_CHANNELS 64
MODEL.DEVICE                                 | gpu                          | cpu, cuda
MODEL.DEVICE                                 | meta                         | cpu, cuda
MODEL.DEVICE                                 | mps                          | cpu, cuda
MODEL.META_ARCHITECTURE                      | Padding                      | did you mean PADing
MODEL.META_ARCHITECTURE                      | maskformer                   | did you mean MaskFormer
MODEL.BACKBONE.NAME                          | D2SwinTransformr             | did you mean D2SwinTransformer
MODEL.SEM_SEG_HEAD.NAME                      | MaskFormrHead                | did you mean MaskFormerHead
MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME        | MSDeformAttnDecoder          | did you mean MSDeformAttnPixelDecoder
MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME   | MultiScaleTransformerDecoder | MultiScaleMaskedTransformerDecoder
INPUT.DATASET_MAPPER_NAME                    | coco_panoptic                | did you mean coco_panoptic_lsj
SOLVER.OPTIMIZER                             | ADAMX                        | did you mean ADAMW
SOLVER.LR_SCHEDULER_NAME                     | WarmupPoly                   | did you mean WarmupPolyLR
SOLVER.RECIPE                                | OneOptimiser                 | did you mean OneOptimizer
DATALOADER.SAMPLER_TRAIN                     | RandomSampler                | TrainingSampler
DATASETS.TRAIN                               | mini_train_panoptik          | did you mean mini_train_panoptic
DATASETS.TRAIN                               | ()                           | Name one
"""


@pytest.mark.parametrize(("key", "value", "cure"), [re.split(r" +\| ", line) for line in MISTAKES.strip().splitlines()])
def test_a_mistake_names_key_and_cure(message, key, value, cure):
    words = message([*STAGE_1, key, value])
    assert key in words and cure in words and value.strip("()[]").split(",")[0] in words


@pytest.mark.parametrize(("steps", "iterations"), [("(5, 10)", 10), ("(0, 5)", 10)])
def test_steps_where_the_rate_cannot_fall(message, steps, iterations):
    """fvcore refuses a step at the very end, but takes one that lies beyond it out of the list."""
    argv = [*STAGE_1, "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.MAX_ITER", str(iterations)]
    words = message([*argv, "SOLVER.STEPS", steps])
    assert f"SOLVER.STEPS is {steps}" in words and "above 0 and below MAX_ITER" in words
    cfg = load_config(argv[1], [*argv[4:], "SOLVER.STEPS", "(5, 11)", "MODEL.DEVICE", "cpu"])
    assert not [problem for problem in start_problems(cfg, {"train"}) if "STEPS" in problem]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num-gpus", "-1"], "--num-gpus is -1. Set a whole number of at least 0"),
        (["--num-machines", "0"], "--num-machines is 0"),
        (["--num-machines", "2", "--machine-rank", "2"], "--machine-rank is 2. Set a number from 0 to 1"),
    ],
)
def test_flags_of_processes(message, flags, words):
    assert words in message([*STAGE_1, *flags])


def test_a_batch_that_processes_cannot_share(message):
    argv = ["--config-file", STAGE_1[1], "--num-gpus", "9", "MODEL.DEVICE", "cpu"]
    assert "SOLVER.IMS_PER_BATCH is 8, but there are 9 processes" in message(argv)
    assert "Set a multiple of SOLVER.SHARES, which is 3" in message([*argv, "SOLVER.SHARES", "3"])
    assert "multiple of 5 (SOLVER.REFERENCE_WORLD_SIZE)" in message([*argv, "SOLVER.REFERENCE_WORLD_SIZE", "5"])


def test_all_mistakes_are_reported_at_once(message):
    words = message([*PADING, "SOLVER.MAX_ITER", "many", "SOLVR.BASE_LR", "1", "SOLVER.IMS_PER_BATCH", "0",
                     "MODEL.WEIGHTS", "absent.pth", "INPUT.DATASET_MAPPER_NAME", "x"])  # fmt: skip
    assert "5 mistakes" in words
    for key in ("SOLVER.MAX_ITER", "SOLVR.BASE_LR", "SOLVER.IMS_PER_BATCH", "MODEL.WEIGHTS", "DATASET_MAPPER_NAME"):
        assert words.count(key) >= 1


def test_overrides_behind_a_flag_as_in_the_demo(message):
    assert "SOLVER.MAX_ITER is 0" in message([*STAGE_1, "--opts", "SOLVER.MAX_ITER", "0"])


def test_no_config_file(message):
    assert "--config-file is missing" in message(["--num-gpus", "0"])


def test_files_that_are_no_config(message, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert "a.png is not" in message(["--config-file", str(tmp_path / "a.png")])
    assert "is a folder" in message(["--config-file", str(tmp_path)])


def test_missing_data_sets_name_what_makes_them(message, mini, data_in, tmp_path):
    shutil.copytree(mini, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "mini" / "train")
    (tmp_path / "data" / "mini" / "annotations" / "panoptic_val.json").unlink()
    data_in(tmp_path / "data")
    words = message(STAGE_1)
    assert "2 mistakes" in words and words.count("python datasets/make_mini_coco.py") == 2
    assert str(tmp_path / "data" / "mini" / "train") in words and "panoptic_val.json" in words


def test_missing_mini_vectors_name_the_script_that_draws_them(message):
    """They come with the images; CLIP knows nothing of a "striped disc"."""
    for config in (PADING, D2ZERO):
        words = message([*config, "MODEL.CLASS_EMBEDDINGS", "datasets/mini/no_such_vectors.npz"])
        assert "no_such_vectors.npz" in words and "python datasets/make_mini_coco.py" in words and "clip" not in words


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "do not exist (did you mean"),
        (lambda path: path.write_bytes(b""), "are an empty file"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html>"), "are a web page"),
        (lambda path: path.mkdir(), "are a folder"),
        (lambda path: damaged_checkpoint(path), "are damaged: its part"),
    ],
)
def test_weights_are_called_what_they_are(message, tmp_path, make, words):
    torch.save({}, tmp_path / "model_final1.pth")
    make(tmp_path / "model_final.pth")
    found = message([*STAGE_1, "MODEL.WEIGHTS", str(tmp_path / "model_final.pth")])
    assert words in found and "MODEL.WEIGHTS" in found


def damaged_checkpoint(path):
    """Like a disk that has lost a block in the middle of the weights."""
    torch.save({"model": {"weight": torch.ones(10_000)}}, path)
    content = bytearray(path.read_bytes())
    content[20_000:24_096] = bytes(4096)
    path.write_bytes(content)


def test_remote_weights_are_left_to_the_loader_but_not_a_mistyped_scheme(mini):
    opts = ["OUTPUT_DIR", "/tmp/x", "MODEL.WEIGHTS"]
    for address in ("detectron2://ImageNetPretrained/torchvision/R-50.pkl", "https://host/model.pkl"):
        assert not start_problems(load_config(STAGE_1[1], [*opts, address]), {"weights"})
    (problem,) = start_problems(load_config(STAGE_1[1], [*opts, "detectrn2://x.pkl"]), {"weights"})
    assert "Addresses begin with detectron2://" in problem


def test_output_dir_below_a_file(message, tmp_path):
    (tmp_path / "file").write_text("")
    words = message([*STAGE_1, "MODEL.CLASS_EMBEDDINGS", "", "OUTPUT_DIR", str(tmp_path / "file" / "out")])
    assert "OUTPUT_DIR" in words and "is a file" in words


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_output_dir_and_weights_without_permission(message, tmp_path):
    weights, locked = tmp_path / "model.pth", tmp_path / "locked"
    torch.save({}, weights)
    weights.chmod(0)
    locked.mkdir(0o500)
    opts = ["MODEL.CLASS_EMBEDDINGS", "", "OUTPUT_DIR", str(locked / "out"), "MODEL.WEIGHTS", str(weights)]
    assert "2 mistakes" in message([*STAGE_1, *opts])


def test_class_counts(message):
    words = message([*PADING, HEAD + "NUM_CLASSES", "16"])
    assert "NUM_CLASSES is 16, but PADing predicts all 22" in words and "or -1" in words
    assert "NUM_CLASSES is 13" in message([*D2ZERO, HEAD + "NUM_CLASSES", "13"])
    assert "training set mini_train_panoptic has 22" in message([*STAGE_1, HEAD + "NUM_CLASSES", "16"])


def test_the_stage_1_script_refuses_stage_2(message):
    """Stage 2 with the stage-1 script would be an easy confusion of two similar commands."""
    assert "Use train_net.py" in message(PADING, recipes=["OneOptimizer"])


def test_a_method_of_ones_own_adds_rules(message):
    for wrong, words in (("0", "Set a number of at least 1"), ("20", "Set a multiple of 8")):
        found = message([*D2ZERO, "MODEL.D2ZERO.SEMANTIC_DIM", wrong])
        assert f"MODEL.D2ZERO.SEMANTIC_DIM is {wrong}. {words}" in found


@pytest.mark.parametrize("config", sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml")))
def test_shipped_configs_have_no_mistake(config):
    """Published values must pass; class embeddings and the small CLIP, made on each machine, are another matter."""
    if config.split("/")[-1].startswith(("Base", "Mask2Former")):
        pytest.skip("the base of other configs")
    problems = start_problems(load_config(CONFIGS / config, ["MODEL.DEVICE", "cpu"]), {"model", "train", "test"})
    made = ("Class embeddings", "is no folder of a CLIP model")
    assert not [problem for problem in problems if not any(words in problem for words in made)]


def test_what_is_not_needed_is_not_asked_for(data_in, tmp_path):
    """Analysing a model needs neither data nor weights; predicting no data; evaluating no training data."""
    data_in(tmp_path / "nothing")
    bad = ["SOLVER.MAX_ITER", "0", "MODEL.WEIGHTS", str(tmp_path / "absent.pth"), "OUTPUT_DIR", str(tmp_path)]
    counts = {}
    for name, needs in (("b", BUILDING), ("p", PREDICTION), ("e", EVALUATION), ("t", TRAINING)):
        args = Namespace(config_file=STAGE_1[1], num_gpus=0, opts=list(bad))
        try:
            checked_config(args, needs)
            counts[name] = 0
        except UserError as error:
            counts[name] = max(1, str(error).count("\n"))
    # weights; also the evaluation set; also the training set and MAX_ITER
    assert counts == {"b": 0, "p": 1, "e": 2, "t": 4}


def test_a_resumed_run_does_not_need_its_first_weights(mini, data_in, monkeypatch, tmp_path):
    data_in(mini)
    started = []
    monkeypatch.setattr(main_module, "train_or_evaluate", lambda args: started.append(args.resume))
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    argv = [*STAGE_1, "--resume", "OUTPUT_DIR", str(tmp_path), "MODEL.WEIGHTS", "gone.pth"]
    assert main(argv) == 0 and started == [True]


def test_expected_results_of_another_form(message):
    wrong = json.dumps([["segm", "AP"]])
    assert "[task, metric, value, tolerance]" in message([*STAGE_1, "TEST.EXPECTED_RESULTS", wrong])


def test_detectron2s_mapper_with_polygons(message):
    """It would end in an AttributeError in the first iteration."""
    assert "Set INPUT.MASK_FORMAT bitmask" in message([*STAGE_1, "INPUT.DATASET_MAPPER_NAME", "default"])


def test_expected_results_of_several_sets(message):
    """Their metrics lie one level deeper, so each row would end as an error behind the whole run."""
    argv = [*STAGE_1, "TEST.EXPECTED_RESULTS", '[["segm", "AP", 1.0, 0.1]]']
    argv += ["DATASETS.TEST", "('mini_val_panoptic', 'mini_val_instance')"]
    assert "TEST.EXPECTED_RESULTS is for one data set" in message(argv)


def test_stage_2_without_weights(message):
    """Its segmenter is frozen, so a random one would stay random."""
    words = message([*PADING, NODE + "RANDOM_SEGMENTER", "False"])
    assert "MODEL.WEIGHTS is empty" in words and "tools/preprocess_pretrained_weight.py" in words


def test_the_readme_s_snippet_runs_without_a_gpu(monkeypatch, tmp_path, caplog):
    """A config that asks for CUDA ended in torch's own traceback on a laptop."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small = [str(item) for pair in SMALL.items() for item in pair]
    cfg = load_config(STAGE_1[1], [*small, "MODEL.DEVICE", "cuda", "MODEL.WEIGHTS", str(tmp_path / "w.pth")])
    torch.save({"model": build_model(on_present_device(cfg)).state_dict()}, tmp_path / "w.pth")
    caplog.clear()
    assert "panoptic_seg" in Predictor(cfg)(np.zeros((40, 50, 3), np.uint8))
    assert [record.message for record in caplog.records if "no GPU is available" in record.message]


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_stage_2_of_the_full_size_configs_does_not_start_on_the_backbone_alone(task):
    """Without MODEL.WEIGHTS these configs inherit stage 1's; the user should hear of it before a download."""
    config = f"configs/{task}-segmentation/PADing.yaml"
    problems = [
        text for text in start_problems(load_config(config, []), {"train", "weights"}) if "MODEL.WEIGHTS" in text
    ]
    assert len(problems) == 1 and "R-50.pkl, a backbone without a segmenter" in problems[0]
    assert "preprocess_pretrained_weight.py" in problems[0]
    opts = ["MODEL.MASK_FORMER.RANDOM_SEGMENTER", "True"]
    assert not any("segmenter" in text for text in start_problems(load_config(config, opts), {"train", "weights"}))
