"""Augmentations: if these fail, images and labels are not where, or not what, a recipe says they are."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import transforms as T
from PIL import Image

from tests.d2lite.standin import standin_only


@pytest.fixture
def draws(monkeypatch):
    """Replace numpy's global draws by given numbers, which must all be used; returns the calls."""

    def install(**values):
        calls = []
        for function, numbers in values.items():
            numbers = iter(numbers)

            def fake(*args, function=function, numbers=numbers):
                calls.append((function, args))
                return next(numbers)

            monkeypatch.setattr(np.random, function, fake)
        return calls

    return install


def ramp(h, w, dtype=np.uint8):
    return np.arange(h * w).reshape(h, w).astype(dtype)


def rasterise(polygons, h, w):
    rle = mask_util.merge(mask_util.frPyObjects([p.reshape(-1).tolist() for p in polygons], h, w))
    return mask_util.decode(rle).astype(bool)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# ---- flip


def test_flip_draws_one_uniform_number_below_the_probability(draws):
    image = ramp(2, 3)
    for value, flipped in ((0.49, True), (0.5, False)):
        calls = draws(uniform=[value])
        result, transforms = T.apply_augmentations([T.RandomFlip()], image)
        assert len(calls) == 1 and isinstance(transforms, T.TransformList)
        assert np.array_equal(result, image[:, ::-1] if flipped else image)


def test_flips_come_in_the_order_of_numpys_generator():
    np.random.seed(3)
    flips = [isinstance(T.RandomFlip(0.3).get_transform(ramp(2, 2)), T.HFlipTransform) for _ in range(50)]
    assert flips == [u < 0.3 for u in np.random.RandomState(3).uniform(0, 1, 50)]


def test_flip_directions():
    vertical = T.RandomFlip(1.0, horizontal=False, vertical=True).get_transform(ramp(2, 3))
    assert np.array_equal(vertical.apply_image(ramp(2, 3)), ramp(2, 3)[::-1])
    assert vertical.apply_coords(np.array([[1.0, 0.5]])).tolist() == [[1.0, 1.5]]
    with pytest.raises(ValueError, match="both"):
        T.RandomFlip(horizontal=True, vertical=True)
    with pytest.raises(ValueError, match="one"):
        T.RandomFlip(horizontal=False)


# ---- resize


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 1066.67
        ((640, 480), 800, 1333, (1067, 800)),
        ((427, 640), 800, 1333, (800, 1199)),  # 1199.06
        ((500, 500), 800, 1333, (800, 800)),
        ((100, 1000), 800, 1333, (133, 1333)),  # the longer side limits: 1333 * 0.1
        ((200, 300), 333, 1333, (333, 500)),  # 499.5 is rounded up
    ],
)
def test_shortest_edge(size, short, longest, expected):
    assert T.ResizeShortestEdge.get_output_shape(*size, short, longest) == expected
    transform = T.ResizeShortestEdge(short, longest, "choice").get_transform(np.zeros((*size, 3), np.uint8))
    assert transform.apply_image(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)


def test_shortest_edge_draws():
    np.random.seed(11)
    image = np.zeros((10, 10), np.uint8)
    choice = [T.ResizeShortestEdge((20, 30, 40), 100, "choice").get_transform(image).new_h for _ in range(20)]
    interval = [T.ResizeShortestEdge((20, 24), 100, "range").get_transform(image).new_h for _ in range(20)]
    state = np.random.RandomState(11)
    assert choice == [state.choice((20, 30, 40)) for _ in range(20)]
    assert interval == [state.randint(20, 25) for _ in range(20)]
    assert max(interval) == 24
    assert isinstance(T.ResizeShortestEdge(0).get_transform(image), T.NoOpTransform)
    with pytest.raises(AssertionError):
        T.ResizeShortestEdge((1, 2, 3), 100, "range")


def test_resize_scale(draws):
    # 100 x 200 into 64 x 64 at half size: min(32 / 100, 32 / 200) = 0.16
    calls = draws(uniform=[0.5])
    transform = T.ResizeScale(0.1, 2.0, 64, 64).get_transform(np.zeros((100, 200, 3), np.uint8))
    assert (transform.h, transform.w, transform.new_h, transform.new_w) == (100, 200, 16, 32)
    assert calls == [("uniform", (0.1, 2.0))]
    draws(uniform=[1.25])
    transform = T.ResizeScale(0.1, 2.0, 10, 10).get_transform(np.zeros((30, 10), np.uint8))
    assert (transform.new_h, transform.new_w) == (12, 4)  # 12.5 and 4.17, halves to even


def test_resize_to_a_shape():
    assert T.Resize((3, 5)).get_transform(ramp(6, 6)).apply_image(ramp(6, 6)).shape == (3, 5)
    assert T.Resize(4).get_transform(ramp(6, 6)).apply_image(ramp(6, 6)).shape == (4, 4)


def test_bytes_are_resized_by_pil():
    image = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    result = T.ResizeTransform(20, 30, 7, 45, Image.BILINEAR).apply_image(image)
    assert np.array_equal(result, np.asarray(Image.fromarray(image).resize((45, 7), Image.BILINEAR)))
    gray = image[:, :, :1]
    result = T.ResizeTransform(20, 30, 7, 45).apply_image(gray)
    assert result.shape == (7, 45, 1)
    assert np.array_equal(result[:, :, 0], np.asarray(Image.fromarray(gray[:, :, 0]).resize((45, 7), Image.BILINEAR)))


def test_floats_are_interpolated_between_pixel_centres():
    row = np.array([[0.0, 1.0]], dtype=np.float32)
    result = T.ResizeTransform(1, 2, 1, 4).apply_image(row)
    assert result.dtype == np.float32 and np.allclose(result, [[0, 0.25, 0.75, 1]])
    assert np.allclose(T.ResizeTransform(1, 2, 1, 4).apply_image(row[:, ::-1]), [[1, 0.75, 0.25, 0]])
    stacked = np.stack([row, 2 * row], axis=2)
    assert np.allclose(T.ResizeTransform(1, 2, 1, 4).apply_image(stacked)[0, :, 1], [0, 0.5, 1.5, 2])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_labels_are_never_mixed(dtype):
    labels = np.array([[1, 200], [0, 7]]).astype(dtype)
    result = T.ResizeTransform(2, 2, 4, 6, Image.BILINEAR).apply_segmentation(labels)
    assert result.dtype == dtype
    assert np.array_equal(result, labels.repeat(2, axis=0).repeat(3, axis=1))


def test_labels_of_other_types_are_sampled_half_a_pixel_away():
    """Published trainings resize label maps as float64. Four pixels become two: Pillow takes the second and the fourth
    one (centres 1 and 3), PyTorch the first and the third (floor of 0 and 2)."""
    row = np.array([[10, 20, 30, 40]])
    resize = T.ResizeTransform(1, 4, 1, 2)
    assert resize.apply_segmentation(row.astype(np.float64)).tolist() == [[10, 30]]
    assert resize.apply_segmentation(row.astype(np.uint8)).tolist() == [[20, 40]]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, bool])
def test_types_that_cannot_be_resized_are_refused(dtype):
    with pytest.raises(RuntimeError):  # NotImplementedError is one
        T.ResizeTransform(2, 2, 4, 6).apply_segmentation(np.ones((2, 2), dtype))


def test_resize_coordinates_and_inverse():
    transform = T.ResizeTransform(10, 20, 30, 10)
    assert transform.apply_coords(np.array([[20.0, 10.0], [1.0, 1.0]])).tolist() == [[10, 30], [0.5, 3]]
    assert transform.apply_box(np.array([[2.0, 1.0, 4.0, 5.0]])).tolist() == [[1, 3, 2, 15]]
    back = transform.inverse()
    assert np.allclose(back.apply_coords(transform.apply_coords(np.array([[3.0, 7.0]]))), [[3, 7]])
    with pytest.raises(AssertionError):
        transform.apply_image(ramp(5, 5))


# ---- crop


def test_fixed_size_crop_of_a_larger_image(draws):
    # The room is (2, 6), half of it (1, 3).
    calls = draws(uniform=[0.5])
    image = ramp(6, 10)
    transforms = T.FixedSizeCrop((4, 4)).get_transform(image)
    assert np.array_equal(transforms.apply_image(image), image[1:5, 3:7])
    assert transforms.apply_box(np.array([[3.0, 1.0, 5.0, 2.0]])).tolist() == [[0, 0, 2, 1]]
    assert calls == [("uniform", (0.0, 1.0))]


def test_fixed_size_crop_of_a_smaller_image(draws):
    calls = draws(uniform=[0.9])  # drawn although there is no room
    image, labels = ramp(2, 3), np.ones((2, 3), np.uint8)
    transforms = T.FixedSizeCrop((4, 5)).get_transform(image)
    padded = transforms.apply_image(image)
    assert padded.shape == (4, 5) and np.array_equal(padded[:2, :3], image)
    assert (padded[2:] == 128).all() and (padded[:, 3:] == 128).all()
    segmentation = transforms.apply_segmentation(labels)
    assert (segmentation == 255).sum() == 14 and (segmentation[:2, :3] == 1).all()
    assert len(calls) == 1
    draws(uniform=[0.9])
    assert T.FixedSizeCrop((4, 5), pad=False).get_transform(image).apply_image(image).shape == (2, 3)


def test_fixed_size_crop_higher_than_asked_and_narrower(draws):
    draws(uniform=[1.0])
    image = ramp(6, 3)
    result = T.FixedSizeCrop((4, 4), pad_value=1, seg_pad_value=9).get_transform(image).apply_image(image)
    assert np.array_equal(result, np.pad(image[2:], ((0, 0), (0, 1)), constant_values=1))


def test_large_scale_jitter_keeps_masks_on_their_objects():
    """The whole chain on a drawn object: the polygon, transformed, must cover the object's pixels in the image."""
    polygon = np.array([[30.0, 20], [90, 25], [80, 70], [50, 50], [25, 60]])
    mask = rasterise([polygon], 100, 140)
    augmentations = [T.RandomFlip(), T.ResizeScale(0.5, 2.0, 96, 96), T.FixedSizeCrop((96, 96))]
    np.random.seed(0)
    tested = 0
    for _ in range(30):
        image, transforms = T.apply_augmentations(augmentations, np.where(mask, 255, 0).astype(np.uint8))
        assert image.shape == (96, 96)
        polygons = transforms.apply_polygons([polygon.copy()])
        area = transforms.apply_segmentation(mask.astype(np.uint8)) == 1
        if area.sum() > 200:
            assert iou(rasterise(polygons, 96, 96), area) > 0.9
            tested += 1
    assert tested > 15


def test_a_crop_can_cut_a_polygon_in_two_or_away():
    # A U, cropped to its upper half, leaves its two arms.
    u = np.array([[0.0, 0], [2, 0], [2, 8], [8, 8], [8, 0], [10, 0], [10, 10], [0, 10]])
    crop = T.CropTransform(0, 0, 10, 4)
    arms = crop.apply_polygons([u.copy()])
    assert sorted((p[:, 0].min(), p[:, 0].max(), p[:, 1].max()) for p in arms) == [(0, 2, 4), (8, 10, 4)]
    assert T.CropTransform(3, 0, 4, 4).apply_polygons([u.copy()]) == []


@pytest.mark.parametrize("kind", ["relative", "relative_range", "absolute", "absolute_range"])
def test_random_crop_draws(kind):
    size = {"relative": (0.5, 0.25), "relative_range": (0.3, 0.6), "absolute": (7, 99), "absolute_range": (4, 9)}[kind]
    image = ramp(20, 30, np.int64)
    np.random.seed(5)
    result, _ = T.apply_augmentations([T.RandomCrop(kind, size)], image.astype(np.float64))
    state = np.random.RandomState(5)
    if kind == "relative":
        h, w = 10, 8  # 7.5 is rounded up
    elif kind == "relative_range":
        a, b = state.rand(2)
        h, w = (
            int(20 * (np.float32(0.3) + a * (1 - np.float32(0.3))) + 0.5),
            int(30 * (np.float32(0.6) + b * (1 - np.float32(0.6))) + 0.5),
        )
    elif kind == "absolute":
        h, w = 7, 30
    else:
        h, w = state.randint(4, 10), state.randint(4, 10)
    y, x = state.randint(20 - h + 1), state.randint(30 - w + 1)
    assert np.array_equal(result, image[y : y + h, x : x + w])


def test_category_area_constraint():
    # The left 3/4 are of one class. A crop of a quarter often lies in it altogether; such crops are tried again.
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 30:] = 1
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 0.75)
    np.random.seed(0)
    for _ in range(30):
        aug_input = T.AugInput(np.zeros((40, 40, 3), np.uint8), sem_seg=labels)
        crop(aug_input)
        assert aug_input.image.shape == (20, 20, 3)
        share = (aug_input.sem_seg == 0).mean()
        assert 0.25 < share < 0.75 or share == 1.0  # 1.0: ten tries were not enough


def test_category_area_constraint_gives_up_after_ten_tries(draws):
    calls = draws(randint=range(20))
    labels = np.zeros((40, 40), np.uint8)
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 0.75)
    transform = crop.get_transform(np.zeros((40, 40, 3), np.uint8), labels)
    assert len(calls) == 20 and (transform.y0, transform.x0) == (18, 19)


def test_ignored_labels_do_not_count(draws):
    labels = np.zeros((4, 4), np.uint8)
    labels[:, 2:] = 255
    calls = draws(randint=[0] * 20)
    T.RandomCrop_CategoryAreaConstraint("absolute", (4, 4), 0.9, 255).get_transform(labels, labels)
    assert len(calls) == 20  # one class only, apart from the ignored label
    calls = draws(randint=[0] * 2)
    T.RandomCrop_CategoryAreaConstraint("absolute", (4, 4), 0.9).get_transform(labels, labels)
    assert len(calls) == 2
    calls = draws(randint=[0] * 2)
    T.RandomCrop_CategoryAreaConstraint("absolute", (4, 4)).get_transform(labels, None)
    assert len(calls) == 2


# ---- the interface of augmentations


def test_each_augmentation_sees_the_result_of_those_before():
    seen = []

    class Spy(T.Augmentation):
        def get_transform(self, image, boxes):
            seen.append((image.shape, boxes.tolist()))
            return T.NoOpTransform()

    aug_input = T.AugInput(ramp(4, 8), boxes=np.array([[0.0, 0, 4, 4]]), sem_seg=ramp(4, 8))
    returned, transforms = T.apply_transform_gens([Spy(), T.Resize((2, 2)), T.HFlipTransform(2), Spy()], aug_input)
    assert returned is aug_input
    assert seen == [((4, 8), [[0, 0, 4, 4]]), ((2, 2), [[1, 0, 2, 2]])]
    assert aug_input.sem_seg.shape == (2, 2)
    assert np.array_equal(transforms.apply_segmentation(ramp(4, 8)), aug_input.sem_seg)
    assert [type(t).__name__ for t in transforms.transforms if not isinstance(t, T.NoOpTransform)] == [
        "ResizeTransform",
        "HFlipTransform",
    ]


@standin_only
def test_misuse_is_explained():
    class Wants(T.Augmentation):
        def get_transform(self, image, depth):
            return T.NoOpTransform()

    class Returns(T.Augmentation):
        def get_transform(self, image):
            return image

    class Anything(T.Augmentation):
        def get_transform(self, *args):
            return T.NoOpTransform()

    aug_input = T.AugInput(ramp(2, 2))
    with pytest.raises(AttributeError, match="Wants.*depth"):
        Wants()(aug_input)
    with pytest.raises(AssertionError, match="Returns"):
        Returns()(aug_input)
    with pytest.raises(TypeError, match="Anything"):
        Anything()(aug_input)
    with pytest.raises(AssertionError, match="int64"):
        T.AugInput(ramp(2, 2, np.int64))
    with pytest.raises(TypeError, match="int"):
        T.AugmentationList([3])


def test_augmentations_describe_themselves():
    text = str([T.ResizeShortestEdge((640, 672), 1333, "choice"), T.RandomFlip()])
    assert "ResizeShortestEdge(short_edge_length=(640, 672), max_size=1333, sample_style='choice')" in text
    assert "RandomFlip()" in text


def test_what_is_left_out_is_explained(run_standin):
    out = run_standin(
        """
try:
    from detectron2.data.transforms import RandomRotation
except ImportError as error:
    print(error)
"""
    )
    assert "RandomRotation" in out and "d2lite" in out
