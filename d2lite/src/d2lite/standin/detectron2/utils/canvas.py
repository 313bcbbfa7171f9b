"""A drawing over an image: translucent regions, opaque outlines, and labels on dark plates.

Places are in pixels of the image, however large the drawing is. Colors are red, green and blue from 0 to 1, or names:
matplotlib's letters, those that Pillow knows, and "#rrggbb".
"""

from __future__ import annotations

import colorsys
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

Color = tuple[float, float, float]

LETTERS = {
    "b": "#0000ff",
    "c": "#00bfbf",
    "g": "#008000",
    "k": "#000000",
    "m": "#bf00bf",
    "r": "#ff0000",
    "w": "#ffffff",
    "y": "#bfbf00",
}
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2  # multiples of it, without their whole part, keep away from each other


def to_color(color: str | Sequence[float]) -> Color:
    """Red, green and blue of a color in any form; ValueError if it has none of them."""
    if isinstance(color, str):
        try:
            return tuple(value / 255 for value in ImageColor.getrgb(LETTERS.get(color, color))[:3])
        except ValueError:
            raise ValueError(f"There is no colour {color!r}. Write it as '#rrggbb'.") from None
    values = tuple(map(float, color))[:3]
    if len(values) < 3 or min(values) < 0 or max(values) > 1:
        raise ValueError(f"A colour is red, green and blue from 0 to 1, not {color}.")
    return values


def distinct_color(index: int) -> Color:
    """One of a series of colors: eight hues strong, the next eight pale, the next eight dark, and over again."""
    saturation, value = ((0.85, 0.95), (0.6, 1.0), (0.95, 0.7))[index // 8 % 3]
    return colorsys.hsv_to_rgb((0.02 + index * GOLDEN_RATIO) % 1, saturation, value)


def shift_color(color: Color, index: int) -> Color:
    """The same hue, somewhat lighter or darker: differently for each index."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*color)
    lightness += 0.3 * ((index * GOLDEN_RATIO) % 1 - 0.5)
    return colorsys.hls_to_rgb(hue, min(max(lightness, 0.15), 0.85), saturation)


def legible_on_dark(color: Color) -> Color:
    """The color, with as much white in it as it takes to be read."""
    luminance = float(np.dot(color, (0.299, 0.587, 0.114)))
    white = max(0.0, 0.75 - luminance) / (1 - luminance) if luminance < 1 else 0.0
    return tuple(value * (1 - white) + white for value in color)


def _bytes(color: Color) -> tuple[int, int, int]:
    return tuple(round(255 * value) for value in color)


class VisImage:
    """What is drawn over an image.

    Args:
        img: (H, W, 3) in RGB, from 0 to 255.
        scale: how much larger than the image the drawing is.

    Attributes:
        img: the image, uint8; it stays as it is. height, width: its size.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0):
        self.scale = scale
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Throw away what is drawn, and begin with another image."""
        pixels = np.asarray(img)
        if pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"An image to draw on has the shape (H, W, 3), not {pixels.shape}.")
        self.img = np.clip(pixels, 0, 255).astype(np.uint8)
        self.height, self.width = pixels.shape[:2]
        self._plates: list[tuple[int, int, int, int]] = []
        self._drawing = self.img.copy()
        if self.scale != 1:
            size = [max(1, round(length * self.scale)) for length in (self.width, self.height)]
            method = cv2.INTER_LINEAR if self.scale > 1 else cv2.INTER_AREA
            self._drawing = cv2.resize(self.img, size, interpolation=method)

    def get_image(self) -> np.ndarray:
        """The drawing: uint8, RGB, (scale * H, scale * W, 3). A copy."""
        return self._drawing.copy()

    def save(self, filepath: str | os.PathLike) -> None:
        """Write the drawing into a file of the format that its name ends in."""
        Image.fromarray(self._drawing).save(Path(filepath), quality=95)

    @property
    def line_width(self) -> int:
        """Of outlines, in pixels of the drawing: thicker in large ones."""
        return max(1, round(math.sqrt(self._drawing[..., 0].size) / 350))

    @property
    def font_size(self) -> int:
        """Of labels, in pixels of the drawing."""
        return max(10, round(math.sqrt(self._drawing[..., 0].size) / 45))

    def fill_mask(self, mask: np.ndarray, color: Color, edge_color: Color, alpha: float) -> None:
        """Color the pixels of a bool (H, W) mask, with this opacity, and draw its outline and those of its holes."""
        if not mask.any():
            return
        region = mask.astype(np.uint8)
        if mask.shape != self._drawing.shape[:2]:
            # Cut a smooth version of the mask at one half, which leaves no stairs.
            size = self._drawing.shape[1::-1]
            region = (cv2.resize(mask.astype(np.float32), size) >= 0.5).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(region)
        window = slice(y, y + height), slice(x, x + width)
        inside = region[window] > 0
        mixed = alpha * np.array(_bytes(color)) + (1 - alpha) * self._drawing[window][inside]
        self._drawing[window][inside] = np.rint(mixed)
        outlines, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(self._drawing, outlines, -1, _bytes(edge_color), self.line_width, cv2.LINE_AA)

    def box(self, box: Sequence[float], color: Color, alpha: float, dashed: bool = False) -> None:
        """Draw the sides of x0, y0, x1, y1."""
        x0, y0, x1, y1 = map(float, box)
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        lines = [line for pair in zip(corners, np.roll(corners, -1, axis=0), strict=True) for line in [np.stack(pair)]]
        if dashed:
            lines = [dash for line in lines for dash in self._dashes(line)]
        # OpenCV puts whole numbers on the middle of pixels, and takes 1/16 as its unit.
        lines = [np.rint((line * self.scale - 0.5) * 16).astype(np.int32) for line in lines]
        over = self._drawing.copy()
        cv2.polylines(over, lines, False, _bytes(color), self.line_width, cv2.LINE_AA, shift=4)
        self._drawing = over if alpha >= 1 else cv2.addWeighted(over, alpha, self._drawing, 1 - alpha, 0)

    def _dashes(self, line: np.ndarray) -> Iterator[np.ndarray]:
        """Pieces of a line (2, 2), as long as the spaces between them."""
        start, way = line[0], line[1] - line[0]
        pieces = 2 * max(1, round(np.abs(way).sum() * self.scale / (8 * self.line_width))) - 1
        for piece in range(0, pieces, 2):
            yield np.stack([start + way * piece / pieces, start + way * (piece + 1) / pieces])

    def text(
        self,
        text: str,
        position: Sequence[float],
        color: Color,
        font_size: float | None = None,
        horizontal_alignment: str = "center",
        rotation: float = 0,
        avoid_overlap: bool = False,
    ) -> None:
        """Write on a dark plate, which is moved into the drawing where it would reach beyond.

        Args:
            position: (x, y) of the plate's upper side: of its "left" end, "center" or "right" end.
            font_size: in pixels of the drawing.
            rotation: in degrees, counterclockwise.
            avoid_overlap: keep off earlier plates, if there is room above or below them.
        """
        plate = _plate(text, legible_on_dark(color), font_size or self.font_size)
        if rotation:
            plate = plate.rotate(rotation, resample=Image.Resampling.BICUBIC, expand=True)
        (width, height), (rows, columns) = plate.size, self._drawing.shape[:2]
        x, y = (coordinate * self.scale for coordinate in position)
        x = int(
            np.clip(
                x - width * {"left": 0, "center": 0.5, "right": 1}[horizontal_alignment], 0, max(columns - width, 0)
            )
        )
        y = int(np.clip(y, 0, max(rows - height, 0)))
        if avoid_overlap:
            # Half a plate at a time, up and down in turn.
            steps = [0] + [sign * step for step in range(1, 9) for sign in (1, -1)]
            places = [y + step * (height // 2 + 1) for step in steps]
            free = [place for place in places if 0 <= place <= rows - height and self._is_free(x, place, width, height)]
            y = free[0] if free else y
        self._plates.append((x, y, width, height))
        window = self._drawing[y : y + height, x : x + width]
        pixels = np.asarray(plate, dtype=np.float32)[: window.shape[0], : window.shape[1]]
        opacity = pixels[..., 3:] / 255
        window[:] = np.rint(pixels[..., :3] * opacity + window * (1 - opacity))

    def _is_free(self, x: int, y: int, width: int, height: int) -> bool:
        return all(x + width <= a or a + c <= x or y + height <= b or b + d <= y for a, b, c, d in self._plates)


# Fonts of the usual systems with more letters than Pillow's own, which is tried first.
FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)


def _plate(text: str, color: Color, size: float) -> Image.Image:
    """A text on translucent black, RGBA. All plates of one font size are equally high."""
    text, font = _writable(text, size)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    above, below = font.getmetrics()
    margin = max(1, round(size / 6))
    width, height = math.ceil(right - left) + 2 * margin, max(above + below, math.ceil(bottom - top)) + margin
    plate = Image.new("RGBA", (width, height), (0, 0, 0, 190))
    place = margin - left, above + margin // 2
    ImageDraw.Draw(plate).text(place, text, _bytes(color), font, anchor="ls")
    return plate


def _writable(text: str, size: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text and a font that has its letters. If no font has, letters lose their accents or become "?"."""
    own = ImageFont.load_default(size)
    if _has_all(own, text):
        return text, own
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue  # not on this machine
        if _has_all(font, text):
            return text, font
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c if c.isascii() else "?" for c in decomposed if not unicodedata.combining(c)), own


def _has_all(font: ImageFont.FreeTypeFont, text: str) -> bool:
    unknown = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(letter)) != unknown for letter in text if not letter.isascii())
