"""Finding, reading and writing images; wrong here means that a drawing replaces somebody's photograph."""

import numpy as np
import pytest
from PIL import Image

from PADing.errors import UserError
from PADing.visualization.image_files import find_images, output_paths, read_rgb, write_overview, write_rgb


@pytest.fixture
def album(tmp_path):
    for name in ("a/1.jpg", "a/2.PNG", "b/1.jpg", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_files_patterns_and_folders(album):
    inputs = [str(album / "b" / "1.jpg"), str(album / "a"), str(album / "*" / "1.jpg"), str(album / "none.jpg")]
    found = find_images(inputs)
    assert [str(p.relative_to(album)) for p in found] == ["b/1.jpg", "a/1.jpg", "a/2.PNG", "none.jpg"]
    with pytest.raises(UserError, match="No image matches"):
        find_images([str(album / "*.gif")])


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UserError, match="not a name of an image"):
        find_images([name])


def test_a_name_with_brackets_is_a_file(album):
    (album / "x[1].jpg").write_bytes(b"")
    assert [p.name for p in find_images([str(album / "x[1].jpg")])] == ["x[1].jpg"]


def test_where_drawings_go(album):
    one, two, other = album / "a" / "1.jpg", album / "a" / "2.PNG", album / "b" / "1.jpg"
    out = album / "out"
    assert output_paths([one], out / "x.png") == [out / "x.png"]
    assert output_paths([one, two], out) == [out / "1.jpg", out / "2.PNG"]
    assert output_paths([one, other], out) == [out / "a" / "1.jpg", out / "b" / "1.jpg"]
    assert output_paths([album / "scan.psd"], out) == [out / "scan.psd.png"]
    with pytest.raises(UserError, match="is a file"):
        output_paths([one, two], out / "x.png")
    assert output_paths([album / "scan.psd", album / "scan.psd.png"], out) == [
        out / "scan.psd.png",
        out / "scan.psd.png.png",
    ]


def test_no_drawing_replaces_an_image(album):
    """Neither its own image, nor another one, nor one that only lies beside them; links and ".." hide nothing."""
    one, two, other = album / "a" / "1.jpg", album / "a" / "2.PNG", album / "b" / "1.jpg"
    (album / "link").symlink_to(album / "a")
    for images, output in (
        ([one], one),
        ([one], album / "link" / "1.jpg"),
        ([one], album / "a"),
        ([one], album / "b" / ".." / "a"),
        ([one], album / "link"),
        ([two, other], album / "a"),
        ([one, other], album),
    ):
        with pytest.raises(UserError, match="would replace"):
            output_paths(images, output)


def test_images_are_turned_as_cameras_ask(tmp_path):
    image = Image.new("RGB", (4, 2), (200, 10, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    read = read_rgb(tmp_path / "turned.jpg")
    assert read.shape == (4, 2, 3) and (np.abs(read.astype(int) - (200, 10, 10)) < 12).all()


def test_writing_is_all_or_nothing(tmp_path):
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    write_rgb(tmp_path / "deep" / "x.png", image)
    assert np.array_equal(read_rgb(tmp_path / "deep" / "x.png"), image)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_rgb(tmp_path / "file" / "x.png", image)


def test_a_format_that_cannot_hold_the_image_is_named(tmp_path):
    with pytest.raises(UserError, match="70000 x 1 pixels.*png"):
        write_rgb(tmp_path / "wide.jpg", np.zeros((1, 70000, 3), dtype=np.uint8))
    assert not list(tmp_path.iterdir())


def test_overview_stacks_rows_of_several_widths(tmp_path):
    rows = [np.zeros((2, 3, 3), dtype=np.uint8), np.full((1, 5, 3), 9, dtype=np.uint8)]
    write_overview(tmp_path / "o.png", rows)
    read = read_rgb(tmp_path / "o.png")[..., 0].tolist()
    assert read == [[0, 0, 0, 255, 255], [0, 0, 0, 255, 255], [9, 9, 9, 9, 9]]
