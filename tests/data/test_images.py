"""Reading images: the brightness that a person sees, or one message that says what is wrong with which file."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from PADing.data.images import CorruptFile, check_class_labels, read_image, read_labels, read_panoptic_ids, read_size
from PADing.visualization.image_files import read_rgb

HEIGHT, WIDTH = 5, 7
# A grey ramp from black to white; what every kind of file below shows.
RAMP = np.linspace(0, 255, HEIGHT * WIDTH).round().astype(np.uint8).reshape(HEIGHT, WIDTH)


def _save(tmp_path, image, suffix, **options):
    path = tmp_path / f"image{suffix}"
    image.save(path, **options)
    return path


def _merged(mode, *channels):
    return Image.merge(mode, [Image.fromarray(channel) for channel in channels])


def _sixteen(byte_order="<"):
    return (RAMP.astype(np.uint16) * 257).astype(f"{byte_order}u2")


def _write_tiff(path, pixels, bits, samples, photometric, tags=()):
    """An uncompressed little-endian TIFF, written by hand: Pillow cannot save all that it reads."""
    entries = [(256, 3, 1, WIDTH), (257, 3, 1, HEIGHT), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric)]
    offset = 8 + 2 + 12 * (9 + len(tags)) + 4
    entries += [(273, 4, 1, offset + 2 * samples), (277, 3, 1, samples), (278, 3, 1, HEIGHT), (279, 4, 1, len(pixels))]
    if samples > 1:
        entries[2] = (258, 3, samples, offset)
    entries = sorted([*entries, *tags])
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    path.write_bytes(head + b"\0\0\0\0" + struct.pack(f"<{samples}H", *[bits] * samples) + pixels)
    return path


GREY_KINDS = {
    "8-bit grey": lambda p: _save(p, Image.fromarray(RAMP), ".png"),
    "8-bit RGB": lambda p: _save(p, Image.fromarray(RAMP).convert("RGB"), ".png"),
    "RGB with alpha": lambda p: _save(p, _merged("RGBA", RAMP, RAMP, RAMP, 255 - RAMP), ".png"),
    "grey with alpha": lambda p: _save(p, _merged("LA", RAMP, 255 - RAMP), ".png"),
    "palette": lambda p: _save(p, Image.fromarray(RAMP).convert("P"), ".png"),
    "palette with transparency": lambda p: _save(p, Image.fromarray(RAMP).convert("P"), ".png", transparency=3),
    "CMYK": lambda p: _save(p, Image.fromarray(RAMP).convert("RGB").convert("CMYK"), ".tif"),
    "YCbCr": lambda p: _save(p, Image.fromarray(RAMP).convert("RGB").convert("YCbCr"), ".tif"),
    "16-bit grey PNG": lambda p: _save(p, Image.fromarray(_sixteen()), ".png"),
    "16-bit grey TIFF": lambda p: _save(p, Image.fromarray(_sixteen()), ".tif"),
    "16-bit big-endian TIFF": lambda p: _save(p, _big_endian(), ".tif"),
    "16-bit PGM": lambda p: _pgm(p / "image.pgm"),
    "16-bit TIFF, 0 is white": lambda p: _write_tiff(p / "i.tif", (65535 - _sixteen()).tobytes(), 16, 1, 0),
    "16-bit RGB TIFF": lambda p: _write_tiff(p / "i.tif", np.repeat(_sixteen()[..., None], 3, 2).tobytes(), 16, 3, 2),
    "animation": lambda p: _animation(p),
}  # fmt: skip


def _animation(folder):
    black = Image.new("L", (WIDTH, HEIGHT))
    return _save(folder, Image.fromarray(RAMP), ".gif", save_all=True, append_images=[black])


def _big_endian():
    return Image.frombytes("I;16B", (WIDTH, HEIGHT), _sixteen(">").tobytes())


def _pgm(path):
    path.write_bytes(f"P5 {WIDTH} {HEIGHT} 65535\n".encode() + _sixteen(">").tobytes())
    return path


@pytest.mark.parametrize("kind", GREY_KINDS)
def test_every_kind_of_file_shows_its_brightness(tmp_path, kind):
    """A 16-bit image that turns white (or black) trains and is evaluated without a word."""
    image = read_image(GREY_KINDS[kind](tmp_path))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - RAMP[..., None]).max() <= 1


def test_sixteen_bits_are_rounded(tmp_path):
    """v * 255 / 65535 to the nearest: black stays black, white white, and neither end takes more than its share."""
    values = np.array([[0, 128, 129, 257, 32767, 65406, 65407, 65535]], dtype=np.uint16)
    image = read_image(_save(tmp_path, Image.fromarray(values), ".png"))
    assert image[0, :, 0].tolist() == [0, 0, 1, 1, 127, 254, 255, 255]


def test_black_and_white(tmp_path):
    bits = RAMP > 127
    image = read_image(_save(tmp_path, Image.fromarray(bits), ".png"))
    assert np.array_equal(image[..., 2] == 255, bits) and set(np.unique(image)) == {0, 255}


def test_channels_and_orientation(tmp_path):
    """BGR is the reverse of RGB; a photograph that is stored on its side is turned, as viewers do."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    rgb[0, 0] = (200, 100, 50)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored with its right side up
    path = _save(tmp_path, Image.fromarray(rgb), ".png", exif=exif)
    image = read_image(path)
    assert image.shape == (WIDTH, HEIGHT, 3) and image[0, -1].tolist() == [200, 100, 50]
    assert np.array_equal(read_image(path, "BGR"), image[:, :, ::-1])


@pytest.mark.parametrize("tag, orientation", [(1, 1), (8, 8), (9, 1), (0, 1)])
def test_orientation_without_decoding(tmp_path, tag, orientation):
    exif = Image.Exif()
    exif[0x0112] = tag
    path = _save(tmp_path, Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)), ".png", exif=exif)
    assert read_size(path) == (HEIGHT, WIDTH, orientation)


def _png_of_size(width, height):
    """A PNG that says it has this size; its few bytes of data are never reached."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def _damaged(tmp_path, change):
    path = tmp_path / "image.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(change(path.read_bytes()))
    return path


REFUSED = {
    "absent": (lambda p: p / "no.jpg", "does not exist"),
    "folder": (lambda p: p, "is a folder"),
    "empty": (lambda p: _damaged(p, lambda data: b""), "it is empty"),
    "text": (lambda p: _damaged(p, lambda data: b"<html>404</html>"), "not an image"),
    "truncated": (lambda p: _damaged(p, lambda data: data[:1500]), "truncated"),
    "too many pixels": (lambda p: _damaged(p, lambda data: _png_of_size(50000, 40000)), "pixels: 2,000,000,000, but"),
    "32-bit integers": (lambda p: _save(p, Image.fromarray(RAMP.astype(np.int32)), ".tif"), "range is not known"),
    "floats": (lambda p: _save(p, Image.fromarray(RAMP.astype(np.float32)), ".tif"), "range is not known"),
    "PostScript": (lambda p: _save(p, Image.fromarray(RAMP), ".eps"), "PostScript"),
    "LAB": (lambda p: _save(p, Image.new("LAB", (4, 4)), ".tif"), "LAB"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_named(tmp_path, kind):
    make, reason = REFUSED[kind]
    path = make(tmp_path)
    for read in (read_image, read_rgb):
        with pytest.raises(CorruptFile, match=reason) as error:
            read(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_limit_of_pixels_can_be_moved(tmp_path, monkeypatch):
    path = _save(tmp_path, Image.new("RGB", (100, 100)), ".png")
    monkeypatch.setenv("PADING_MAX_IMAGE_PIXELS", "9999")
    with pytest.raises(CorruptFile, match="10,000, but the limit is 9,999.*PADING_MAX_IMAGE_PIXELS"):
        read_image(path)
    monkeypatch.setenv("PADING_MAX_IMAGE_PIXELS", "10000")
    assert read_image(path).shape == (100, 100, 3)


def test_labels_are_numbers_not_brightness(tmp_path):
    """Palette indices and 16-bit values are class ids; a rescaled one would be another class."""
    assert np.array_equal(read_labels(_save(tmp_path, Image.fromarray(RAMP).convert("P"), ".png")), RAMP)
    assert np.array_equal(read_labels(_save(tmp_path, Image.fromarray(_sixteen()), ".png")), RAMP.astype(int) * 257)
    bits = RAMP > 100
    assert np.array_equal(read_labels(_save(tmp_path, Image.fromarray(bits), ".png")), bits.astype(int))
    for image, suffix, reason in (
        (Image.fromarray(RAMP), ".jpg", "JPEG"),
        (Image.new("RGB", (4, 4)), ".png", "3 channels"),
        (Image.fromarray(RAMP.astype(np.float32)), ".tif", "floating-point"),
    ):
        with pytest.raises(CorruptFile, match=reason):
            read_labels(_save(tmp_path, image, suffix))


@pytest.mark.parametrize("wrong", [3, -1, 254, 256])
def test_labels_beyond_the_last_class_are_refused(wrong):
    check_class_labels(np.array([[0, 2, 255]]), "a.png", 3, 255)
    with pytest.raises(CorruptFile, match=rf"a.png has the values {wrong}, but there are 3 classes"):
        check_class_labels(np.array([[0, 2, 255, wrong]]), "a.png", 3, 255)


def test_panoptic_annotation_is_an_rgb_png(tmp_path):
    rgb = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)
    ids = rgb @ np.array([1, 256, 65536])
    assert np.array_equal(read_panoptic_ids(_save(tmp_path, Image.fromarray(rgb), ".png")), ids)
    clear = Image.fromarray(np.dstack([rgb, RAMP]))  # what is transparent is annotated, too
    assert np.array_equal(read_panoptic_ids(_save(tmp_path, clear, ".png")), ids)
    grey = Image.fromarray(RAMP)
    assert np.array_equal(read_panoptic_ids(_save(tmp_path, grey, ".png")), RAMP * 65793.0)
    for image, suffix, reason in (
        (Image.fromarray(rgb), ".jpg", "JPEG"),
        (Image.fromarray(rgb), ".bmp", "BMP"),
        (Image.fromarray(RAMP > 9), ".png", "mode 1"),
        (Image.fromarray(_sixteen()), ".png", "16"),
    ):
        with pytest.raises(CorruptFile, match=reason):
            read_panoptic_ids(_save(tmp_path, image, suffix))
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = bytearray(_png_of_size(2, 1))
    start = data.index(b"IHDR")
    data[start + 4 : start + 17] = header
    data[start + 17 : start + 21] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "deep.png").write_bytes(data)
    with pytest.raises(CorruptFile, match="16 bits per channel"):
        read_panoptic_ids(tmp_path / "deep.png")
