"""Panoptic quality, computed by panopticapi on PNG files."""

import contextlib
import io
import itertools
import json
import logging
import os
import tempfile
from collections import OrderedDict

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image
from tabulate import tabulate

from .evaluator import DatasetEvaluator

__all__ = ["COCOPanopticEvaluator"]


class COCOPanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ in percent, over all classes, things (``_th``) and stuff (``_st``): ``{"panoptic_seg": {...}}``.

    Args:
        dataset_name: a data set with ``panoptic_json``, ``panoptic_root`` and the two id maps in its metadata.
        output_dir: folder for ``predictions.json``.
    """

    def __init__(self, dataset_name, output_dir=None):
        self._metadata = MetadataCatalog.get(dataset_name)
        self._thing_id = {c: d for d, c in self._metadata.thing_dataset_id_to_contiguous_id.items()}
        self._stuff_id = {c: d for d, c in self._metadata.stuff_dataset_id_to_contiguous_id.items()}
        self._output_dir = output_dir
        if output_dir is not None:
            PathManager.mkdirs(output_dir)
        self.reset()

    def reset(self):
        self._predictions = []

    def process(self, inputs, outputs):
        """Keep the predictions of a batch as PNG.

        Args:
            inputs: dataset dicts with ``file_name`` and ``image_id``.
            outputs: dicts with ``panoptic_seg``: map (H, W) and list of segments, or None for the list: then the map
                holds category * label_divisor + instance, and -1 for void.
        """
        from panopticapi.utils import id2rgb

        for record, output in zip(inputs, outputs, strict=True):
            segment_map, segments = output["panoptic_seg"]
            segment_map = segment_map.cpu().numpy()
            if segments is None:
                segments = [self._decode(label) for label in np.unique(segment_map).tolist() if label != -1]
                segment_map = segment_map + 1  # 0 is void
            name = os.path.splitext(os.path.basename(record["file_name"]))[0] + ".png"
            with io.BytesIO() as buffer:
                Image.fromarray(id2rgb(segment_map)).save(buffer, format="PNG")
                png = buffer.getvalue()
            entry = {"image_id": record["image_id"], "file_name": name, "png_string": png}
            entry["segments_info"] = [self._to_dataset_id(dict(segment)) for segment in segments]
            self._predictions.append(entry)

    def _decode(self, label):
        category = label // self._metadata.label_divisor
        isthing = category in self._metadata.thing_dataset_id_to_contiguous_id.values()
        return {"id": label + 1, "category_id": category, "isthing": isthing}

    def _to_dataset_id(self, segment):
        # "isthing" belongs to the prediction, not to COCO's format
        to_dataset = self._thing_id if segment.pop("isthing") else self._stuff_id
        segment["category_id"] = to_dataset[segment["category_id"]]
        return segment

    def evaluate(self):
        """Return the figures on the main process, None elsewhere."""
        from panopticapi.evaluation import pq_compute

        comm.synchronize()
        predictions = list(itertools.chain(*comm.gather(self._predictions)))
        if not comm.is_main_process():
            return None
        gt_json = PathManager.get_local_path(self._metadata.panoptic_json)
        gt_folder = PathManager.get_local_path(self._metadata.panoptic_root)
        with tempfile.TemporaryDirectory(prefix="panoptic_eval") as folder:
            for entry in predictions:
                with open(os.path.join(folder, entry["file_name"]), "wb") as file:
                    file.write(entry.pop("png_string"))
            with open(gt_json) as file:
                json_data = json.load(file)
            json_data["annotations"] = predictions
            pred_json = os.path.join(self._output_dir or folder, "predictions.json")
            with PathManager.open(pred_json, "w") as file:
                file.write(json.dumps(json_data))
            with contextlib.redirect_stdout(io.StringIO()):
                quality = pq_compute(gt_json, PathManager.get_local_path(pred_json), gt_folder, folder)

        figures, rows = {}, []
        for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
            values = [100 * quality[group][metric] for metric in ("pq", "sq", "rq")]
            figures.update((metric + suffix, value) for metric, value in zip(("PQ", "SQ", "RQ"), values, strict=True))
            rows.append([group, *values, quality[group]["n"]])
        headers = ["", "PQ", "SQ", "RQ", "#categories"]
        table = tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=".3f", stralign="center", numalign="center")
        logging.getLogger(__name__).info("Panoptic Evaluation Results:\n" + table)
        return OrderedDict({"panoptic_seg": figures})
