"""The mini data set keeps its promises: nothing unseen in training, the same images for a seed."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from PADing.data import mini
from PADing.data.mini_files import make_mini_coco
from PADing.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_mini_coco(tmp_path_factory.mktemp("mini") / "data", train=60, val=12, size=96, seed=5)


def _json(root, name):
    return json.loads((root / "annotations" / name).read_text())


def _unseen_ids():
    return {c.id for c in mini.categories() if c.name in mini.UNSEEN["compositional"]}


@pytest.mark.parametrize("split", sorted(mini.UNSEEN))
def test_unseen_classes_are_new_combinations_of_seen_parts(split):
    unseen = [c for c in mini.categories() if c.name in mini.UNSEEN[split]]
    seen = [c for c in mini.categories() if c.name not in mini.UNSEEN[split]]
    assert len(unseen) == len(mini.UNSEEN[split])
    assert sum(c.isthing for c in unseen) >= 4 and sum(not c.isthing for c in unseen) in (1, 2)
    assert sum(c.isthing for c in seen) >= 12 and sum(not c.isthing for c in seen) >= 4
    seen_parts = {part for c in seen for part in c.parts}
    assert all(part in seen_parts for c in unseen for part in c.parts)


def test_training_annotation_shows_no_unseen_class(root):
    unseen = _unseen_ids()
    full, seen = _json(root, "panoptic_train.json"), _json(root, "panoptic_train_seen.json")
    assert any(s["category_id"] in unseen for a in full["annotations"] for s in a["segments_info"])
    assert not any(s["category_id"] in unseen for a in seen["annotations"] for s in a["segments_info"])
    assert {i["id"] for i in seen["images"]} == {a["image_id"] for a in seen["annotations"]}
    instances = _json(root, "instances_train_seen.json")
    assert not {a["category_id"] for a in instances["annotations"]} & unseen
    with_unseen_thing = {
        a["image_id"] for a in _json(root, "instances_train.json")["annotations"] if a["category_id"] in unseen
    }
    assert with_unseen_thing and not {i["id"] for i in instances["images"]} & with_unseen_thing
    seen_classes = len(mini.categories()) - len(unseen)
    for path in (root / "sem_seg_train_seen").iterdir():
        labels = np.unique(np.asarray(Image.open(path)))
        assert set(labels[labels != 255]) <= set(range(seen_classes))


def test_unlabelled_annotation_keeps_the_images_and_hides_their_unseen_segments(root):
    """Self-training needs unseen objects that are there and that nobody named; one name left in would be cheating."""
    unseen = _unseen_ids()
    full, left = _json(root, "panoptic_train.json"), _json(root, "panoptic_train_unlabelled.json")
    wanted = {
        a["image_id"]: [s for s in a["segments_info"] if s["category_id"] not in unseen] for a in full["annotations"]
    }
    assert {a["image_id"]: a["segments_info"] for a in left["annotations"]} == {k: v for k, v in wanted.items() if v}
    shown = {a["image_id"] for a in full["annotations"] if any(s["category_id"] in unseen for s in a["segments_info"])}
    assert shown & {a["image_id"] for a in left["annotations"]}, "no image with an unseen object is left"
    assert {i["id"] for i in left["images"]} == {a["image_id"] for a in left["annotations"]}


def test_label_maps_and_json_tell_the_same_story(root):
    content = _json(root, "panoptic_val.json")
    position = {c.id: i for i, c in enumerate(mini.categories())}
    for annotation in content["annotations"]:
        rgb = np.asarray(Image.open(root / "panoptic_val" / annotation["file_name"])).astype(np.int64)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        semantic = np.asarray(Image.open(root / "panoptic_semseg_val" / annotation["file_name"]))
        assert set(np.unique(ids)) == {s["id"] for s in annotation["segments_info"]}
        for segment in annotation["segments_info"]:
            mask = ids == segment["id"]
            assert mask.sum() == segment["area"]
            assert (semantic[mask] == position[segment["category_id"]]).all()
            ys, xs = np.nonzero(mask)
            assert segment["bbox"] == [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]


def test_polygons_rasterise_to_the_masks(root):
    """Instance training sees polygons, panoptic training sees PNGs: both must mean the same pixels."""
    area, wrong = 0, 0
    sizes = {i["id"]: (i["height"], i["width"]) for i in _json(root, "instances_val.json")["images"]}
    panoptic = {a["image_id"]: a for a in _json(root, "panoptic_val.json")["annotations"]}
    for annotation in _json(root, "instances_val.json")["annotations"]:
        assert all(len(p) >= 6 for p in annotation["segmentation"])
        rles = coco_mask.frPyObjects(annotation["segmentation"], *sizes[annotation["image_id"]])
        drawn = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
        entry = panoptic[annotation["image_id"]]
        rgb = np.asarray(Image.open(root / "panoptic_val" / entry["file_name"])).astype(np.int64)
        same = [s for s in entry["segments_info"] if (s["bbox"], s["area"]) == (annotation["bbox"], annotation["area"])]
        mask = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2] == same[0]["id"]
        area += mask.sum()
        wrong += (mask ^ drawn).sum()
    assert wrong < 0.01 * area


def test_class_embeddings_describe_the_parts():
    """Without noise, a sum over parts is exact: striped disc - striped bar + dotted bar = dotted disc."""
    names = [c.name for c in mini.categories()]
    exact = dict(zip(names, mini.class_embeddings(dim=32, noise=0.0, seed=3), strict=True))
    analogy = exact["striped disc"] - exact["striped bar"] + exact["dotted bar"]
    np.testing.assert_allclose(analogy, exact["dotted disc"], atol=1e-6)
    noisy = mini.class_embeddings(dim=32, noise=0.3, seed=3)
    np.testing.assert_allclose(np.linalg.norm(noisy, axis=1), 1.0, atol=1e-6)
    similarity = noisy @ noisy.T
    shared = similarity[names.index("striped disc"), names.index("striped star")]
    assert shared > similarity[names.index("striped disc"), names.index("dotted star")]


def test_the_same_seed_draws_the_same_images():
    """Published metrics refer to version 1 of the data; if this checksum changes, raise VERSION."""
    digest = hashlib.sha256()
    for index in range(5):
        image, segments = mini.draw_image(
            np.random.default_rng([0, 2, index]),
            64,
            [c for c in mini.categories() if c.isthing],
            [c for c in mini.categories() if not c.isthing],
        )
        digest.update(image.tobytes())
        for category, mask in segments:
            digest.update(category.name.encode() + np.packbits(mask).tobytes())
    assert (mini.VERSION, digest.hexdigest()[:16]) == (1, "4c63b85214427193")


def test_existing_folders_are_kept_reused_or_refused(root, tmp_path):
    before = (root / "mini.json").stat().st_mtime_ns
    make_mini_coco(root, train=60, val=12, size=96, seed=5)
    assert (root / "mini.json").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(UserError, match="not a mini data set"):
            make_mini_coco(tmp_path / "mine", force=force)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    (tmp_path / "mine" / "mini.json").write_text("the user's own notes")
    with pytest.raises(UserError, match="mini.json is not valid JSON"):
        make_mini_coco(tmp_path / "mine", force=True)
