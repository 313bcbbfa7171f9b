"""Reading images and annotations: if these fail, training sees other pixels or labels than the files hold."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from PIL import Image
from pycocotools.coco import COCO

from tests.d2lite.standin import standin_only

REAL = Path(__file__).resolve().parents[2].parent / "shared/data/real_coco"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="shared data (../shared/data/real_coco) are absent")


@pytest.fixture
def image_file(tmp_path):
    """A PNG of 4 x 6 random pixels: its path and its RGB array."""
    array = np.random.RandomState(0).randint(0, 256, (4, 6, 3)).astype(np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(array).save(path)
    return str(path), array


# ---- images


def test_channel_order(image_file):
    path, array = image_file
    assert np.array_equal(utils.read_image(path, "RGB"), array)
    assert np.array_equal(utils.read_image(path, "BGR"), array[:, :, ::-1])
    assert np.array_equal(utils.read_image(path), array)
    gray = utils.read_image(path, "L")
    assert gray.shape == (4, 6, 1) and np.array_equal(gray[:, :, 0], np.asarray(Image.fromarray(array).convert("L")))
    with pytest.raises(Exception, match="(?i)unknown|neither|mode|conversion"):
        utils.read_image(path, "XYZ")


def test_label_files_keep_their_values(tmp_path):
    values = np.array([[0, 3], [2, 255]], np.uint8)
    palette = Image.fromarray(values).convert("L")
    palette.putpalette([255 - i // 3 for i in range(768)])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(utils.read_image(str(tmp_path / "palette.png")), values)
    wide = values.astype(np.uint16) * 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(utils.read_image(str(tmp_path / "wide.png")), wide)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """The standard says where the stored row 0 and column 0 belong; the stored corner pixel must end up there."""
    row0, column0 = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    stored = np.full((16, 32, 3), 128, np.uint8)
    stored[:8, :8] = 255
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / "rotated.jpg"
    image.save(path, exif=exif, quality=100)
    result = utils.read_image(str(path), "RGB").astype(int)
    assert result.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    y = 0 if "top" in (row0, column0) else -1
    x = 0 if "left" in (row0, column0) else -1
    assert result[y, x].min() > 240
    assert result[-1 - y, x].max() < 140 and result[y, -1 - x].max() < 140


def test_unreadable_images_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.jpg"):
        utils.read_image(str(tmp_path / "absent.jpg"), "RGB")
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    broken = {"cut.jpg": content[: len(content) // 2], "text.jpg": b"not an image", "empty.png": b""}
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(OSError):
            utils.read_image(str(tmp_path / name), "RGB")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_do_not_matter(image_file, tmp_path):
    Image.fromarray(image_file[1]).save(tmp_path / "e.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    assert np.array_equal(utils.read_image(str(tmp_path / "e.png"), "RGB"), image_file[1])


def test_image_size_is_checked(image_file):
    _, array = image_file
    record = {"file_name": "x.jpg"}
    utils.check_image_size(record, array)
    assert (record["height"], record["width"]) == (4, 6)
    with pytest.raises(utils.SizeMismatchError, match="x.jpg"):
        utils.check_image_size({"file_name": "x.jpg", "height": 6, "width": 4}, array)


def test_images_to_draw_on(image_file):
    _, array = image_file
    assert np.array_equal(utils.convert_image_to_rgb(array[:, :, ::-1], "BGR"), array)
    assert np.array_equal(utils.convert_image_to_rgb(torch.from_numpy(array), "RGB"), array)
    gray = utils.convert_image_to_rgb(array[:, :, :1], "L")
    assert gray.shape == (4, 6, 3) and np.array_equal(gray[:, :, 2], array[:, :, 0])
    with pytest.raises(IndexError):
        utils.convert_image_to_rgb(array[:, :, 0], "L")


# ---- annotations


def record(**more):
    return {"bbox": [1, 2, 4, 3], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 7, "iscrowd": 0, **more}


def test_boxes_and_polygons_by_hand():
    # 10 x 8 pixels, mirrored, then half as large: x -> (10 - x) / 2, y -> y / 2.
    transforms = T.TransformList([T.HFlipTransform(10), T.ResizeTransform(8, 10, 4, 5)])
    annotation = record(segmentation=[[1.0, 2.0, 5.0, 2.0, 5.0, 5.0]])
    result = utils.transform_instance_annotations(annotation, transforms, (4, 5))
    assert result is annotation
    assert result["bbox_mode"] == BoxMode.XYXY_ABS
    assert np.allclose(result["segmentation"][0], [4.5, 1, 2.5, 1, 2.5, 2.5])
    boxes = utils.transform_instance_annotations(
        record(bbox=[1.0, 2.0, 4.0, 3.0]), [T.HFlipTransform(10), T.ResizeTransform(8, 10, 4, 5)], (4, 5)
    )
    assert np.allclose(boxes["bbox"], [2.5, 1, 4.5, 2.5])


def test_boxes_are_clipped_to_the_image():
    annotation = record(bbox=[1.0, 2.0, 40.0, 30.0])
    result = utils.transform_instance_annotations(annotation, [T.CropTransform(3, 1, 5, 4)], (4, 5))
    assert result["bbox"].tolist() == [0, 1, 5, 4]


def test_rles_become_masks():
    mask = np.zeros((8, 10), np.uint8)
    mask[2:5, 1:4] = 1
    annotation = record(segmentation=mask_util.encode(np.asfortranarray(mask)))
    result = utils.transform_instance_annotations(annotation, [T.HFlipTransform(10)], (8, 10))
    assert np.array_equal(result["segmentation"], mask[:, ::-1])
    with pytest.raises(ValueError, match="str"):
        utils.transform_instance_annotations(record(segmentation="x"), [T.HFlipTransform(10)], (8, 10))


def test_the_source_is_not_changed_through_an_array():
    polygon = np.array([1.0, 2, 5, 2, 5, 5])
    utils.transform_instance_annotations(record(segmentation=[polygon.copy()]), [T.HFlipTransform(10)], (8, 10))
    annotation = record(segmentation=[polygon.tolist()])
    source = annotation["segmentation"][0]
    utils.transform_instance_annotations(annotation, [T.HFlipTransform(10)], (8, 10))
    assert source == polygon.tolist()


def test_whole_numbers_stay_whole():
    """Transforms work in place: a box of whole numbers is cut to whole numbers, as the genuine package cuts it."""
    result = utils.transform_instance_annotations(record(bbox=[1, 2, 4, 3]), [T.ResizeTransform(8, 10, 4, 5)], (4, 5))
    assert result["bbox"].tolist() == [0, 1, 2, 2]


@standin_only
def test_keypoints_are_refused(cfg):
    with pytest.raises(NotImplementedError, match="keypoints"):
        utils.transform_instance_annotations(record(keypoints=[1, 1, 2]), [T.HFlipTransform(10)], (8, 10))
    with pytest.raises(NotImplementedError, match="KEYPOINT_ON"):
        cfg.MODEL.KEYPOINT_ON = True
        DatasetMapper(cfg, False)


def test_instances_from_annotations():
    square, triangle = [1.0, 1, 5, 1, 5, 5, 1, 5], [2.0, 2, 6, 2, 6, 6]
    mask = np.zeros((8, 10), np.uint8)
    mask[0:2, 0:3] = 1
    polygons = [record(segmentation=[square]), record(segmentation=[square, triangle], category_id=3)]
    instances = utils.annotations_to_instances(polygons, (8, 10))
    assert instances.image_size == (8, 10)
    assert instances.gt_boxes.tensor.tolist() == [[1, 2, 5, 5]] * 2
    assert instances.gt_classes.tolist() == [7, 3] and instances.gt_classes.dtype == torch.int64
    assert isinstance(instances.gt_masks, PolygonMasks) and len(instances.gt_masks.polygons[1]) == 2

    rle = mask_util.encode(np.asfortranarray(mask))
    mixed = [*polygons, record(segmentation=rle), record(segmentation=mask)]
    instances = utils.annotations_to_instances(mixed, (8, 10), "bitmask")
    assert isinstance(instances.gt_masks, BitMasks) and instances.gt_masks.tensor.shape == (4, 8, 10)
    expected = mask_util.decode(mask_util.merge(mask_util.frPyObjects([square, triangle], 8, 10)))
    assert np.array_equal(instances.gt_masks.tensor[1].numpy(), expected.astype(bool))
    assert torch.equal(instances.gt_masks.tensor[2], torch.from_numpy(mask.astype(bool)))
    assert torch.equal(instances.gt_masks.tensor[2], instances.gt_masks.tensor[3])
    with pytest.raises(ValueError, match="polygon"):
        utils.annotations_to_instances(mixed, (8, 10))


def test_instances_of_nothing():
    instances = utils.annotations_to_instances([], (8, 10))
    assert len(instances) == 0 and not instances.has("gt_masks")
    assert instances.gt_boxes.tensor.shape == (0, 4) and instances.gt_classes.shape == (0,)
    assert len(utils.filter_empty_instances(instances)) == 0
    assert not utils.annotations_to_instances([record()], (8, 10)).has("gt_masks")


def test_empty_instances_are_filtered():
    mask = np.zeros((8, 10), np.uint8)
    mask[1, 1] = 1
    annotations = [
        record(segmentation=mask),
        record(segmentation=mask, bbox=[1, 1, 0, 3]),
        record(segmentation=np.zeros_like(mask)),
    ]
    instances = utils.annotations_to_instances(annotations, (8, 10), "bitmask")
    kept = utils.filter_empty_instances(instances)
    assert len(kept) == 1 and torch.equal(kept.gt_boxes.tensor, instances.gt_boxes.tensor[:1])
    assert len(utils.filter_empty_instances(instances, by_mask=False)) == 2
    assert len(utils.filter_empty_instances(instances, by_box=False)) == 2
    assert len(utils.filter_empty_instances(instances, box_threshold=3.5)) == 0


def test_metadata_consistency():
    for i, classes in enumerate((["a"], ["a"], ["b"])):
        MetadataCatalog.get(f"consistency_{i}").thing_classes = classes
    utils.check_metadata_consistency("thing_classes", ["consistency_0", "consistency_1"])
    utils.check_metadata_consistency("thing_classes", [])
    with pytest.raises(ValueError, match="^Datasets have different metadata 'thing_classes'!$"):
        utils.check_metadata_consistency("thing_classes", ["consistency_0", "consistency_2"])
    for i in range(3):
        MetadataCatalog.pop(f"consistency_{i}")


def test_default_augmentations():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (11, 13)
    cfg.INPUT.MIN_SIZE_TEST = 17
    resize, flip = utils.build_augmentation(cfg, True)
    assert (resize.short_edge_length, resize.max_size, resize.is_range) == ((11, 13), 1333, False)
    assert (flip.horizontal, flip.vertical, flip.prob) == (True, False, 0.5)
    (resize,) = utils.build_augmentation(cfg, False)
    assert set(resize.short_edge_length) == {17}
    cfg.INPUT.RANDOM_FLIP = "vertical"
    assert utils.build_augmentation(cfg, True)[1].vertical
    cfg.INPUT.RANDOM_FLIP = "none"
    assert len(utils.build_augmentation(cfg, True)) == 1


# ---- the default mapper


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 12
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (8,), 12
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


def test_mapper_for_testing(image_file, cfg, tmp_path):
    path, array = image_file
    labels = np.arange(24).reshape(4, 6).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    source = {
        "file_name": path,
        "image_id": 5,
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "segments_info": [{"id": 1}],
        "annotations": [record()],
    }
    before = json.dumps(source)
    result = DatasetMapper(cfg, False)(source)
    assert json.dumps(source) == before
    assert sorted(result) == ["file_name", "height", "image", "image_id", "segments_info", "sem_seg", "width"]
    assert (result["height"], result["width"]) == (4, 6)
    assert result["image"].dtype == torch.uint8 and result["image"].shape == (3, 8, 12)
    resized = np.asarray(Image.fromarray(array).resize((12, 8), Image.BILINEAR))
    assert np.array_equal(result["image"].numpy(), resized.transpose(2, 0, 1))
    assert result["sem_seg"].dtype == torch.int64
    assert np.array_equal(result["sem_seg"].numpy(), labels.repeat(2, 0).repeat(2, 1))


def test_mapper_for_training(image_file, cfg):
    path, _ = image_file
    polygon = [1.0, 0.0, 4.0, 0.0, 4.0, 3.0]
    annotations = [
        record(bbox=[1.0, 0.0, 3.0, 3.0], segmentation=[polygon], keypoints=[1, 1, 2]),
        record(iscrowd=1, segmentation=[polygon]),
        record(bbox=[1.0, 1.0, 0.0, 2.0], segmentation=[polygon]),
    ]
    source = {"file_name": path, "height": 4, "width": 6, "annotations": annotations}
    instances = DatasetMapper(cfg, True)(source)["instances"]
    assert instances.image_size == (8, 12) and not instances.has("gt_masks")
    assert instances.gt_boxes.tensor.tolist() == [[2, 0, 8, 6]] and instances.gt_classes.tolist() == [7]

    cfg.MODEL.MASK_ON = True
    instances = DatasetMapper(cfg, True)(source)["instances"]
    assert np.allclose(instances.gt_masks.polygons[0][0], 2 * np.array(polygon))
    cfg.INPUT.MASK_FORMAT = "bitmask"
    instances = DatasetMapper(cfg, True)(source)["instances"]
    expected = mask_util.decode(mask_util.merge(mask_util.frPyObjects([[2 * x for x in polygon]], 8, 12)))
    assert np.array_equal(instances.gt_masks.tensor[0].numpy(), expected.astype(bool))


def test_mapper_makes_boxes_anew_after_cropping(image_file, cfg):
    """A box that is merely cut is larger than the rest of a cut triangle."""
    path, _ = image_file
    triangle = [0.0, 0.0, 4.0, 0.0, 0.0, 4.0]
    source = {"file_name": path, "annotations": [record(bbox=[0.0, 0.0, 4.0, 4.0], segmentation=[triangle])]}
    mapper = DatasetMapper(
        True,
        augmentations=[T.CropTransform(2, 0, 4, 4)],
        image_format="RGB",
        use_instance_mask=True,
        recompute_boxes=True,
    )
    assert mapper(source)["instances"].gt_boxes.tensor.tolist() == [[0, 0, 2, 2]]

    cfg.MODEL.MASK_ON = cfg.INPUT.CROP.ENABLED = True
    mapper = DatasetMapper(cfg, True)
    assert isinstance(mapper.augmentations.augs[0], T.RandomCrop) and mapper.recompute_boxes
    assert not DatasetMapper(cfg, False).recompute_boxes


@needs_real
def test_mapper_on_real_images(cfg):
    """Masks made by the mapper are those of COCO's library, drawn at the new size from the scaled polygons."""
    from detectron2.data.datasets import load_coco_json

    path = str(REAL / "annotations/instances_val2017.json")
    coco = COCO(path)
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (240,), 400
    mapper = DatasetMapper(cfg, True)
    compared = 0
    for d in load_coco_json(path, str(REAL / "val2017"))[:8]:
        result = mapper(d)
        h, w = result["image"].shape[1:]
        expected = []
        for a in coco.imgToAnns[d["image_id"]]:
            if a["iscrowd"]:
                continue
            scaled = [
                (np.reshape(p, (-1, 2)) * [w / d["width"], h / d["height"]]).reshape(-1).tolist()
                for p in a["segmentation"]
            ]
            expected.append(mask_util.decode(mask_util.merge(mask_util.frPyObjects(scaled, h, w))))
        expected = [m for m in expected if m.any()]
        masks = result["instances"].gt_masks.tensor.numpy()
        assert len(masks) == len(expected)
        assert all(np.array_equal(a, b.astype(bool)) for a, b in zip(masks, expected, strict=True))
        compared += len(masks)
    assert compared > 20
