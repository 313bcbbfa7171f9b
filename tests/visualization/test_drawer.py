"""Drawing what belongs to a data set; wrong here means wrong names, or unseen classes that look seen."""

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import BitMasks, Instances, PolygonMasks

from PADing.errors import UserError
from PADing.visualization import ImageDrawer, display_scale
from PADing.visualization import panoptic as painting
from PADing.visualization.panoptic import UNSEEN_RGB

# Stuff is listed first here, so that a thing's contiguous id is not its place among the things.
PANOPTIC = Metadata().set(
    stuff_classes=["sky", "cat", "dog"],
    thing_classes=["cat", "dog"],
    thing_dataset_id_to_contiguous_id={10: 1, 20: 2},
    evaluation_set=["dog"],
)


@pytest.fixture
def texts(monkeypatch):
    """The names that are written into images."""
    written = []
    monkeypatch.setattr(
        painting, "draw_labels", lambda _, __, labels, *rest: written.extend(x.texts()[0] for x in labels)
    )
    return written


def _output():
    ids = torch.ones(40, 60, dtype=torch.int32)
    ids[10:30, 10:30] = 2
    segments = [{"id": 1, "category_id": 0, "isthing": False}, {"id": 2, "category_id": 2, "isthing": True}]
    instances = Instances((40, 60))
    instances.pred_masks = torch.stack([ids == 2, ids == 1]).float()
    instances.scores, instances.pred_classes = torch.tensor([0.8, 0.3]), torch.tensor([2, 1])
    scores = torch.stack([(ids == 1).float(), torch.zeros(40, 60), (ids == 2).float()])
    return {"panoptic_seg": (ids, segments), "instances": instances, "sem_seg": scores}


def test_a_set_without_names_is_refused():
    with pytest.raises(UserError, match="no class names"):
        ImageDrawer(Metadata())


@pytest.mark.parametrize("result", ["panoptic_seg", "instances", "sem_seg"])
@pytest.mark.parametrize("enlarge", [True, False])
def test_results(texts, enlarge, result):
    """Names by contiguous id; the unseen dog has the magenta outline, as in ``visualize_predictions``."""
    image = np.full((40, 60, 3), 120, dtype=np.uint8)
    drawn = ImageDrawer(PANOPTIC, enlarge=enlarge).draw_output(image, {result: _output()[result]})
    scale = 6 if enlarge else 1
    assert drawn.shape == (40 * scale, 60 * scale, 3) and drawn.dtype == np.uint8
    assert set(texts) == ({"dog 80%"} if result == "instances" else {"sky", "dog"})
    inside, outside = drawn[20 * scale, 20 * scale], drawn[35 * scale, 50 * scale]
    assert (inside != 120).any()
    assert (outside == 120).all() if result == "instances" else (outside != 120).any()
    assert drawn[10 * scale, 20 * scale].tolist() == list(UNSEEN_RGB)


def test_what_is_said_names_unseen_classes():
    drawer = ImageDrawer(PANOPTIC)
    assert drawer.describe(drawer.read(_output())) == "1 sky, 1 dog (unseen)"
    assert drawer.describe(drawer.read({"panoptic_seg": (torch.zeros(2, 2), [])})) == "nothing"


@pytest.mark.parametrize("kind", ["tensor", "bits", "polygons"])
def test_training_examples(texts, kind):
    """Pixels in the mapper's channel order, targets by name; objects that a crop cut away are not written."""
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, :10] = True
    instances = Instances((40, 60))
    instances.gt_classes = torch.tensor([1, 2])
    polygons = PolygonMasks([[np.array([0, 0, 60, 0, 60, 10, 0, 10.0])], [np.array([90, 90, 99, 90, 99, 99.0])]])
    instances.gt_masks = {"tensor": masks, "bits": BitMasks(masks), "polygons": polygons}[kind]
    blue = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 40, 60)
    drawn = ImageDrawer(PANOPTIC).draw_sample({"image": blue, "instances": instances}, "BGR")
    assert texts == ["cat"]
    assert drawn[-1, -1].tolist() == [0, 0, 255] and drawn[0, 0].tolist() != [0, 0, 255]
    labels = torch.zeros(40, 60, dtype=torch.int64)
    ImageDrawer(PANOPTIC).draw_sample({"image": blue, "sem_seg": labels}, "BGR")
    assert texts == ["cat", "sky"]


def test_small_images_are_enlarged():
    assert [display_scale(*size) for size in ((128, 128), (480, 640), (100, 250))] == [3, 1, 1]
