"""Panoptic quality, by panopticapi."""

import io
import json
import logging
import os
import tempfile
from contextlib import redirect_stdout
from pathlib import Path, PurePath

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image
from tabulate import tabulate

from .evaluator import DatasetEvaluator, save_results

METRICS = ("PQ", "SQ", "RQ")
GROUPS = {"All": "", "Things": "_th", "Stuff": "_st"}  # panopticapi's name -> suffix of a metric


class COCOPanopticEvaluator(DatasetEvaluator):
    """Writes predictions in COCO's panoptic format and compares them with the annotation by panopticapi.

    The metrics are percentages under ``panoptic_seg``: ``PQ SQ RQ``, and with ``_th`` and ``_st`` those of things and
    of stuff. Metadata: ``panoptic_json``, ``panoptic_root`` and the maps from category ids to contiguous ids.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        self._metadata, self._folder = MetadataCatalog.get(dataset_name), output_dir
        stuff, things = (self._metadata.get(f"{kind}_dataset_id_to_contiguous_id") for kind in ("stuff", "thing"))
        # [isthing][contiguous id] is the category id
        self._original = [{index: category for category, index in ids.items()} for ids in (stuff, things)]

    def reset(self):
        """Forget all predictions."""
        self._annotations: list[dict] = []
        self._pngs: dict[str, bytes] = {}

    def process(self, inputs, outputs):
        """Encode the predictions of a batch; the PNGs are named after ``file_name``.

        ``panoptic_seg`` is a map (H, W) and a dict ``id category_id isthing`` for each segment; or with None in place
        of these, the map holds category times ``label_divisor`` plus a number, and -1 where there is no segment.
        """
        from panopticapi.utils import id2rgb

        for image, answer in zip(inputs, outputs, strict=True):
            ids, segments = answer["panoptic_seg"]
            ids = ids.cpu().numpy()
            if segments is None:
                ids, segments = ids + 1, self._segments_of(ids)
            png = PurePath(image["file_name"]).stem + ".png"
            with io.BytesIO() as stream:
                Image.fromarray(id2rgb(ids)).save(stream, "PNG")
                self._pngs[png] = stream.getvalue()
            listed = [self._with_category(**segment) for segment in segments]
            self._annotations.append({"image_id": image["image_id"], "file_name": png, "segments_info": listed})

    def _segments_of(self, encoded: np.ndarray) -> list[dict]:
        """The segments of a map that encodes their categories; ids become greater by one, because 0 means void."""
        numbers, divisor = np.unique(encoded[encoded != -1]).tolist(), self._metadata.label_divisor
        classes = {number: number // divisor for number in numbers}
        return [{"id": n + 1, "category_id": c, "isthing": c in self._original[True]} for n, c in classes.items()]

    def _with_category(self, *, isthing: bool | None = None, **segment) -> dict:
        """A segment in COCO's format. Without ``isthing``, its category id is already the data set's."""
        if isthing is None:
            return segment
        return segment | {"category_id": self._original[bool(isthing)][segment["category_id"]]}

    def evaluate(self):
        """The metrics, on the main process; None on the others."""
        comm.synchronize()
        gathered = comm.gather((self._annotations, self._pngs))
        if not comm.is_main_process():
            return None
        with tempfile.TemporaryDirectory(prefix="panoptic") as folder:
            for _, pngs in gathered:
                for name, content in pngs.items():
                    Path(folder, name).write_bytes(content)
            quality = self._compare([entry for annotations, _ in gathered for entry in annotations], folder)

        rows = {group: [100 * quality[group][metric.lower()] for metric in METRICS] for group in GROUPS}
        cells = [[group, *values, quality[group]["n"]] for group, values in rows.items()]
        table = tabulate(cells, headers=["", *METRICS, "classes"], tablefmt="pipe", floatfmt=".3f")
        logging.getLogger(__name__).info("Panoptic quality, in percent:\n%s", table)
        return {"panoptic_seg": {m + GROUPS[g]: v for g in rows for m, v in zip(METRICS, rows[g], strict=True)}}

    def _compare(self, annotations: list[dict], png_folder: str) -> dict:
        """panopticapi's results for predictions whose PNGs are in ``png_folder``."""
        from panopticapi.evaluation import pq_compute

        truth = PathManager.get_local_path(self._metadata.panoptic_json)
        with open(truth) as file:
            content = json.load(file) | {"annotations": annotations}
        folder = self._folder or png_folder
        save_results(folder, {"predictions.json": content})
        predictions = PathManager.get_local_path(os.path.join(folder, "predictions.json"))
        truth_pngs = PathManager.get_local_path(self._metadata.panoptic_root)
        with redirect_stdout(io.StringIO()):  # it prints its progress
            return pq_compute(truth, predictions, truth_pngs, png_folder)
