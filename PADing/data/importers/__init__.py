"""Turns annotation of other formats into files that tools/make_split.py reads; one format a file.

A plug-in adds a format: a function with the decorator ``IMPORTERS.register("name")`` that yields an ``Item`` for each
image.
"""

from PADing.data.importers import coco, cvat, label_pngs, labelme, voc, yolo
from PADing.data.importers.items import IMPORTERS, Item, Object, Source
