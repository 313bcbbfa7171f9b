"""Point sampling against the bilinear formula, and the color augmentation against Python's own color conversion."""

import colorsys
import random

import numpy as np
import pytest
import torch
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.projects.point_rend.point_features import get_uncertain_point_coords_with_randomness, point_sample


def bilinear(map_: np.ndarray, x: float, y: float) -> float:
    """Value at (x, y) in the unit square; pixel centers lie at half-integers, zeros outside."""
    h, w = map_.shape
    px, py = x * w - 0.5, y * h - 0.5
    value = 0.0
    for j in (int(np.floor(py)), int(np.floor(py)) + 1):
        for i in (int(np.floor(px)), int(np.floor(px)) + 1):
            if 0 <= j < h and 0 <= i < w:
                value += map_[j, i] * (1 - abs(px - i)) * (1 - abs(py - j))
    return value


def test_point_sample_is_bilinear_interpolation():
    rng = np.random.RandomState(0)
    maps, points = rng.randn(2, 3, 5, 7), rng.rand(2, 11, 2)
    points[:, 0], points[:, 1] = 0, 1  # the corners of the image
    got = point_sample(torch.from_numpy(maps), torch.from_numpy(points), align_corners=False)
    assert got.shape == (2, 3, 11)
    for n in range(2):
        for c in range(3):
            want = [bilinear(maps[n, c], x, y) for x, y in points[n]]
            assert np.allclose(got[n, c].numpy(), want, atol=1e-12)


def test_point_sample_reads_x_before_y():
    maps = torch.tensor([[[[0.0, 1.0], [10.0, 11.0]]]])
    points = torch.tensor([[[0.75, 0.25], [0.25, 0.75]]])  # the centers of the right top and the left bottom pixel
    assert point_sample(maps, points, align_corners=False).tolist() == [[[1.0, 10.0]]]


def test_point_sample_nearest_keeps_labels():
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    points = torch.tensor([[[0.1, 0.1], [0.9, 0.9]]])
    assert point_sample(maps, points, mode="nearest", align_corners=False).tolist() == [[[0.0, 5.0]]]


def test_point_sample_on_a_grid():
    maps = torch.randn(2, 3, 4, 4)
    grid = torch.rand(2, 5, 6, 2)
    got = point_sample(maps, grid, align_corners=False)
    flat = point_sample(maps, grid.view(2, 30, 2), align_corners=False)
    assert got.shape == (2, 3, 5, 6) and torch.equal(got.flatten(2), flat)


def test_point_sample_of_nothing():
    assert point_sample(torch.zeros(0, 1, 4, 4), torch.zeros(0, 7, 2), align_corners=False).shape == (0, 1, 7)


@pytest.fixture
def recorded_rand(monkeypatch):
    """The tensors that torch.rand returned."""
    drawn, rand = [], torch.rand

    def record(*size, **kwargs):
        drawn.append(rand(*size, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(torch, "rand", record)
    return drawn


def test_uncertain_points_are_the_top_of_the_first_draw_and_all_of_the_second(recorded_rand):
    torch.manual_seed(0)
    logits = torch.randn(3, 1, 9, 8)
    points = get_uncertain_point_coords_with_randomness(logits, lambda v: -v.abs(), 20, 3.0, 0.75)
    candidates, fresh = recorded_rand
    assert points.shape == (3, 20, 2) and candidates.shape == (3, 60, 2) and fresh.shape == (3, 5, 2)
    assert torch.equal(points[:, 15:], fresh)
    for n in range(3):
        certainty = [abs(bilinear(logits[n, 0].numpy().astype(np.float64), x, y)) for x, y in candidates[n].tolist()]
        order = np.argsort(certainty)[:15]
        assert torch.equal(points[n, :15], candidates[n, order.tolist()]), "least certain first"


def test_uncertainty_is_measured_between_the_pixels():
    """Between a confident yes and a confident no the prediction is uncertain, though each pixel is certain."""
    torch.manual_seed(0)
    logits = torch.full((1, 1, 1, 2), 10.0)
    logits[..., 0] = -10.0
    points = get_uncertain_point_coords_with_randomness(logits, lambda v: -v.abs(), 64, 8.0, 1.0)
    assert (points[0, :, 0] - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("importance, kept, fresh", [(0.0, 0, 10), (0.55, 5, 5)])
def test_share_of_uncertain_points_is_rounded_down(recorded_rand, importance, kept, fresh):
    logits = torch.randn(2, 1, 4, 4)
    points = get_uncertain_point_coords_with_randomness(logits, lambda v: -v.abs(), 10, 2.5, importance)
    assert [tuple(d.shape) for d in recorded_rand] == [(2, 25, 2), (2, fresh, 2)]
    assert points.shape == (2, 10, 2) and torch.equal(points[:, kept:], recorded_rand[1])


def test_no_objects_still_draw_points(recorded_rand):
    points = get_uncertain_point_coords_with_randomness(torch.zeros(0, 1, 4, 4), lambda v: -v.abs(), 8, 3.0, 0.75)
    assert points.shape == (0, 8, 2) and len(recorded_rand) == 2


def test_impossible_ratios_are_refused():
    for oversample, importance in ((0.5, 0.5), (3.0, 1.5), (3.0, -0.1)):
        with pytest.raises(AssertionError):
            get_uncertain_point_coords_with_randomness(torch.zeros(1, 1, 2, 2), torch.neg, 4, oversample, importance)


# Colour augmentation -------------------------------------------------------------------------------------------------

NO_CHANGE = {
    "brightness_delta": 0,
    "contrast_low": 1.0,
    "contrast_high": 1.0,
    "saturation_low": 1.0,
    "saturation_high": 1.0,
    "hue_delta": 0,
}


def outputs(image: np.ndarray, img_format: str = "RGB", n: int = 60, **options) -> np.ndarray:
    random.seed(0)
    transform = ColorAugSSDTransform(img_format, **options)
    return np.stack([transform.apply_image(image) for _ in range(n)])


def noise(h: int = 6, w: int = 5) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (h, w, 3), dtype=np.uint8)


def test_brightness_adds_up_to_32_with_probability_one_half():
    grey = np.full((2, 2, 3), 100, np.uint8)
    out = outputs(grey, n=400, **{**NO_CHANGE, "brightness_delta": 32})
    shift = out[:, 0, 0, 0].astype(int) - 100
    assert (out == out[:, :1, :1, :1]).all(), "one shift for the whole image"
    assert -33 <= shift.min() < -25 and 25 < shift.max() <= 32
    assert 0.4 < (shift == 0).mean() < 0.6


def test_brightness_saturates_instead_of_wrapping():
    white = np.full((1, 1, 3), 250, np.uint8)
    assert outputs(white, **{**NO_CHANGE, "brightness_delta": 32}).min() >= 217


def test_contrast_scales_between_one_half_and_three_halves():
    out = outputs(np.full((1, 1, 3), 100, np.uint8), n=400, **{**NO_CHANGE, "contrast_low": 0.5, "contrast_high": 1.5})
    assert 49 <= out.min() < 56 and 144 < out.max() <= 150
    black = outputs(np.zeros((1, 1, 3), np.uint8), **{**NO_CHANGE, "contrast_low": 0.5, "contrast_high": 1.5})
    assert (black == 0).all()


def test_hue_turns_at_most_36_degrees():
    red = np.array([[[255, 0, 0]]], np.uint8)
    out = outputs(red, n=400, **{**NO_CHANGE, "hue_delta": 18})
    hues = np.array([colorsys.rgb_to_hsv(*(p / 255))[0] * 360 for p in out[:, 0, 0]])
    hues = (hues + 180) % 360 - 180
    assert np.abs(hues).max() <= 37 and hues.min() < -25 and hues.max() > 25


def test_saturation_scales_and_leaves_grey_alone():
    options = {**NO_CHANGE, "saturation_low": 0.5, "saturation_high": 1.5}
    pale = np.array([[[200, 100, 100]]], np.uint8)  # saturation one half
    values = np.array([colorsys.rgb_to_hsv(*(p / 255)) for p in outputs(pale, n=400, **options)[:, 0, 0]])
    assert 0.24 <= values[:, 1].min() < 0.3 and 0.7 < values[:, 1].max() <= 0.76
    grey = np.full((2, 2, 3), 77, np.uint8)
    assert (outputs(grey, **{**options, "hue_delta": 18}) == 77).all()


def test_channel_order_is_respected():
    image = noise()
    rgb = outputs(image, "RGB")
    bgr = outputs(np.ascontiguousarray(image[..., ::-1]), "BGR")
    assert np.array_equal(rgb, bgr[..., ::-1])


def test_every_call_draws_again_and_keeps_shape_and_dtype():
    image = noise()
    kept = image.copy()
    out = outputs(image)
    assert out.dtype == np.uint8 and out.shape[1:] == image.shape
    assert len(np.unique(out.reshape(len(out), -1), axis=0)) > 40
    assert np.array_equal(image, kept), "the caller's image was changed"
    assert np.array_equal(out, outputs(image)), "Python's random decides alone"


def test_geometry_is_left_alone():
    transform = ColorAugSSDTransform("RGB")
    coords, labels = np.random.rand(3, 2), np.arange(4).reshape(2, 2)
    assert np.array_equal(transform.apply_coords(coords), coords)
    assert np.array_equal(transform.apply_segmentation(labels), labels)
    with pytest.raises(AssertionError):
        ColorAugSSDTransform("HSV")
