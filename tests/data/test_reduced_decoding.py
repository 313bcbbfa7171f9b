"""JPEGs that are decoded at a part of their size: the same scene, masks and refusals as otherwise."""

import functools

import numpy as np
import pytest
from PIL import Image

from PADing.config import load_config
from PADing.data.dataset_mappers import CorruptFile, build_mapper
from PADing.data.images import read_picture
from PADing.errors import UserError

SQUARE = [200, 40, 280, 40, 280, 120, 200, 120]


@pytest.fixture
def record(tmp_path):
    """A wide image with a bright square, which is annotated; ``record(orientation)`` stores it rotated by EXIF."""

    def make(orientation=1, mode="RGB", **changes):
        pixels = np.full((211, 333, 3), 40, dtype=np.uint8)
        pixels[40:120, 200:280] = 230
        image = Image.fromarray(pixels).convert(mode)
        turned = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
        image = image if turned is None else image.transpose(turned)
        exif = Image.Exif()
        exif[274] = orientation
        image.save(tmp_path / "a.jpg", quality=95, exif=exif)
        annotation = {"segmentation": [SQUARE], "category_id": 0, "iscrowd": 0, "bbox": [0, 0, 9, 9], "bbox_mode": 1}
        own = {"file_name": str(tmp_path / "a.jpg"), "height": 211, "width": 333, "annotations": [annotation]}
        return {**own, **changes}

    return make


@functools.cache
def _config():
    return load_config("", ["INPUT.DATASET_MAPPER_NAME", "coco_instance_lsj", "INPUT.FORMAT", "RGB"])


def _mapper(scale, reduced=True, flip="horizontal"):
    cfg = _config().clone()
    cfg.defrost()
    cfg.INPUT.update(MIN_SCALE=scale, MAX_SCALE=scale, REDUCED_DECODING=reduced, IMAGE_SIZE=128, RANDOM_FLIP=flip)
    return build_mapper(cfg)


def test_a_jpeg_is_decoded_at_no_less_than_is_needed(record):
    path = record()["file_name"]
    for least, size in (((105, 166), (167, 106)), ((106, 167), (333, 211)), ((30, 40), (84, 53)), ((1, 1), (42, 27))):
        assert read_picture(path, least).size == size
    path = record(orientation=6)["file_name"]
    assert read_picture(path, (105, 160)).size == (167, 106) and read_picture(path).size == (333, 211)


@pytest.mark.parametrize(("orientation", "size"), [(4, (400, 100)), (5, (100, 400))])
def test_sides_are_exchanged_by_the_orientations_from_5_on(tmp_path, orientation, size):
    """The sizes are Pillow's, (W, H), and ``least`` is that of the upright image."""
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (800, 200)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg", least=size[::-1]).size == size


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("scale", [0.3, 0.7, 1.2, 3.5])
def test_objects_stay_in_their_place(record, scale, orientation, flip):
    """A different size in the file must not move the image, nor change the random numbers."""
    seed = int(10 * scale)
    examples = []
    for reduced in (False, True):
        np.random.seed(seed)
        examples.append(_mapper(scale, reduced, flip)(record(orientation)))
        examples[-1]["drawn"] = np.random.random()
    plain, other = examples
    assert plain["drawn"] == other["drawn"]
    assert (plain["instances"].gt_masks == other["instances"].gt_masks).all()
    distance = (plain["image"].float() - other["image"].float()).abs()
    assert distance.mean() < 3 and (distance > 60).float().mean() < 0.02  # a shift shows at the edge of the square


@pytest.mark.parametrize("shorter", [60, 150])
def test_resizing_by_the_shorter_side(record, shorter):
    """The crop and the masks are where they are without it."""
    cfg, examples = _config().clone(), []
    cfg.defrost()
    cfg.INPUT.update(
        DATASET_MAPPER_NAME="mask_former_instance", MIN_SIZE_TRAIN=(shorter,), MIN_SIZE_TRAIN_SAMPLING="choice"
    )
    cfg.INPUT.CROP.update(ENABLED=True, TYPE="absolute", SIZE=(50, 90))
    for reduced in (False, True):
        cfg.INPUT.REDUCED_DECODING = reduced
        np.random.seed(3)
        examples.append(build_mapper(cfg)(record()))
    plain, other = examples
    distance = (plain["image"].float() - other["image"].float()).abs()
    assert plain["image"].shape == (3, 50, 90) and distance.mean() < 3 and (distance.max() > 0) == (shorter < 100)
    assert plain["image"].float().std() > 20 and (plain["instances"].gt_masks == other["instances"].gt_masks).all()


def test_the_config_chooses_what_resizes(record):
    """Noise shows the difference in rounding; and both keys work together."""
    cfg, images = _config().clone(), []
    cfg.defrost()
    entry = record()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (211, 333, 3), dtype=np.uint8)).save(entry["file_name"])
    for name in ("pillow", "torch"):
        cfg.INPUT.update(MIN_SCALE=0.55, MAX_SCALE=0.7, IMAGE_SIZE=256, RESIZE_BY=name)
        np.random.seed(0)
        images.append(build_mapper(cfg)(entry)["image"].float())
    assert (images[0] - images[1]).abs().max() <= 2 and not images[0].equal(images[1])
    cfg.INPUT.update(MIN_SCALE=0.3, MAX_SCALE=0.3, REDUCED_DECODING=True)
    assert build_mapper(cfg)(entry)["image"].shape == (3, 256, 256)


def test_a_file_that_is_no_jpeg_is_read_as_ever(record, tmp_path):
    entry = record()
    Image.open(entry["file_name"]).save(tmp_path / "a.png")
    entry["file_name"] = str(tmp_path / "a.png")
    examples = []
    for reduced in (False, True):
        np.random.seed(0)
        examples.append(_mapper(0.4, reduced)(entry))
    assert (examples[0]["image"] == examples[1]["image"]).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk(record, mode):
    assert _mapper(0.3)(record(mode=mode))["image"].shape == (3, 128, 128)


@pytest.mark.parametrize("reduced", [False, True])
def test_spoiled_images_are_refused(record, reduced):
    """Whether the file is decoded in full or not."""
    with pytest.raises(CorruptFile, match="a.jpg is 211 x 333 .*but 211 x 334 in its annotation"):
        _mapper(0.3, reduced)(record(width=334))
    with pytest.raises(CorruptFile, match="is 211 x 333 .* EXIF"):
        _mapper(0.3, reduced)(record(orientation=6, width=211, height=333))
    entry = record()
    data = open(entry["file_name"], "rb").read()
    open(entry["file_name"], "wb").write(data[: len(data) // 3])
    with pytest.raises(CorruptFile, match="a.jpg cannot be read"):
        _mapper(0.3, reduced)(entry)
    with pytest.raises(UserError, match="a side of 0 pixels .*INPUT.MIN_SCALE") as error:
        _mapper(0.001, reduced)(record())
    assert not isinstance(error.value, CorruptFile)  # which INPUT.ON_CORRUPT skip would hide
    Image.new("RGB", (3000, 1)).save(entry["file_name"])
    with pytest.raises(CorruptFile, match="too thin"):
        _mapper(0.1, reduced)({**entry, "height": 1, "width": 3000})
