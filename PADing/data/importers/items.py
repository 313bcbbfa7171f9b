"""What an importer yields, and the registry of importers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from PADing.data.importers.classes import ClassNames
from PADing.data.importers.places import Place
from PADing.data.importers.report import Report
from PADing.registry import NamedRegistry


@dataclass
class Object:
    """One object of an image; its mask is the union of ``polygons`` and ``rles``.

    ``name``: the class as the source writes it. ``polygons``: flat lists x, y, ... in pixels, not yet checked.
    ``rles``: compressed RLEs of pycocotools, with the size that the annotation has. ``crowd``: COCO's ``iscrowd``.
    """

    name: str
    polygons: list[list[float]] = field(default_factory=list)
    rles: list[dict] = field(default_factory=list)
    crowd: bool = False


@dataclass
class Item:
    """The annotation of one image: ``objects``, or ``labels`` (H, W) with class numbers.

    ``where``: the annotation, for the report. ``image``: the image's name, not yet trusted; the extension may be
    missing. ``near``: the folder that ``image`` is relative to. ``size``: (height, width) that the annotation says.
    ``role``: "train", "val" or "test", if the source says so.
    """

    where: str
    image: str
    near: Path
    size: tuple[int, int] | None = None
    objects: list[Object] = field(default_factory=list)
    labels: np.ndarray | None = None
    role: str | None = None


@dataclass
class Source:
    """What an importer reads, and what the user says of it.

    ``path``: the folder or file. ``place``: finds annotation below it that may be read. ``images``: the same for
    images. ``names``: classes. ``ignore``: pixel values without a class. ``kind``: "instance" or "semantic", for a
    format that has both. ``exif``: whether annotation is made for the upright image ("applied"), for the image as
    stored ("ignored"), or for that which has its size ("auto").
    """

    path: Path
    place: Place
    images: Place
    names: ClassNames
    report: Report
    ignore: frozenset[int] = frozenset([255])
    kind: str = "instance"
    exif: str = "auto"


# Format -> a function that yields an item for each annotated image. It reports what it leaves out, and raises UserError
# only for what makes the whole source unusable.
IMPORTERS: NamedRegistry[Callable[[Source], Iterator[Item]]] = NamedRegistry("an importer")
