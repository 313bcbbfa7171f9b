"""Images for people: segmentations over images, side by side, in videos, and training curves.

Unseen classes are outlined in magenta. Models are run by ``PADing.inference``.
"""

from PADing.visualization.curves import plot_curves
from PADing.visualization.drawer import ImageDrawer
from PADing.visualization.image_files import read_rgb, write_rgb
from PADing.visualization.panoptic import Segmentation, display_scale, paint, panel
from PADing.visualization.sources import from_detections, from_output, from_record

PictureDrawer = ImageDrawer  # its name up to version 0.1.0
