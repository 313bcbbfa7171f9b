"""Damaged and malicious sources: nothing outside them is read, nothing fills the memory, and each loss is reported."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from PADing.data.importers.masks import clip
from PADing.data.importers.run import ImportOptions, import_data, summary
from PADing.errors import UserError
from tests.data.importers import samples


@pytest.fixture
def source(tmp_path):
    samples.write_image(tmp_path / "source" / "a.png")
    return tmp_path / "source"


def shapes(source, *entries, name="a.png", size=samples.SIZE, stem="a", **more):
    """A LabelMe file with these shapes, and one that is right."""
    good = {"label": "dog", "points": [[1, 1], [5, 1], [5, 5], [1, 5]]}
    content = {"imagePath": name, "imageHeight": size[0], "imageWidth": size[1], "shapes": [good, *entries], **more}
    (source / f"{stem}.json").write_text(json.dumps(content))


def run(source, form="labelme", **options):
    return import_data(str(source), form, str(source.parent / "out"), ImportOptions(**options))


def left_out(result) -> dict[str, int]:
    return {entry["reason"]: entry["count"] for entry in summary(result)["left_out"]}


def annotations(source) -> list[dict]:
    return json.loads((source.parent / "out" / "instances_train.json").read_text())["annotations"]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "shape, reason",
    [
        ({"points": [[0, 0], [NAN, 5], [5, 5]]}, "not a number"),
        ({"points": [[0, 0], [INF, 5], [5, 5]]}, "not a number"),
        ({"points": [[0, 0], ["x", 5], [5, 5]]}, "not a number"),
        ({"points": [[0, 0], [10**400, 5], [5, 5]]}, "not a number"),
        ({"points": [[0, 0], [1e300, 5], [5, 5]]}, "beyond"),
        ({"points": [[0, 0], [5, 5]]}, "fewer than three"),
        ({"points": None}, "without points"),
        ({"points": [[3, 3], [3, 3], [3, 3]]}, "without a pixel"),
        ({"points": [[-9, -9], [-3, -9], [-3, -3]]}, "outside the image"),
        ({"points": [[0, 0], [5, 5]], "shape_type": "line"}, "kind line"),
        ({"points": [[0, 0], [5, 5]], "shape_type": "\033[2J"}, "kind unknown"),
        ({"points": [[4, 4], [NAN, 4]], "shape_type": "circle"}, "not a number"),
        ({"points": [[0, 0], [5, 5]], "shape_type": "mask", "mask": "%%%"}, "not a PNG in base64"),
        ({"points": [[0, 0], [5, 5]], "shape_type": "mask", "mask": None}, "not a PNG in base64"),
        ({"points": [[0, 0], [5, 5]], "shape_type": "mask", "mask": samples.png_base64(np.ones((3, 3)))}, "corners"),
        ({"points": [[0, 0], [5, 5], [0, 5]], "label": "  "}, "without a class"),
        ({"points": [[0, 0], [5, 5], [0, 5]], "label": 7}, "without a class"),
    ],
)
def test_unusable_shapes_are_left_out_with_the_reason(source, shape, reason):
    shapes(source, {"label": "cat", **shape})
    found = left_out(run(source))
    assert len(found) == 1 and reason in next(iter(found)) and list(found.values()) == [1]
    assert len(annotations(source)) == 1


def test_outlines_that_would_fill_the_memory_are_left_out(source):
    zigzag = [[1e3 * (i % 2), i % 7] for i in range(60_000)]
    samples.write_image(source / "a.png", (900, 1000))
    shapes(source, {"label": "cat", "points": zigzag}, size=(900, 1000))
    assert "outline of more than" in next(iter(left_out(run(source))))


def test_polygons_are_clipped_and_counted(source):
    shapes(source, {"label": "cat", "points": [[-1e9, 5], [1e9, 5], [1e9, 10], [-1e9, 10]]})
    result = run(source)
    assert summary(result)["changed"][0]["count"] == 1
    found = annotations(source)[1]
    assert found["bbox"] == [0, 5, 30, 5] and found["area"] == 150


def test_clipping_keeps_what_is_inside():
    """Beside shapely, an independent clipping."""
    import shapely

    random = np.random.default_rng(0)
    for _ in range(200):
        points = random.uniform(-15, 35, (3, 2))
        expected = shapely.Polygon(points).intersection(shapely.box(0, 0, 30, 20)).area
        inside = clip(points, 20, 30)
        assert (shapely.Polygon(inside).area if len(inside) >= 3 else 0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "name",
    ["../secret/b.png", "{}/secret/b.png", "..\\secret\\b.png", "C:\\b.png", "/etc/passwd", "", "a\0.png", "../.."],
)
def test_names_do_not_lead_out_of_the_source(source, name):
    samples.write_image(source.parent / "secret" / "b.png")
    shapes(source)
    shapes(source, name=name.format(source.parent), stem="b")
    if not name:
        assert "there is no such image in the image folder" in left_out(run(source))
        return
    result = run(source, copy_images="copy")
    assert sum(left_out(result).values()) == 1
    assert [path.name for path in (result.output / "images").rglob("*")] == ["a.png"]


def test_links_that_lead_out_are_followed_on_request_only(source):
    samples.write_image(source.parent / "secret" / "b.png")
    (source / "b.png").symlink_to(source.parent / "secret" / "b.png")
    (source.parent / "secret" / "c.json").write_text("{}")
    (source / "c.json").symlink_to(source.parent / "secret" / "c.json")
    shapes(source)
    shapes(source, name="b.png", stem="b")
    assert left_out(run(source)) == {"symbolic link that leads out of its folder (see --follow-links)": 2}
    found = left_out(run(source, follow_links=True, overwrite=True))
    assert list(found) == ["JSON that is not LabelMe's (it has no list `shapes`)"]


def test_links_to_folders(source):
    """A link to a folder above has no end; one to elsewhere is reported, not passed over in silence."""
    samples.write_image(source.parent / "more" / "b.png")
    shapes(source.parent / "more", name="b.png", stem="b")
    (source / "more").symlink_to(source.parent / "more")
    (source / "again").symlink_to(source)
    shapes(source)
    assert left_out(run(source)) == {"symbolic link to a folder (see --follow-links)": 2}
    result = run(source, follow_links=True, overwrite=True)
    assert result.report.taken["train"] == {"images": 2, "objects": 2, "images without an object": 0}


def test_images_that_do_not_fit(source):
    shapes(source)
    shapes(source, name="none.png", stem="b")
    shapes(source, name="a.png", stem="c")
    samples.write_image(source / "d.png", (7, 9))
    shapes(source, name="d.png", stem="d")
    (source / "e.png").write_bytes(b"\x89PNG")
    shapes(source, name="e.png", stem="e")
    for folder in ("x", "y"):
        samples.write_image(source / folder / "twice.png")
    shapes(source, name="z/twice.png", stem="f")
    (source / "g.json").write_bytes(b'{"shapes": [], "imagePath": "\xff"}')
    (source / "h.json").write_text("[" * 100_000)
    assert left_out(run(source)) == {
        "there is no such image in the image folder": 1,
        "second annotation of an image": 1,
        "image of another size than its annotation says": 1,
        "image that cannot be read": 1,
        "several images have the name in the annotation": 1,
        "file that is not valid JSON in UTF-8": 2,
    }


def test_names_that_differ_by_case_or_spaces_are_one_class(source):
    shapes(source, *({"label": label, "points": [[0, 0], [5, 0], [5, 5]]} for label in ("Dog", " dog ", "big  dog")))
    result = run(source)
    assert result.classes == ("dog", "big dog") and sum(t.count for t in result.report.changed.values()) == 3
    assert run(source, keep_case=True, overwrite=True).classes == ("dog", "Dog", "big dog")
    assert run(source, names="dog=puppy", overwrite=True).classes == ("puppy", "Dog", "big dog")


LAUGHS = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol">{}]><annotations><image name="&h;"/></annotations>"""


@pytest.mark.parametrize(
    "text, message",
    [
        (
            LAUGHS.format(
                "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefg", "bcdefgh", strict=True))
            ),
            "document type",
        ),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', "document type"),
        ("<image>" * 100_000, "nested"),
        ("<annotations><image name='a.png'>", "not valid XML"),
        ("", "not valid XML"),
        ("<?xml version='1.0' encoding='no-such'?><a/>", "not valid XML"),
        ("<annotations/>", "Nothing could be imported"),
    ],
)
def test_xml_is_refused(source, text, message):
    (source / "a.xml").write_text(text)
    with pytest.raises(UserError, match=message):
        run(source, "cvat")
    assert not (source.parent / "out").exists() and sorted(os.listdir(source.parent)) == ["source"]


def test_cvat_reports_what_has_no_mask(source):
    bad = [
        "<polyline label='x' points='1,1;2,2'/>", "<box label='x' xtl='nan' ytl='0' xbr='1' ybr='1'/>", "<what/>",
        "<mask label='x' rle='0,5' left='0' top='0' width='2' height='2'/>",
        "<mask label='x' rle='0,-4,8' left='0' top='0' width='2' height='2'/>",
        "<mask label='x' rle='1' left='0' top='0' width='99999999' height='99999999'/>",
        "<mask label='x' rle='0,4' left='-9' top='0' width='2' height='2'/>",
        "<polygon label='x' points='1,1;2'/>",
    ]  # fmt: skip
    good = (
        "<ellipse label='é' cx='10' cy='10' rx='6' ry='4' rotation='90'/>"
        "<mask label='m' rle='0,4' left='-1' top='0' width='2' height='2'/>"
    )
    text = f"<a><track/><image name='a.png' width='30' height='20'>{''.join(bad)}{good}</image></a>"
    (source / "a.xml").write_text(f'<?xml version="1.0" encoding="latin-1"?>{text}', encoding="latin-1")
    result = run(source, "cvat")
    assert sum(left_out(result).values()) == len(bad) + 1 and result.classes == ("é", "m")
    ellipse, part = annotations(source)
    assert ellipse["bbox"] == [6, 4, 8, 12] and abs(ellipse["area"] - np.pi * 24) < 4
    assert part["area"] == 2


def test_yolo_reports_lines(source):
    (source / "labels").mkdir()
    lines = [
        "0 .5 .5 .1 .1",
        "0 0 0 1 0 1 1",
        "0 0 0 nan 0 1 1",
        "5 0 0 1 0 1 1",
        "0 0 0 20 0 20 9",
        "x y z",
        "0 0 0 1 0 1 1 1",
    ]
    (source / "labels" / "a.txt").write_text("\n".join(lines))
    (source / "labels" / "b.txt").write_bytes(b"\xff\xfe")
    (source / "data.yaml").write_text("names: [dog]\npath: /etc\n")
    found = left_out(run(source, "yolo"))
    assert sum(found.values()) == len(lines) - 1 + 1
    assert len(annotations(source)) == 1
    (source / "data.yaml").write_text("names: !!python/object/apply:os.system [touch hacked]")
    with pytest.raises(UserError, match="not valid YAML"):
        run(source, "yolo", overwrite=True)


def test_coco_checks_what_it_is_given(source):
    right = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 6, 0, 6, 6, 0, 6]], "iscrowd": 7, "area": -3}
    wrong = [
        {**right, "category_id": 9}, {**right, "image_id": 9}, {**right, "segmentation": None},
        {**right, "segmentation": [], "bbox": [0, 0, 2, 2]},
        {**right, "segmentation": {"size": [20, 30], "counts": [5]}},
        {**right, "segmentation": {"size": [30, 20], "counts": [600]}}, {**right, "segmentation": {"counts": "\u20ac"}},
        {**right, "segmentation": {"size": [10**9, 10**9], "counts": [10**18]}},
        {**right, "segmentation": {"size": [20, 30], "counts": "~~~~~"}}, {"image_id": [1]},
    ]  # fmt: skip
    image = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
    images = [image, image, {"id": 2}, 5]
    content = {"images": images, "annotations": [right, *wrong, 3], "categories": [{"id": 1, "name": "dog"}]}
    (source / "x.json").write_text(json.dumps(content))
    result = import_data(str(source / "x.json"), "coco", str(source.parent / "out"))
    assert sum(left_out(result).values()) == len(wrong) + 2
    assert annotations(source) == [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": right["segmentation"], "area": 36,
         "bbox": [0, 0, 6, 6], "iscrowd": 0}
    ]  # fmt: skip


def test_label_pngs_that_hold_no_classes(source):
    maps = source / "maps"
    maps.mkdir()
    Image.new("RGB", (30, 20)).save(maps / "rgb.png")
    Image.new("L", (30, 20), 255).save(maps / "a.png")
    (maps / "c.png").write_bytes(b"no")
    with pytest.raises(UserError, match="(?s)Nothing could.*without a pixel.*several channels"):
        import_data(str(maps), "label-png", str(source.parent / "out"), ImportOptions(images_dir=str(source)))
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(maps / "a.png")
    with pytest.raises(UserError, match="more than 255 values"):
        import_data(str(maps), "label-png", str(source.parent / "out"), ImportOptions(images_dir=str(source)))
    with pytest.raises(UserError, match="overlap"):
        import_data(str(maps), "label-png", str(source / "out"), ImportOptions(images_dir=str(source)))


@pytest.mark.parametrize("form", ["labelme", "cvat", "voc", "yolo", "coco", "label-png"])
def test_an_empty_folder_is_a_mistake(form, tmp_path, tool, capsys):
    (tmp_path / "source").mkdir()
    assert tool.main([str(tmp_path / "source"), "--format", form, "--output", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err and os.listdir(tmp_path) == ["source"]


def test_results_are_replaced_on_request_only(source):
    shapes(source)
    run(source)
    with pytest.raises(UserError, match="--overwrite"):
        run(source)
    run(source, overwrite=True)
    (source.parent / "out" / "import_report.json").unlink()
    with pytest.raises(UserError, match="is not the result of an import"):
        run(source, overwrite=True)


def test_names_of_files_that_are_not_utf8(source):
    shapes(source)
    try:
        os.rename(os.fsencode(source / "a.png"), os.fsencode(source) + b"/\xff.png")
    except OSError:
        pytest.skip("the file system refuses such names")
    (source / "a.json").rename(os.fsdecode(os.fsencode(source) + b"/\xff.json"))
    content = json.loads(next(source.glob("*.json")).read_text())
    del content["imagePath"]
    next(source.glob("*.json")).write_text(json.dumps(content))
    with pytest.raises(UserError, match="the name of the image is not UTF-8") as error:
        run(source)
    str(error.value).encode("utf-8")
