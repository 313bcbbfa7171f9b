"""Stand-in for COCO's panopticapi (d2lite): label colors, and panoptic quality from files.

A genuine panopticapi always wins, also one that is found later than this folder: then this module replaces itself.
"""

from d2lite.provider import step_aside

if not step_aside(__name__):
    __standin__ = True
