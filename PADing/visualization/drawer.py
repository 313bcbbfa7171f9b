"""Draws predictions, annotations and training examples of one data set over their images."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.data import Metadata

from PADing.class_space import ClassSpace
from PADing.visualization.panoptic import Segmentation, display_scale, paint, panel
from PADing.visualization.sources import from_output, from_record, from_sample


class ImageDrawer:
    """Draws segmentations with the classes of the data set of ``metadata``; :func:`paint` describes the drawings.

    ``score_threshold`` is the least score of a shown instance, see ``sources.from_output``. ``enlarge``: small images
    are enlarged so that names can be read, see :func:`display_scale`.
    """

    def __init__(self, metadata: Metadata, score_threshold: float | None = None, enlarge: bool = True):
        classes = ClassSpace.of(metadata)
        self.names, self.unseen = classes.class_names, classes.unseen
        self.ignore_label = metadata.get("ignore_label", 255)
        self.score_threshold, self.enlarge = score_threshold, enlarge

    def read(self, output: Mapping) -> Segmentation:
        """The part of a model's output for one image that is drawn: panoptic, else instances, else semantic."""
        return from_output(output, self.ignore_label, self.score_threshold)

    def draw(self, image: np.ndarray, seg: Segmentation) -> np.ndarray:
        """Draw a segmentation over (H, W, 3) uint8 RGB; the result of a small image is enlarged."""
        scale = display_scale(*image.shape[:2]) if self.enlarge else 1
        return paint(image, seg, self.names, self.unseen, scale)

    def draw_columns(self, image: np.ndarray, columns: Sequence[tuple[str, Segmentation]], scale: int) -> np.ndarray:
        """Draw ``input | column 1 | column 2 ...`` with titles; ``scale`` 0 enlarges small images, see :meth:`draw`."""
        return panel(image, columns, self.names, self.unseen, scale or display_scale(*image.shape[:2]))

    def draw_output(self, image: np.ndarray, output: Mapping) -> np.ndarray:
        """Draw what a model returns for one image, see :meth:`read` and :meth:`draw`."""
        return self.draw(image, self.read(output))

    def draw_record(self, image: np.ndarray, record: Mapping) -> np.ndarray:
        """Draw the annotation of one data set record (a Detectron2 dataset dict), read from its files."""
        return self.draw(image, from_record(record, self.ignore_label))

    def draw_sample(self, sample: Mapping, image_format: str) -> np.ndarray:
        """Draw what a mapper returns: ``image`` (3, H, W) in 0..255 after augmentation, and its targets.

        Targets are ``instances`` with ``gt_classes`` and ``gt_masks``, or ``sem_seg`` (H, W). ``image_format`` is the
        order of the channels, "RGB" or "BGR".
        """
        image = sample["image"].permute(1, 2, 0).cpu().numpy()
        image = np.ascontiguousarray(image[:, :, ::-1] if image_format == "BGR" else image)
        return self.draw(image, from_sample(sample, self.ignore_label))

    def describe(self, seg: Segmentation) -> str:
        """The segments in words, such as "2 plain disc, 1 teal waves (unseen)"."""
        names = [name + " (unseen)" * (index in self.unseen) for index, name in enumerate(self.names)]
        found = Counter(names[label] for label in seg.classes.values())
        return ", ".join(f"{number} {name}" for name, number in found.items()) or "nothing"
