"""Pictures of predictions in the frames of a video, in colours that stay with their objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from detectron2.structures import Boxes, Instances, pairwise_iou

from .canvas import Color, VisImage, distinct_color
from .visualizer import ColorMode, Visualizer, _labels, _to_masks, _to_numpy

MIN_IOU = 0.5  # an object of the next frame is the same one if it overlaps at least so much
FRAMES_REMEMBERED = 8  # an object may be missing for so many frames and keep its colour


@dataclass
class _Track:
    """An object that was seen lately."""

    category: int
    shape: np.ndarray  # bool (H, W) mask, or float (4,) box
    color: Color
    missed: int = 0


class VideoVisualizer:
    """Draws on the frames of one video, which must be given in order.

    An object keeps its colour as long as an object of the same class overlaps it in the next frames.

    Args:
        metadata: as of ``Visualizer``.
        instance_mode: IMAGE or IMAGE_BW; in mode SEGMENTATION colours come from the classes anyway.
    """

    def __init__(self, metadata=None, instance_mode: ColorMode = ColorMode.IMAGE):
        self.metadata = metadata
        self._instance_mode = instance_mode
        self._tracks: list[_Track] = []
        self._colors_used = 0

    def _visualizer(self, frame: np.ndarray) -> Visualizer:
        return Visualizer(frame, self.metadata, instance_mode=self._instance_mode)

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw on an RGB frame (H, W, 3); the fields of ``predictions`` are those that ``Visualizer`` reads."""
        visualizer = self._visualizer(frame)
        fields = predictions.get_fields()
        masks, boxes, classes = fields.get("pred_masks"), fields.get("pred_boxes"), fields.get("pred_classes")
        if self._instance_mode == ColorMode.SEGMENTATION or (masks is None and boxes is None):
            return visualizer.draw_instance_predictions(predictions)
        masks = None if masks is None else _to_masks(masks, *frame.shape[:2])
        shapes = masks if masks is not None else _to_numpy(boxes.tensor)
        classes = [0] * len(shapes) if classes is None else _to_numpy(classes).tolist()
        if self._instance_mode == ColorMode.IMAGE_BW:
            visualizer._grey_outside(masks.any(axis=0) if masks is not None else None)
        names = visualizer._meta("thing_classes")
        return visualizer.overlay_instances(
            masks=masks,
            boxes=boxes if masks is None else None,  # boxes of video objects tremble; masks are calmer
            labels=_labels(classes if fields.get("pred_classes") is not None else None, fields.get("scores"), names),
            assigned_colors=self._assign_colors(classes, shapes),
            alpha=0.3 if self._instance_mode == ColorMode.IMAGE_BW else 0.5,
        )

    def draw_sem_seg(self, frame: np.ndarray, sem_seg, area_threshold: int | None = None) -> VisImage:
        """Draw a label map (H, W); the colour of a class is always the same."""
        return self._visualizer(frame).draw_sem_seg(sem_seg, area_threshold=area_threshold)

    def draw_panoptic_seg(
        self,
        frame: np.ndarray,
        panoptic_seg,
        segments_info: list[dict],
        area_threshold: int | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw a panoptic map (H, W); things keep their colours."""
        visualizer = self._visualizer(frame)
        ids = _to_numpy(panoptic_seg)
        stuff = [s for s in segments_info if not s["isthing"]]
        things = [s for s in segments_info if s["isthing"] and (ids == s["id"]).any()]
        if self._instance_mode != ColorMode.IMAGE:
            return visualizer.draw_panoptic_seg(ids, segments_info, area_threshold, alpha)
        visualizer.draw_panoptic_seg(ids, stuff, area_threshold, alpha)
        masks = _to_masks([ids == s["id"] for s in things], *ids.shape)
        classes = [s["category_id"] for s in things]
        scores = [s["score"] for s in things] if all("score" in s for s in things) else None
        return visualizer.overlay_instances(
            masks=masks,
            labels=_labels(classes, scores, visualizer._meta("thing_classes")),
            assigned_colors=self._assign_colors(classes, masks),
            alpha=alpha,
        )

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def _assign_colors(self, classes: list[int], shapes: np.ndarray) -> list[Color]:
        """The colours of the objects of this frame, after those of the frames before."""
        overlaps = np.zeros((len(shapes), len(self._tracks)))
        for j, track in enumerate(self._tracks):
            overlaps[:, j] = _overlaps(shapes, track.shape) * (np.array(classes) == track.category)
        current: list[_Track | None] = [None] * len(shapes)
        matched = set()
        # The best pairs first; each object and each track once.
        for flat in np.argsort(-overlaps, axis=None, kind="stable").tolist():
            i, j = divmod(flat, len(self._tracks))
            if overlaps[i, j] < MIN_IOU:
                break
            if current[i] is None and j not in matched:
                current[i] = _Track(classes[i], shapes[i], self._tracks[j].color)
                matched.add(j)
        for i, track in enumerate(current):
            if track is None:
                current[i] = _Track(classes[i], shapes[i], distinct_color(self._colors_used))
                self._colors_used += 1
        missing = [t for j, t in enumerate(self._tracks) if j not in matched]
        for track in missing:
            track.missed += 1
        self._tracks = current + [t for t in missing if t.missed <= FRAMES_REMEMBERED]
        return [track.color for track in current]


def _overlaps(shapes: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Intersection over union of N masks with a mask, or of N boxes with a box; 0 if they cannot be compared."""
    if len(shapes) == 0 or shapes.shape[1:] != shape.shape:
        return np.zeros(len(shapes))
    if shape.ndim == 1:
        return pairwise_iou(Boxes(shapes), Boxes(shape[None]))[:, 0].numpy()
    intersection = (shapes & shape).sum(axis=(1, 2))
    return intersection / np.maximum((shapes | shape).sum(axis=(1, 2)), 1)
