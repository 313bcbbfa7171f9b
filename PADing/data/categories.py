"""The categories of a split file, and the checks of its fields that other parts of it need, too."""

import colorsys
import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from PADing.errors import UserError, did_you_mean, short
from PADing.yaml_files import read_yaml


@dataclass(frozen=True)
class Category:
    """One class: its id in the annotation, its exact name, thing or stuff, a color (RGB, 0..255), and other names."""

    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int]
    synonyms: tuple[str, ...] = ()


def read_categories(content: Any, file: str) -> tuple[Category, ...]:
    """The categories of a split file: a list of mappings, or the path of a table; UserError for mistakes."""
    if isinstance(content, str):
        table = os.path.join(os.path.dirname(file), os.path.expanduser(content))
        return _read_table(table, os.stat(table).st_mtime_ns if os.path.exists(table) else 0)
    return _parse_categories(content, f"Split file {file}")


@functools.lru_cache(maxsize=16)
def _read_table(path: str, _modified: int) -> tuple[Category, ...]:
    # Cached: several split files share a table, and reading it takes longer than all other steps.
    return _parse_categories(read_yaml(path, "Category table"), f"Category table {path}")


def _parse_categories(content, where: str) -> tuple[Category, ...]:
    if not isinstance(content, list) or not content:
        raise UserError(f"{where}: `categories` must be a list of {{id, name}} entries (isthing, color optional).")
    categories = tuple(_category(entry, f"{where}: categories[{i}]") for i, entry in enumerate(content))
    check_unique([category.id for category in categories], f"{where}: category id")
    check_unique([category.name for category in categories], f"{where}: category name")
    return categories


def _category(entry: Any, where: str) -> Category:
    if not isinstance(entry, dict):
        raise UserError(f"{where} must be a mapping with id and name, but is {short(entry)}.")
    # COCO's own tables have a supercategory, which is not used.
    check_keys(entry, {"id", "name", "isthing", "color", "supercategory", "synonyms"}, where)
    identity = entry.get("id")
    if isinstance(identity, bool) or not isinstance(identity, int) or not 0 <= identity < 2**63:
        name = short(entry.get("name"))
        raise UserError(f"{where} ({name}): id must be a whole number >= 0, but is {short(identity)}.")
    name = checked_text(entry.get("name"), f"{where} (id {identity}): name")
    isthing, color = entry.get("isthing", 1), entry.get("color")
    if isthing not in (0, 1):
        raise UserError(f"{where} ({short(name)}): isthing must be 1 (thing) or 0 (stuff), but is {short(isthing)}.")
    color = generated_color(identity) if color is None else color
    is_color = isinstance(color, (list, tuple)) and len(color) == 3
    if not is_color or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
        raise UserError(f"{where} ({short(name)}): color must be three whole numbers 0..255, but is {short(color)}.")
    synonyms = entry.get("synonyms") or []
    if not isinstance(synonyms, list):
        raise UserError(f"{where} ({short(name)}): synonyms must be a list of names, but is {short(synonyms)}.")
    for synonym in synonyms:
        checked_text(synonym, f"{where} ({name}): synonyms")
    return Category(identity, name, bool(isthing), tuple(color), tuple(synonyms))


def generated_color(identity: int) -> list[int]:
    """A color (RGB, 0..255) for the class with this id."""
    # Steps of the golden ratio around the color circle keep neighbouring ids apart.
    hue = (identity * 0.6180339887498949) % 1.0
    rgb = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * ((identity // 3) % 2), 0.95 - 0.25 * (identity % 3) / 2)
    return [round(255 * value) for value in rgb]


def checked_text(value: object, where: str) -> str:
    """``value``; UserError if it is not text, or empty."""
    if not isinstance(value, str) or not value.strip():
        hint = "put it into quotes if YAML reads it as another type"
        raise UserError(f"{where} must be text, but is {short(value)}; {hint}.")
    return value


def check_keys(entry: Mapping, known: set[str], where: str) -> None:
    """UserError for a key that is not known."""
    for key in entry:
        if key not in known:
            hint = did_you_mean(key, known, n=1) or f"; known keys are {', '.join(sorted(known))}"
            raise UserError(f"{where}: unknown key `{key}`{hint}.")


def check_unique(values: Iterable, where: str) -> None:
    """UserError for a value that occurs twice."""
    met = set()
    for value in values:
        if value in met:
            raise UserError(f"{where} {value!r} occurs twice.")
        met.add(value)
