"""Predictions drawn on the frames of a video, where an object keeps its color."""

from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances

from .visualizer import ColorLike, ColorMode, VisImage, Visualizer, distinct_color

LEAST_IOU = 0.5  # with its last region, for an object to be the same one
MEMORY = 10  # frames for which an object is remembered after it was last seen


class VideoVisualizer:
    """Draws on successive frames (H, W, 3) in RGB; an object keeps its color, found again by class and place."""

    def __init__(self, metadata, instance_mode: ColorMode = ColorMode.IMAGE):
        self.metadata, self.mode = metadata, instance_mode
        # Class, region, color, and the number of frames since it was seen.
        self._memory: list[tuple[int, np.ndarray, ColorLike, int]] = []
        self._colors_given = 0

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw objects on the CPU; AttributeError without ``pred_masks``, ``pred_boxes`` and ``pred_classes``."""
        if not len(predictions):
            return VisImage(frame)
        for name in ("pred_masks", "pred_boxes", "pred_classes"):
            getattr(predictions, name)  # AttributeError, as from the genuine class
        # Boxes are not drawn: they would tremble.
        drawn = {name: field for name, field in predictions.get_fields().items() if name != "pred_boxes"}
        return _Frame(frame, self).draw_instance_predictions(Instances(predictions.image_size, **drawn))

    def draw_sem_seg(self, frame: np.ndarray, sem_seg, area_threshold: int | None = None) -> VisImage:
        """Draw a label map (H, W) on a frame."""
        return _Frame(frame, self).draw_sem_seg(sem_seg, area_threshold)

    def draw_panoptic_seg(
        self,
        frame: np.ndarray,
        panoptic_seg,
        segments_info: list[dict],
        area_threshold: int | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw regions and objects on a frame; arguments as of :meth:`Visualizer.draw_panoptic_seg`."""
        return _Frame(frame, self).draw_panoptic_seg(panoptic_seg, segments_info, area_threshold, alpha)

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def recognize(self, classes: list[int], regions: list[np.ndarray]) -> list[ColorLike]:
        """The colors of the objects of the next frame: those that they had, or new ones."""
        overlaps = [
            (np.sum(old & region) / max(np.sum(old | region), 1), i, j)
            for i, (category, region) in enumerate(zip(classes, regions, strict=True))
            for j, (old_category, old, _, _) in enumerate(self._memory)
            if old_category == category and old.shape == region.shape
        ]
        same: dict[int, int] = {}
        for iou, i, j in sorted(overlaps, reverse=True):
            if iou >= LEAST_IOU and i not in same and j not in same.values():
                same[i] = j
        colors: list[ColorLike] = []
        for i in range(len(classes)):
            self._colors_given += i not in same
            colors.append(self._memory[same[i]][2] if i in same else distinct_color(self._colors_given - 1))
        away = [(*old[:3], old[3] + 1) for j, old in enumerate(self._memory) if j not in same.values()]
        self._memory = [(*seen, 0) for seen in zip(classes, regions, colors, strict=True)]
        self._memory += [old for old in away if old[3] <= MEMORY]
        return colors


class _Frame(Visualizer):
    def __init__(self, frame: np.ndarray, video: VideoVisualizer):
        super().__init__(frame, video.metadata, instance_mode=video.mode)
        self.video = video

    def _object_colors(self, number: int, classes: list[int], masks: list[np.ndarray]) -> Sequence[ColorLike]:
        if self.mode == ColorMode.SEGMENTATION:
            return super()._object_colors(number, classes, masks)
        return self.video.recognize(classes, masks)
