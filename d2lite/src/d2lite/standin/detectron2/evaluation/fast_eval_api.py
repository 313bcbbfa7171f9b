"""COCO evaluation under the name of the fast implementation."""

try:
    from faster_coco_eval import COCOeval_faster as COCOeval_opt
except ImportError:
    from pycocotools.cocoeval import COCOeval as COCOeval_opt  # noqa: F401
