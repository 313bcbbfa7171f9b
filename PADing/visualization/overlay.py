"""Drawings in Detectron2's style, by its visualizers, with the names of unseen classes marked."""

from collections.abc import Mapping

import numpy as np
from detectron2.data import Metadata
from detectron2.structures import PolygonMasks
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import Visualizer

from PADing.visualization.classes import display_metadata
from PADing.visualization.sources import confident

__all__ = ["PictureDrawer", "VideoDrawer", "display_scale"]

# Names are hard to read on pictures smaller than this (longer side, pixels), so these are enlarged.
READABLE_SIDE = 400


def display_scale(height: int, width: int) -> int:
    """By what to enlarge a picture so that names on it can be read."""
    return max(1, READABLE_SIDE // max(height, width))


class PictureDrawer:
    """Draws predictions, annotations and training examples of one data set.

    Args:
        metadata: of the data set.
        score_threshold: which instances are shown, see ``sources.confident``.
    """

    def __init__(self, metadata: Metadata, score_threshold: float | None = None):
        self.metadata = display_metadata(metadata)
        self.score_threshold = score_threshold

    def draw_output(self, image: np.ndarray, output: Mapping) -> np.ndarray:
        """Draw what a model returns for one picture: panoptic, else instances, else semantic.

        Args:
            image: (H, W, 3) uint8 RGB.
            output: a Detectron2 output with ``panoptic_seg``, ``instances`` or ``sem_seg`` of the picture's size.

        Returns:
            (s H, s W, 3) uint8 RGB; the factor s is 1 except for small pictures, see :func:`display_scale`.
        """
        return _draw_output(self._visualizer(image), (), output, self.score_threshold)

    def draw_record(self, image: np.ndarray, record: Mapping) -> np.ndarray:
        """Draw the annotation of one data set record (a Detectron2 dataset dict), read from its files."""
        record = dict(record)
        if "pan_seg_file_name" in record:
            record.pop("sem_seg_file_name", None)  # the same regions once more
        return self._visualizer(image).draw_dataset_dict(record).get_image()

    def draw_sample(self, sample: Mapping, image_format: str) -> np.ndarray:
        """Draw one training example: the picture after augmentation and the targets that belong to it.

        Args:
            sample: what a mapper returns: ``image`` (3, H, W) in 0..255 and ``instances`` with ``gt_classes`` and
                ``gt_masks``, or ``sem_seg`` (H, W).
            image_format: channel order of ``image``, "RGB" or "BGR".
        """
        image = sample["image"].permute(1, 2, 0).cpu().numpy()
        image = np.ascontiguousarray(image[:, :, ::-1] if image_format == "BGR" else image)
        visualizer = self._visualizer(image)
        if "instances" not in sample:
            return visualizer.draw_sem_seg(sample["sem_seg"].cpu(), area_threshold=0, alpha=0.5).get_image()
        instances = sample["instances"]
        masks = instances.gt_masks
        if not isinstance(masks, PolygonMasks):
            masks = getattr(masks, "tensor", masks)
            shown = masks.flatten(1).any(1)  # a crop may leave nothing of an object
            masks, instances = masks[shown].cpu().numpy(), instances[shown]
        labels = [self.metadata.thing_classes[index] for index in instances.gt_classes.tolist()]
        return visualizer.overlay_instances(masks=masks, labels=labels).get_image()

    def _visualizer(self, image: np.ndarray) -> Visualizer:
        return Visualizer(image, self.metadata, scale=display_scale(*image.shape[:2]))


class VideoDrawer:
    """Draws predictions into the frames of one video, given in order; objects keep their colours.

    Arguments as :class:`PictureDrawer`'s.
    """

    def __init__(self, metadata: Metadata, score_threshold: float | None = None):
        self.visualizer = VideoVisualizer(display_metadata(metadata))
        self.score_threshold = score_threshold

    def draw_output(self, frame: np.ndarray, output: Mapping) -> np.ndarray:
        """As :meth:`PictureDrawer.draw_output`, in the size of the frame."""
        return _draw_output(self.visualizer, (frame,), output, self.score_threshold)


def _draw_output(visualizer, frame: tuple, output: Mapping, score_threshold: float | None) -> np.ndarray:
    # VideoVisualizer's methods have the names and arguments of Visualizer's, after the frame.
    if "panoptic_seg" in output:
        ids, segments = output["panoptic_seg"]
        return visualizer.draw_panoptic_seg_predictions(*frame, ids.cpu(), segments).get_image()
    if "instances" in output:
        shown = confident(output["instances"], score_threshold)
        return visualizer.draw_instance_predictions(*frame, shown).get_image()
    return visualizer.draw_sem_seg(*frame, output["sem_seg"].argmax(dim=0).cpu()).get_image()
