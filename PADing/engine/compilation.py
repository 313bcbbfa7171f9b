"""``MODEL.COMPILE``: backbone and pixel decoder of a model through ``torch.compile``."""

import importlib.util
import logging
import os
import shutil

import torch
from detectron2.config import CfgNode
from torch import nn

from PADing.errors import UserError

logger = logging.getLogger(__name__)
KEY = "MODEL.COMPILE"


def compile_model(cfg: CfgNode, model: nn.Module) -> None:
    """If the config says so, compile the parts of ``model`` whose steps do not depend on values, in place.

    They are compiled at their first call, and once more for the first image of another size. State-dict keys stay.

    Raises:
        UserError: the model has no backbone or no pixel decoder, or PyTorch cannot compile here.
    """
    if not cfg.MODEL.COMPILE:
        return
    if problem := _obstacle(torch.device(cfg.MODEL.DEVICE).type):
        raise UserError(f"{KEY} is True, but {problem}. Set it to False, or install what is missing.")
    compile_parts(model)
    logger.info("%s: the first iterations take minutes, because PyTorch compiles backbone and pixel decoder.", KEY)


def compile_parts(model: nn.Module) -> None:
    """Compile backbone and pixel decoder in place; UserError if the model lacks one."""
    try:
        backbone, decoder = (model.get_submodule(name) for name in ("backbone", "sem_seg_head.pixel_decoder"))
    except AttributeError as error:
        raise UserError(f"{KEY} is True, but {type(model).__name__}: {error}. Set it to False.") from None
    backbone.compile()
    # ``compile`` of a module is for ``forward``, but pixel decoders are called through another method.
    decoder.forward_features = torch.compile(decoder.forward_features)  # type: ignore[assignment,arg-type]


def _obstacle(device_type: str) -> str:
    """Why PyTorch cannot compile for a device; "" if nothing speaks against it."""
    if device_type != "cpu":
        return "" if importlib.util.find_spec("triton") else "Triton, which PyTorch needs for it, is not installed"
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), "")
    return "" if compiler and shutil.which(compiler) else "there is no C++ compiler (g++, clang++ or $CXX)"
