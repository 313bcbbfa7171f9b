"""Class embeddings are matched by name, and what is missing is said."""

import numpy as np
import pytest
import torch
import yaml

from PADing.config import load_config
from PADing.data.embeddings import (
    CLIP_TEMPLATES,
    embedding_width,
    load_class_embeddings,
    resolve_embedding_path,
    save_class_embeddings,
)
from PADing.data.registration import register_split_files
from PADing.errors import UserError

NAMES = ["Straße", "κύκλος", "四角"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_npz_is_matched_by_name(tmp_path):
    """By position, another order of classes would swap their vectors unnoticed."""
    path = tmp_path / "v.npz"
    save_class_embeddings(path, NAMES, VECTORS, "by hand")
    loaded = load_class_embeddings(path, ["四角", "Straße"])
    assert loaded.dtype == torch.float32 and torch.equal(loaded, torch.tensor(VECTORS[[2, 0]]))
    assert embedding_width(path) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["v.npz"]


def test_txt_columns(tmp_path):
    """The older layout: rows are dimensions, column 0 the background."""
    path = tmp_path / "v.txt"
    np.savetxt(path, np.column_stack([np.full(4, 9.0), VECTORS.T]), delimiter=",")
    assert torch.equal(load_class_embeddings(path, NAMES), torch.tensor(VECTORS))
    assert torch.equal(load_class_embeddings(path, ["四角"], file_names=NAMES), torch.tensor(VECTORS[[2]]))
    assert embedding_width(path) == 4
    with pytest.raises(UserError, match="4 columns.*2 classes"):
        load_class_embeddings(path, NAMES[:2])


def test_all_missing_classes_are_listed(tmp_path):
    path = tmp_path / "v.npz"
    save_class_embeddings(path, NAMES, VECTORS, "by hand")
    with pytest.raises(UserError, match="lack 2 of 3 classes: Hund, 犬.*class_embeddings.py"):
        load_class_embeddings(path, ["Hund", "Straße", "犬"])


@pytest.mark.parametrize("content", [b"", b"PK broken", b"1.0,2.0\n3.0"])
@pytest.mark.parametrize("suffix", [".npz", ".txt"])
def test_broken_files_are_named(tmp_path, content, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"v{suffix}"):
        load_class_embeddings(path, NAMES)
    path.unlink()
    with pytest.raises(UserError, match="do not exist"):
        load_class_embeddings(path, NAMES)


def _npz(**arrays):
    return lambda path: np.savez(path, **{"names": np.array(NAMES), "vectors": VECTORS, **arrays})


def _zip_bomb(path):
    """48 KB that unpack to 48 MB, and, by what the archive says of itself, to 1 GB."""
    np.savez_compressed(path, names=np.array(NAMES), vectors=np.zeros((3, 2**22), dtype=np.float32))
    data = path.read_bytes()
    size = (48 * 2**20 + 128).to_bytes(4, "little")
    assert size in data
    path.write_bytes(data.replace(size, (2**30).to_bytes(4, "little")))


@pytest.mark.parametrize(
    "make, reason",
    [
        (_npz(vectors=np.where(VECTORS == 5, 1e300, VECTORS.astype(np.float64))), "κύκλος have NaN or infinite"),
        (_npz(vectors=VECTORS.astype(complex)), "complex"),
        (_npz(vectors=np.array([[None] * 4] * 3)), "pickle"),
        (_npz(names=np.array([1, 2, 3])), "must be a list of texts"),
        (_npz(names=np.array([NAMES])), "2 dimensions"),
        (_npz(vectors=VECTORS[:, :0]), "no numbers"),
        (_zip_bomb, "MiB; the limit is 512"),
    ],
)
def test_unfit_arrays_are_named(tmp_path, make, reason):
    """1e300 becomes infinite as float32, after a check of the file's own type; objects in an .npz are a pickle."""
    path = tmp_path / "v.npz"
    make(path)
    with pytest.raises(UserError, match=f"v.npz.*{reason}"):
        load_class_embeddings(path, NAMES)


def test_bad_vectors_are_not_written(tmp_path):
    """NaN in a class embedding would show as NaN losses hours later."""
    bad = VECTORS.copy()
    bad[1, 2] = np.nan
    with pytest.raises(UserError, match="κύκλος"):
        save_class_embeddings(tmp_path / "v.npz", NAMES, bad, "")
    with pytest.raises(UserError, match="twice: a"):
        save_class_embeddings(tmp_path / "v.npz", ["a", "b", "a"], VECTORS, "")
    assert not list(tmp_path.iterdir())


def test_other_templates_are_mentioned(tmp_path, caplog):
    """Vectors from other prompts give other metrics than the published ones."""
    path = tmp_path / "v.npz"
    save_class_embeddings(path, NAMES, VECTORS, "somewhere", ["a {}."])
    load_class_embeddings(path, NAMES)
    assert "templates that differ" in caplog.text and "somewhere" in caplog.text
    caplog.clear()
    save_class_embeddings(path, NAMES, VECTORS, "somewhere", CLIP_TEMPLATES)
    load_class_embeddings(path, NAMES)
    assert "differ" not in caplog.text


def _cfg(*opts):
    return load_config(
        "", ["DATASETS.TRAIN", '("own_train_instance",)', "DATASETS.TEST", '("own_val_instance",)', *opts]
    )


def test_which_file_a_config_means(own, tmp_path, monkeypatch):
    """VEC_PATH before CLASS_EMBEDDINGS before the split file's; found from any working directory."""
    register_split_files([own.split_file])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"class_embeddings.py clip --split .*split.yaml --output"):
        resolve_embedding_path(_cfg())
    own.split_file.write_text(yaml.safe_dump(own.split(class_embeddings="./mine.npz")), encoding="utf-8")
    register_split_files([own.split_file])
    with pytest.raises(UserError, match="mine.npz .*do not exist"):
        resolve_embedding_path(_cfg())
    save_class_embeddings(own.folder / "mine.npz", NAMES, VECTORS, "")
    assert resolve_embedding_path(_cfg()) == str(own.folder / "mine.npz")
    save_class_embeddings(tmp_path / "other.npz", NAMES, VECTORS, "")
    assert resolve_embedding_path(_cfg("MODEL.CLASS_EMBEDDINGS", "other.npz")) == "other.npz"
    # Not below the working directory, so from the repository's root.
    shipped = "embeddings/coco/word_w2v_withbg_65_15.txt"
    found = resolve_embedding_path(_cfg("MODEL.CLASS_EMBEDDINGS", "other.npz", "MODEL.MASK_FORMER.VEC_PATH", shipped))
    assert found.endswith(shipped) and embedding_width(found) == 300


MINI = ["DATASETS.TRAIN", '("mini_train_instance",)', "DATASETS.TEST", '("mini_val_instance",)']


def test_the_data_root_is_where_configs_say_datasets(tmp_path, monkeypatch):
    """Vectors drawn with the data are found where the data are, and never those of other data elsewhere."""
    named = ["MODEL.CLASS_EMBEDDINGS", "datasets/mini/class_vectors.npz"]
    for root in ("here/datasets", "elsewhere"):
        save_class_embeddings(tmp_path / root / "mini" / "class_vectors.npz", NAMES, VECTORS, root)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert resolve_embedding_path(load_config("", MINI + named)) == "datasets/mini/class_vectors.npz"
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "elsewhere"))
    found = resolve_embedding_path(load_config("", MINI + named))
    assert found == str(tmp_path / "elsewhere" / "mini" / "class_vectors.npz")


def test_missing_vectors_of_drawn_data_are_drawn_not_encoded(tmp_path, monkeypatch):
    """The mini data set's classes have no CLIP vectors of the right width."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    named = ["MODEL.CLASS_EMBEDDINGS", "datasets/mini/absent.npz"]
    with pytest.raises(UserError, match=r"absent.npz .*python datasets/make_mini_coco.py") as error:
        resolve_embedding_path(load_config("", MINI + named))
    assert "class_embeddings.py clip" not in str(error.value)
