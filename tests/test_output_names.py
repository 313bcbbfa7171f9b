"""Names of written files; wrong here means that one prediction replaces another, or a file outside the folder."""

import os
import re

import pytest

from PADing.output_names import output_names, safe_stem

HOSTILE = [
    "../../x.png",
    "/etc/passwd",
    "",
    ".",
    "..",
    "a" * 5000 + ".jpg",
    "ä" * 200,
    "nul\x00byte.jpg",
    "line\nbreak.jpg",
    "..\\..\\windows.png",
    "C:\\x.jpg",
    "\ud800.jpg",
    "a/../../b.jpg",
    "-rf",
    "con?<>|*.jpg",
    "/",
    "folder/",
    " .jpg",
]


def test_names_are_short_where_they_can_be():
    assert output_names(["val/a.jpg", "/data/b.png"]) == {"val/a.jpg": "a.png", "/data/b.png": "b.png"}
    assert output_names([]) == {}


def test_equal_names_of_several_folders_keep_the_folders():
    names = output_names(["/data/coco/a/1.jpg", "/data/coco/b/1.jpg", "/data/coco/b/c/2.jpg"])
    assert list(names.values()) == ["a/1.png", "b/1.png", "b/c/2.png"]


def test_equal_names_with_other_endings_or_case_stay_apart():
    assert sorted(output_names(["a/1.jpg", "a/1.png"]).values()) == ["1.jpg.png", "1.png.png"]
    assert len({name.lower() for name in output_names(["a/X.jpg", "a/x.jpg", "b/x.jpg"]).values()}) == 3
    assert output_names(["overview.jpg"], taken=["overview.png"]) != {"overview.jpg": "overview.png"}


def test_names_do_not_depend_on_the_order():
    files = ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    assert output_names(files) == output_names(files[::-1])


@pytest.mark.parametrize("others", [[], ["a/1.jpg", "b/1.jpg"]], ids=["alone", "with equal names"])
def test_hostile_names_stay_in_the_folder(tmp_path, others):
    """Every name can be written, in the folder, and each is another file."""
    names = output_names([*HOSTILE, *others])
    assert len(names) == len(HOSTILE) + len(others)
    for name in names.values():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        assert os.path.realpath(path).startswith(os.path.realpath(tmp_path) + os.sep)
        assert not re.search(r'[\x00-\x1f<>:"|?*\\]', name)
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) == len(names)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stem_is_one_part_of_a_path(name):
    stem = safe_stem(name)
    assert stem and stem not in (".", "..") and "/" not in stem and len(stem.encode()) < 200
