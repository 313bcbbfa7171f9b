"""Stand-in for COCO's panopticapi (d2lite): label colors and panoptic quality. A genuine one is preferred."""

from d2lite.provider import step_aside

if not step_aside(__name__):
    __standin__ = True
