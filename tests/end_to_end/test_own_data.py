"""Data of someone's own, without a line of code: split file, conversion, training, evaluation, and usual mistakes."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from PADing.data.embeddings import save_class_embeddings
from PADing.data.splits import load_split
from tests.end_to_end.command_line import REPOSITORY, SMALL, readme_commands, results, run, train_net
from tests.end_to_end.own_data import AWKWARD, NEVER, PLAIN, write_own_data

UNSEEN = ["四角", "Gras"]


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """Own data with a split file written by hand, class embeddings and label PNGs."""
    folder = write_own_data(tmp_path_factory.mktemp("eigene Daten"), AWKWARD, UNSEEN)
    data_sets = []
    for role in ("train", "val"):
        common = {"role": role, "image_root": f"./images/{role}"}
        panoptic = {"panoptic_root": f"./panoptic/{role}", "panoptic_json": f"./panoptic_{role}.json"}
        data_sets += [
            {"name": f"eigen_{role}_instance", "kind": "instance", "json": f"./{role}.json", **common},
            {"name": f"eigen_{role}_panoptic", "kind": "panoptic", **panoptic, **common},
            {"name": f"eigen_{role}_semantic", "kind": "semantic", "sem_seg_root": f"./labels/{role}", **common},
        ]
    split = {"name": "eigen", "categories": AWKWARD, "unseen": UNSEEN, "data_sets": data_sets}
    split["class_embeddings"] = "./vectors.npz"
    (folder / "split.yaml").write_text(yaml.safe_dump(split, allow_unicode=True), encoding="utf-8")
    names = [category["name"] for category in AWKWARD]
    save_class_embeddings(folder / "vectors.npz", names, np.random.default_rng(0).normal(size=(len(names), 8)), "test")
    convert = [
        "python",
        "datasets/prepare_coco_stuff_sem_seg.py",
        "--split-file",
        folder / "split.yaml",
        "--workers",
        1,
    ]
    for role in ("train", "val"):
        run(convert, "--data-set", f"eigen_{role}_semantic", "--source", folder / "raw" / role)
    return folder


def sets(folder, kind, *more):
    """Config keys that put own data sets in the place of COCO's."""
    return [
        "DATASETS.SPLIT_FILES", f"({str(folder / 'split.yaml')!r},)",
        "DATASETS.TRAIN", f"('eigen_train_{kind}',)", "DATASETS.TEST", f"('eigen_val_{kind}',)",
        *more,
    ]  # fmt: skip


def whole_path(folder, kind, out):
    """Both stages and the evaluation of stage 2; the names of the data sets are all that differs from COCO."""
    stage_1 = sets(folder, kind, "MODEL.WEIGHTS", "", "OUTPUT_DIR", out / "1")
    train_net("train_net_pretrain.py", f"{kind}-segmentation/pretrain.yaml", *stage_1)
    convert = ["python", "tools/preprocess_pretrained_weight.py", "--task_name", kind]
    weights = ["--input_file", out / "1" / "model_final.pth", "--output_file", out / "converted.pth"]
    run(convert, "--split", folder / "split.yaml", *weights)
    stage_2 = sets(folder, kind, "MODEL.WEIGHTS", out / "converted.pth", "OUTPUT_DIR", out / "2")
    log = train_net("train_net.py", f"{kind}-segmentation/PADing.yaml", *stage_2)
    return results(out / "2")[f"eigen_val_{kind}"], log


def test_instance(awkward, tmp_path):
    """Ids with gaps, names of several scripts and a class without annotation get as far as metrics."""
    metrics, _ = whole_path(awkward, "instance", tmp_path)
    for task in ("bbox", "segm"):
        assert {"AP50_seen", "AP50_unseen", "AP50_hm", "AP-κύκλος", "AP-四角"} <= set(metrics[task])
        assert metrics[task]["AP-leer"] is None and metrics[task]["AP50_seen"] is not None
    detections = json.loads((tmp_path / "2" / "inference" / "coco_instances_results.json").read_text())
    assert {d["category_id"] for d in detections} <= {c["id"] for c in AWKWARD if c["isthing"]}


@pytest.mark.slow
def test_panoptic(awkward, tmp_path):
    metrics, _ = whole_path(awkward, "panoptic", tmp_path)
    assert {"PQ", "PQ_se", "PQ_un", "PQ_hm"} <= set(metrics["panoptic_seg"])
    assert "AP50_hm" in metrics["segm"] and metrics["sem_seg"]["IoU-Gras"] is not None


@pytest.mark.slow
def test_semantic(awkward, tmp_path):
    """A class without a pixel makes the published means NaN; the log says how to leave it out."""
    metrics, log = whole_path(awkward, "semantic", tmp_path)
    assert metrics["sem_seg"]["seen_IoU"] is None and metrics["sem_seg"]["unseen_IoU"] is not None
    assert NEVER in log and "TEST.SEM_SEG_NAN_AWARE True" in log
    stage_2 = sets(awkward, "semantic", "TEST.SEM_SEG_NAN_AWARE", "True")
    stage_2 += ["MODEL.WEIGHTS", tmp_path / "2" / "model_final.pth", "OUTPUT_DIR", tmp_path / "3"]
    train_net("train_net.py", "semantic-segmentation/PADing.yaml", "--eval-only", *stage_2)
    assert results(tmp_path / "3")["eigen_val_semantic"]["sem_seg"]["hIoU"] is not None


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """A folder in which the commands of docs/your_data.md can be run as they are written, and a function that does."""
    folder = tmp_path_factory.mktemp("documented")
    for name in ("tools", "configs", "datasets", "train_net.py", "train_net_pretrain.py"):
        (folder / name).symlink_to(REPOSITORY / name)
    write_own_data(folder, PLAIN, ["zebra", "hot dog", "sea"])
    names = [category["name"] for category in PLAIN]
    (folder / "names.json").write_text(json.dumps(names))
    np.save(folder / "vectors.npy", np.random.default_rng(0).normal(size=(len(names), 8)))

    def follow(heading):
        said = []
        for command in readme_commands(heading):
            # CLIP's weights would have to be downloaded.
            command = command.replace(" clip ", " matrix --file vectors.npy --file-names names.json ")
            small = []
            if command.startswith(("python train_net", "python tools/visualize")):
                command = command.replace(" --num-gpus 0", "").replace("--config-file", "--num-gpus 0 --config-file")
                small = [*SMALL]
                small += ["MODEL.WEIGHTS", ""] if "MODEL.WEIGHTS" not in command else []
            said.append(run(command, *small, cwd=folder))
        return said

    return folder, follow


@pytest.mark.slow
def test_documented_instance_commands(documented):
    """Five commands, a try on the CPU, and PADing's three; then evaluation alone."""
    folder, follow = documented
    said = follow("## Instance masks in five commands")
    assert len(said) == 9
    report = next(text for text in said if "read with their annotation" in text)
    assert report.count("  ok  ") == 2 and "MISSING" not in report and "WRONG" not in report
    for name in ("mine", "mine_try", "mine_2"):
        metrics = results(folder / "output" / name)["mine_val_instance"]
        assert metrics["segm"]["AP-zebra"] is not None and "AP50_hm" in metrics["segm"]
    assert (folder / "output" / "mine" / "drawn" / "overview.png").exists()
    assert len(follow("## Evaluate")) == 1 and (folder / "output" / "mine_eval" / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("heading, sets", [("## Panoptic annotation", 4), ("## Label PNGs only", 2)])
def test_documented_preparation(documented, heading, sets):
    said = documented[1](heading)
    assert len(said) == 5 and said[-1].count("  ok  ") == sets
    assert "MISSING" not in said[-1] and "WRONG" not in said[-1]


def test_the_page_s_split_file(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / "your_data.md").read_text(), flags=re.DOTALL)
    (tmp_path / "split.yaml").write_text(block)
    split = load_split(tmp_path / "split.yaml")
    assert split.unseen == ("hot dog",) and split.seen == ("dog", "grass") and len(split.data_sets) == 2


@pytest.fixture
def spoiled(awkward, tmp_path):
    """A copy of the data to make mistakes in."""
    return shutil.copytree(awkward, tmp_path / "kopie")


def mistake(folder, kind, *opts, config="pretrain.yaml", **more):
    """Train, and return the message it ends with: one message, no traceback."""
    keys = sets(folder, kind, "MODEL.WEIGHTS", "", "OUTPUT_DIR", folder / "out", *opts)
    log = train_net("train_net.py", f"{kind}-segmentation/{config}", *keys, expect=2, **more)
    assert "Traceback" not in log and log.count("error: ") == 1, log[-3000:]
    return log.split("error: ")[1]


def test_unknown_unseen_name(spoiled):
    text = (spoiled / "split.yaml").read_text(encoding="utf-8").replace("- Gras", "- Grass")
    (spoiled / "split.yaml").write_text(text, encoding="utf-8")
    message = mistake(spoiled, "instance")
    assert "'Grass'" in message and "did you mean Gras" in message and "split.yaml" in message


def test_missing_annotation_file(spoiled):
    (spoiled / "train.json").unlink()
    message = mistake(spoiled, "instance")
    assert str(spoiled / "train.json") in message and "eigen_train_instance" in message


def test_too_few_outputs(spoiled):
    message = mistake(spoiled, "semantic", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3)
    assert "NUM_CLASSES is 3" in message and "eigen_train_semantic" in message


def test_wrong_id_in_a_label_file(spoiled):
    """Also when another process has read the file."""
    for path in (spoiled / "labels" / "train").iterdir():
        Image.fromarray(np.full((60, 80), 77, dtype=np.uint8)).save(path)
    message = mistake(spoiled, "semantic", "DATALOADER.NUM_WORKERS", 1)
    assert "has the values 77" in message and str(spoiled / "labels" / "train") in message


def test_annotation_of_an_unknown_category(spoiled):
    content = json.loads((spoiled / "panoptic_train.json").read_text())
    content["annotations"][0]["segments_info"][0]["category_id"] = 41
    (spoiled / "panoptic_train.json").write_text(json.dumps(content))
    message = mistake(spoiled, "panoptic")
    assert "category 41" in message and "panoptic_train.json" in message
