"""If these fail, masks are not those of the drawn objects, or scenes change with what is drawn around them."""

import numpy as np
import pytest

from PADing.data.emoji.classes import DISTRACTORS, EMOJI, sequences
from PADing.data.emoji.picture import SIZE, _turned, draw
from PADing.data.mini_v2.picture import LEAST_PIXELS
from PADing.data.mini_v2.raster import PIXEL, Pose
from tests.data.emoji.tiny_font import disc

NAMES = ("person", "cat", "bus", "kite", "clock")


@pytest.fixture(scope="module")
def glyphs():
    """Distractors are black, the emoji of each class have a colour of their own; outlines are hard."""
    found = {}
    for number, emoji in enumerate(sequences()):
        found[emoji] = disc(number)
        found[emoji][..., 3] = np.where(found[emoji][..., 3] > 127, 255, 0)
        found[emoji][..., :3] = 0
    for place, name in enumerate(NAMES):
        for emoji in EMOJI[name]:
            found[emoji][..., :3] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)][place]
    return found


def test_masks_show_the_objects_colours(glyphs):
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (0, 0, 0)])
    counts = {"objects": 0, "distractors": 0}
    for index in range(40):
        scene = draw(glyphs, 3, "val", index, NAMES)
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.layers.max() == len(scene.names) >= 1
        for number, name in enumerate(scene.names, start=1):
            mask = scene.layers == number
            assert mask.sum() >= LEAST_PIXELS
            median = np.median(scene.image[mask], axis=0)
            nearest = int(abs(colours - median).sum(axis=1).argmin())
            assert nearest == (NAMES.index(name) if name else len(NAMES))
            counts["objects" if name else "distractors"] += 1
    assert counts["objects"] > 80 and counts["distractors"] > 20


def test_scenes_depend_on_seed_subset_and_index_alone(glyphs):
    scene = draw(glyphs, 0, "train", 7, NAMES)
    np.testing.assert_array_equal(scene.image, draw(glyphs, 0, "train", 7, NAMES).image)
    others = [draw(glyphs, *keys, NAMES).image for keys in ((1, "train", 7), (0, "val", 7), (0, "train", 8))]
    assert not any((scene.image == other).all() for other in others)


def test_classes_that_are_not_named_do_not_occur(glyphs):
    found = {name for index in range(30) for name in draw(glyphs, 0, "train", index, ("cat",)).names}
    assert found == {"cat", None} and "🐈" not in DISTRACTORS


@pytest.mark.parametrize("radius", [17, 23, 24, 33])
def test_a_glyph_in_its_pose_covers_its_share(radius):
    """Full scale, half scale and the mirror image against a hand-worked area, for a black and white rectangle."""
    picture = np.zeros((128, 136, 4), dtype=np.uint8)
    picture[34:94, 8:128] = [0, 0, 0, 255]  # 120 x 60
    picture[34:94, 68:128, :3] = 255
    pose = Pose(64 * PIXEL, 64 * PIXEL, radius * PIXEL, 0)
    for mirrored in (False, True):
        colour, alpha = _turned(picture, pose, (0, 0, SIZE, SIZE), mirrored)
        assert abs(alpha.sum() / 1020 - 2 * radius * radius) < 3 * radius
        columns = np.arange(SIZE)
        middle = (colour[..., 0].sum(axis=0) * columns).sum() / colour[..., 0].sum()
        assert abs(middle + 0.5 - (64 - radius / 2 if mirrored else 64 + radius / 2)) < 1
    turned = _turned(picture, Pose(64 * PIXEL, 64 * PIXEL, radius * PIXEL, 256), (0, 0, SIZE, SIZE), False)[1]
    rows, columns = (np.flatnonzero(turned.any(axis=axis)) for axis in (1, 0))
    assert abs(len(rows) - 2 * radius) <= 2 and abs(len(columns) - radius) <= 2
