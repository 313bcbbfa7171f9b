"""Predictions drawn on the frames of a video, where an object keeps its color."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from detectron2.structures import Instances

from .canvas import Color, VisImage, distinct_color
from .visualizer import OPACITY, ColorMode, Visualizer

LEAST_IOU = 0.5  # with its last region, for an object to be the same one
MEMORY = 10  # frames for which an object is remembered after it was last seen


@dataclass
class _Seen:
    """An object of this or of an earlier frame."""

    category: int
    region: np.ndarray  # bool (H, W)
    color: Color
    absent: int = 0  # frames


class VideoVisualizer:
    """Draws on frames, which must come in their order.

    An object is recognized in the next frame by its class and by where it is, and has the same color there.

    Args:
        metadata: as for ``Visualizer``.
        instance_mode: as for ``Visualizer``. In mode SEGMENTATION the color is that of the class.
    """

    def __init__(self, metadata, instance_mode: ColorMode = ColorMode.IMAGE):
        self.metadata, self._instance_mode = metadata, instance_mode
        self._memory: list[_Seen] = []
        self._colors_given = 0

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw objects on a frame (H, W, 3) in RGB.

        Args:
            predictions: on the CPU. ``pred_masks``, ``pred_boxes`` and ``pred_classes`` must be there if there is any
                object, else it is an AttributeError; ``scores`` may be.
        """
        canvas = self._visualizer(frame)
        if len(predictions) == 0:
            return canvas.output
        # The boxes are not drawn: beside masks they would only tremble. But the genuine class wants them.
        regions, _, classes = predictions.pred_masks.numpy() != 0, predictions.pred_boxes, predictions.pred_classes
        if self._instance_mode == ColorMode.SEGMENTATION:
            return canvas.draw_instance_predictions(predictions)
        if self._instance_mode == ColorMode.IMAGE_BW:
            canvas._take_color_away_outside(list(regions))
        return canvas.overlay_instances(
            masks=regions,
            labels=canvas._labels(classes.tolist(), predictions.get_fields().get("scores")),
            assigned_colors=self._recognize(classes.tolist(), regions),
            alpha=OPACITY[self._instance_mode.name],
        )

    def draw_sem_seg(self, frame: np.ndarray, sem_seg, area_threshold: int | None = None) -> VisImage:
        """Draw a label map (H, W) on a frame."""
        return self._visualizer(frame).draw_sem_seg(sem_seg, area_threshold)

    def draw_panoptic_seg(
        self,
        frame: np.ndarray,
        panoptic_seg,
        segments_info: list[dict],
        area_threshold: int | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw regions and objects on a frame; arguments as of :meth:`Visualizer.draw_panoptic_seg`."""
        canvas, ids = self._visualizer(frame), np.asarray(panoptic_seg)
        if self._instance_mode != ColorMode.IMAGE:
            return canvas.draw_panoptic_seg(ids, segments_info, area_threshold, alpha)
        things = [segment for segment in segments_info if segment["isthing"] and np.any(ids == segment["id"])]
        stuff = [segment for segment in segments_info if not segment["isthing"]]
        canvas.draw_panoptic_seg(ids, stuff, area_threshold, alpha)
        if not things:
            return canvas.output
        regions = np.stack([ids == segment["id"] for segment in things])
        colors = self._recognize([segment["category_id"] for segment in things], regions)
        appearance = canvas._appearance(things) | {"assigned_colors": colors}
        return canvas.overlay_instances(masks=regions, alpha=alpha, **appearance)

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def _visualizer(self, frame: np.ndarray) -> Visualizer:
        return Visualizer(frame, self.metadata, instance_mode=self._instance_mode)

    def _recognize(self, classes: list[int], regions: np.ndarray) -> list[Color]:
        """The colors of the objects of this frame: those that they had, or new ones."""
        objects = list(zip(classes, regions, strict=True))
        pairs = [(_iou(old, *new), i, j) for i, new in enumerate(objects) for j, old in enumerate(self._memory)]
        color_of, recognized = {}, set()
        for iou, i, j in sorted(pairs, reverse=True):
            if iou >= LEAST_IOU and i not in color_of and j not in recognized:
                color_of[i] = self._memory[j].color
                recognized.add(j)
        for i in range(len(objects)):
            if i not in color_of:
                color_of[i] = distinct_color(self._colors_given)
                self._colors_given += 1
        absent = [replace(old, absent=old.absent + 1) for j, old in enumerate(self._memory) if j not in recognized]
        self._memory = [_Seen(*new, color_of[i]) for i, new in enumerate(objects)]
        self._memory += [old for old in absent if old.absent <= MEMORY]
        return [color_of[i] for i in range(len(objects))]


def _iou(old: _Seen, category: int, region: np.ndarray) -> float:
    if old.category != category or old.region.shape != region.shape:
        return 0.0
    return np.sum(old.region & region) / max(np.sum(old.region | region), 1)
