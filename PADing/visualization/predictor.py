"""A model of a config, with its weights, applied to one image at a time."""

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model

import PADing.meta_arch  # noqa: F401  registers the meta-architectures
from PADing.config_values import as_one_message
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.engine.start_check import PREDICTION, on_present_device, start_problems
from PADing.errors import UserError

__all__ = ["Predictor", "load_model"]

SEGMENTER = "sem_seg_head."


class Predictor:
    """Segments images with the classes of the config's first test set.

    Args:
        cfg: ``MODEL.WEIGHTS`` are loaded; ``INPUT.MIN_SIZE_TEST`` and ``MAX_SIZE_TEST`` say the size that the model
            sees, ``DATASETS.TEST[0]`` the classes. No file of the data set is read.
        one_result: compute only what drawings show: panoptic, else instances, else semantic results.

    Attributes:
        model: in evaluation mode, on ``MODEL.DEVICE``. metadata: of the test set.

    Raises:
        UserError: as :func:`load_model`.
    """

    def __init__(self, cfg: CfgNode, one_result: bool = False):
        self.model = load_model(cfg)
        if one_result:
            _keep_first_result(self.model)
        self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        self.resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self.format = cfg.INPUT.FORMAT

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> dict:
        """Segment one image.

        Args:
            image: (H, W, 3) uint8 RGB, whatever ``INPUT.FORMAT`` is.

        Returns:
            the model's output, in the size of the image: any of ``panoptic_seg``, ``instances``, ``sem_seg``.
        """
        height, width = image.shape[:2]
        ordered = image[:, :, ::-1] if self.format == "BGR" else image
        transform = self.resize.get_transform(ordered)
        if isinstance(transform, T.ResizeTransform) and not (transform.new_h and transform.new_w):
            # So narrow an image that nothing would be left of it.
            transform = T.ResizeTransform(height, width, max(1, transform.new_h), max(1, transform.new_w))
        resized = transform.apply_image(ordered)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return self.model([{"image": tensor, "height": height, "width": width}])[0]


def _keep_first_result(model: torch.nn.Module) -> None:
    keys = [key for key in ("panoptic_on", "instance_on", "semantic_on") if getattr(model, key, False)]
    for key in keys[1:]:
        setattr(model, key, False)


def load_model(cfg: CfgNode) -> torch.nn.Module:
    """The model of a config in evaluation mode, with the weights of ``MODEL.WEIGHTS``, for its first test set.

    On a machine without a GPU it runs on the CPU, whatever ``MODEL.DEVICE`` is.

    Raises:
        UserError: no test set, no weights, a file that does not exist or does not fit, or one that holds a backbone
            only, with which a model would answer at random; values or names in the config that cannot be.
    """
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; its first data set tells a model which classes to answer with.")
    if not cfg.MODEL.WEIGHTS:
        raise UserError(
            "MODEL.WEIGHTS is empty, and an untrained model answers at random. Name a trained file: "
            "MODEL.WEIGHTS path/to/model_final.pth (in the demo: after --opts)."
        )
    cfg = on_present_device(cfg)
    problems = start_problems(cfg, PREDICTION)
    if problems:
        raise UserError(as_one_message(problems))
    model = build_model(cfg).eval()
    tell = getattr(model, "set_test_metadata", None)
    if tell is not None:
        tell(MetadataCatalog.get(cfg.DATASETS.TEST[0]))
    _TrainedCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


class _TrainedCheckpointer(TrainingCheckpointer):
    """Refuses what training may well begin with: weights of a backbone alone."""

    def _load_model(self, checkpoint: dict):
        incompatible = super()._load_model(checkpoint)
        segmenter = {key for key in self.model.state_dict() if key.startswith(SEGMENTER)}
        if segmenter and segmenter <= set(incompatible.missing_keys):
            raise UserError(
                "MODEL.WEIGHTS holds no segmenter, only other parts such as a backbone; the model would answer at "
                "random. Name a file that train_net.py has written: MODEL.WEIGHTS path/to/model_final.pth."
            )
        return incompatible
