"""Intersection over union and accuracy of semantic maps, over all, seen and unseen classes."""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image

from PADing.data.images import read_labels
from PADing.errors import UserError
from PADing.evaluation.classes import stuff_classes
from PADing.evaluation.gathering import gather_items
from PADing.evaluation.panoptic import read_panoptic_png
from PADing.evaluation.results import harmonic_mean, log_class_table, log_table, mean
from PADing.files import replacing, write_json, write_json_list
from PADing.output_names import output_names

__all__ = ["SemSegGzeroEvaluator", "semantic_figures"]

logger = logging.getLogger(__name__)


def semantic_figures(
    confusion: np.ndarray, names: list[str], unseen: frozenset[int] = frozenset(), nan_aware: bool = False
) -> OrderedDict:
    """Figures, in percent, from a confusion matrix.

    With true positives ``tp`` and pixel counts ``gt``, ``pred`` per class: IoU = tp / (gt + pred - tp) and ACC =
    tp / gt for classes with ground truth, NaN for others; mIoU = sum of IoU / number of classes in truth **or**
    prediction; mACC = mean of ACC; fwIoU = mean of IoU weighted by ``gt``; pACC = sum of tp / sum of gt.

    Args:
        confusion: (C + 1, C + 1) int64 pixel counts [predicted, true]; the last row and column stand for "ignore".
        names: C class names.
        unseen: indices of unseen classes. When there are any, the means over them and over the others are added, and
            the harmonic mean of the two IoU.
        nan_aware: leave classes without ground truth out of the seen and unseen means. Otherwise, as in the published
            evaluation, one such class makes its mean NaN.

    Returns:
        ``mIoU, fwIoU, IoU-<name>..., mACC, pACC, ACC-<name>...``, ``unseen_IoU, seen_IoU, unseen_acc, seen_acc, hIoU``.
    """
    tp = np.diagonal(confusion)[:-1].astype(float)
    gt = confusion[:-1, :-1].sum(axis=0).astype(float)
    predicted = confusion[:-1, :-1].sum(axis=1).astype(float)
    known = gt > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.where(known, tp / (gt + predicted - tp), np.nan)
        acc = np.where(known, tp / gt, np.nan)
        # With no labelled pixel at all there is nothing to divide by, and every figure is NaN.
        figures = OrderedDict(mIoU=100 * iou[known].sum() / np.sum(gt + predicted > 0))
        figures["fwIoU"] = 100 * (iou[known] * gt[known]).sum() / gt.sum()
        figures.update((f"IoU-{name}", 100 * value) for name, value in zip(names, iou, strict=True))
        figures["mACC"] = 100 * acc[known].sum() / known.sum()
        figures["pACC"] = 100 * tp.sum() / gt.sum()
        figures.update((f"ACC-{name}", 100 * value) for name, value in zip(names, acc, strict=True))
    if unseen:
        seen = set(range(len(names))) - unseen
        for metric, values in (("IoU", iou), ("acc", acc)):
            for group, members in (("unseen", unseen), ("seen", seen)):
                figures[f"{group}_{metric}"] = 100 * mean((values[i] for i in sorted(members)), skip_nan=nan_aware)
        figures["hIoU"] = harmonic_mean(figures["seen_IoU"], figures["unseen_IoU"])
    return OrderedDict((key, float(value)) for key, value in figures.items())


class SemSegGzeroEvaluator(DatasetEvaluator):
    """Semantic segmentation in the generalized zero-shot setting; see :func:`semantic_figures` for the figures.

    Ground truth is the label PNG of each image (``sem_seg_file_name`` of its dataset dict; values are contiguous ids).
    A panoptic data set without such PNGs gets its labels from the panoptic annotation.

    Args:
        dataset_name: registered name; its metadata needs ``stuff_classes``, its dataset dicts the labels.
        distributed: gather from all processes.
        output_dir: folder for ``sem_seg_results.json``, ``sem_seg_evaluation.pth`` (figures) and
            ``sem_seg_predictions.json`` (masks in COCO's format); None: nothing is written.
        num_classes: not needed; when given it must be the number of ``stuff_classes``.
        ignore_label: label of unlabelled pixels; by default metadata's, else 255.
        nan_aware: see :func:`semantic_figures`.
        write_png: also write predicted label maps to ``<output_dir>/sem_seg_png``.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        num_classes: int | None = None,
        ignore_label: int | None = None,
        nan_aware: bool = False,
        write_png: bool = False,
    ):
        self._metadata = MetadataCatalog.get(dataset_name)
        self.classes = stuff_classes(dataset_name)
        self._num_classes = len(self.classes.names)
        if num_classes is not None and num_classes != self._num_classes:
            raise UserError(f"{dataset_name!r} has {self._num_classes} classes, but num_classes is {num_classes}.")
        if ignore_label is None:
            ignore_label = self._metadata.get("ignore_label", 255)
        self._ignore_label = 255 if ignore_label is None else ignore_label
        self._distributed = distributed
        self._output_dir = output_dir
        self._nan_aware = nan_aware
        self._write_png = write_png and output_dir is not None
        self._truth = None
        self.reset()

    def leave_out(self, records: Iterable[dict]) -> None:
        """Nothing to forget: only the labels of images that are processed are read."""

    def reset(self) -> None:
        size = self._num_classes + 1
        self._confusion = np.zeros((size, size), dtype=np.int64)
        self._predictions = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count a batch.

        Args:
            inputs: dataset dicts with ``file_name``.
            outputs: dicts whose ``sem_seg`` is a (C, H, W) tensor of scores. A model that scores every class of the
                split is restricted to the classes of the data set first; one that knows only the seen classes may be
                evaluated on all.
        """
        for record, output in zip(inputs, outputs, strict=True):
            if "sem_seg" not in output:
                raise UserError("The model gives no `sem_seg`: set MODEL.MASK_FORMER.TEST.SEMANTIC_ON True.")
            labels = self._restrict(output["sem_seg"]).argmax(dim=0).cpu().numpy().astype(np.int64)
            truth = self._read_truth(record["file_name"])
            if truth.shape != labels.shape:
                raise UserError(
                    f"{record['file_name']}: the predicted map has size {labels.shape}, its label image {truth.shape}."
                )
            size = self._num_classes + 1
            counts = np.bincount(size * labels.reshape(-1) + truth.reshape(-1), minlength=size * size)
            self._confusion += counts.reshape(size, size)
            if self._output_dir:
                self._predictions.append((record["file_name"], labels.shape, self._encode(labels)))
            if self._write_png:
                self._save_png(labels, record["file_name"])

    def _restrict(self, scores: torch.Tensor) -> torch.Tensor:
        channels = scores.shape[0]
        if channels == self._num_classes:
            return scores
        vocabulary = list(self._metadata.get("vocabulary") or ())
        names = [self.classes.names[i] for i in range(self._num_classes)]
        if vocabulary[:channels] == names[:channels] and channels == len(vocabulary) - len(self.classes.unseen):
            if not set(range(channels)) & self.classes.unseen:
                # A model of the first stage knows the seen classes only, which come first; it never names another.
                return scores
        if channels != len(vocabulary) or not set(names) <= set(vocabulary):
            raise UserError(
                f"The model scores {channels} classes, but data set {self.classes.data_set!r} has "
                f"{self._num_classes}. MODEL.SEM_SEG_HEAD.NUM_CLASSES and DATASETS.TEST do not belong together."
            )
        return scores[[vocabulary.index(name) for name in names]]

    def _read_truth(self, file_name: str) -> np.ndarray:
        """(H, W) int64 contiguous ids, with the number of classes for "ignore"."""
        if self._truth is None:
            self._truth = {record["file_name"]: record for record in DatasetCatalog.get(self.classes.data_set)}
            self._names = output_names(self._truth)
            if not all("sem_seg_file_name" in record for record in self._truth.values()):
                name = self.classes.data_set
                logger.info("%s lacks semantic label images; labels come from its panoptic annotation.", name)
        record = self._truth[file_name]
        if "sem_seg_file_name" in record:
            labels = read_labels(record["sem_seg_file_name"]).astype(np.int64)
        elif "pan_seg_file_name" in record:
            labels = self._labels_from_segments(record)
        else:
            raise UserError(f"{file_name} of {self.classes.data_set!r} has neither semantic nor panoptic labels.")
        ignored = labels == self._ignore_label
        strange = ~ignored & ((labels < 0) | (labels >= self._num_classes))
        if strange.any():
            raise UserError(
                f"The label image of {file_name} must hold values 0..{self._num_classes - 1} or {self._ignore_label} "
                f"(ignore), but has the values {np.unique(labels[strange])[:5].tolist()}. datasets/README.md says how "
                "to convert labels (with --ignore 0 where 0 is background)."
            )
        labels[ignored] = self._num_classes
        return labels

    def _labels_from_segments(self, record: dict) -> np.ndarray:
        folder, name = os.path.split(record["pan_seg_file_name"])
        segment_map = read_panoptic_png(folder, name, record["segments_info"])
        ids, inverse = np.unique(segment_map, return_inverse=True)
        label_of = {s["id"]: s["category_id"] for s in record["segments_info"]}
        table = np.array([label_of.get(i, self._ignore_label) for i in ids.tolist()], dtype=np.int64)
        return table[inverse.reshape(segment_map.shape)]

    def evaluate(self) -> dict | None:
        """Sum over all processes; return ``{"sem_seg": figures}`` on the main one, None elsewhere."""
        confusion = self._confusion
        if self._distributed:
            comm.synchronize()
            confusion = sum(comm.gather(confusion, dst=0))
        predictions = gather_items(self._predictions, self._distributed)
        if predictions is None:
            return None
        names = [self.classes.names[i] for i in range(self._num_classes)]
        figures = semantic_figures(confusion, names, self.classes.unseen, self._nan_aware)
        self._log(figures, names)
        absent = [name for name in names if np.isnan(figures[f"IoU-{name}"])]
        if self.classes.unseen and absent and not self._nan_aware:
            logger.warning(
                "%d classes have no pixel in the annotation of %s (%s), so means over seen or unseen classes are NaN, "
                "as in the published evaluation. TEST.SEM_SEG_NAN_AWARE True leaves such classes out.",
                len(absent),
                self.classes.data_set,
                ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else ""),
            )
        if self._output_dir:
            content = {"data_set": self.classes.data_set, "sem_seg": figures}
            write_json(os.path.join(self._output_dir, "sem_seg_results.json"), content, indent=2)
            path = os.path.join(self._output_dir, "sem_seg_predictions.json")
            write_json_list(path, (entry for prediction in predictions for entry in self._entries(*prediction)))
            with replacing(os.path.join(self._output_dir, "sem_seg_evaluation.pth")) as temporary:
                torch.save(figures, temporary)
        return OrderedDict({"sem_seg": figures})

    def _log(self, figures: dict, names: list[str]) -> None:
        rows = [["All", figures["mIoU"], figures["mACC"], figures["fwIoU"], figures["pACC"], len(names)]]
        if self.classes.unseen:
            for group in ("seen", "unseen"):
                members = len(getattr(self.classes, group))
                rows.append([group.capitalize(), figures[f"{group}_IoU"], figures[f"{group}_acc"], "", "", members])
            rows.append(["Harmonic mean", figures["hIoU"], "", "", "", ""])
        title = f"Semantic segmentation on {self.classes.data_set}"
        log_table(title, rows, ["", "mIoU", "mACC", "fwIoU", "pACC", "#categories"])
        classes = [
            [name + ("*" if i in self.classes.unseen else ""), figures[f"IoU-{name}"], figures[f"ACC-{name}"]]
            for i, name in enumerate(names)
        ]
        log_class_table("Per class (* unseen)", classes, ["class", "IoU", "ACC"], repeat=3)

    def _encode(self, labels: np.ndarray) -> list[tuple[int, bytes]]:
        """(label, RLE string) of every class in a map."""
        masks = ((label, np.asfortranarray(labels == label, dtype=np.uint8)) for label in np.unique(labels).tolist())
        return [(label, mask_util.encode(mask)["counts"]) for label, mask in masks]

    def _entries(self, file_name: str, size: tuple[int, int], masks: list[tuple[int, bytes]]) -> Iterator[dict]:
        for label, counts in masks:
            rle = {"size": list(size), "counts": counts.decode("ascii")}
            yield {"file_name": file_name, "category_id": int(self.classes.dataset_id(label)), "segmentation": rle}

    def _save_png(self, labels: np.ndarray, file_name: str) -> None:
        image = Image.fromarray(labels.astype(np.uint8 if self._num_classes <= 256 else np.uint16))
        path = os.path.join(self._output_dir, "sem_seg_png", self._names[file_name])
        with replacing(path, sync=False) as temporary:
            image.save(temporary)
