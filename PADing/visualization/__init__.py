"""Draws segmentations over images, side by side and in videos, and plots training curves.

Unseen classes have a magenta outline and the sign "✱" before their name. ``PADing.inference`` runs models.
"""

from PADing.visualization.curves import plot_curves
from PADing.visualization.drawer import ImageDrawer
from PADing.visualization.image_files import read_rgb, write_rgb
from PADing.visualization.panoptic import Segmentation, display_scale, paint, panel
from PADing.visualization.sources import from_detections, from_output, from_record

PictureDrawer = ImageDrawer  # the name in version 0.1.0
