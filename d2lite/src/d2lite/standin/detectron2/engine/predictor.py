"""Prediction for single images."""

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model


class DefaultPredictor:
    """``predictor(image)`` is a model's output for one image.

    Args:
        cfg: names the model and its weights; the image is resized, and its channels are ordered, as ``INPUT`` says.

    Attributes:
        model: in evaluation mode.
        metadata: of the first data set of ``DATASETS.TEST``, if there is one.
    """

    def __init__(self, cfg: CfgNode):
        size = cfg.INPUT
        assert size.FORMAT in ("BGR", "RGB"), f"INPUT.FORMAT is {size.FORMAT!r}, but must be 'BGR' or 'RGB'."
        self.cfg, self.input_format = cfg.clone(), size.FORMAT
        self.aug = ResizeShortestEdge(2 * [size.MIN_SIZE_TEST], size.MAX_SIZE_TEST)
        self.model = build_model(self.cfg).eval()
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        for name in cfg.DATASETS.TEST[:1]:
            self.metadata = MetadataCatalog.get(name)

    @torch.no_grad()
    def __call__(self, original_image: np.ndarray) -> dict:
        """Predict.

        Args:
            original_image: H x W x 3, uint8, always in the order blue, green, red.

        Returns:
            what the model returns for an image of this size.
        """
        ordered = original_image if self.input_format == "BGR" else np.flip(original_image, axis=2)
        resized = self.aug.get_transform(ordered).apply_image(ordered)
        pixels = torch.from_numpy(np.array(resized, dtype=np.float32)).permute(2, 0, 1).contiguous()
        sample = {"image": pixels.to(self.cfg.MODEL.DEVICE)}
        sample["height"], sample["width"] = original_image.shape[:2]
        (output,) = self.model([sample])
        return output
