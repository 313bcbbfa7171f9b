"""A colour font of our own with the tables of Noto Color Emoji: each picture is a disc of its own colour and size."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from fontTools.ttLib.tables.E_B_L_C_ import BitmapSizeTable, SbitLineMetrics, Strike, eblc_index_sub_table_1
from PIL import Image


def disc(number: int, height: int = 128, width: int = 136) -> np.ndarray:
    """Picture ``number``: (height, width, 4) uint8."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - height / 2, x - width / 2)
    picture = np.zeros((height, width, 4), dtype=np.uint8)
    picture[..., :3] = [40 + number * 37 % 200, 40 + number * 91 % 200, 40 + number * 53 % 200]
    picture[..., 3] = np.clip((44 + number % 17 - radius) * 128, 0, 255)
    return picture


def write_font(path: Path, emoji: Iterable[str], colour: bool = True, damaged: str = "") -> None:
    """Write a font with ``emoji``, in order; several code points: a ligature. ``damaged``: bytes instead of a PNG."""
    emoji = [one.replace("\ufe0f", "") for one in emoji]
    letters = sorted({letter for one in emoji for letter in one})
    names = {letter: f"u{ord(letter):X}" for letter in letters}
    glyphs = {one: "_".join(names[letter] for letter in one) for one in emoji}
    order = [".notdef", *dict.fromkeys([*names.values(), *glyphs.values()])]
    builder = FontBuilder(2048, isTTF=True)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    builder.setupHorizontalMetrics({name: (2550, 0) for name in order})
    builder.setupHorizontalHeader(ascent=1900, descent=-500)
    builder.setupNameTable({"familyName": "Discs", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    font = builder.font
    rules = [
        f"sub {' '.join(names[letter] for letter in one)} by {name};" for one, name in glyphs.items() if len(one) > 1
    ]
    if rules:
        addOpenTypeFeaturesFromString(font, "feature ccmp { " + " ".join(rules) + " } ccmp;")
    if colour:
        _add_bitmaps(font, [glyphs[one] for one in emoji], order, damaged)
    font.save(path)


def _add_bitmaps(font, names: list[str], order: list[str], damaged: str) -> None:
    pictures = {}
    for number, name in enumerate(names):
        file = io.BytesIO()
        Image.fromarray(disc(number)).save(file, "PNG")
        bitmap = cbdt_bitmap_format_17(b"", font)
        bitmap.metrics = SmallGlyphMetrics()
        for key, value in {"height": 128, "width": 136, "BearingX": 0, "BearingY": 101, "Advance": 136}.items():
            setattr(bitmap.metrics, key, value)
        bitmap.imageData = damaged.encode() or file.getvalue()
        pictures[name] = bitmap
    data, location = newTable("CBDT"), newTable("CBLC")
    data.version = location.version = 3.0
    data.strikeData = [pictures]
    strike, size = Strike(), BitmapSizeTable()
    for line in ("hori", "vert"):
        metrics = SbitLineMetrics()
        for key in ("ascender", "descender", "widthMax", "caretSlopeNumerator", "caretSlopeDenominator", "caretOffset",
                    "minOriginSB", "minAdvanceSB", "maxBeforeBL", "minAfterBL", "pad1", "pad2"):  # fmt: skip
            setattr(metrics, key, 0)
        setattr(size, line, metrics)
    size.colorRef, size.ppemX, size.ppemY, size.bitDepth, size.flags = 0, 109, 109, 32, 1
    index = eblc_index_sub_table_1(b"", font)
    index.names = sorted(pictures, key=order.index)
    index.indexFormat, index.imageFormat = 1, 17
    places = [order.index(name) for name in index.names]
    index.firstGlyphIndex, index.lastGlyphIndex = places[0], places[-1]
    size.startGlyphIndex, size.endGlyphIndex = places[0], places[-1]
    strike.bitmapSizeTable, strike.indexSubTables = size, [index]
    location.strikes = [strike]
    font["CBDT"], font["CBLC"] = data, location
