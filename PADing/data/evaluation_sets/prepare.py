"""Writes the annotation of an evaluation set as the loaders read it: semantic PNGs, panoptic PNGs and JSON, instances.

The unit of work is an image: its PNGs, then a small JSON in ``.parts``. So an interrupted run goes on where it stopped.
``prepared.json`` is the record of the run: which files, whether it is complete.
"""

import hashlib
import logging
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from panopticapi.utils import id2rgb
from PIL import Image
from tqdm import tqdm

from PADing.data.evaluation_sets.items import Item, Region, Source, Truth
from PADing.data.images import CorruptFile, read_size
from PADing.data.importers.masks import encode
from PADing.data.preparation import worker_pool
from PADing.data.splits import IGNORE_LABEL, DataSet, Split
from PADing.errors import UserError
from PADing.files import read_json, replacing, write_json

logger = logging.getLogger(__name__)

RECORD, PARTS = "prepared.json", ".parts"
MADE = ("semantic", "panoptic_semantic", "panoptic", "panoptic.json", "instances.json", PARTS)


class Preparation:
    """One preparation.

    Args:
        source: the files of the download.
        split: the set's classes and data sets, which say what is made and where.
        root: the folder of all data.
        subset: prepare what is there, although the release has more images.

    Raises:
        UserError: the number of images is not that of the release.
    """

    def __init__(self, source: Source, split: Split, root: Path, subset: bool = False):
        self.source, self.split, self.root = source, split, root
        self.sets = {data_set.kind: data_set for data_set in split.data_sets}
        (expected,) = {data_set.images for data_set in split.data_sets}
        if len(source.items) not in expected and not subset:
            numbers = " or ".join(f"{number:,}" for number in expected)
            raise UserError(
                f"{split.name}: {len(source.items):,} images are there, but the release has {numbers}. Unpack "
                f"{source.download} again; or add --subset to prepare these for a trial."
            )

    def run(self, workers: int = 1, overwrite: bool = False) -> None:
        """Write everything that is not there yet.

        Raises:
            UserError: a file that is damaged or of another size than its image; a folder that this command has not
                made, or has made from other files.
        """
        folder, record = self.source.folder, self._record()
        if overwrite:
            self._remove(record)
        elif (folder / RECORD).is_file():
            before = read_json(folder / RECORD, "Record of a preparation")
            if {**before, "complete": None} != {**record, "complete": None}:
                raise UserError(
                    f"{folder} was made from other files or with other choices (see {RECORD} there). Add "
                    "--overwrite to make it anew."
                )
            if before.get("complete") is True:
                logger.info("%s is complete; --overwrite makes it anew.", folder)
                return
        elif folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} has files that this command has not made. Move them to another folder.")
        write_json(folder / RECORD, record, indent=1)
        self._write_images(workers)
        self._join()
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        write_json(folder / RECORD, {**record, "complete": True}, indent=1)

    def _record(self) -> dict[str, Any]:
        names = "\n".join(item.name for item in self.source.items)
        return {
            "set": self.split.name,
            "images": len(self.source.items),
            "names": hashlib.sha256(names.encode()).hexdigest()[:16],
            "labels": os.path.relpath(self.source.items[0].labels[0].parent, self.source.folder),
            **self.source.settings,
            "complete": False,
        }

    def _remove(self, record: dict[str, Any]) -> None:
        folder = self.source.folder
        if folder.is_dir() and not (folder / RECORD).is_file() and any(folder.iterdir()):
            raise UserError(f"{folder} has files that this command has not made. Move them to another folder.")
        write_json(folder / RECORD, record, indent=1)  # from now on the folder is incomplete
        for name in MADE:
            path = folder / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _write_images(self, workers: int) -> None:
        items = self.source.items
        missing = [(i, item) for i, item in enumerate(items, 1) if not self._part(item).is_file()]
        done_before = len(items) - len(missing)
        description = self.split.name + (f" ({done_before} done before)" if done_before else "")
        with worker_pool(workers) if workers > 1 and len(missing) > 1 else nullcontext() as pool:
            done = pool.imap_unordered(self._write, missing, chunksize=16) if pool else map(self._write, missing)
            for _ in tqdm(done, total=len(missing), desc=description, unit="image"):
                pass

    def _part(self, item: Item) -> Path:
        return self.source.folder / PARTS / f"{Path(item.name).with_suffix('')}.json"

    def _write(self, job: tuple[int, Item]) -> None:
        number, item = job
        try:
            truth = self.source.read(item, self.split)
            height, width, _ = read_size(item.image)
            objects = [(region.mask, item.labels[-1]) for region in truth.objects[:1]]
            for mask, path in ((truth.classes, item.labels[0]), *objects):
                if mask.shape != (height, width):
                    size = f"{mask.shape[1]} x {mask.shape[0]}, but its image {item.image} has {width} x {height}"
                    raise CorruptFile(f"{path} has the size {size}.")
        except CorruptFile as error:
            raise UserError(f"{error} Unpack {self.source.download} again, then repeat the command.") from error
        name = Path(item.name).with_suffix(".png")
        part: dict[str, Any] = {"id": number, "name": item.name, "height": height, "width": width}
        for data_set in self.sets.values():
            if data_set.sem_seg_root:  # of a panoptic set in its own order: things, then stuff
                self._save(self._semantic(truth, data_set), os.path.basename(data_set.sem_seg_root), name)
        if "panoptic" in self.sets:
            ids, part["segments"] = self._panoptic(truth)
            self._save(id2rgb(ids), "panoptic", name)
        if "instance" in self.sets:
            part["objects"] = [_instance(region) for region in truth.objects if region.mask.any()]
        write_json(self._part(item), part)

    def _save(self, pixels: np.ndarray, folder: str, name: Path) -> None:
        with replacing(self.source.folder / folder / name) as temporary:
            Image.fromarray(pixels).save(temporary)

    def _semantic(self, truth: Truth, data_set: DataSet) -> np.ndarray:
        classes = self.split.classes(data_set)
        table = np.full(max(category.id for category in classes) + 2, IGNORE_LABEL, dtype=np.uint8)  # the last one: -1
        for label, category in enumerate(classes):
            table[category.id] = label
        return table[truth.classes]

    def _panoptic(self, truth: Truth) -> tuple[np.ndarray, list[dict]]:
        """The map of segment ids: the stuff of the semantic map, a segment for each class; then things over it."""
        stuff = [category.id for category in self.split.categories if not category.isthing]
        present = np.intersect1d(stuff, truth.classes)
        regions = [Region(int(category), truth.classes == category) for category in present]
        regions += sorted(truth.objects, key=lambda region: not region.crowd)  # an object hides the crowd around it
        ids = np.zeros(truth.classes.shape, dtype=np.uint32)
        for number, region in enumerate(regions, 1):
            ids[region.mask] = number
        segments = []
        for number, region in enumerate(regions, 1):
            if (mask := ids == number).any():
                shape = {"area": int(mask.sum()), "bbox": _box(mask), "iscrowd": int(region.crowd)}
                segments.append({"id": number, "category_id": region.category, **shape})
        return ids, segments

    def _join(self) -> None:
        """Make one JSON of all parts."""
        parts = [read_json(self._part(item), "Part of a preparation") for item in self.source.items]
        images = [
            {"id": part["id"], "file_name": part["name"], "height": part["height"], "width": part["width"]}
            for part in parts
        ]
        if "panoptic" in self.sets:
            annotations = [
                {
                    "image_id": part["id"],
                    "file_name": str(Path(part["name"]).with_suffix(".png")),
                    "segments_info": part["segments"],
                }
                for part in parts
            ]
            self._write_annotation("panoptic", "panoptic_json", images, annotations)
        if "instance" in self.sets:
            numbered = enumerate(((part["id"], entry) for part in parts for entry in part["objects"]), 1)
            objects = [{"id": number, "image_id": image, **entry} for number, (image, entry) in numbered]
            self._write_annotation("instance", "json_file", images, objects)

    def _write_annotation(self, kind: str, key: str, images: list[dict], annotations: list[dict]) -> None:
        data_set: DataSet = self.sets[kind]
        categories = [
            {"id": category.id, "name": category.name, "isthing": int(category.isthing)}
            for category in self.split.classes(data_set)
        ]
        path = self.split.metadata(data_set, str(self.root))[key]
        write_json(path, {"images": images, "categories": categories, "annotations": annotations})


def _instance(region: Region) -> dict:
    rle = encode(region.mask)
    return {
        "category_id": region.category,
        "iscrowd": int(region.crowd),
        "area": int(mask_util.area(rle)),
        "bbox": mask_util.toBbox(rle).tolist(),
        "segmentation": {"size": list(map(int, rle["size"])), "counts": rle["counts"].decode("ascii")},
    }


def _box(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
