"""If these fail, parts of the mini data look other than they are meant to, or depend on the machine."""

import math

import cv2
import numpy as np
import pytest

from PADing.data.mini_v2.draws import Draws, hashed
from PADing.data.mini_v2.raster import PIXEL, Pose, coordinates, inside
from PADing.data.mini_v2.shapes import SHAPES, UNIT
from PADing.data.mini_v2.textures import TEXTURES
from PADing.data.mini_v2.turns import ONE, TURN, cosine, sine


def test_the_generator_is_splitmix64():
    """The first numbers of the published generator for the state 1234567 (as Java's and other implementations have)."""
    draws = Draws()
    draws._state = 1234567
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [draws.bits() for _ in known] == known
    draws._state = 1234567
    words = np.frombuffer(draws.bytes(40).tobytes(), dtype="<u8")
    assert words.tolist() == known and draws.bits() == Draws.bits(_after(1234567, 5))


def _after(state: int, steps: int) -> Draws:
    draws = Draws()
    draws._state = state
    for _ in range(steps):
        draws.bits()
    return draws


def test_draws_are_even():
    draws = Draws(1, 2, 3)
    counts = np.bincount([draws.below(6) for _ in range(6000)], minlength=6)
    assert len(counts) == 6 and abs(counts - 1000).max() < 150
    assert Draws(1, 2, 3).bits() != Draws(1, 3, 2).bits()
    x, y = np.mgrid[-50:50, -50:50]
    assert abs(hashed(x, y, 5).mean() - 127.5) < 3 and (hashed(x, y, 5) != hashed(x, y, 6)).mean() > 0.9


def test_the_table_is_the_sine():
    for angle in range(-TURN, 2 * TURN, 7):
        assert abs(int(sine(angle)) - ONE * math.sin(2 * math.pi * angle / TURN)) <= 0.5 + 1e-9
        assert abs(int(cosine(angle)) - ONE * math.cos(2 * math.pi * angle / TURN)) <= 0.5 + 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_rasterised_shapes_are_their_polygons(shape):
    """OpenCV's signed distance tells inside from outside, too; samples within a hundredth of a pixel may differ."""
    pose = Pose(x=40 * PIXEL + 17, y=33 * PIXEL + 90, radius=25 * PIXEL + 31, angle=-77)
    box = pose.box(128)
    found = inside(shape, pose, box)
    turn = 2 * math.pi * pose.angle / TURN
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    corners = (np.array([pose.x, pose.y]) + SHAPES[shape] @ rotation * pose.radius / UNIT) / PIXEL
    contour = corners.astype(np.float32)[:, None]
    for row, column in np.ndindex(*found.shape):
        point = (box[0] + (column + 0.5) / 2, box[1] + (row + 0.5) / 2)
        distance = cv2.pointPolygonTest(contour, point, measureDist=True)
        assert abs(distance) < 0.03 or found[row, column] == (distance > 0), (point, distance)
    assert found[0].sum() == found[-1].sum() == found[:, 0].sum() == found[:, -1].sum() == 0, "the box is too small"
    assert 0.2 < found.sum() / 4 / (pose.radius / PIXEL) ** 2 < 3.2


def test_coordinates_turn_with_the_object():
    pose = Pose(x=64 * PIXEL, y=64 * PIXEL, radius=20 * PIXEL, angle=TURN // 4)
    u, v = coordinates(pose, (54, 54, 74, 74))
    assert abs(u).max() <= UNIT // 2 and u.dtype == np.int32
    # A quarter of a circle from x to y: u points down, v points left.
    assert (np.diff(u, axis=0) > 0).all() and (np.diff(v, axis=1) < 0).all()


def test_textures_differ_from_each_other():
    v, u = np.mgrid[-900:900:24, -900:900:24].astype(np.int32)
    drawn = {name: np.asarray(texture(u, v, 5)) for name, texture in TEXTURES.items()}
    assert all(mask.shape == u.shape and mask.dtype == bool for mask in drawn.values())
    assert all(0.08 < mask.mean() < 0.92 for name, mask in drawn.items() if name != "plain")
    names = list(drawn)
    for i, name in enumerate(names):
        for other in names[:i]:
            same = (drawn[name] == drawn[other]).mean()
            assert 0.08 < same < 0.92, (name, other)
