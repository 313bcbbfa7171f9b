"""The fastest COCO evaluation that is installed."""

try:
    from faster_coco_eval import COCOeval_faster as COCOeval_opt
except ImportError:
    from pycocotools.cocoeval import COCOeval as COCOeval_opt  # noqa: F401
