"""Text as pixels, in a font that has the text's letters."""

import functools
import logging
import os
import unicodedata

import matplotlib
import numpy as np
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

logger = logging.getLogger(__name__)
RGB = tuple[int, int, int]
UNSEEN_SIGN = "✱"
WHITE = (255, 255, 255)
# matplotlib brings them: most alphabets, but neither Chinese, Japanese, Korean nor the Indian scripts.
FONTS = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
REGULAR, BOLD = (os.path.join(FONTS, name) for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"))
ELLIPSIS = "…"


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return "".join(c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cs"))


def shorten(text: str, letters: int) -> str:
    """The text with at most ``letters`` letters; the last one is "…" where some are missing."""
    return text if len(text) <= letters else text[: max(0, letters - 1)].rstrip() + ELLIPSIS


def shorten_to(text: str, width: int, size: int) -> str:
    """As much of the text as has ``width`` pixels when it is written with ``size``; "" if not even a letter has."""
    for letters in range(len(text), 1, -1):
        shorter = shorten(text, letters)
        if text_width(shorter, size) <= width:
            return shorter
    return text if len(text) == 1 and text_width(text, size) <= width else ""


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Width in pixels."""
    return int(np.ceil(_font(font_file(text, bold), size).getlength(text)))


def write(image: np.ndarray, text: str, left: int, middle: int, size: int, colour: RGB, bold: bool = False) -> None:
    """Write into (H, W, 3) uint8 RGB, from ``left`` on and with the row ``middle`` at half height."""
    top, bottom = max(0, middle - 2 * size), middle + 2 * size
    right = left + text_width(text, size, bold) + 1
    part = Image.fromarray(image[top:bottom, left:right])
    font = _font(font_file(text, bold), size)
    ImageDraw.Draw(part).text((0, middle - top), text, fill=colour, font=font, anchor="lm")
    image[top:bottom, left:right] = np.asarray(part)


@functools.cache
def font_file(text: str, bold: bool = False) -> str:
    """DejaVu Sans, or the first installed font with all letters of the text that DejaVu Sans lacks."""
    usual = BOLD if bold else REGULAR
    missing = frozenset(c for c in text if not c.isspace()) - _letters(usual)
    return (_installed_font(missing) or usual) if missing else usual


@functools.cache
def _installed_font(letters: frozenset[str]) -> str | None:
    for path in sorted(findSystemFonts()):
        try:
            if letters <= _letters(path):
                ImageFont.truetype(path, 12)
                return path
        except (OSError, RuntimeError):  # damaged, or only bitmaps
            continue
    shown = "".join(sorted(letters)[:10])
    logger.warning("No installed font has the letters %s, so images show boxes for them. Install a Noto font.", shown)
    return None


@functools.lru_cache(maxsize=4)
def _letters(path: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(path).get_charmap()))


@functools.lru_cache(maxsize=64)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
