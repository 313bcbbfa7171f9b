"""Drawing in Detectron2's style; wrong here means that a thing gets another thing's name, or unseen classes none."""

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.visualizer import Visualizer

from PADing.errors import UserError
from PADing.visualization import PictureDrawer, VideoDrawer, display_metadata, unseen_ids
from PADing.visualization.overlay import display_scale

# Stuff is listed first here, so that a thing's contiguous id is not its place among the things.
PANOPTIC = Metadata(
    name="scene",
    stuff_classes=["sky", "cat", "dog"],
    stuff_colors=[[0, 0, 255], [255, 0, 0], [0, 255, 0]],
    thing_classes=["cat", "dog"],
    thing_dataset_id_to_contiguous_id={10: 1, 20: 2},
    evaluation_set=["dog"],
)


@pytest.fixture
def texts(monkeypatch):
    """The names that are written into pictures."""
    written = []
    overlay, draw = Visualizer.overlay_instances, Visualizer.draw_binary_mask

    def overlay_instances(self, **kwargs):
        written.extend(kwargs["labels"])
        return overlay(self, **kwargs)

    def draw_binary_mask(self, *args, **kwargs):
        written.extend([kwargs["text"]] if kwargs.get("text") else [])
        return draw(self, *args, **kwargs)

    monkeypatch.setattr(Visualizer, "overlay_instances", overlay_instances)
    monkeypatch.setattr(Visualizer, "draw_binary_mask", draw_binary_mask)
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


def test_names_are_found_by_contiguous_id_and_unseen_ones_marked():
    assert unseen_ids(PANOPTIC) == {2}
    shown = display_metadata(PANOPTIC)
    assert shown.thing_classes == shown.stuff_classes == ["sky", "cat", "dog (unseen)"]
    instance = Metadata(name="pets", thing_classes=["dog", "cat"], evaluation_set=["dog", "owl"])
    assert display_metadata(instance).thing_classes == ["dog (unseen)", "cat"]
    with pytest.raises(UserError, match="no class names"):
        display_metadata(Metadata(name="empty"))


@pytest.mark.parametrize("result", ["panoptic_seg", "instances", "sem_seg"])
@pytest.mark.parametrize("drawer", [PictureDrawer, VideoDrawer])
def test_results(texts, drawer, result):
    image = np.full((40, 60, 3), 120, dtype=np.uint8)
    drawn = drawer(PANOPTIC).draw_output(image, {result: _output()[result]})
    scale = 6 if drawer is PictureDrawer else 1
    assert drawn.shape == (40 * scale, 60 * scale, 3) and drawn.dtype == np.uint8
    assert set(texts) == ({"dog (unseen) 80%"} if result == "instances" else {"sky", "dog (unseen)"})
    inside, outside = drawn[20 * scale, 20 * scale], drawn[35 * scale, 50 * scale]
    assert (inside != 120).any()
    assert (outside == 120).all() if result == "instances" else (outside != 120).any()


def test_training_examples(texts):
    """Pixels in the mapper's channel order, targets by name; objects that a crop cut away are not written."""
    instances = Instances((40, 60))
    instances.gt_classes = torch.tensor([1, 2])
    instances.gt_masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    instances.gt_masks[0, :10] = True
    blue = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 40, 60)
    drawn = PictureDrawer(PANOPTIC).draw_sample({"image": blue, "instances": instances}, "BGR")
    assert texts == ["cat"]
    assert drawn[-1, -1].tolist() == [0, 0, 255]
    labels = torch.zeros(40, 60, dtype=torch.int64)
    PictureDrawer(PANOPTIC).draw_sample({"image": blue, "sem_seg": labels}, "BGR")
    assert texts == ["cat", "sky"]


def test_small_pictures_are_enlarged():
    assert [display_scale(*size) for size in ((128, 128), (480, 640), (100, 250))] == [3, 1, 1]
