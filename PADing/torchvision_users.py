"""Imports packages that import torchvision, such as timm and open_clip, also beside a torchvision of another build.

Such a torchvision (made for CUDA beside a torch for CPUs, as pip may choose them) cannot load its compiled operators
and raises ``operator torchvision::nms does not exist`` when imported. Networks and image transforms do not call these
operators, so their names are enough: calling one is an error as before.
"""

import importlib
import logging
import re
import sys
import warnings
from types import ModuleType

import torch

from PADing.errors import UserError

logger = logging.getLogger(__name__)

_ABSENT = re.compile(r"operator torchvision::(\w+) does not exist")
_declared: dict[str, torch.library.Library] = {}  # an operator exists as long as its library


def import_with_torchvision(name: str, install: str = "") -> ModuleType:
    """The module ``name``; UserError if it is not installed, or cannot be imported.

    ``install``: the command that installs it; default: pip with its name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's about image files, which it does not read here
        while True:
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError as error:
                command = install or f"pip install {name} torchvision"
                cure = f"Install {'it' if error.name == name else 'both'}: {command}."
                raise UserError(f"{name} needs {error.name}, which is not installed. {cure}") from error
            except (ImportError, RuntimeError, OSError) as error:
                absent = _ABSENT.search(str(error))
                if absent is None or absent[1] in _declared:
                    cure = "`python -m PADing.installation` says what does not fit together."
                    raise UserError(f"{name} cannot be imported: {str(error).splitlines()[0]}. {cure}") from error
                _declare(absent[1], name.partition(".")[0])


def _declare(operator: str, package: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(f"{operator}(Tensor x) -> Tensor")
    if not _declared:
        logger.info(
            "torchvision is of another build than torch %s: its operators are missing, which %s does not need.",
            torch.__version__, package,
        )  # fmt: skip
    _declared[operator] = library
    for module in [key for key in sys.modules if key.partition(".")[0] in ("torchvision", package)]:
        del sys.modules[module]  # half imported
