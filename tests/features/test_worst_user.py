"""Damaged, foreign and hostile feature folders, and wrong commands: one clear message each."""

import json
import os
import shutil
import zlib

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from PADing.errors import UserError
from PADing.features.checking import verify
from PADing.features.folder import FeatureFolder
from PADing.features.header import read_header
from PADing.features.masks import decoded, encoded
from PADing.features.shards import read_shard, shard_path, write_shard
from PADing.features.writing import LOCK


def changed(folder, **values):
    path = folder / "features.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def rewritten(folder, number=0, **values):
    """The folder with other tensors in a shard, whose checksum is right."""
    header, arrays = read_header(folder), load_file(shard_path(folder, number))
    kept = {name: array for name, array in arrays.items() if name not in ("folder", "number")}
    write_shard(folder, header, number, {**kept, **values})
    return folder


@pytest.mark.parametrize(
    "values, message",
    [
        ({"version": 2}, "has version 2 of the format; this program reads 1"),
        ({"version": "1"}, "has version '1'"),
        ({"format": "x"}, "does not describe a feature folder"),
        ({"images": -1}, "`images` must be a whole number from 1"),
        ({"images": 10**30}, "`images` must be"),
        ({"records_per_shard": 0}, "`records_per_shard` must be"),
        ({"images": 2**31, "passes": 1000, "records_per_shard": 1}, "shards by `images`, `passes`"),
        ({"queries": True}, "`queries` must be"),
        ({"width": 1.5}, "`width` must be"),
        ({"dtype": "object"}, "`dtype` must be one of"),
        ({"classes": []}, "`classes` must be"),
        ({"classes": ["a", "a"]}, "`classes` must be"),
        ({"unseen": ["nothing"]}, "are unseen, but no classes"),
        ({"weights_sha256": "0"}, "must be a SHA-256"),
        ({"masks": "bits"}, "do not fit the part 'train'"),
        ({"more": 1}, "too many fields"),
    ],
)
def test_a_wrong_header_is_refused(copied, values, message):
    with pytest.raises(UserError, match=message):
        FeatureFolder(changed(copied("train"), **values))


def test_torn_swapped_and_missing_files_are_named(copied):
    folder = copied("train")
    path = shard_path(folder, 0)
    whole = path.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "damaged: it is incomplete"),
        (b"", "damaged: it is incomplete"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "damaged: its weights have changed"),
        (b"PK\x03\x04" + whole, "not a safetensors file"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            verify(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"1 of 1 shards are missing, the first is 0"):
        FeatureFolder(folder)
    path.write_bytes(whole)
    (folder / "features.json").write_text('{"format": ')
    with pytest.raises(UserError, match="is not valid JSON"):
        FeatureFolder(folder)
    (folder / "features.json").unlink()
    with pytest.raises(UserError, match=r"is not a feature folder: it has no features.json"):
        FeatureFolder(folder)


def test_a_shard_or_a_list_of_images_of_another_folder_is_refused(copied, scene):
    folder = copied("train")
    header = read_header(folder)
    changed(folder, seed=header.seed + 1)
    with pytest.raises(UserError, match="belongs to another feature folder"):
        verify(folder)
    images = json.loads((folder / "images.json").read_text())
    images[0]["height"] += 1
    (folder / "images.json").write_text(json.dumps(images))
    with pytest.raises(UserError, match="does not belong to this folder's features"):
        FeatureFolder(folder)
    with pytest.raises(UserError, match="holds features of the part 'val', but 'train' is needed"):
        FeatureFolder(scene.folder / "val", "train")


def test_values_that_cannot_be_are_refused_even_with_a_right_checksum(copied, tmp_path):
    folder = copied("train")
    arrays = load_file(shard_path(folder, 0))
    rows = len(arrays["class"])
    for values, message in (
        ({"class": np.full(rows, 99, np.int32)}, "class must be from -1 to 21, but goes from 99"),
        ({"query": np.full(rows, -3, np.int32)}, "query must be from 0 to 8"),
        ({"query": np.zeros(rows, np.int32)}, "a query occurs twice"),
        ({"offset": arrays["offset"] * -1}, "offset does not divide the rows"),
        ({"offset": arrays["offset"][::-1].copy()}, "offset does not divide the rows"),
        ({"offset": arrays["offset"][:3]}, "the tensor offset is int64"),
        ({"image": arrays["image"] + 1000}, "image must be from 0 to"),
        ({"class": arrays["class"].astype(np.int64)}, "the tensor class is int64"),
        ({"further": np.zeros(2, np.int32)}, "but must hold"),
        ({"image": arrays["image"] * 0}, "times in place of 2"),
    ):
        again = tmp_path / "again"
        shutil.rmtree(again, ignore_errors=True)
        with pytest.raises(UserError, match=message):
            verify(rewritten(shutil.copytree(folder, again), **values))
    spoiled = arrays["features"].copy()
    spoiled[0, 0] = np.nan
    with pytest.raises(UserError, match="hold NaN or infinity. Its weights are unusable"):
        rewritten(folder, features=spoiled)


def test_features_beyond_half_precision_name_the_cure(scene, copied):
    folder = copied("train")
    header = read_header(folder)
    from dataclasses import replace

    arrays = {k: v for k, v in load_file(shard_path(folder, 0)).items() if k not in ("folder", "number")}
    with pytest.raises(UserError, match="beyond float16. Add --dtype float32"):
        write_shard(folder, replace(header, dtype="float16"), 0, {**arrays, "features": arrays["features"] + 1e6})


def test_masks_come_back_and_bombs_do_not_fill_the_memory():
    logits = np.random.default_rng(0).normal(0, 4, (3, 5, 7)).astype(np.float32)
    for encoding, tolerance in (("float32", 0), ("float16", 0.01)):
        data, levels = encoded(logits, encoding)
        assert np.abs(decoded(data, encoding, (3, 5, 7), levels, "x") - logits).max() <= tolerance
    data, levels = encoded(logits, "bits")
    back = decoded(data, "bits", (3, 5, 7), levels, "x")
    assert ((back > 0) == (logits > 0)).all()
    assert levels is not None and len(np.unique(back[0])) == 2
    soft = 1 / (1 + np.exp(-logits[0].astype(float)))
    inside = 1 / (1 + np.exp(-float(back[0].max())))
    assert inside == pytest.approx(soft[logits[0] > 0].mean(), rel=1e-5)
    for data, message in (
        (zlib.compress(bytes(10**7)), "do not have the size"),
        (b"nothing", "are damaged"),
        (zlib.compress(bytes(105 * 4))[:-4], "do not have the size"),
    ):
        with pytest.raises(UserError, match=message):
            decoded(data, "float32", (3, 5, 7), None, "x")
    with pytest.raises(UserError, match="too large"):
        decoded(b"", "float32", (10_000, 16_000, 16_000), None, "x")
    with pytest.raises(UserError, match="NaN"):
        encoded(logits * np.nan, "bits")


def test_features_of_other_weights_classes_or_data_are_refused(scene, tmp_path, capsys):
    other = tmp_path / "other.pth"
    content = torch.load(scene.weights, weights_only=True)
    content["model"]["sem_seg_head.predictor.query_feat.weight"] += 1
    torch.save(content, other)
    train, val = ("--features", scene.folder / "train"), ("--val-features", scene.folder / "val")
    out = ("OUTPUT_DIR", tmp_path / "out")
    cases = [
        ("train", train, ("MODEL.WEIGHTS", other), "holds features of another segmenter"),
        ("eval", val, ("MODEL.WEIGHTS", other), "holds features of another segmenter"),
        ("train", train, ("MODEL.MASK_FORMER.HIDDEN_DIM", 16), "of width 32, but the config has"),
        ("train", train, ("DATASETS.TRAIN", "('mini_train_panoptic',)"), "holds features of the data set"),
        ("train", train, ("MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS", scene.weights), "Self-training labels queries"),
        ("train", ("--features", scene.folder / "nix"), (), "is not a feature folder"),
        ("train", ("--features", scene.folder / "val"), (), "'train' is needed"),
        ("train", train, ("MODEL.META_ARCHITECTURE", "MaskFormer"), "does not train on a frozen segmenter"),
    ]
    for name, flags, opts, message in cases:
        assert scene.command(name, *flags, opts=(*opts, *out)) == 2, message
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("model*")), "nothing is trained"


def test_another_annotation_of_the_same_name_is_noticed(scene, copied, capsys, tmp_path):
    folder = copied("val")
    images = json.loads((folder / "images.json").read_text())
    images[1]["classes"] = images[1]["classes"][1:]
    from PADing.features.folder import data_hash

    header = read_header(folder)
    (folder / "images.json").write_text(json.dumps(images))
    changed(folder, data_sha256=data_hash(images))
    for number in range(header.shards):
        rewritten(folder, number)
    assert scene.command("eval", "--val-features", folder, opts=("OUTPUT_DIR", tmp_path / "out")) == 2
    assert "other images or another annotation" in capsys.readouterr().err


def test_writing_goes_on_where_it_was_stopped_and_gives_the_same_tensors(scene, copied, monkeypatch):
    monkeypatch.setattr("PADing.features.writing.VAL_RECORDS", 1)
    folder = scene.folder / "small_shards"
    flags = ("write", "--part", "val", "--output", folder, "--masks", "bits")
    assert scene.command(*flags) == 0
    before = [load_file(shard_path(folder, number)) for number in range(3)]
    shard_path(folder, 0).unlink()
    shard_path(folder, 2).write_bytes(shard_path(folder, 2).read_bytes()[:50])
    kept = shard_path(folder, 1).stat().st_mtime_ns
    assert scene.command(*flags) == 0
    for number, arrays in enumerate(before):
        again = load_file(shard_path(folder, number))
        assert again.keys() == arrays.keys() and all((again[name] == arrays[name]).all() for name in arrays)
    assert shard_path(folder, 1).stat().st_mtime_ns == kept, "a whole shard is not computed again"


def test_nothing_is_replaced_or_written_by_two_at_once(scene, copied, capsys, tmp_path):
    folder = copied("train")
    before = shard_path(folder, 0).read_bytes()
    flags = ("write", "--part", "train", "--output", folder)
    assert scene.command(*flags) == 2
    assert "holds features with another" in capsys.readouterr().err
    assert shard_path(folder, 0).read_bytes() == before
    import fcntl

    with open(folder / LOCK) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert scene.command(*flags, "--overwrite") == 2
    assert "Another process is writing features" in capsys.readouterr().err
    stranger = tmp_path / "mine"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("x")
    assert scene.command("write", "--part", "train", "--output", stranger) == 2
    assert "is not empty, but holds no features" in capsys.readouterr().err
    assert scene.command("write", "--part", "train", "--output", stranger / "thesis.txt") == 2
    assert "is a file" in capsys.readouterr().err
    for wrong in (("--passes", "0"), ("--passes", "-2"), ("--unmatched", "-1"), ("--dtype", "int8")):
        with pytest.raises(SystemExit):
            scene.command(*flags, *wrong)


def test_a_full_disk_says_so_and_keeps_what_is_complete(scene, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, os.strerror(28), str(tmp_path))

    folder = tmp_path / "features"
    with monkeypatch.context() as patch:
        patch.setattr("PADing.safetensors_files.save_file", full)
        assert scene.command("write", "--part", "val", "--output", folder) == 2
    assert "Disk full" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir() if path.name[0] != "."].count("shard-00000.safetensors") == 0
    assert scene.command("write", "--part", "val", "--output", folder) == 0
    assert scene.command("verify", folder) == 0
    assert scene.command("info", folder, scene.folder / "train") == 0
    shown = capsys.readouterr().out
    assert "complete" in shown and "22, of these 6 unseen" in shown


def test_no_shard_is_read_whole(scene):
    arrays = read_shard(scene.folder / "train", read_header(scene.folder / "train"), 0)
    assert isinstance(arrays["features"], np.memmap) and not arrays["features"].flags.writeable
