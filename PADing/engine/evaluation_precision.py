"""``TEST.PRECISION``: mixed precision of the networks in evaluation and inference."""

from types import MethodType

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.errors import UserError

KEY = "TEST.PRECISION"


def use_evaluation_precision(cfg: CfgNode, model: nn.Module) -> None:
    """If the config says so, ``model.predict`` computes in autocast and returns float32; training stays as it is.

    Results are computed of these predictions in float32, as ever. The pixel decoder keeps the precision of its weights
    unless ``MODEL.SEM_SEG_HEAD.AUTOCAST`` is True.

    Raises:
        UserError: the model has no ``predict``, or float16 is asked of a CPU.
    """
    name, device = cfg.TEST.PRECISION, torch.device(cfg.MODEL.DEVICE).type
    if name == "float32":
        return
    if device == "cpu" and name == "float16":
        raise UserError(f"{KEY} is float16, for which CPUs have no fast arithmetic. Set bfloat16 or float32.")
    if not hasattr(type(model), "predict"):
        raise UserError(f"{KEY} is {name}, but {type(model).__name__} has no method predict. Set float32.")

    def predict(self, *images) -> tuple[Tensor, Tensor]:
        with torch.autocast(device, dtype=getattr(torch, name)):
            class_logits, mask_logits = type(self).predict(self, *images)
        return class_logits.float(), mask_logits.float()

    model.predict = MethodType(predict, model)  # type: ignore[assignment]  # bound, so that a deep copy has its own
