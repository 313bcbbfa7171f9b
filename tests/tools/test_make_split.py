"""From COCO-format files to a split file that registers and loads, without writing code."""

import importlib.util
import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from PADing.data.registration import register_split_files
from PADing.data.splits import load_split

REPOSITORY = Path(__file__).resolve().parents[2]
CATEGORIES = [
    {"id": 31, "name": 'ja: "quoted" #1', "supercategory": "x"},
    {"id": 8, "name": "no", "color": [1, 2, 3]},
    {"id": 205, "name": "Größe 'XL'"},
    {"id": 1000, "name": "草", "isthing": 0},
]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_split", REPOSITORY / "tools" / "make_split.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path):
    """Instances and panoptic JSON for one image each; the images themselves are not looked at."""
    for name in ("images", "panoptic"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"")
    image = {"id": 4, "file_name": "a.png", "height": 5, "width": 6}
    box = {"bbox": [0, 0, 2, 2], "iscrowd": 0, "segmentation": [[0, 0, 2, 0, 2, 2]]}
    instances = {
        "images": [image],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 205, **box}],
        "categories": CATEGORIES[:3],
    }
    panoptic = {
        "images": [image],
        "annotations": [{"image_id": 4, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1000}]}],
        "categories": CATEGORIES,
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    (tmp_path / "panoptic.json").write_text(json.dumps(panoptic))
    (tmp_path / "no_annotations.json").write_text(json.dumps({"categories": CATEGORIES}))
    (tmp_path / "no_names.json").write_text(json.dumps({**instances, "categories": [{"id": 3}]}))
    yield tmp_path
    for name in [name for name in DatasetCatalog.list() if name.startswith("mk_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _args(data, json_name, *more):
    args = ["--name", "mk", "--output", str(data / "mk.yaml")]
    for role in ("train", "val"):
        args += [f"--{role}-json", str(data / json_name), f"--{role}-images", str(data / "images")]
    return [*args, *more]


def test_instances(tool, data, caplog):
    """Names that YAML would take for something else, and a class without annotation, survive."""
    assert tool.main(_args(data, "instances.json", "--unseen", "no")) == 0
    register_split_files([data / "mk.yaml"])
    assert len(DatasetCatalog.get("mk_train_instance")) == 1
    metadata = MetadataCatalog.get("mk_val_instance")
    assert metadata.thing_classes == ['ja: "quoted" #1', "Größe 'XL'", "no"]
    assert metadata.thing_dataset_id_to_contiguous_id == {31: 0, 205: 1, 8: 2}
    assert metadata.thing_colors[2] == [1, 2, 3]
    assert "No annotation in train: no, ja" in caplog.text


def test_split_file_moves_with_its_data(tool, data, tmp_path_factory):
    """Paths below the split file are relative to it."""
    assert tool.main(_args(data, "instances.json", "--unseen", "no")) == 0
    moved = tmp_path_factory.mktemp("moved") / "data"
    shutil.move(str(data), moved)
    register_split_files([moved / "mk.yaml"])
    assert DatasetCatalog.get("mk_val_instance")[0]["file_name"] == str(moved / "images" / "a.png")


def test_panoptic_and_semantic(tool, data):
    more = ["--unseen", "草"]
    for role in ("train", "val"):
        more += [f"--{role}-panoptic", str(data / "panoptic"), f"--{role}-labels", str(data / "labels_to_be_made")]
        more += [f"--{role}-instances", str(data / "instances.json")]
    assert tool.main(_args(data, "panoptic.json", *more)) == 0
    register_split_files([data / "mk.yaml"])
    panoptic, semantic = MetadataCatalog.get("mk_val_panoptic"), MetadataCatalog.get("mk_val_semantic")
    assert panoptic.unseen_index == [3] and panoptic.thing_classes == ["no", 'ja: "quoted" #1', "Größe 'XL'"]
    # The same label maps serve both, so the classes must have one order.
    assert semantic.stuff_classes == panoptic.stuff_classes and semantic.sem_seg_root == panoptic.sem_seg_root
    assert panoptic.json_file == str(data / "instances.json")


@pytest.mark.parametrize(
    "json_name, more, message",
    [
        ("instances.json", ["--unseen", "nope"], "did you mean no"),
        ("instances.json", ["--unseen", "NO"], "'NO' (did you mean no?)"),
        ("instances.json", ["--unseen", "a.txt,Grosse 'XL'"], "'a.txt', \"Grosse 'XL'\" (did you mean Größe 'XL'?)"),
        ("instances.json", ["--unseen", " , "], "names no class"),
        ("panoptic.json", ["--unseen", "no"], "--train-panoptic"),
        ("instances.json", ["--unseen", "no", "--val-images", str(REPOSITORY / "Makefile")], "Makefile is a file"),
        ("nothing.json", ["--unseen", "no"], "nothing.json"),
        ("no_annotations.json", ["--unseen", "no"], "has no `annotations`"),
        ("no_names.json", ["--unseen", "no"], "lacks the field 'name'"),
    ],
)
def test_mistakes_leave_no_file(tool, data, capsys, json_name, more, message):
    assert tool.main(_args(data, json_name, *more)) == 2
    assert message in capsys.readouterr().err and not (data / "mk.yaml").exists()


def test_clashing_names(tool, data, capsys):
    content = json.loads((data / "instances.json").read_text())
    content["categories"][1]["name"] = "yes"
    (data / "other.json").write_text(json.dumps(content))
    args = _args(data, "instances.json", "--unseen", "no", "--val-json", str(data / "other.json"))
    assert tool.main(args) == 2
    first, second = (str(data / name) for name in ("instances.json", "other.json"))
    assert f"Category 8 is 'no' in {first}, but 'yes' in {second}" in capsys.readouterr().err


def test_labels_alone_take_their_classes_from_a_list(tool, data):
    """Someone with nothing but label PNGs has no annotation JSON to read the classes from."""
    (data / "classes.json").write_text(json.dumps(CATEGORIES))
    args = ["--name", "mk", "--output", str(data / "mk.yaml"), "--unseen", "草", "--categories"]
    args += [str(data / "classes.json"), "--train-images", str(data / "images"), "--train-labels", str(data / "labels")]
    assert tool.main(args) == 0
    register_split_files([data / "mk.yaml"])
    assert MetadataCatalog.get("mk_train_semantic").vocabulary == ["no", 'ja: "quoted" #1', "Größe 'XL'", "草"]


def test_names_with_commas(tool, data):
    """LVIS and ADE20K have hundreds of them; a list with commas between the names must not cut them."""
    names = ["sofa, couch", "couch", "cat, tabby, tiger cat", "sofa"]
    classes = [{"id": i, "name": name} for i, name in enumerate([*names, "dog"])]
    (data / "classes.json").write_text(json.dumps(classes))
    args = ["--name", "mk", "--output", str(data / "mk.yaml"), "--categories", str(data / "classes.json")]
    args += ["--train-images", str(data / "images"), "--train-labels", str(data / "labels"), "--unseen"]
    assert tool.main([*args, "couch,sofa, couch,cat,tabby, tiger cat"]) == 0
    assert load_split(data / "mk.yaml").unseen == ("couch", "sofa, couch", "cat, tabby, tiger cat")
    (data / "unseen.txt").write_text("cat, tabby, tiger cat\nsofa\n")
    assert tool.main([*args, str(data / "unseen.txt")]) == 0
    assert load_split(data / "mk.yaml").unseen == ("cat, tabby, tiger cat", "sofa")


def test_written_file_is_plain_yaml(tool, data):
    assert tool.main(_args(data, "instances.json", "--unseen", "no")) == 0
    content = yaml.safe_load((data / "mk.yaml").read_text(encoding="utf-8"))
    assert content["unseen"] == ["no"] and content["data_sets"][0]["image_root"] == "./images"
    # In an order for readers: what a class or a data set is called comes first.
    assert list(content)[0] == "name" and {list(entry)[0] for entry in content["data_sets"]} == {"name"}


def test_printed_commands_start(tool, data, caplog, monkeypatch, capsys):
    """Nobody types counts: what make_split prints for each stage passes the check of the whole config."""
    from argparse import Namespace

    from PADing.engine.start_check import checked_config

    caplog.set_level("INFO")
    monkeypatch.chdir(REPOSITORY)
    assert tool.main(_args(data, "instances.json", "--unseen", "no", "--class-embeddings", str(_vectors(data)))) == 0
    commands = [shlex.split(line) for line in caplog.text.splitlines() if line.startswith("python ")]
    assert [command[1] for command in commands] == [
        "train_net_pretrain.py", "tools/preprocess_pretrained_weight.py", "train_net.py",
    ]  # fmt: skip
    assert "CLASS_EMBEDDINGS" not in caplog.text  # the split file names them
    torch.save({}, data / "converted.pth")
    counts = []
    for _, _, _, config, *opts in (commands[0], commands[2]):
        # What the first two commands would have made.
        opts = [opt.replace("output/mk_instance_1/converted.pth", str(data / "converted.pth")) for opt in opts]
        args = Namespace(config_file=config, num_gpus=0, opts=[*opts, "OUTPUT_DIR", str(data / "out")], eval_only=False)
        counts.append(checked_config(args).MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    assert counts == [2, 3]  # the seen classes; all of them


@pytest.mark.parametrize("output", ["in a folder/mk.yaml", "../it's mk.yaml"])
def test_printed_commands_name_the_split_file_as_it_was_given(tool, data, caplog, monkeypatch, output):
    """All of them can be pasted: from the same folder, with spaces and quotation marks in the names."""
    caplog.set_level("INFO")
    (data / "here" / "in a folder").mkdir(parents=True)
    monkeypatch.chdir(data / "here")
    args = _args(data, "instances.json", "--unseen", "no", "--class-embeddings", "my vectors.npz")
    args[args.index("--output") + 1] = output
    assert tool.main(args) == 0
    assert Path(output).is_file() and str(data) not in caplog.text
    lines = [line[line.index("python ") :] for line in caplog.text.splitlines() if "python " in line]
    embed, *stages = map(shlex.split, lines)
    assert embed[2:] == ["clip", "--split", output, "--output", "my vectors.npz"]
    assert len(stages) == 3 and all(output in command for command in stages)


def _vectors(folder):
    import numpy as np

    from PADing.data.embeddings import save_class_embeddings

    names = [category["name"] for category in CATEGORIES]
    save_class_embeddings(folder / "v.npz", names, np.eye(4, dtype=np.float32), "a test")
    return folder / "v.npz"
