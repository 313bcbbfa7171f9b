"""Predictions drawn on their image, by OpenCV and Pillow.

Places are in pixels of the image. Colors are red, green and blue from 0 to 1, or names of matplotlib's or Pillow's.
"""

import colorsys
import math
import os
from collections.abc import Iterable, Sequence
from enum import Enum

import cv2
import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from PIL import Image, ImageColor, ImageDraw, ImageFont

from d2lite.omitted import ADVICE, omitted_names

__getattr__ = omitted_names(__name__, "GenericMask _PanopticPrediction _create_text_labels")

ColorLike = str | Sequence[float] | np.ndarray

LETTERS = dict(b="blue", c="cyan", g="green", k="black", m="magenta", r="red", w="white", y="yellow")


class ColorMode(Enum):
    """Colors: IMAGE: of the object; SEGMENTATION: of its class; IMAGE_BW: of the object, on a grey image."""

    IMAGE, SEGMENTATION, IMAGE_BW = range(3)


OPACITY = {ColorMode.IMAGE: 0.5, ColorMode.SEGMENTATION: 0.8, ColorMode.IMAGE_BW: 0.3}  # of objects


def to_color(color: ColorLike) -> np.ndarray:
    """Red, green and blue from 0 to 255 of a color in any form; ValueError if it has none of them."""
    if isinstance(color, str):
        return np.array(ImageColor.getrgb(LETTERS.get(color, color))[:3], dtype=float)
    values = np.array(color, dtype=float)[:3]
    if len(values) < 3 or values.min() < 0 or values.max() > 1:
        raise ValueError(f"A color is red, green and blue from 0 to 1, not {color}.")
    return 255 * values


def distinct_color(index: int) -> tuple[float, float, float]:
    """One of a series of colors: eight hues strong, the next eight pale, the next eight dark, and over again."""
    saturation, value = ((0.85, 0.95), (0.6, 1.0), (0.95, 0.7))[index // 8 % 3]
    return colorsys.hsv_to_rgb((0.02 + index * (math.sqrt(5) - 1) / 2) % 1, saturation, value)


class VisImage:
    """What is drawn over a copy of an image (H, W, 3) in RGB, ``scale`` times as large as the image."""

    def __init__(self, img: np.ndarray, scale: float = 1.0):
        pixels = np.asarray(img)
        if pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"An image to draw on has the shape (H, W, 3), not {pixels.shape}.")
        self.scale, (self.height, self.width) = scale, pixels.shape[:2]
        size = [max(1, round(side * scale)) for side in (self.width, self.height)]
        self.drawing = cv2.resize(np.clip(pixels, 0, 255).astype(np.uint8), size)
        self.line_width = max(1, round(math.sqrt(math.prod(size)) / 350))
        self.font_size = max(10, round(math.sqrt(math.prod(size)) / 45))

    def get_image(self) -> np.ndarray:
        """A copy of the drawing: uint8, RGB, (scale * H, scale * W, 3)."""
        return self.drawing.copy()

    def save(self, filepath: str | os.PathLike) -> None:
        """Write the drawing into a file of the format that its name ends in."""
        Image.fromarray(self.drawing).save(filepath)


class Visualizer:
    """Draws into a copy of one image (H, W, 3), 0 to 255; names and colors of classes are in the metadata."""

    def __init__(
        self, img_rgb: np.ndarray, metadata=None, scale: float = 1.0, instance_mode: ColorMode = ColorMode.IMAGE
    ):
        self.output = VisImage(img_rgb, scale)
        self.metadata = Metadata() if metadata is None else metadata
        self.mode = instance_mode

    def draw_instance_predictions(self, predictions: Instances) -> VisImage:
        """Draw objects on the CPU: any of ``pred_masks`` (N, H, W), ``pred_boxes``, ``pred_classes`` and ``scores``."""
        if self.mode == ColorMode.IMAGE_BW:
            self._grey_outside(predictions.get_fields().get("pred_masks", ()))
        return self._draw_objects(predictions, OPACITY[self.mode])

    def draw_sem_seg(self, sem_seg, area_threshold: int | None = None, alpha: float = 0.8) -> VisImage:
        """Draw the known classes of a label map (H, W) by ``alpha``, but parts under ``area_threshold`` pixels."""
        labels, number = np.asarray(sem_seg), len(self.metadata.stuff_classes)
        for index in np.unique(labels).tolist():
            if index < number:
                self._draw_stuff(labels == index, index, area_threshold, alpha)
        return self.output

    def draw_panoptic_seg(
        self, panoptic_seg, segments_info: list[dict], area_threshold: int | None = None, alpha: float = 0.7
    ) -> VisImage:
        """Draw the regions of stuff, and over them the objects, of a map (H, W) of segment ids on the CPU.

        ``segments_info``: dicts with ``id``, contiguous ``category_id``, ``isthing``, and ``score`` if known.
        """
        ids = np.asarray(panoptic_seg)
        drawn = [(segment, ids == segment["id"]) for segment in segments_info if (ids == segment["id"]).any()]
        if self.mode == ColorMode.IMAGE_BW:
            self._grey_outside([region for _, region in drawn])
        for segment, region in drawn:
            if not segment["isthing"]:
                self._draw_stuff(region, segment["category_id"], area_threshold, alpha)
        things = [segment for segment, _ in drawn if segment["isthing"]]
        objects = Instances(ids.shape, pred_masks=[region for segment, region in drawn if segment["isthing"]])
        objects.pred_classes = [segment["category_id"] for segment in things]
        if all("score" in segment for segment in things):
            objects.scores = [segment["score"] for segment in things]
        return self._draw_objects(objects, alpha)

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: ColorLike | None = None,
        *,
        edge_color: ColorLike | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: int | None = 10,
    ) -> VisImage:
        """Draw a region (H, W) with outlines (by default of ``color``), and ``text`` where it is widest."""
        _, part, facts, _ = cv2.connectedComponentsWithStats((np.asarray(binary_mask) != 0).astype(np.uint8))
        large = facts[:, cv2.CC_STAT_AREA] >= (area_threshold or 0)
        large[0] = False  # the background
        region = self._enlarged(large[part])
        if not region.any():
            return self.output
        canvas, inside = self.output.drawing, to_color(distinct_color(0) if color is None else color)
        edge = inside if edge_color is None else to_color(edge_color)
        canvas[region] = np.rint(alpha * inside + (1 - alpha) * canvas[region])
        outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, edge.tolist(), self.output.line_width, cv2.LINE_AA)
        # The middle of the largest disc in the region lies inside, whatever the region's shape.
        depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)
        row, column = divmod(int(depth.argmax()), depth.shape[1])
        middle = column / self.output.scale, (row - 0.6 * self.output.font_size) / self.output.scale
        return self.draw_text(text, middle, color=tuple(inside / 255)) if text else self.output

    def draw_box(self, box_coord: Sequence[float], alpha: float = 1.0, edge_color: ColorLike = "g") -> VisImage:
        """Draw the sides of x0, y0, x1, y1."""
        x0, y0, x1, y1 = (round(side * self.output.scale) for side in box_coord)
        canvas = self.output.drawing
        color, width = to_color(edge_color).tolist(), self.output.line_width
        over = cv2.rectangle(canvas.copy(), (x0, y0), (x1, y1), color, width, cv2.LINE_AA)
        cv2.addWeighted(over, alpha, canvas, 1 - alpha, 0, dst=canvas)
        return self.output

    def draw_text(
        self,
        text: str,
        position: Sequence[float],
        *,
        font_size: float | None = None,
        color: ColorLike = "g",
        horizontal_alignment: str = "center",
    ) -> VisImage:
        """Write on a dark plate, which is moved into the drawing where it would reach beyond.

        ``position`` is (x, y) of the plate's upper "left", "center" or "right"; ``font_size`` is in drawn pixels.
        """
        canvas, size = self.output.drawing, font_size or self.output.font_size
        font = ImageFont.load_default(size)
        left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font)
        width, height = math.ceil(right - left) + 4, math.ceil(bottom - top) + 4
        x, y = (coordinate * self.output.scale for coordinate in position)
        x -= {"left": 0, "center": 0.5, "right": 1}[horizontal_alignment] * width
        x, y = int(max(0, min(x, canvas.shape[1] - width))), int(max(0, min(y, canvas.shape[0] - height)))
        canvas[y : y + height, x : x + width] //= 4
        over = Image.fromarray(canvas)
        letters = tuple((to_color(color) * 0.5 + 127).astype(int).tolist())
        ImageDraw.Draw(over).text((x + 2 - left, y + 2 - top), text, letters, font)
        canvas[:] = np.asarray(over)
        return self.output

    def __getattr__(self, name: str):
        what = f" is not available: {ADVICE}" if name.startswith(("draw_", "overlay_")) else " does not exist"
        raise AttributeError(f"Visualizer.{name}{what}")

    def _draw_objects(self, objects: Instances, alpha: float) -> VisImage:
        """Draw objects, small ones over large ones, and labels like "cat 87%"."""
        known, words = objects.get_fields(), []
        classes = [int(index) for index in known.get("pred_classes", ())]
        masks = [np.asarray(mask) != 0 for mask in known.get("pred_masks", ())]
        boxes = known["pred_boxes"].tensor.tolist() if "pred_boxes" in known else []
        if classes:
            names = self.metadata.get("thing_classes")
            words.append([names[index] if names else str(index) for index in classes])
        if "scores" in known:
            words.append([f"{float(score):.0%}" for score in known["scores"]])
        labels = [" ".join(parts) for parts in zip(*words, strict=True)] or [""] * len(objects)
        colors = self._object_colors(len(objects), classes, masks)
        for i in sorted(range(len(masks)), key=lambda i: masks[i].sum(), reverse=True):
            text = None if boxes else labels[i]
            self.draw_binary_mask(masks[i], colors[i], text=text, alpha=alpha, area_threshold=0)
        for label, color, box in zip(labels, colors, boxes, strict=False):
            self.draw_box(box, edge_color=color)
            if label:
                self.draw_text(label, box[:2], color=color, horizontal_alignment="left")
        return self.output

    def _object_colors(self, number: int, classes: list[int], masks: list[np.ndarray]) -> Sequence[ColorLike]:
        if self.mode == ColorMode.SEGMENTATION and classes and self.metadata.get("thing_colors"):
            return [np.array(self.metadata.thing_colors[index]) / 255 for index in classes]
        return [distinct_color(i) for i in range(number)]

    def _draw_stuff(self, region: np.ndarray, index: int, area_threshold: int | None, alpha: float) -> None:
        colors, text = self.metadata.get("stuff_colors"), self.metadata.stuff_classes[index]
        color = np.array(colors[index]) / 255 if colors else distinct_color(index)
        self.draw_binary_mask(region, color, edge_color="w", text=text, alpha=alpha, area_threshold=area_threshold)

    def _enlarged(self, region: np.ndarray) -> np.ndarray:
        """A bool (H, W) region in the size of the drawing."""
        size, (rows, columns) = (self.output.height, self.output.width), self.output.drawing.shape[:2]
        if region.shape != size:
            raise ValueError(f"A mask of {region.shape} does not fit an image of {size}.")
        return cv2.resize(region.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0

    def _grey_outside(self, regions: Iterable) -> None:
        canvas = self.output.drawing
        inside = np.zeros((*canvas.shape[:2], 1), dtype=bool)
        for region in regions:
            inside[self._enlarged(np.asarray(region) != 0)] = True
        canvas[:] = np.where(inside, canvas, cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY)[..., None])
