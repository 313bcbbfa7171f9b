"""Panoptic quality over all, thing, stuff, seen and unseen classes."""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image

from PADing.data.coco_schema import check_panoptic
from PADing.data.images import empty_segments, read_panoptic_rgb
from PADing.errors import UserError
from PADing.evaluation.classes import panoptic_classes
from PADing.evaluation.gathering import gather_items
from PADing.evaluation.panoptic_quality import VOID, ClassQuality, match_segments, quality_per_class
from PADing.evaluation.results import harmonic_mean, log_class_table, log_table, mean
from PADing.files import read_json, replacing, write_json
from PADing.output_names import output_names

__all__ = ["PanopticzeroEvaluator", "read_panoptic_json", "read_panoptic_png"]

logger = logging.getLogger(__name__)
METRICS = ("PQ", "SQ", "RQ")


def read_panoptic_json(metadata) -> dict:
    """The annotation that metadata's ``panoptic_json`` names; UserError when it is missing."""
    path = metadata.get("panoptic_json")
    if not path or not PathManager.isfile(path):
        raise UserError(
            f"Panoptic annotation {path!r} of data set {metadata.name!r} does not exist. "
            "See datasets/README.md for how it is made."
        )
    content = read_json(PathManager.get_local_path(path), f"Panoptic annotation of data set {metadata.name!r}")
    check_panoptic(content, f"Panoptic annotation {path}", complete=False)
    return content


def read_panoptic_png(folder: str, file_name: str, segments: Sequence[dict] = ()) -> np.ndarray:
    """Segment ids (H, W) int32 of a PNG in COCO's panoptic format.

    Raises:
        UserError: it is missing, damaged or of another format, or lacks most of ``segments`` (``segments_info``).
    """
    path = os.path.join(folder, file_name)
    rgb = read_panoptic_rgb(path)
    empty_segments(rgb, segments, path)
    return rgb2id(rgb)


class PanopticzeroEvaluator(DatasetEvaluator):
    """Panoptic quality (PQ, SQ, RQ, in percent) of generalized zero-shot segmentation.

    Every image is compared with its annotation when it is processed, and only the outcome (classes and IoU of its
    segments) is kept, so nothing is written to disk and many processes give exactly the figures of one.

    ``evaluate`` returns ``{"panoptic_seg": {...}}`` with, for each of PQ, SQ and RQ, the mean over all classes that
    occur (no suffix), over things (``_th``) and stuff (``_st``), and, when the data set has unseen classes, over seen
    (``_se``) and unseen (``_un``) classes and their harmonic mean (``_hm``). As in the published evaluation, seen and
    unseen means count a class that does not occur at all as zero; ``exclude_absent`` leaves such classes out.

    Args:
        dataset_name: registered name; its metadata needs ``panoptic_json``, ``panoptic_root`` and the id maps.
        output_dir: folder for ``panoptic_results.json`` (figures, also per class) and ``predictions.json`` (COCO's
            format); None: nothing is written.
        distributed: gather from all processes.
        write_png: also write the predicted maps to ``<output_dir>/panoptic_png``, which COCO's tools need beside
            ``predictions.json``. They are named after the annotation's.
        exclude_absent: see above.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        distributed: bool = True,
        write_png: bool = False,
        exclude_absent: bool = False,
    ):
        self._metadata = MetadataCatalog.get(dataset_name)
        self._output_dir = output_dir
        self._distributed = distributed
        self._write_png = write_png and output_dir is not None
        self._exclude_absent = exclude_absent
        truth = read_panoptic_json(self._metadata)
        self._truth = OrderedDict((str(item["image_id"]), item) for item in truth["annotations"])
        self._names = output_names(item["file_name"] for item in truth["annotations"])
        self.classes = panoptic_classes(dataset_name, truth["categories"])
        self._contiguous = {dataset_id: c for c, dataset_id in self.classes.dataset_ids.items()}
        self.reset()

    def leave_out(self, records: Iterable[dict]) -> None:
        """Forget the annotation of images that cannot be read, until the next ``reset``."""
        self._left_out.update(str(record["image_id"]) for record in records)

    def reset(self) -> None:
        self._left_out = set()
        self._images = {}
        self._predictions = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Compare a batch with its annotation.

        Args:
            inputs: dataset dicts with ``image_id`` and ``file_name``.
            outputs: dicts whose ``panoptic_seg`` is the (H, W) integer map of segment ids (0: none) and the list of
                segments ``{id, category_id, isthing}`` with contiguous category ids. With None for the list, the map
                holds ``category * label_divisor + instance``, and -1 for none.
        """
        for record, output in zip(inputs, outputs, strict=True):
            if "panoptic_seg" not in output:
                raise UserError("The model gives no `panoptic_seg`: set MODEL.MASK_FORMER.TEST.PANOPTIC_ON True.")
            segment_map, segments = output["panoptic_seg"]
            segment_map = segment_map.cpu().numpy() if hasattr(segment_map, "cpu") else np.asarray(segment_map)
            if segments is None:
                segment_map, segments = self._decode(segment_map)
            segments = [dict(s) for s in segments]
            key = str(record["image_id"])
            truth = self._truth.get(key)
            if truth is None:
                raise UserError(
                    f"Image {key} ({record.get('file_name')}) has no entry in {self._metadata.panoptic_json}; the data "
                    "set and its annotation do not belong together."
                )
            self._images[key] = self._match(record, truth, segment_map, segments)
            if self._output_dir:
                name = self._names[truth["file_name"]]
                self._predictions[key] = self._prediction(record["image_id"], name, segment_map, segments)

    def _match(self, record: dict, truth: dict, segment_map: np.ndarray, segments: list[dict]):
        unlisted = segment_map[~np.isin(segment_map, [VOID, *(s["id"] for s in segments)])]
        if unlisted.size:
            raise UserError(
                f"The panoptic prediction for image {record['image_id']} has the segment ids "
                f"{np.unique(unlisted)[:5].tolist()} in its map but not in its segment list."
            )
        # Classes outside the data set's split are nobody's ground truth: their segments become void.
        listed = [s for s in truth["segments_info"] if s["category_id"] in self._contiguous]
        for segment in segments:
            self.classes.dataset_id(segment["category_id"])  # refuses a class that the data set does not have
        true_map = read_panoptic_png(self._metadata.panoptic_root, truth["file_name"], truth["segments_info"])
        try:
            return match_segments(
                true_map,
                {s["id"]: self._contiguous[s["category_id"]] for s in listed},
                [s["id"] for s in listed if s.get("iscrowd", 0)],
                segment_map,
                {s["id"]: int(s["category_id"]) for s in segments},
            )
        except ValueError as error:
            raise UserError(f"Image {record['image_id']} ({record.get('file_name')}): {error}.") from error

    def _decode(self, segment_map: np.ndarray) -> tuple[np.ndarray, list[dict]]:
        divisor = self._metadata.label_divisor
        labels = [label for label in np.unique(segment_map).tolist() if label != -1]
        segments = [
            {"id": label + 1, "category_id": label // divisor, "isthing": label // divisor in self.classes.things}
            for label in labels
        ]
        return segment_map + 1, segments  # 0 is void

    def _prediction(self, image_id, name: str, segment_map: np.ndarray, segments: list[dict]) -> dict:
        if self._write_png:
            with replacing(os.path.join(self._output_dir, "panoptic_png", name), sync=False) as temporary:
                Image.fromarray(id2rgb(segment_map)).save(temporary)
        listed = [
            {
                "id": int(s["id"]),
                "category_id": self.classes.dataset_id(s["category_id"]),
                "isthing": bool(s["category_id"] in self.classes.things),
            }
            for s in segments
        ]
        return {"image_id": image_id, "file_name": name, "segments_info": listed}

    def evaluate(self) -> dict | None:
        """Gather from all processes and return the figures on the main one; None elsewhere.

        Raises:
            UserError: an image of the annotation was not processed.
        """
        if self._distributed:
            comm.synchronize()
        images = gather_items(list(self._images.items()), self._distributed)
        predictions = gather_items(list(self._predictions.items()), self._distributed)
        if images is None:
            return None
        images, predictions = dict(images), dict(predictions)
        # In the annotation's order, so that sums do not depend on how images were dealt to processes.
        order = self._evaluated(images)
        quality = quality_per_class((images[key] for key in order), sorted(self.classes.names))
        result, rows = self._summary(quality)
        log_table(f"Panoptic quality on {self._metadata.name}", rows, ["", *METRICS, "#categories"])
        self._log_classes(quality)
        if self._output_dir:
            self._write(result, quality, [predictions[key] for key in order])
        return OrderedDict({"panoptic_seg": result})

    def _evaluated(self, images: dict) -> list[str]:
        missing = {key for key in self._truth if key not in images and key not in self._left_out}
        if missing and self._metadata.name in DatasetCatalog.list():
            # A training set may leave out images of its annotation: those that show unseen classes.
            missing &= {str(record["image_id"]) for record in DatasetCatalog.get(self._metadata.name)}
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(self._truth)} images of {self._metadata.name!r} got no prediction (the "
                f"first: {', '.join(sorted(missing)[:5])}). Panoptic quality is defined over all images."
            )
        return [key for key in self._truth if key in images]

    def _summary(self, quality: dict[int, ClassQuality]) -> tuple[dict, list]:
        classes = self.classes
        present = {label for label, value in quality.items() if value.present}
        groups = [
            ("All", "", present),
            ("Things", "_th", present & classes.things),
            ("Stuff", "_st", present - classes.things),
        ]
        if classes.unseen:
            kept = present if self._exclude_absent else set(quality)
            groups += [("Seen", "_se", kept & classes.seen), ("Unseen", "_un", kept & classes.unseen)]
        result, rows = OrderedDict(), []
        for title, suffix, members in groups:
            values = [100 * mean(getattr(quality[i], m.lower()) for i in sorted(members)) for m in METRICS]
            result.update((m + suffix, value) for m, value in zip(METRICS, values, strict=True))
            rows.append([title, *values, len(members)])
        if classes.unseen:
            values = [harmonic_mean(result[m + "_se"], result[m + "_un"]) for m in METRICS]
            result.update((m + "_hm", value) for m, value in zip(METRICS, values, strict=True))
            rows.append(["Harmonic mean", *values, ""])
        return result, rows

    def _log_classes(self, quality: dict[int, ClassQuality]) -> None:
        rows = [
            [self.classes.names[i] + ("*" if i in self.classes.unseen else ""), 100 * q.pq, 100 * q.sq, 100 * q.rq]
            for i, q in quality.items()
            if q.present
        ]
        log_class_table("Per class (* unseen; classes that do not occur are left out)", rows, ["class", *METRICS])

    def _write(self, result: dict, quality: dict[int, ClassQuality], predictions: list[dict]) -> None:
        per_class = [
            {
                "id": self.classes.dataset_ids[i],
                "name": self.classes.names[i],
                "isthing": i in self.classes.things,
                "unseen": i in self.classes.unseen,
                "present": q.present,
                "PQ": 100 * q.pq,
                "SQ": 100 * q.sq,
                "RQ": 100 * q.rq,
            }
            for i, q in quality.items()
        ]
        content = {"data_set": self._metadata.name, "panoptic_seg": result, "per_class": per_class}
        write_json(os.path.join(self._output_dir, "panoptic_results.json"), content, indent=2)
        write_json(os.path.join(self._output_dir, "predictions.json"), {"annotations": predictions})
