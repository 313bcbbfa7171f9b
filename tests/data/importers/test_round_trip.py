"""A sample of each format ends, by the commands that are printed, as records with the right masks."""

import shlex
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from PADing.data.importers.run import ImportOptions, import_data, next_commands
from PADing.data.loaders import load_data_set
from PADing.data.splits import load_split
from tests.data.importers import samples


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def loaded(split_file: Path) -> dict[str, dict]:
    split = load_split(split_file)
    return {data_set.role: (split, data_set, load_data_set(split, data_set)) for data_set in split.data_sets}


def drawn(segmentation, size) -> np.ndarray:
    rle = (
        mask_util.merge(mask_util.frPyObjects(segmentation, *size)) if isinstance(segmentation, list) else segmentation
    )
    return mask_util.decode(rle).astype(bool)


@pytest.mark.parametrize("copy_images", [None, "copy", "link"])
@pytest.mark.parametrize("form", ["labelme", "cvat", "voc", "yolo", "coco"])
def test_instances(form, copy_images, tmp_path, go_on):
    source, output = tmp_path / "source", tmp_path / "out"
    getattr(samples, form)(source)
    before = tree(source)
    names = "1=dog,2=big tree,3=cat" if form == "voc" else None
    result = import_data(str(source), form, str(output), ImportOptions(names=names, copy_images=copy_images))
    assert not result.report.left_out and not result.report.changed
    go_on(next_commands(result, ["cat"]))
    assert tree(source) == before, "the source must stay as it was"
    sets = loaded(output / "split.yaml")
    seen = {"train": 0, "val": 0}
    for role, (split, data_set, records) in sets.items():
        space = split.class_space(data_set)
        for record in records:
            name = f"{role}/{Path(record['file_name']).name}"
            assert Path(record["file_name"]).is_file()
            assert Path(record["file_name"]).is_relative_to(output if copy_images else source)
            found = {
                space.names[entry["category_id"]]: drawn(entry["segmentation"], samples.SIZE)
                for entry in record["annotations"]
            }
            assert found.keys() == samples.BOXES[name].keys()
            for label, box in samples.BOXES[name].items():
                np.testing.assert_array_equal(found[label], samples.mask(box), err_msg=f"{name} {label}")
            seen[role] += 1
    assert seen == {"train": 2, "val": 1}


@pytest.mark.parametrize("form", ["label-png", "voc"])
def test_label_maps(form, tmp_path, go_on):
    source, output = tmp_path / "source", tmp_path / "out"
    (samples.voc if form == "voc" else samples.label_png)(source)
    options = ImportOptions(
        images_dir=None if form == "voc" else str(source / "images"), names="1=dog,2=big tree,3=cat", kind="semantic"
    )
    result = import_data(str(source if form == "voc" else source / "maps"), form, str(output), options)
    go_on(next_commands(result, ["cat"]))
    split, data_set, records = loaded(output / "split.yaml")["val"]
    names = split.class_space(data_set).names
    labels = np.asarray(Image.open(records[0]["sem_seg_file_name"]))
    for label, box in samples.BOXES["val/c.png"].items():
        number = next(i for i, name in names.items() if name == label)
        np.testing.assert_array_equal(labels == number, samples.mask(box))
    assert set(np.unique(labels)) == {255, *(i for i, name in names.items() if name in ("dog", "cat"))}
    assert len(records) == 1


def test_values_name_classes_and_palettes_their_colors(tmp_path):
    samples.voc(tmp_path / "source")
    source = tmp_path / "source" / "SegmentationClass"
    options = ImportOptions(images_dir=str(tmp_path / "source" / "JPEGImages"), ignore=(0, 255))
    result = import_data(str(source), "label-png", str(tmp_path / "out"), options)
    assert result.classes == ("class_1", "class_2", "class_3")
    assert '"color": [\n   2,\n   253,\n   7\n  ]' in (tmp_path / "out" / "classes.json").read_text()


@pytest.mark.parametrize("orientation", [1, 6])
def test_values_of_16_bits(orientation, tmp_path, go_on):
    """Class numbers above 255 reach training, also where the PNG was drawn on an image as stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a", "b"):
        samples.write_image(tmp_path / "source" / f"{name}.jpg", exif=exif)
        values = np.where(samples.mask((2, 3, 12, 10)), 300 if name == "a" else 4000, 0).astype(np.uint16)
        (tmp_path / "maps").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "maps" / f"{name}.png")
    options = ImportOptions(images_dir=str(tmp_path / "source"), ignore=(0,), val_fraction=0.5)
    result = import_data(str(tmp_path / "maps"), "label-png", str(tmp_path / "out"), options)
    assert result.classes == ("class_300", "class_4000")
    (raw,) = (tmp_path / "out" / "raw" / "val").iterdir()
    expected = samples.mask((2, 3, 12, 10))
    found = np.asarray(Image.open(raw))
    np.testing.assert_array_equal(found > 255, np.rot90(expected, -1) if orientation == 6 else expected)
    go_on(next_commands(result, ["class_300" if raw.stem == "a" else "class_4000"]))


def test_the_command_prints_what_to_do_next(tool, go_on, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    samples.labelme(tmp_path / "source")
    assert tool.main(["source", "--format", "labelme", "--output", "out", "--unseen", "cat"]) == 0
    lines = caplog.text[caplog.text.index("# next") :].splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("python ")]
    assert len(commands) == 2
    go_on(commands)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["polygon", "mask"])
def test_annotation_of_stored_images_is_turned_as_the_image_is(orientation, kind, tmp_path):
    """An image is read upright. If the tool drew on it as stored, its masks must turn, too."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    box = (2, 3, 12, 10)
    path = tmp_path / "source" / "a.jpg"
    samples.write_image(path, exif=exif)
    if kind == "polygon":
        shape: object = [[value for point in samples.corners(box) for value in point]]
    else:
        shape = {"size": list(samples.SIZE), "counts": samples.counts(samples.mask(box))}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": samples.SIZE[0], "width": samples.SIZE[1]}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": shape}],
    }
    (tmp_path / "source" / "a.json").write_text(samples.json.dumps(content))
    result = import_data(str(tmp_path / "source"), "coco", str(tmp_path / "out"), ImportOptions(exif="ignored"))
    assert result.classes == ("class_1",)
    found = samples.json.loads((tmp_path / "out" / "instances_train.json").read_text())
    image, annotation = found["images"][0], found["annotations"][0]
    size = image["height"], image["width"]
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        segmentation = {**segmentation, "counts": segmentation["counts"].encode()}
    # The expected mask is turned by Pillow's own reading of the same EXIF entry.
    stored = Image.fromarray(samples.mask(box).astype(np.uint8) * 255)
    stored.save(tmp_path / "mask.png", exif=exif)
    upright = samples_upright(tmp_path / "mask.png")
    np.testing.assert_array_equal(drawn(segmentation, size), upright)
    assert annotation["area"] == 70


def samples_upright(path: Path) -> np.ndarray:
    from PIL import ImageOps

    return np.asarray(ImageOps.exif_transpose(Image.open(path))) > 0
