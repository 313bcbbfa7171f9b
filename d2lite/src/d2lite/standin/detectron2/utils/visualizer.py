"""Pictures of predictions and annotations."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, unique

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, polygons_to_bitmask
from PIL import Image

from d2lite.omitted import ADVICE, omitted_names

from .canvas import Color, VisImage, distinct_color, shift_color, to_color
from .file_io import PathManager

__all__ = ["ColorMode", "VisImage", "Visualizer"]

EDGE = "w"  # colour of the outlines of semantic regions


@unique
class ColorMode(Enum):
    """How instances are coloured."""

    IMAGE = 0
    """Each instance has a colour of its own."""
    SEGMENTATION = 1
    """Instances of one class have similar colours, from the metadata."""
    IMAGE_BW = 2
    """As IMAGE, and everything without a segment is grey."""


class Visualizer:
    """Draws on one image. Every ``draw_`` method draws on top of the others and returns the picture.

    Drawing uses no random numbers: the same input gives the same picture.

    Args:
        img_rgb: (H, W, 3) RGB, values 0..255.
        metadata: of the data set; ``thing_classes``, ``thing_colors``, ``stuff_classes``, ``stuff_colors``,
            ``ignore_label`` and ``label_divisor`` are read when they are there.
        scale: size of the picture relative to the image.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata=None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
    ):
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = metadata
        self.output = VisImage(self.img, scale=scale)
        self._instance_mode = instance_mode

    def get_output(self) -> VisImage:
        """The picture as it is now."""
        return self.output

    # Predictions ------------------------------------------------------------------------------------------------------

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw what an instance segmentation model found.

        Args:
            predictions: any of ``pred_masks`` (N, H, W), ``pred_boxes``, ``scores``, ``pred_classes``.
            jittering: in mode SEGMENTATION, shift the colour of the class a little for each instance.
        """
        fields = predictions.get_fields()
        boxes, masks, classes = fields.get("pred_boxes"), fields.get("pred_masks"), fields.get("pred_classes")
        classes = None if classes is None else _to_numpy(classes).tolist()
        masks = None if masks is None else _to_masks(masks, self.output.height, self.output.width)
        labels = _labels(classes, fields.get("scores"), self._meta("thing_classes"))
        colors, alpha = None, 0.5
        if self._instance_mode == ColorMode.SEGMENTATION and classes is not None and self._meta("thing_colors"):
            colors = [self._class_color("thing_colors", c) for c in classes]
            if jittering:
                colors = [shift_color(color, i) for i, color in enumerate(colors)]
            alpha = 0.8
        if self._instance_mode == ColorMode.IMAGE_BW:
            self._grey_outside(np.any(masks, axis=0) if masks is not None and len(masks) else None)
            alpha = 0.3
        return self.overlay_instances(masks=masks, boxes=boxes, labels=labels, assigned_colors=colors, alpha=alpha)

    def draw_sem_seg(self, sem_seg, area_threshold: int | None = None, alpha: float = 0.8) -> VisImage:
        """Draw a label map.

        Args:
            sem_seg: (H, W) integers; classes without a name, and the ignore label, are left out.
            area_threshold: regions of fewer pixels are not drawn.
        """
        sem_seg = _to_numpy(sem_seg)
        names = self._meta("stuff_classes")
        labels, areas = np.unique(sem_seg, return_counts=True)
        for label, area in sorted(zip(labels.tolist(), areas.tolist(), strict=True), key=lambda pair: -pair[1]):
            if label < 0 or label == self._meta("ignore_label", 255) or (names and label >= len(names)):
                continue
            if area < (area_threshold or 0):
                continue
            self.draw_binary_mask(
                sem_seg == label,
                color=self._class_color("stuff_colors", label),
                edge_color=EDGE,
                text=names[label] if names else str(label),
                alpha=alpha,
                area_threshold=area_threshold,
            )
        return self.output

    def draw_panoptic_seg(
        self, panoptic_seg, segments_info: list[dict] | None, area_threshold: int | None = None, alpha: float = 0.7
    ) -> VisImage:
        """Draw a panoptic map: stuff in the colours of its classes, each thing in a colour of its own.

        Args:
            panoptic_seg: (H, W) segment ids.
            segments_info: dicts with ``id``, ``category_id`` (contiguous), ``isthing`` and optionally ``score``. None:
                the ids are ``category * label_divisor + number``, by the metadata, and -1 where there is no segment.
            area_threshold: stuff of fewer pixels is not drawn.
        """
        panoptic_seg = _to_numpy(panoptic_seg)
        if segments_info is None:
            segments_info = self._segments_of_ids(np.unique(panoptic_seg).tolist())
        segments = [{**s, "mask": panoptic_seg == s["id"]} for s in segments_info]
        segments = [s for s in segments if s["mask"].any()]
        if self._instance_mode == ColorMode.IMAGE_BW:
            self._grey_outside(np.any([s["mask"] for s in segments], axis=0) if segments else None)

        stuff = [s for s in segments if not s["isthing"]]
        for segment in sorted(stuff, key=lambda s: -s["mask"].sum()):
            category = segment["category_id"]
            self.draw_binary_mask(
                segment["mask"],
                color=self._class_color("stuff_colors", category),
                edge_color=EDGE,
                text=_class_name(category, self._meta("stuff_classes")),
                alpha=alpha,
                area_threshold=area_threshold,
            )
        things = [s for s in segments if s["isthing"]]
        if things:
            classes = [s["category_id"] for s in things]
            scores = [s["score"] for s in things] if all("score" in s for s in things) else None
            crowd = [bool(s.get("iscrowd", 0)) for s in things]
            colors = None
            if self._instance_mode == ColorMode.SEGMENTATION and self._meta("thing_colors"):
                colors = [shift_color(self._class_color("thing_colors", c), i) for i, c in enumerate(classes)]
            self.overlay_instances(
                masks=np.stack([s["mask"] for s in things]),
                labels=_labels(classes, scores, self._meta("thing_classes"), crowd),
                assigned_colors=colors,
                alpha=alpha,
            )
        return self.output

    draw_panoptic_seg_predictions = draw_panoptic_seg

    # Annotations ------------------------------------------------------------------------------------------------------

    def draw_dataset_dict(self, dic: dict) -> VisImage:
        """Draw the annotations of an image in Detectron2's format: ``annotations``, ``sem_seg`` or
        ``sem_seg_file_name``, ``pan_seg_file_name`` with ``segments_info``.
        """
        annotations = dic.get("annotations")
        if annotations:
            size = self.output.height, self.output.width
            masks = [_to_mask(a.get("segmentation") or [], *size) for a in annotations]
            boxes = None
            if all("bbox" in a for a in annotations):
                boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
            classes = [a["category_id"] for a in annotations]
            crowd = [bool(a.get("iscrowd")) for a in annotations]
            colors = None
            if self._instance_mode == ColorMode.SEGMENTATION and self._meta("thing_colors"):
                colors = [shift_color(self._class_color("thing_colors", c), i) for i, c in enumerate(classes)]
            self.overlay_instances(
                masks=np.stack(masks) if any("segmentation" in a for a in annotations) else None,
                boxes=boxes,
                labels=_labels(classes, None, self._meta("thing_classes"), crowd),
                assigned_colors=colors,
            )
        sem_seg = dic.get("sem_seg")
        if sem_seg is None and "sem_seg_file_name" in dic:
            sem_seg = _read(dic["sem_seg_file_name"])
        if sem_seg is not None:
            self.draw_sem_seg(sem_seg, area_threshold=0, alpha=0.5)
        if "pan_seg_file_name" in dic:
            ids = _read(dic["pan_seg_file_name"], "RGB").astype(np.int32) @ np.array([1, 256, 65536])
            self.draw_panoptic_seg(ids, dic["segments_info"], area_threshold=0, alpha=0.5)
        return self.output

    def overlay_instances(
        self,
        *,
        boxes: Boxes | np.ndarray | None = None,
        labels: Sequence[str] | None = None,
        masks: BitMasks | PolygonMasks | np.ndarray | Sequence | None = None,
        keypoints=None,
        assigned_colors: Sequence | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw objects, the largest first, so that small ones stay visible.

        Args:
            boxes: (N, 4) as x0, y0, x1, y1.
            labels: one text per object.
            masks: N masks; bitmaps, or per object a list of polygons or a COCO RLE.
            assigned_colors: one per object.
            alpha: opacity of the masks.
        """
        if keypoints is not None:
            raise NotImplementedError(f"drawing keypoints is not available: {ADVICE}")
        masks = None if masks is None else _to_masks(masks, self.output.height, self.output.width)
        boxes = None if boxes is None else _to_numpy(boxes.tensor if isinstance(boxes, Boxes) else boxes).reshape(-1, 4)
        lengths = {len(x) for x in (masks, boxes, labels, assigned_colors) if x is not None}
        if len(lengths) > 1:
            raise ValueError(f"masks, boxes, labels and colours differ in number: {sorted(lengths)}")
        count = lengths.pop() if lengths else 0
        colors = assigned_colors if assigned_colors is not None else [distinct_color(i) for i in range(count)]
        if masks is not None:
            areas = masks.reshape(count, -1).sum(axis=1) if count else np.zeros(0)
        else:
            areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) if boxes is not None else np.zeros(count)
        order = np.argsort(-areas, kind="stable").tolist()

        for i in order:
            color = to_color(colors[i])
            if masks is not None:
                self.output.fill_mask(masks[i], color, color, alpha)
            if boxes is not None:
                self.draw_box(boxes[i], edge_color=color)
        # Labels come last, lest a later mask covers them.
        for i in order if labels is not None else []:
            if boxes is not None:
                x, y = boxes[i, :2]
                self._draw_label(labels[i], (x, y), colors[i], "left")
            elif masks is not None and masks[i].any():
                self._draw_label_in_mask(labels[i], masks[i], colors[i])
        return self.output

    # Single things ----------------------------------------------------------------------------------------------------

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: str | Color | None = None,
        *,
        edge_color: str | Color | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: int | None = 10,
    ) -> VisImage:
        """Draw a mask of shape (H, W).

        Args:
            color: of the area; None: one of the picture's own.
            edge_color: of the outline; None: that of the area.
            text: written inside its largest part.
            area_threshold: connected parts of fewer pixels are left out.
        """
        color = distinct_color(0) if color is None else to_color(color)
        mask = _without_small_parts(_to_numpy(binary_mask).astype(bool), area_threshold or 0)
        if mask.any():
            self.output.fill_mask(mask, color, color if edge_color is None else to_color(edge_color), alpha)
            if text is not None:
                self._draw_label_in_mask(text, mask, color)
        return self.output

    def draw_polygon(
        self, segment: np.ndarray, color: str | Color, edge_color: str | Color | None = None, alpha: float = 0.5
    ) -> VisImage:
        """Draw a polygon with the corners (N, 2); its outline in the colour of its area if no other is given."""
        self.output.fill_polygon(segment, to_color(color), to_color(edge_color or color), alpha)
        return self.output

    def draw_box(
        self, box_coord: Sequence[float], alpha: float = 1.0, edge_color: str | Color = "g", line_style: str = "-"
    ) -> VisImage:
        """Draw the outline of (x0, y0, x1, y1); any line style other than "-" is dashed."""
        self.output.box(box_coord, to_color(edge_color), alpha, dashed=line_style != "-")
        return self.output

    def draw_circle(self, circle_coord: Sequence[float], color: str | Color, radius: float = 3) -> VisImage:
        """Draw a filled circle around (x, y)."""
        self.output.circle(tuple(circle_coord), radius, to_color(color))
        return self.output

    def draw_line(
        self,
        x_data: Sequence[float],
        y_data: Sequence[float],
        color: str | Color,
        linestyle: str = "-",
        linewidth: float | None = None,
    ) -> VisImage:
        """Draw straight lines through the points (x_data[i], y_data[i])."""
        if linestyle != "-":
            raise NotImplementedError(f"the line style {linestyle!r} is not available: {ADVICE}")
        width = None if linewidth is None else max(1, round(linewidth))
        self.output.line(self.output._points(np.stack([x_data, y_data], axis=1)), to_color(color), width=width)
        return self.output

    def draw_text(
        self,
        text: str,
        position: tuple[float, float],
        *,
        font_size: float | None = None,
        color: str | Color = "g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Write below (x, y), on a dark plate, in the colour made light enough to be read; turned by ``rotation``
        degrees. ``font_size`` is in pixels of the picture.
        """
        self.output.text(text, position, to_color(color), font_size, horizontal_alignment, rotation)
        return self.output

    # Help -------------------------------------------------------------------------------------------------------------

    def _meta(self, key: str, default=None):
        return getattr(self.metadata, key, default) if self.metadata is not None else default

    def _class_color(self, key: str, category: int) -> Color:
        colors = self._meta(key)
        return tuple(c / 255 for c in colors[category]) if colors else distinct_color(category)

    def _draw_label(self, text: str, position: tuple[float, float], color, alignment: str) -> None:
        if text:
            self.output.text(text, position, to_color(color), None, alignment, avoid_overlap=True)

    def _draw_label_in_mask(self, text: str, mask: np.ndarray, color) -> None:
        """Write at the point of the mask that is farthest from its border, which lies inside whatever its shape."""
        distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(distance.argmax(), distance.shape)
        half_line = self.output.font_size * 0.6 / self.output.scale
        self._draw_label(text, (x + 0.5, y + 0.5 - half_line), color, "center")

    def _grey_outside(self, mask: np.ndarray | None) -> None:
        """Begin again with an image that is grey where the mask is not; everywhere without a mask."""
        grey = np.repeat(cv2.cvtColor(self.img, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
        if mask is not None:
            grey[mask] = self.img[mask]
        self.output.reset_image(grey)

    def _segments_of_ids(self, ids: Sequence[int]) -> list[dict]:
        divisor = self._meta("label_divisor")
        if divisor is None:
            raise ValueError("draw_panoptic_seg needs segments_info, or metadata with a label_divisor")
        things = set((self._meta("thing_dataset_id_to_contiguous_id") or {}).values())
        return [
            {"id": i, "category_id": i // divisor, "isthing": i // divisor in things}
            for i in ids
            if i >= 0 and i // divisor >= 0
        ]


def _to_numpy(x) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def _read(file_name: str, mode: str | None = None) -> np.ndarray:
    with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
        return np.array(image if mode is None else image.convert(mode))


def _to_mask(mask, height: int, width: int) -> np.ndarray:
    """bool (H, W) from a bitmap, a list of polygons or a COCO RLE."""
    if isinstance(mask, dict):
        if isinstance(mask["counts"], list):
            mask = mask_util.frPyObjects(mask, *mask["size"])
        mask = mask_util.decode(mask)
    elif isinstance(mask, list):
        return polygons_to_bitmask(mask, height, width)
    mask = _to_numpy(mask).astype(bool)
    if mask.shape != (height, width):
        raise ValueError(f"a mask of shape {mask.shape} does not fit an image of {(height, width)}")
    return mask


def _to_masks(masks, height: int, width: int) -> np.ndarray:
    """bool (N, H, W)."""
    if isinstance(masks, BitMasks):
        masks = masks.tensor
    elif isinstance(masks, PolygonMasks):
        masks = masks.polygons
    masks = [_to_mask(mask, height, width) for mask in masks]
    return np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool)


def _without_small_parts(mask: np.ndarray, min_area: int) -> np.ndarray:
    if min_area <= 1:
        return mask
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:count, cv2.CC_STAT_AREA] >= min_area
    keep[0] = False  # the background
    return keep[parts]


def _class_name(category: int, names: Sequence[str] | None) -> str:
    return names[category] if names and 0 <= category < len(names) else str(category)


def _labels(
    classes: Sequence[int] | None,
    scores,
    names: Sequence[str] | None,
    is_crowd: Sequence[bool] | None = None,
) -> list[str] | None:
    """"name 87%", of what is known; None when nothing is."""
    parts = []
    if classes is not None:
        parts.append([_class_name(c, names) for c in classes])
    if scores is not None:
        parts.append([f"{float(s):.0%}" for s in scores])
    labels = [" ".join(words) for words in zip(*parts, strict=True)] if parts else None
    if labels is not None and is_crowd is not None:
        labels = [label + " (crowd)" if crowd else label for label, crowd in zip(labels, is_crowd, strict=True)]
    return labels


__getattr__ = omitted_names(__name__, ["GenericMask", "_PanopticPrediction", "_create_text_labels"])
