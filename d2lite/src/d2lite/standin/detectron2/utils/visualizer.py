"""Predictions and annotations drawn on their image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, polygons_to_bitmask
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from d2lite.omitted import ADVICE, omitted_names

from .canvas import Color, VisImage, distinct_color, shift_color, to_color
from .file_io import PathManager

__all__ = ["ColorMode", "VisImage", "Visualizer"]

OUTLINE = "white"  # of the regions of a class; an object's outline has the color of the object

# Opacity of objects by color mode.
OPACITY = {"IMAGE": 0.5, "SEGMENTATION": 0.8, "IMAGE_BW": 0.3}


class ColorMode(Enum):
    """How objects are told apart.

    IMAGE: each has its own color. SEGMENTATION: those of one class have similar ones, which the metadata name.
    IMAGE_BW: as IMAGE, on an image that is grey where there is no object.
    """

    IMAGE, SEGMENTATION, IMAGE_BW = range(3)


@dataclass
class _Object:
    """What is drawn of one object.

    mask: bool (H, W). box: x0, y0, x1, y1. label: a text, may be empty.
    """

    color: Color
    mask: np.ndarray | None = None
    box: np.ndarray | None = None
    label: str = ""

    def size(self) -> float:
        """Pixels of the mask, else of the box."""
        if self.mask is not None:
            return float(self.mask.sum())
        return 0.0 if self.box is None else float(np.prod(self.box[2:] - self.box[:2]))


class Visualizer:
    """Draws into a copy of one image. Each ``draw_`` method adds to what is drawn and returns it.

    Nothing here is random.

    Args:
        img_rgb: (H, W, 3), RGB, from 0 to 255.
        metadata: of the data set: ``thing_classes stuff_classes thing_colors stuff_colors label_divisor``.
        scale: how much larger than the image the drawing is.
        instance_mode: see :class:`ColorMode`.
    """

    def __init__(
        self, img_rgb: np.ndarray, metadata=None, scale: float = 1.0, instance_mode: ColorMode = ColorMode.IMAGE
    ):
        self.output = VisImage(img_rgb, scale=scale)
        self.img = self.output.img
        self.metadata = Metadata() if metadata is None else metadata
        self._instance_mode = instance_mode

    def get_output(self) -> VisImage:
        """What is drawn so far."""
        return self.output

    # What models return -----------------------------------------------------------------------------------------------

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw objects.

        Args:
            predictions: on the CPU, with any of ``pred_masks`` (N, H, W), ``pred_boxes``, ``pred_classes``, ``scores``.
            jittering: in mode SEGMENTATION, vary the color of a class from object to object.
        """
        known = predictions.get_fields()
        classes = known["pred_classes"].tolist() if "pred_classes" in known else None
        masks = self._regions(known["pred_masks"]) if "pred_masks" in known else None
        if self._instance_mode == ColorMode.IMAGE_BW:
            self._take_color_away_outside(masks or [])
        return self.overlay_instances(
            masks=masks,
            boxes=known.get("pred_boxes"),
            labels=self._labels(classes, known.get("scores")),
            assigned_colors=self._colors_of_classes(classes, vary=jittering),
            alpha=OPACITY[self._instance_mode.name],
        )

    def draw_sem_seg(self, sem_seg, area_threshold: int | None = None, alpha: float = 0.8) -> VisImage:
        """Draw the classes of a label map.

        Args:
            sem_seg: (H, W), an array or a tensor on the CPU. Labels beyond ``stuff_classes`` are not drawn.
            area_threshold: leave out parts with fewer pixels.
        """
        labels = np.asarray(sem_seg)
        names = self.metadata.stuff_classes
        regions = {label: labels == label for label in np.unique(labels).tolist() if label < len(names)}
        for label in sorted(regions, key=lambda label: regions[label].sum(), reverse=True):
            self._draw_region(regions[label], label, area_threshold, alpha)
        return self.output

    def draw_panoptic_seg(
        self, panoptic_seg, segments_info: list[dict] | None, area_threshold: int | None = None, alpha: float = 0.7
    ) -> VisImage:
        """Draw the regions of stuff, and over them the objects.

        Args:
            panoptic_seg: (H, W) ids of segments, an array or a tensor on the CPU.
            segments_info: for each id a dict with ``id``, ``category_id`` (contiguous), ``isthing``, and ``score`` if
                there is one. None: an id is a category times ``label_divisor`` plus a number, or -1 for no segment.
            area_threshold: leave out parts of stuff with fewer pixels.
        """
        ids = np.asarray(panoptic_seg)
        if segments_info is None:
            segments_info = self._segments_of(ids)
        drawn = [(segment, ids == segment["id"]) for segment in segments_info]
        drawn = [(segment, region) for segment, region in drawn if region.any()]
        if self._instance_mode == ColorMode.IMAGE_BW:
            self._take_color_away_outside([region for _, region in drawn])
        for segment, region in sorted(drawn, key=lambda entry: entry[1].sum(), reverse=True):
            if not segment["isthing"]:
                self._draw_region(region, segment["category_id"], area_threshold, alpha)
        things = [(segment, region) for segment, region in drawn if segment["isthing"]]
        if not things:
            return self.output
        return self.overlay_instances(
            masks=[region for _, region in things],
            alpha=alpha,
            **self._appearance([segment for segment, _ in things]),
        )

    draw_panoptic_seg_predictions = draw_panoptic_seg

    # What data sets know ----------------------------------------------------------------------------------------------

    def draw_dataset_dict(self, dic: dict) -> VisImage:
        """Draw whichever annotation an image of a data set has: ``annotations``, ``sem_seg`` or its file, and
        ``pan_seg_file_name`` with ``segments_info``.
        """
        objects = dic.get("annotations") or []
        if objects:
            self.overlay_instances(
                masks=[entry["segmentation"] for entry in objects] if "segmentation" in objects[0] else None,
                boxes=[BoxMode.convert(entry["bbox"], entry["bbox_mode"], BoxMode.XYXY_ABS) for entry in objects],
                **self._appearance(objects),
            )
        labels = dic.get("sem_seg")
        if labels is None and "sem_seg_file_name" in dic:
            labels = _pixels(dic["sem_seg_file_name"])
        if labels is not None:
            self.draw_sem_seg(labels, area_threshold=0, alpha=0.5)
        if "pan_seg_file_name" in dic:
            ids = _pixels(dic["pan_seg_file_name"]).astype(np.int64) @ (1, 256, 256**2)
            self.draw_panoptic_seg(ids, dic["segments_info"], area_threshold=0, alpha=0.5)
        return self.output

    # Objects and regions ----------------------------------------------------------------------------------------------

    def overlay_instances(
        self,
        *,
        boxes: Boxes | Sequence | np.ndarray | None = None,
        labels: Sequence[str] | None = None,
        masks: BitMasks | PolygonMasks | Sequence | np.ndarray | None = None,
        keypoints=None,
        assigned_colors: Sequence | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw objects, small ones over large ones, and all labels over them.

        Args:
            boxes: (N, 4), x0, y0, x1, y1.
            labels: N texts.
            masks: N bitmaps, COCO RLEs, or lists of polygons.
            assigned_colors: N colors; without them, each object gets one that differs from the others'.
            alpha: opacity of the masks.
        """
        if keypoints is not None:
            raise NotImplementedError(f"keypoints: {ADVICE}")
        columns = {
            "mask": None if masks is None else self._regions(masks),
            "box": None if boxes is None else np.asarray(boxes.tensor if isinstance(boxes, Boxes) else boxes),
            "label": labels,
            "color": None if assigned_colors is None else list(map(to_color, assigned_colors)),
        }
        columns = {name: column for name, column in columns.items() if column is not None}
        counts = {name: len(column) for name, column in columns.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"Objects cannot be drawn: they differ in number, {counts}.")
        number = max(counts.values(), default=0)
        columns.setdefault("color", [distinct_color(i) for i in range(number)])
        objects = [_Object(**{name: column[i] for name, column in columns.items()}) for i in range(number)]
        objects.sort(key=_Object.size, reverse=True)
        for drawn in objects:
            if drawn.mask is not None:
                self.output.fill_mask(drawn.mask, drawn.color, drawn.color, alpha)
            if drawn.box is not None:
                self.draw_box(drawn.box, edge_color=drawn.color)
        for drawn in objects:
            if drawn.box is not None:
                self._label(drawn.label, drawn.box[:2], drawn.color, "left")
            elif drawn.mask is not None:
                self._label_inside(drawn.label, drawn.mask, drawn.color)
        return self.output

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
        """Draw a region.

        Args:
            binary_mask: (H, W), not zero inside.
            color: of the region; without it, one is chosen.
            edge_color: of its outline; without it, the region's.
            text: is written where the region is widest.
            alpha: opacity.
            area_threshold: leave out parts with fewer pixels.
        """
        inside = distinct_color(0) if color is None else to_color(color)
        region = _large_parts(np.asarray(binary_mask) != 0, area_threshold or 0)
        self.output.fill_mask(region, inside, inside if edge_color is None else to_color(edge_color), alpha)
        self._label_inside(text, region, inside)
        return self.output

    def draw_box(
        self, box_coord: Sequence[float], alpha: float = 1.0, edge_color: str | Color = "g", line_style: str = "-"
    ) -> VisImage:
        """Draw the sides of x0, y0, x1, y1, dashed unless the line style is "-"."""
        self.output.box(box_coord, to_color(edge_color), alpha, dashed=line_style != "-")
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
        """Write under a place (x, y), see :meth:`VisImage.text`."""
        self.output.text(text, position, to_color(color), font_size, horizontal_alignment, rotation)
        return self.output

    def __getattr__(self, name: str):
        what = f" is not available: {ADVICE}" if name.startswith("draw_") else " does not exist"
        raise AttributeError(f"Visualizer.{name}{what}")

    # Names and colors -------------------------------------------------------------------------------------------------

    def _appearance(self, segments: list[dict]) -> dict:
        """Labels and colors of objects that a list of dicts describes, as arguments of overlay_instances."""
        classes = [segment["category_id"] for segment in segments]
        scored = all("score" in segment for segment in segments)
        labels = self._labels(classes, [segment["score"] for segment in segments] if scored else None)
        crowds = [" (crowd)" if segment.get("iscrowd") else "" for segment in segments]
        return {
            "labels": [label + crowd for label, crowd in zip(labels, crowds, strict=True)],
            "assigned_colors": self._colors_of_classes(classes),
        }

    def _labels(self, classes: Sequence[int] | None, scores: Iterable | None) -> list[str] | None:
        """Texts like "cat 87%", of what is known."""
        names, known = self.metadata.get("thing_classes"), []
        if classes is not None:
            known.append([names[index] if names else str(index) for index in classes])
        if scores is not None:
            known.append([f"{float(score):.0%}" for score in scores])
        return [" ".join(words) for words in zip(*known, strict=True)] if known else None

    def _colors_of_classes(self, classes: Sequence[int] | None, vary: bool = True) -> list[Color] | None:
        colors = self.metadata.get("thing_colors")
        if self._instance_mode != ColorMode.SEGMENTATION or classes is None or not colors:
            return None
        own = [tuple(value / 255 for value in colors[index]) for index in classes]
        return [shift_color(color, i) for i, color in enumerate(own)] if vary else own

    def _draw_region(self, region: np.ndarray, index: int, area_threshold: int | None, alpha: float) -> None:
        colors = self.metadata.get("stuff_colors")
        self.draw_binary_mask(
            region,
            tuple(value / 255 for value in colors[index]) if colors else distinct_color(index),
            edge_color=OUTLINE,
            text=self.metadata.stuff_classes[index],
            alpha=alpha,
            area_threshold=area_threshold,
        )

    def _segments_of(self, ids: np.ndarray) -> list[dict]:
        divisor = self.metadata.label_divisor
        things = self.metadata.thing_dataset_id_to_contiguous_id.values()
        numbers = np.unique(ids[ids >= 0]).tolist()
        return [{"id": i, "category_id": i // divisor, "isthing": i // divisor in things} for i in numbers]

    # Places -----------------------------------------------------------------------------------------------------------

    def _regions(self, masks) -> list[np.ndarray]:
        """Bool (H, W) of the image's size, of masks in any form."""
        if isinstance(masks, (BitMasks, PolygonMasks)):
            masks = masks.tensor if isinstance(masks, BitMasks) else masks.polygons
        size = self.output.height, self.output.width
        regions = [_region(mask, *size) for mask in masks]
        for region in regions:
            if region.shape != size:
                raise ValueError(f"A mask of {region.shape} does not fit an image of {size} pixels.")
        return regions

    def _take_color_away_outside(self, regions: list[np.ndarray]) -> None:
        """Begin again with an image that is grey but for some regions."""
        grey = np.asarray(Image.fromarray(self.img).convert("L").convert("RGB"))
        inside = np.any(regions, axis=0) if regions else np.zeros(self.img.shape[:2], dtype=bool)
        self.output.reset_image(np.where(inside[:, :, None], self.img, grey))

    def _label(self, text: str | None, place: Sequence[float], color: Color, alignment: str) -> None:
        if text:
            self.output.text(text, tuple(place), color, None, alignment, avoid_overlap=True)

    def _label_inside(self, text: str | None, region: np.ndarray, color: Color) -> None:
        if not region.any():
            return
        # The middle of the largest disc in the region lies inside, whatever the region's shape.
        depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)
        y, x = divmod(int(depth.argmax()), depth.shape[1])
        above = 0.6 * self.output.font_size / self.output.scale
        self._label(text, (x - 0.5, y - 0.5 - above), color, "center")


def _region(mask, height: int, width: int) -> np.ndarray:
    if isinstance(mask, dict):
        rle = coco_mask.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask
        return coco_mask.decode(rle) > 0
    if isinstance(mask, list):
        return polygons_to_bitmask(mask, height, width)
    return (mask.numpy() if isinstance(mask, Tensor) else np.asarray(mask)) != 0


def _large_parts(region: np.ndarray, least: int) -> np.ndarray:
    """A region without its connected parts of fewer pixels."""
    _, part, facts, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    return region & (facts[:, cv2.CC_STAT_AREA] >= least)[part]


def _pixels(file_name: str) -> np.ndarray:
    with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
        return np.array(image)


__getattr__ = omitted_names(__name__, ["GenericMask", "_PanopticPrediction", "_create_text_labels"])
