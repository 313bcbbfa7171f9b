"""Pictures for people: segmentations over images, side by side, in videos, and training curves.

Two styles: ``panel`` and ``paint`` compare results with the truth and outline unseen classes; ``overlay`` draws as
Detectron2's visualizers do. ``predictor`` runs a model on a picture and is imported by itself, because it needs models.
"""

from PADing.visualization.classes import class_names, display_metadata, unseen_ids
from PADing.visualization.curves import plot_curves
from PADing.visualization.files import read_rgb, write_rgb
from PADing.visualization.overlay import PictureDrawer, VideoDrawer
from PADing.visualization.panoptic import Segmentation, paint, panel
from PADing.visualization.sources import from_detections, from_output, from_record

__all__ = [
    "PictureDrawer",
    "Segmentation",
    "VideoDrawer",
    "class_names",
    "display_metadata",
    "from_detections",
    "from_output",
    "from_record",
    "paint",
    "panel",
    "plot_curves",
    "read_rgb",
    "unseen_ids",
    "write_rgb",
]
