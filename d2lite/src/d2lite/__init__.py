"""Stand-ins for the part of Detectron2 and panopticapi that zero-shot segmentation code uses.

Import ``detectron2`` and ``panopticapi`` as always; ``python -m d2lite`` says where they come from.
"""

__version__ = "0.1.0"
