"""The fastest COCO evaluation that is installed."""

__all__ = ["COCOeval_opt"]

try:
    from faster_coco_eval import COCOeval_faster as COCOeval_opt
except ImportError:
    from pycocotools.cocoeval import COCOeval as COCOeval_opt
