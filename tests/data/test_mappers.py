"""Training mappers: masks stay on their objects, classes are right, corrupt files are named."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from PIL import Image

from PADing.config import load_config
from PADing.data.dataset_mappers import CorruptFile, MaskFormerSemanticDatasetMapper, build_mapper
from PADing.data.registration import register_split_files
from PADing.errors import UserError

HEIGHT, WIDTH = 40, 60
STREET, CIRCLE = 0, 1  # contiguous ids of the semantic set
KINDS = {
    "coco_instance_lsj": "instance",
    "mask_former_instance": "instance",
    "coco_panoptic_lsj": "panoptic",
    "mask_former_panoptic": "panoptic",
    "mask_former_semantic": "semantic",
}
STILL = ["INPUT.RANDOM_FLIP", "none", "INPUT.MIN_SCALE", 1.0, "INPUT.MAX_SCALE", 1.0, "INPUT.IMAGE_SIZE", 60]
STILL += ["INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.MAX_SIZE_TRAIN", 60]


def _cfg(mapper, *opts, role="val"):
    kind = KINDS.get(mapper, "instance")
    names = ["DATASETS.TRAIN", f'("own_{role}_{kind}",)', "DATASETS.TEST", f'("own_val_{kind}",)']
    return load_config("", [*names, "INPUT.FORMAT", "RGB", "INPUT.DATASET_MAPPER_NAME", mapper, *opts])


@pytest.fixture
def dicts(own):
    """Data set dicts by kind and image number."""
    register_split_files([own.split_file])

    def get(kind, image_id, role="val"):
        name = f"pic_{image_id}."
        return next(d for d in DatasetCatalog.get(f"own_{role}_{kind}") if name in d["file_name"])

    return get


@pytest.mark.parametrize("name", KINDS)
def test_form_of_a_training_example(dicts, name):
    """What the model's preprocessing relies on."""
    np.random.seed(0)
    example = build_mapper(_cfg(name))(dicts(KINDS[name], 900))
    image, instances = example["image"], example["instances"]
    assert image.dtype == torch.uint8 and image.shape[0] == 3
    assert instances.gt_masks.dtype == torch.bool and instances.gt_masks.shape[1:] == image.shape[1:]
    assert instances.gt_classes.dtype == torch.int64 and len(instances.gt_classes) == len(instances.gt_masks) > 0
    assert instances.image_size == tuple(image.shape[1:])


def test_instance_masks_equal_pycocotools(dicts):
    """Without augmentation, masks must be the annotation's, pixel by pixel; beyond the image lies padding."""
    entry = dicts("instance", 900)
    example = build_mapper(_cfg("coco_instance_lsj", *STILL))(entry)
    assert example["image"].shape == (3, 60, 60)
    for mask, annotation in zip(example["instances"].gt_masks, entry["annotations"], strict=True):
        polygons = mask_util.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)
        expected = mask_util.decode(mask_util.merge(polygons)).astype(bool)
        assert np.array_equal(mask[:HEIGHT].numpy(), expected) and not mask[HEIGHT:].any()
    assert (example["image"][:, HEIGHT:] == 128).all()


def test_crowds_are_no_targets(dicts):
    """A crowd region is not one object."""
    for name in ("coco_instance_lsj", "mask_former_instance"):
        assert build_mapper(_cfg(name, *STILL))(dicts("instance", 77))["instances"].gt_classes.tolist() == [0]
    for name in ("coco_panoptic_lsj", "mask_former_panoptic"):
        assert build_mapper(_cfg(name, *STILL))(dicts("panoptic", 77))["instances"].gt_classes.tolist() == [3, 0]


@pytest.mark.parametrize("name", [name for name in KINDS if name != "mask_former_semantic"])
def test_masks_follow_the_image(dicts, own, name):
    """Objects are painted in colors brighter than the rest, so mask and image can be compared after augmentation.

    A wrong crop offset, flip or scale would train masks beside their objects.
    """
    mapper = build_mapper(_cfg(name, "INPUT.IMAGE_SIZE", 64, "INPUT.MIN_SIZE_TRAIN", "(30, 60, 90)"))
    np.random.seed(3)
    seen = 0
    for _ in range(25):
        example = mapper(dicts(KINDS[name], 900))
        bright = (example["image"][0] > 180).numpy()
        circles = example["instances"].gt_masks[example["instances"].gt_classes == 0].numpy()
        mask = circles.any(axis=0) if len(circles) else np.zeros_like(bright)
        union = (mask | bright).sum()
        if union > 150:  # tiny remains at the border differ by interpolation
            seen += 1
            assert (mask & bright).sum() / union > 0.75
    assert seen > 8


def test_rle_masks_follow_the_image(dicts):
    """RLE masks take another path than polygons."""
    mapper = build_mapper(_cfg("coco_instance_lsj", "INPUT.IMAGE_SIZE", 64, "INPUT.MIN_SCALE", 0.6))
    np.random.seed(1)
    scores = []
    for _ in range(10):
        example = mapper(dicts("instance", 300))
        bright = (example["image"][0] > 180).numpy()
        mask = example["instances"].gt_masks.numpy().any(axis=0)
        if bright.sum() > 100:
            scores.append((mask & bright).sum() / (mask | bright).sum())
    assert len(scores) > 5 and min(scores) > 0.75


def test_panoptic_masks_are_the_annotations(dicts, own):
    """Order as annotated, pixel by pixel, void in no mask."""
    example = build_mapper(_cfg("coco_panoptic_lsj", *STILL))(dicts("panoptic", 900))
    rgb = np.asarray(Image.open(own.folder / "panoptic" / "pic_900.png")).astype(int)
    ids = rgb @ [1, 256, 65536]
    masks = example["instances"].gt_masks
    assert example["instances"].gt_classes.tolist() == [3, 0, 0]
    for mask, segment in zip(masks, own.panoptic["annotations"][0]["segments_info"], strict=True):
        assert np.array_equal(mask[:HEIGHT].numpy(), ids == segment["id"])
    assert not masks[:, HEIGHT:].any() and not masks[:, :2].any()


def test_cut_away_segments(dicts):
    """The panoptic LSJ mapper keeps empty masks as targets, like the published training; the others drop them."""
    crop = ["INPUT.RANDOM_FLIP", "none", "INPUT.IMAGE_SIZE", 16, "INPUT.MIN_SCALE", 4.0, "INPUT.MAX_SCALE", 4.0]
    np.random.seed(0)
    panoptic = build_mapper(_cfg("coco_panoptic_lsj", *crop))(dicts("panoptic", 900))["instances"]
    assert len(panoptic) == 3 and not panoptic.gt_masks.any(dim=2).any(dim=1).all()
    for _ in range(20):
        instances = build_mapper(_cfg("coco_instance_lsj", *crop))(dicts("instance", 900))["instances"]
        assert instances.gt_masks.flatten(1).any(dim=1).all()


def test_semantic_masks_and_padding(dicts, own):
    """One mask per label; what is ignored or padded is in none."""
    opts = [*STILL, "INPUT.SIZE_DIVISIBILITY", 64]
    example = build_mapper(_cfg("mask_former_semantic", *opts))(dicts("semantic", 900))
    labels = np.asarray(Image.open(own.folder / "labels" / "pic_900.png"))
    assert example["image"].shape == (3, 64, 64) and (example["image"][:, HEIGHT:] == 128).all()
    assert example["instances"].gt_classes.tolist() == [STREET, CIRCLE]
    for label, mask in zip((STREET, CIRCLE), example["instances"].gt_masks, strict=True):
        assert np.array_equal(mask[:HEIGHT, :WIDTH].numpy(), labels == label)
    assert (example["sem_seg"][HEIGHT:] == 255).all() and (example["sem_seg"][:HEIGHT, :WIDTH].numpy() == labels).all()


@pytest.mark.parametrize(
    ("stored", "ignored"), [([0, 254, 255], 255), ([255], 255), ([3, 255, 256, 511], 256), ([0, 127, 128, 255], -1)]
)
def test_semantic_masks_of_any_labels(stored, ignored, tmp_path):
    """Labels that fill a byte, that do not fit in one, and a negative label to ignore."""
    labels = np.resize(np.array(stored, dtype=np.uint16 if max(stored) > 255 else np.uint8), (HEIGHT, WIDTH))
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "image.png")
    record = {"file_name": str(tmp_path / "image.png"), "sem_seg_file_name": str(tmp_path / "labels.png")}
    example = MaskFormerSemanticDatasetMapper(augmentations=[], ignore_label=ignored)(record)
    classes = [label for label in stored if label != ignored]
    assert example["instances"].gt_classes.tolist() == classes
    assert np.array_equal(example["instances"].gt_masks.numpy(), labels == np.reshape(classes, (-1, 1, 1)))


def test_unseen_labels_are_hidden_in_training(dicts, own):
    """Label maps of all classes may be given to a training set of seen ones; unseen pixels must not be learnt from."""
    split = yaml.safe_load(own.split_file.read_text(encoding="utf-8"))
    path = own.folder / "labels" / "pic_5.png"
    labels = np.asarray(Image.open(path)).copy()
    assert len(split["unseen"]) == 2 and (labels == 3).any()  # 四角
    example = build_mapper(_cfg("mask_former_semantic", *STILL, role="train"))(dicts("semantic", 5, "train"))
    assert example["instances"].gt_classes.tolist() == [STREET]
    assert not (example["sem_seg"] == 3).any()


def test_semantic_crop_and_color(dicts):
    opts = ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "(20, 24)"]
    opts += ["INPUT.COLOR_AUG_SSD", True, "INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.SIZE_DIVISIBILITY", 32]
    for name in ("mask_former_semantic", "mask_former_panoptic", "mask_former_instance"):
        example = build_mapper(_cfg(name, *opts))(dicts(KINDS[name], 900))
        assert example["image"].shape == (3, 32, 32)


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("mask_former")])
def test_a_crop_without_pixels_names_the_setting(dicts, name):
    opts = ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "relative", "INPUT.CROP.SIZE", "(0.001, 0.5)"]
    with pytest.raises(UserError, match="pic_900.png of 40 x 60 .*a side of 0 pixels .*INPUT.CROP.SIZE"):
        build_mapper(_cfg(name, *STILL, *opts))(dicts(KINDS[name], 900))


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("mask_former")])
def test_custom_augmentations_are_applied_one_after_the_other(dicts, name):
    """The same example as in one step; a subclass may do anything, so it is not taken for what it is derived from."""

    class Flip(T.RandomFlip):
        pass

    mapper = build_mapper(_cfg(name, "INPUT.SIZE_DIVISIBILITY", 64, "INPUT.MIN_SIZE_TRAIN", "(50,)"))
    record, examples = dicts(KINDS[name], 900), []
    for flip in (T.RandomFlip(1.0), Flip(1.0)):
        *before, _ = mapper.augmentations.augs
        mapper.augmentations = T.AugmentationList([*before, flip])
        np.random.seed(0)
        examples.append(mapper(record))
    one, other = examples
    assert torch.equal(one["image"], other["image"]) and one["image"].shape == (3, 64, 128)
    for key in ("gt_classes", "gt_masks"):
        assert torch.equal(getattr(one["instances"], key), getattr(other["instances"], key))
    assert ("sem_seg" in one) == (name != "mask_former_instance")
    assert "sem_seg" not in one or torch.equal(one["sem_seg"], other["sem_seg"])


def test_empty_images_have_no_targets(dicts):
    example = build_mapper(_cfg("coco_instance_lsj", *STILL))(dicts("instance", 12))
    assert example["instances"].gt_masks.shape == (0, 60, 60) and len(example["instances"].gt_classes) == 0


@pytest.mark.parametrize(
    "name, folder, damage, reason",
    [
        ("coco_instance_lsj", "images", lambda p: p.write_bytes(p.read_bytes()[:400]), ""),
        ("coco_instance_lsj", "images", lambda p: p.write_bytes(b"not an image"), ""),
        ("coco_instance_lsj", "images", lambda p: p.unlink(), "does not exist"),
        ("coco_instance_lsj", "images", lambda p: Image.new("RGB", (9, 9)).save(p), "9"),
        ("coco_panoptic_lsj", "panoptic", lambda p: p.write_bytes(b""), ""),
        ("coco_panoptic_lsj", "panoptic", lambda p: Image.new("RGB", (9, 9)).save(p), "is 9 x 9"),
        ("mask_former_semantic", "labels", lambda p: Image.new("RGB", (60, 40)).save(p), "3 channels"),
        ("mask_former_semantic", "labels", lambda p: Image.new("L", (60, 40), 77).save(p), "values 77"),
    ],
)
def test_corrupt_files_are_named_and_can_be_skipped(dicts, own, caplog, name, folder, damage, reason):
    """One bad file in 118,000 must not cost a night; nor must it be lost silently."""
    entry = dicts(KINDS[name], 900)
    path = own.folder / folder / "pic_900.png"
    damage(path)
    with pytest.raises(CorruptFile) as error:
        build_mapper(_cfg(name, *STILL))(entry)
    message = str(error.value)
    assert str(path) in message and reason in message and "\n" not in message and "INPUT.ON_CORRUPT" in message
    assert build_mapper(_cfg(name, *STILL, "INPUT.ON_CORRUPT", "skip"))(entry) is None
    assert str(path) in caplog.text


@pytest.mark.parametrize(
    "segmentation, reason",
    [
        (None, "no mask"),
        ([[1.0, 2.0, float("nan"), 5.0, 9.0, 9.0]], "nan"),
        ([[1, 2, 2147483648, 5, 9, 9]], "2147483648"),
        ([[1, 2, 3, 5, 9]], "three points"),
        ({"size": [40, 60], "counts": b"ab"}, "counts"),
    ],
)
def test_broken_masks_name_the_image(dicts, segmentation, reason):
    """Data sets that were registered by others come here unchecked; such values crash or stall pycocotools."""
    for name in ("coco_instance_lsj", "mask_former_instance"):
        entry = dicts("instance", 900)
        entry["annotations"][1]["segmentation"] = segmentation
        with pytest.raises(CorruptFile, match=f"pic_900.png, annotation 2: .*{reason}"):
            build_mapper(_cfg(name, *STILL))(entry)


def test_mapper_of_another_kind_is_refused(dicts):
    with pytest.raises(UserError, match="needs \\['pan_seg_file_name', 'segments_info'\\].*DATASET_MAPPER_NAME"):
        build_mapper(_cfg("coco_panoptic_lsj"))(dicts("instance", 900))
    with pytest.raises(UserError, match="did you mean coco_panoptic_lsj"):
        build_mapper(_cfg("coco_panoptic_ljs"))


def test_evaluation_mapper_names_the_file(dicts, own):
    cfg = _cfg("coco_instance_lsj", "INPUT.MIN_SIZE_TEST", 80)
    mapper = build_mapper(cfg, is_train=False)
    example = mapper(dicts("instance", 900))
    assert example["image"].shape[1] == 80 and example["height"] == HEIGHT and "annotations" not in example
    (own.folder / "images" / "pic_900.png").write_bytes(b"nothing")
    with pytest.raises(CorruptFile, match="pic_900.png"):
        mapper(dicts("instance", 900))


def test_masks_agree_with_detectron2s_on_real_images(shared_data):
    """An independent way to the same masks: Detectron2 clips polygons to the crop before rasterising them."""
    from detectron2.data import detection_utils as utils
    from detectron2.structures import BoxMode

    from PADing.data.dataset_mappers.instance import annotation_masks

    folder = shared_data / "real_coco"
    content = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    np.random.seed(5)
    augmentations = T.AugmentationList(
        [
            T.RandomFlip(),
            T.ResizeScale(0.3, 2.0, target_height=320, target_width=320),
            T.FixedSizeCrop((320, 320), pad_value=128),
        ]
    )
    compared = 0
    for image in content["images"][:12]:
        annotations = [
            {"bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0, **{k: a[k] for k in ("bbox", "category_id", "segmentation")}}
            for a in content["annotations"]
            if a["image_id"] == image["id"] and not a["iscrowd"]
        ]
        augmented = T.AugInput(np.zeros((image["height"], image["width"], 3), dtype=np.uint8))
        transforms = augmentations(augmented)
        for annotation in annotations:
            classes, masks = annotation_masks([annotation], transforms, (320, 320))
            moved = utils.transform_instance_annotations(dict(annotation), transforms, (320, 320))
            other = np.zeros((320, 320), dtype=bool)
            if moved["segmentation"]:
                other = utils.annotations_to_instances([moved], (320, 320), "bitmask").gt_masks.tensor[0].numpy()
            mine = masks[0] if classes else np.zeros_like(other)
            # Clipping moves vertices, so rasterisation may differ along the outline.
            assert (mine != other).sum() <= 4 + 0.02 * (mine | other).sum()
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("height, width", [(40, 60), (53, 80), (23, 35)])
def test_label_maps_are_resized_by_pytorchs_nearest_neighbour(dicts, own, height, width):
    """The published training samples labels at floor(i * in / out); Pillow's nearest lies half a pixel beside it.

    The two differ in about one label of a hundred, always at the borders of objects.
    """
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, (HEIGHT, WIDTH), dtype=np.uint8)
    Image.fromarray(labels).save(own.folder / "labels" / "pic_900.png")
    size = ["INPUT.MIN_SIZE_TRAIN", f"({height},)", "INPUT.MAX_SIZE_TRAIN", 1000, "INPUT.RANDOM_FLIP", "none"]
    rows = np.floor(np.arange(height) * HEIGHT / height).astype(int)
    columns = np.floor(np.arange(width) * WIDTH / width).astype(int)
    semantic = build_mapper(_cfg("mask_former_semantic", *size))(dicts("semantic", 900))
    assert np.array_equal(semantic["sem_seg"].numpy(), labels[rows][:, columns])
    assert semantic["sem_seg"].dtype == torch.int64

    annotation = own.panoptic["annotations"][0]
    rgb = np.asarray(Image.open(own.folder / "panoptic" / annotation["file_name"])).astype(int)
    contiguous = {s["id"]: s["category_id"] for s in dicts("panoptic", 900)["segments_info"]}
    classes = np.vectorize(lambda i: contiguous.get(i, 255))(rgb @ [1, 256, 65536])
    panoptic = build_mapper(_cfg("mask_former_panoptic", *size))(dicts("panoptic", 900))
    assert np.array_equal(panoptic["sem_seg"].numpy(), classes[rows][:, columns])


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("mask_former")])
def test_images_too_thin_to_resize_are_named(dicts, own, name):
    """Of 1 x 5000 pixels, one side would be 0 pixels long; Pillow's and PyTorch's complaints name no file."""
    entry = dicts(KINDS[name], 12)
    entry.update(height=1, width=5000)
    for folder, mode in (("images", "RGB"), ("labels", "L"), ("panoptic", "RGB")):
        Image.new(mode, (5000, 1), 0 if mode == "L" else (1012 % 256, 1012 // 256, 0)).save(
            own.folder / folder / "pic_12.png"
        )
    with pytest.raises(CorruptFile, match="pic_12.png of 1 x 5000 pixels.*too thin"):
        build_mapper(_cfg(name, *STILL))(entry)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda path, image: image.convert("1").save(path), "mode 1"),
        (lambda path, image: image.save(path, format="JPEG"), "JPEG"),
        (lambda path, image: Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(path), "16"),
        (lambda path, image: Image.new("RGB", image.size).save(path), "do not belong together"),
        (lambda path, image: image.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(path), "60 x 40"),
    ],
)
def test_panoptic_png_of_another_annotation_is_refused(dicts, own, damage, reason):
    """Training on it would learn empty masks, and evaluation would count everything as missed."""
    path = own.folder / "panoptic" / "pic_900.png"
    damage(path, Image.open(path).copy())
    for name in ("coco_panoptic_lsj", "mask_former_panoptic"):
        with pytest.raises(CorruptFile, match=f"pic_900.png .*{reason}"):
            build_mapper(_cfg(name, *STILL))(dicts("panoptic", 900))


def test_segments_without_a_pixel_are_left_out(dicts, own, caplog):
    """Official files may list a few; training must neither stop there nor learn empty masks."""
    entry = dicts("panoptic", 900)
    street = {**entry["segments_info"][0]}
    want = [segment["category_id"] for segment in entry["segments_info"]]
    entry["segments_info"] = [
        {**street, "id": 4_000_000},  # one that is missing, beside three that are there
        *entry["segments_info"],
        *({**street, "id": 5_000_000 + i, "area": 0} for i in range(10)),
    ]
    for name in ("coco_panoptic_lsj", "mask_former_panoptic"):
        instances = build_mapper(_cfg(name, *STILL))(entry)["instances"]
        assert instances.gt_classes.tolist() == want and instances.gt_masks.any(dim=(1, 2)).all()
    messages = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(messages) <= 1  # once per process, not per image and epoch
    entry["segments_info"] += [{**street, "id": 6_000_000 + i, "area": 9} for i in range(3)]
    with pytest.raises(CorruptFile, match="pic_900.png has no pixel of 4 of the 7 segments"):
        build_mapper(_cfg("coco_panoptic_lsj", *STILL))(entry)


def test_detectron2s_own_mapper_reads_no_sixteen_bits(dicts, own):
    """Its reader clips them, so that the image is white; there is no way to hand it another one."""
    mapper = build_mapper(_cfg("default"))
    assert "instances" in mapper(dicts("instance", 900))
    Image.fromarray(np.full((HEIGHT, WIDTH), 30000, dtype=np.uint16)).save(own.folder / "images" / "pic_900.png")
    with pytest.raises(CorruptFile, match="pic_900.png cannot be read: .*DATASET_MAPPER_NAME"):
        mapper(dicts("instance", 900))
