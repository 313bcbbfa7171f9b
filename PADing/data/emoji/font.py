"""Finds the emoji font and reads pictures from it: Google's Noto Color Emoji, which stores PNGs with alpha (CBDT).

The font is not shipped: it has 10 MB and is free under the SIL Open Font License 1.1. Its conditions do not
apply to what is drawn with it ("any document created using the fonts"). Pictures are read by fontTools and decoded by
Pillow, without loss and without FreeType's scaling, so all versions of both give the same pixels.
"""

import hashlib
import io
import logging
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from PADing.errors import UserError

__all__ = ["INSTALL", "PINNED", "find_font", "hash_of", "read_glyphs"]

# SHA-256 of the pictures that scenes need in version 2.042 (Debian 12), by `hash_of`. It is not that of the file, so
# another build with the same pictures is the same font.
PINNED = "53b6849719ddb8858792eba0b4b14164f955458950b9b1e62a1a16affa8d9602"
INSTALL = "sudo apt-get install fonts-noto-color-emoji"
_NAME = "NotoColorEmoji.ttf"
_FOLDERS = (
    "/usr/share/fonts/truetype/noto",  # Debian, Ubuntu
    "/usr/share/fonts/noto",  # Alpine, Arch
    "/usr/share/fonts/google-noto-emoji",  # Fedora
    "~/.local/share/fonts",
    "~/.fonts",
    "~/Library/Fonts",
)
_LARGEST = 512  # pixels of a picture's side


def find_font(path: str | os.PathLike | None = None) -> Path:
    """The font file: ``path``, or the first one in the usual folders; UserError if there is none."""
    if path is not None:
        found = Path(path).expanduser()
        if not found.exists():
            raise UserError(f"The font {found} does not exist. Install it ({INSTALL}) and leave out --font.")
        if found.is_dir():
            raise UserError(f"The font {found} is a folder. Name the file {_NAME} in it.")
        return found
    folders = [Path(folder).expanduser() for folder in _FOLDERS]
    if prefix := os.environ.get("CONDA_PREFIX"):
        folders.append(Path(prefix, "fonts"))
    for folder in folders:
        if (folder / _NAME).is_file():
            return folder / _NAME
    raise UserError(
        f"There is no font {_NAME} in {', '.join(map(str, folders))}. Install it with `{INSTALL}` "
        "(docs/emoji_track.md has other systems), or name the file with --font."
    )


def read_glyphs(path: Path, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """The pictures of emoji: each (H, W, 4) uint8 RGBA, alpha not multiplied.

    Args:
        path: the font.
        wanted: emoji of one or several code points; variation selectors (U+FE0F) are ignored.

    Raises:
        UserError: the file cannot be read, is no font, has no colour bitmaps, or lacks some of the emoji.
    """
    from fontTools.ttLib import TTFont, TTLibError  # late: commands with --help need not wait for it

    logging.getLogger("fontTools").setLevel(logging.ERROR)
    try:
        with TTFont(path, lazy=True) as font:
            if "CBDT" not in font or "CBLC" not in font:
                raise UserError(
                    f"The font {path} has no colour bitmaps (table CBDT). It is a text font, or one of another "
                    f"colour format, such as COLRv1. Take {_NAME} of Noto ({INSTALL})."
                )
            return _pictures(font, path, list(wanted))
    except OSError as error:
        raise UserError(f"The font {path} cannot be read: {error.strerror or error}.") from error
    except (
        TTLibError,
        ImportError,  # of the decoder of WOFF2
        EOFError,
        OverflowError,
        zlib.error,
        struct.error,
        KeyError,
        IndexError,
        AttributeError,
        AssertionError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f"{path} is no intact font ({type(error).__name__}: {error}). Install it again: {INSTALL}"
        ) from error


def _pictures(font, path: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    bitmaps: dict = max(font["CBDT"].strikeData, key=len, default={})
    letters, ligatures = font.getBestCmap() or {}, _ligatures(font)
    found: dict[str, np.ndarray] = {}
    missing = []
    for emoji in wanted:
        names = tuple(letters.get(ord(letter), "") for letter in emoji if letter != "\ufe0f")
        name = names[0] if len(names) == 1 else ligatures.get(names, "")
        data = getattr(bitmaps.get(name), "imageData", None)
        if data is None:
            missing.append(emoji)
            continue
        found[emoji] = _decoded(data, emoji, path)
    if missing:
        codes = ", ".join("+".join(f"U+{ord(letter):04X}" for letter in emoji) for emoji in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"The font {path} lacks {len(missing)} of {len(wanted)} emoji: {codes}{more}. "
            "Take Noto Color Emoji 2.042 or newer."
        )
    return found


def _ligatures(font) -> dict[tuple[str, ...], str]:
    """The glyph of each sequence of glyphs, such as a person and a skin tone (table GSUB, lookups of type 4)."""
    found: dict[tuple[str, ...], str] = {}
    if "GSUB" not in font:
        return found
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            table = getattr(table, "ExtSubTable", table)
            for first, followers in getattr(table, "ligatures", {}).items():
                for one in followers:
                    found.setdefault((first, *one.Component), one.LigGlyph)
    return found


def _decoded(data: bytes, emoji: str, path: Path) -> np.ndarray:
    where = f"The picture of {'+'.join(f'U+{ord(letter):04X}' for letter in emoji)} in {path}"
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if max(image.size) > _LARGEST:
                raise UserError(
                    f"{where} has {image.size[0]} x {image.size[1]} pixels, but at most {_LARGEST} are allowed."
                )
            picture = np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{where} is damaged ({error}). Install the font again: {INSTALL}") from error
    if not (picture[..., 3] >= 128).any():
        raise UserError(f"{where} is empty. Install the font again: {INSTALL}")
    return picture


def hash_of(glyphs: dict[str, np.ndarray]) -> str:
    """SHA-256 of pictures: for each emoji, sorted, its text, height, width and pixels."""
    digest = hashlib.sha256()
    for emoji in sorted(glyphs):
        height, width = glyphs[emoji].shape[:2]
        digest.update(f"{emoji} {height} {width}\n".encode())
        digest.update(np.ascontiguousarray(glyphs[emoji]).tobytes())
    return digest.hexdigest()
