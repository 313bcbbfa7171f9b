"""An RGB picture to draw on: translucent fills, opaque outlines, labels on a dark plate.

Coordinates are pixels of the original image, whatever the scale of the picture. Colours are (r, g, b) from 0 to 1, one
of the names below, or "#rrggbb".
"""

from __future__ import annotations

import colorsys
import math
import os
import unicodedata
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[float, float, float]

NAMED_COLORS: dict[str, Color] = {
    "b": (0, 0, 1),
    "blue": (0, 0, 1),
    "c": (0, 0.75, 0.75),
    "cyan": (0, 1, 1),
    "g": (0, 0.5, 0),
    "green": (0, 0.5, 0),
    "k": (0, 0, 0),
    "black": (0, 0, 0),
    "m": (0.75, 0, 0.75),
    "magenta": (1, 0, 1),
    "r": (1, 0, 0),
    "red": (1, 0, 0),
    "w": (1, 1, 1),
    "white": (1, 1, 1),
    "y": (0.75, 0.75, 0),
    "yellow": (1, 1, 0),
}


def to_color(color: str | tuple | list | np.ndarray) -> Color:
    """Read a colour; ValueError when it is none."""
    if isinstance(color, str):
        if color in NAMED_COLORS:
            return NAMED_COLORS[color]
        digits = color.removeprefix("#")
        if color.startswith("#") and len(digits) == 6:
            return tuple(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
        raise ValueError(f"unknown colour {color!r}: give (r, g, b) from 0 to 1, '#rrggbb', or {sorted(NAMED_COLORS)}")
    values = tuple(float(v) for v in color)[:3]
    if len(values) != 3 or not all(0 <= v <= 1 for v in values):
        raise ValueError(f"a colour is (r, g, b) from 0 to 1, got {color}")
    return values


def distinct_color(index: int) -> Color:
    """The index-th of a series of colours in which neighbours differ clearly."""
    # Steps of the golden ratio never fall close to an earlier hue; three rings of saturation and value tell the rest.
    hue = (0.02 + index * 0.61803398875) % 1
    saturation, value = ((0.85, 0.95), (0.6, 1.0), (0.95, 0.7))[index // 8 % 3]
    return colorsys.hsv_to_rgb(hue, saturation, value)


def shift_color(color: Color, index: int) -> Color:
    """A colour near ``color``, another one for each index; it tells neighbours of one class apart."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*color)
    step = (index * 0.61803398875) % 1 - 0.5
    return colorsys.hls_to_rgb(hue, min(max(lightness + 0.3 * step, 0.15), 0.85), saturation)


def lighten(color: Color) -> Color:
    """The colour mixed with white until it can be read on a dark ground."""
    red, green, blue = color
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    share = min(max((0.75 - luminance) / (1 - luminance + 1e-6), 0.0), 1.0)
    return tuple(c + (1 - c) * share for c in color)


def _bytes(color: Color) -> tuple[int, int, int]:
    return tuple(round(255 * c) for c in to_color(color))


class VisImage:
    """A picture of ``scale`` times the size of the image it was made from.

    Args:
        img: (H, W, 3) or (H, W), values 0..255.
        scale: size of the picture relative to the image.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0):
        self.scale = scale
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Begin again with another image."""
        img = np.asarray(img)
        if img.ndim == 2:
            img = np.repeat(img[:, :, None], 3, axis=2)
        if img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(f"a picture needs an image of shape (H, W, 3), got {img.shape}")
        self.img = img.clip(0, 255).astype(np.uint8)
        self.height, self.width = self.img.shape[:2]
        size = max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale))
        shrinks = size[0] < self.width
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        unscaled = size == (self.width, self.height)
        self._pixels = self.img.copy() if unscaled else cv2.resize(self.img, size, interpolation=interpolation)
        self._plates: list[tuple[int, int, int, int]] = []

    def get_image(self) -> np.ndarray:
        """uint8 RGB (scale * H, scale * W, 3), a copy."""
        return self._pixels.copy()

    def save(self, filepath: str | os.PathLike) -> None:
        """Write the picture; the ending of the name says the format."""
        path = Path(filepath)
        partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        try:
            Image.fromarray(self._pixels).save(partial, quality=95)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    # Sizes that look alike in small and large pictures ----------------------------------------------------------------

    @property
    def line_width(self) -> int:
        """In pixels of the picture."""
        return max(1, round(math.sqrt(self._pixels.shape[0] * self._pixels.shape[1]) / 350))

    @property
    def font_size(self) -> int:
        """In pixels of the picture."""
        return max(10, round(math.sqrt(self._pixels.shape[0] * self._pixels.shape[1]) / 45))

    # Drawing ----------------------------------------------------------------------------------------------------------

    def _points(self, points: np.ndarray) -> np.ndarray:
        """Image coordinates, in which pixel i reaches from i to i + 1, to OpenCV's, with 4 fractional bits."""
        return np.round((np.asarray(points, dtype=np.float64).reshape(-1, 2) * self.scale - 0.5) * 16).astype(np.int32)

    def _blend(self, mask: np.ndarray, color: Color, alpha: float) -> None:
        """Paint where ``mask`` (uint8, size of the picture) is nonzero."""
        x, y, w, h = cv2.boundingRect(mask)
        if w and h:
            inside, part = mask[y : y + h, x : x + w] > 0, self._pixels[y : y + h, x : x + w]
            mixed = part[inside] * (1 - alpha) + np.array(_bytes(color)) * alpha
            part[inside] = np.round(mixed).astype(np.uint8)

    def fill_mask(self, mask: np.ndarray, color: Color, edge_color: Color | None, alpha: float) -> None:
        """Fill a bool (H, W) mask translucently and draw its outline, holes included, if it has an edge colour."""
        height, width = self._pixels.shape[:2]
        if mask.shape == (height, width):
            mask = np.ascontiguousarray(mask, dtype=np.uint8)
        else:
            # Between the pixels the outline runs where the mask is half there, which leaves no stairs.
            mask = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            mask = (mask >= 0.5).astype(np.uint8)
        self._blend(mask, color, alpha)
        if edge_color is not None:
            contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(self._pixels, contours, -1, _bytes(edge_color), self.line_width, cv2.LINE_AA)

    def fill_polygon(self, points: np.ndarray, color: Color, edge_color: Color | None, alpha: float) -> None:
        """Fill the polygon with the corners (N, 2) translucently and draw its outline if it has an edge colour."""
        points = self._points(points)
        mask = np.zeros(self._pixels.shape[:2], dtype=np.uint8)
        cv2.fillPoly(mask, [points], 1, shift=4)
        self._blend(mask, color, alpha)
        if edge_color is not None:
            self.line(points, edge_color, closed=True)

    def line(self, points: np.ndarray, color: Color, closed: bool = False, width: int | None = None) -> None:
        """Draw straight lines through points that ``_points`` has made."""
        width = self.line_width if width is None else width
        cv2.polylines(self._pixels, [points], closed, _bytes(color), width, cv2.LINE_AA, shift=4)

    def box(self, box: np.ndarray, color: Color, alpha: float, dashed: bool = False) -> None:
        """Draw the sides of (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = (float(v) for v in box)
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
        before = self._pixels.copy() if alpha < 1 else None
        for a, b in zip(corners[:-1], corners[1:], strict=True):
            dashes = max(1, round(np.abs(b - a).sum() * self.scale / (8 * self.line_width))) if dashed else 1
            for start, end in _dashes(dashes):
                self.line(self._points(np.stack([a + (b - a) * start, a + (b - a) * end])), color)
        if before is not None:
            self._pixels = cv2.addWeighted(self._pixels, alpha, before, 1 - alpha, 0)

    def circle(self, center: tuple[float, float], radius: float, color: Color) -> None:
        x, y = self._points(np.array(center))[0].tolist()
        cv2.circle(self._pixels, (x, y), round(radius * self.scale * 16), _bytes(color), -1, cv2.LINE_AA, shift=4)

    def text(
        self,
        text: str,
        position: tuple[float, float],
        color: Color,
        font_size: float | None = None,
        horizontal_alignment: str = "center",
        rotation: float = 0,
        avoid_overlap: bool = False,
    ) -> None:
        """Write on a dark translucent plate.

        Args:
            position: where the top of the plate is, (x, y); its middle, left or right end, by the alignment.
            font_size: height of the letters in pixels of the picture.
            rotation: degrees, counterclockwise.
            avoid_overlap: move up or down so as not to hide earlier text.
        """
        plate = _text_plate(text, lighten(to_color(color)), font_size or self.font_size)
        if rotation:
            plate = plate.rotate(rotation, expand=True, resample=Image.Resampling.BICUBIC)
        w, h = plate.size
        x = position[0] * self.scale - {"left": 0, "center": w / 2, "right": w}[horizontal_alignment]
        # Better a little beside its place than cut off.
        x = round(min(max(x, 0), max(0, self._pixels.shape[1] - w)))
        lowest = max(0, self._pixels.shape[0] - h)
        y = round(min(max(position[1] * self.scale, 0), lowest))
        if avoid_overlap:
            tries = [y] + [y + sign * step * (h // 2 + 1) for step in range(1, 9) for sign in (1, -1)]
            free = (t for t in tries if 0 <= t <= lowest and not self._is_taken(x, t, w, h))
            y = next(free, y)
        self._plates.append((x, y, w, h))
        part = self._pixels[y : y + h, x : x + w]
        plate = np.asarray(plate, dtype=np.float32)[: part.shape[0], : part.shape[1]]
        opacity = plate[..., 3:] / 255
        part[:] = np.round(part * (1 - opacity) + plate[..., :3] * opacity).astype(np.uint8)

    def _is_taken(self, x: int, y: int, w: int, h: int) -> bool:
        return any(x < px + pw and px < x + w and y < py + ph and py < y + h for px, py, pw, ph in self._plates)


def _dashes(count: int) -> list[tuple[float, float]]:
    """Beginning and end of each of ``count`` dashes on a way from 0 to 1; one dash is the whole way."""
    return [(2 * i / (2 * count - 1), (2 * i + 1) / (2 * count - 1)) for i in range(count)]


# Asked for only when a text has letters that Pillow's own font, which is English, does not have.
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)


def _legible(text: str, font_size: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text and a font that has its letters; if there is none on this machine, with what is missing replaced."""
    own = ImageFont.load_default(size=font_size)
    if _has_letters(own, text):
        return text, own
    for name in SYSTEM_FONTS:
        try:
            font = ImageFont.truetype(name, font_size)
        except OSError:
            continue
        if _has_letters(font, text):
            return text, font
    # "é" is "e" and an accent, which can be left out; a letter of another alphabet cannot be written.
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "?" for c in letters), own


def _has_letters(font: ImageFont.FreeTypeFont, text: str) -> bool:
    missing = bytes(font.getmask("\uffff"))
    return all(c.isascii() or bytes(font.getmask(c)) != missing for c in text)


def _text_plate(text: str, color: Color, font_size: float) -> Image.Image:
    """The text in front of translucent black, as an RGBA image."""
    text, font = _legible(text, font_size)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    ascent, descent = font.getmetrics()
    pad = max(1, round(font_size / 6))
    # All plates of one size are of one height, so that lines of labels look even.
    size = math.ceil(right - left) + 2 * pad, max(ascent + descent, math.ceil(bottom - top)) + pad
    plate = Image.new("RGBA", size, (0, 0, 0, 190))
    origin = pad - left, pad // 2 + ascent
    ImageDraw.Draw(plate).text(origin, text, fill=(*_bytes(color), 255), font=font, anchor="ls")
    return plate
