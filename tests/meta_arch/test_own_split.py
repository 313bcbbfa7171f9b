"""A data set of one's own trains with every shipped config: its split file and names are all that is said."""

import numpy as np
import pytest
import yaml

from PADing.config import load_config
from PADing.data import verify
from PADing.data.embeddings import save_class_embeddings
from PADing.errors import UserError
from PADing.meta_arch.contract import architecture_of
from tests.golden.util import REPOSITORY

SEEN, UNSEEN = 200, 3
NAMES = [f"thing {i}" for i in range(SEEN + UNSEEN)]
# Without those of FrozenCLIP, which need the embeddings of their own CLIP (tests/frozenclip).
CONFIGS = [
    path
    for pattern in ("*segmentation/[!B]*.yaml", "d2zero*.yaml")
    for path in sorted((REPOSITORY / "configs").glob(pattern))
    if not path.stem.startswith("frozenclip")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A split of more classes than COCO has, with embeddings of a width of their own; there are no images."""
    folder = tmp_path_factory.mktemp("own")
    paths = {
        "instance": {"json": "./a.json"},
        "panoptic": {"panoptic_root": "./a", "panoptic_json": "./a.json"},
        "semantic": {"sem_seg_root": "./a"},
    }
    data_sets = [
        {"name": f"many_{role}_{kind}", "kind": kind, "role": role, "image_root": "./a", **places}
        for kind, places in paths.items()
        for role in ("train", "val")
    ]
    categories = [{"id": i + 1, "name": name, "isthing": 1} for i, name in enumerate(NAMES)]
    content = {"name": "own", "categories": categories, "unseen": NAMES[SEEN:], "data_sets": data_sets}
    content["class_embeddings"] = "./own.npz"
    (folder / "split.yaml").write_text(yaml.safe_dump(content))
    save_class_embeddings(folder / "own.npz", NAMES, np.random.default_rng(0).normal(size=(len(NAMES), 7)), "test")
    return folder


def own(folder, config, *opts):
    kind = config.parent.name.split("-")[0] if "segmentation" in config.parent.name else "instance"
    names = ["DATASETS.TRAIN", (f"many_train_{kind}",), "DATASETS.TEST", (f"many_val_{kind}",)]
    return load_config(config, ["DATASETS.SPLIT_FILES", (str(folder / "split.yaml"),), *names, *opts])


def test_every_shipped_training_config_is_among_them():
    assert len(CONFIGS) == 12 + 2 * 5  # both stages with five other backbones


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_classes_and_embeddings_are_those_of_the_split(folder, config, caplog):
    """It needed NUM_CLASSES, VEC_PATH None, CLASS_EMBEDDINGS and SEEN_CLS_ONLY beside the names."""
    cfg = own(folder, config)
    all_classes = cfg.MODEL.META_ARCHITECTURE == "PADing" or "panoptic" in str(config)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == (SEEN + UNSEEN if all_classes else SEEN)
    with caplog.at_level("INFO", logger="PADing"):
        architecture_of(cfg).check_start(cfg, training=True)
    told = [record for record in caplog.records if "The split file names another file" in record.message]
    assert len(told) == (cfg.MODEL.MASK_FORMER.VEC_PATH is not None)


def test_embeddings_on_the_command_line_are_enough(folder, tmp_path, caplog):
    """The split file names none, and the config names published word vectors: VEC_PATH None was needed."""
    text = (folder / "split.yaml").read_text().replace("class_embeddings: ./own.npz", "").replace("many_", "more_")
    (tmp_path / "split.yaml").write_text(text)
    names = ["DATASETS.TRAIN", ("more_train_instance",), "DATASETS.TEST", ("more_val_instance",)]
    opts = ["DATASETS.SPLIT_FILES", (str(tmp_path / "split.yaml"),), *names]
    opts += ["MODEL.CLASS_EMBEDDINGS", str(folder / "own.npz")]
    cfg = load_config(REPOSITORY / "configs" / "instance-segmentation" / "PADing.yaml", opts)
    with caplog.at_level("INFO", logger="PADing"):
        architecture_of(cfg).check_start(cfg, training=True)
    assert "MODEL.CLASS_EMBEDDINGS names another file, which is used instead" in caplog.text


def test_embeddings_that_are_not_made_yet_come_with_the_command(folder, tmp_path):
    """The published vectors do not fit, and the file of the split is absent."""
    text = (folder / "split.yaml").read_text().replace("own.npz", "absent.npz").replace("many_", "unmade_")
    (tmp_path / "split.yaml").write_text(text)
    names = ["DATASETS.TRAIN", ("unmade_train_instance",), "DATASETS.TEST", ("unmade_val_instance",)]
    opts = ["DATASETS.SPLIT_FILES", (str(tmp_path / "split.yaml"),), *names]
    cfg = load_config(REPOSITORY / "configs" / "instance-segmentation" / "PADing.yaml", opts)
    with pytest.raises(UserError, match=r"(?s)columns.*absent\.npz, which does not exist.*class_embeddings\.py clip"):
        architecture_of(cfg).check_start(cfg, training=True)


@pytest.mark.parametrize("content", ["torn", "one class short"])
def test_a_file_of_the_user_with_a_mistake_is_refused_and_not_replaced(folder, tmp_path, content):
    """Training on the split's own embeddings instead would hide the mistake."""
    mine = tmp_path / "mine.npz"
    save_class_embeddings(mine, NAMES[1:], np.ones((len(NAMES) - 1, 7)), "test")
    if content == "torn":
        mine.write_bytes(mine.read_bytes()[:-50])
    config = REPOSITORY / "configs" / "panoptic-segmentation" / "PADing.yaml"
    cfg = own(folder, config, "MODEL.CLASS_EMBEDDINGS", str(mine))
    with pytest.raises(UserError, match="cannot be read" if content == "torn" else "lack 1 of 203 classes: thing 0"):
        architecture_of(cfg).check_start(cfg, training=True)


@pytest.mark.parametrize("embeddings", ["own.npz", "absent.npz"])
def test_verify_reads_the_embeddings_that_training_reads(folder, tmp_path, embeddings, capsys):
    """It said that a config with published word vectors cannot train on data of one's own."""
    split = (folder / "split.yaml").read_text().replace("./own.npz", str(folder / embeddings))
    (tmp_path / "split.yaml").write_text(split)
    base = REPOSITORY / "configs" / "instance-segmentation" / "PADing.yaml"
    names = {"TRAIN": ["many_train_instance"], "TEST": ["many_val_instance"]}
    content = {"_BASE_": str(base), "DATASETS": {**names, "SPLIT_FILES": [str(tmp_path / "split.yaml")]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert verify.main(["--config", str(tmp_path / "mine.yaml")]) == 1  # there are no images
    printed = capsys.readouterr().out
    assert "columns" not in printed and ("absent.npz are missing" in printed) == (embeddings == "absent.npz")
