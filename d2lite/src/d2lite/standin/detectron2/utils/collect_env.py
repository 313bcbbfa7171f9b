"""A text table of what the program runs on, for log files and bug reports."""

import importlib
import os
import platform
import sys

import detectron2
import numpy as np
import torch
from tabulate import tabulate

__all__ = ["collect_env_info"]


def collect_env_info() -> str:
    """Versions and places of Python, the libraries in use and the devices, as a two-column table."""
    rows = [
        ("sys.platform", sys.platform),
        ("Python", sys.version.replace("\n", "")),
        ("numpy", np.__version__),
        ("detectron2", f"{detectron2.__version__} @{os.path.dirname(detectron2.__file__)} (stand-in d2lite)"),
        ("PyTorch", f"{torch.__version__} @{os.path.dirname(torch.__file__)}"),
        ("PyTorch debug build", torch.version.debug),
        ("GPU available", torch.cuda.is_available()),
        ("CPU", f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"),
    ]
    if torch.cuda.is_available():
        rows += [(f"GPU {i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
        rows += [("CUDA", torch.version.cuda), ("cuDNN", torch.backends.cudnn.version())]
    for name in ("fvcore", "iopath", "PIL", "cv2"):
        rows.append((name, _version(name)))
    if os.environ.get("DETECTRON2_DATASETS"):
        rows.append(("DETECTRON2_DATASETS", os.environ["DETECTRON2_DATASETS"]))
    return tabulate(rows) + "\n" + torch.__config__.show()


def _version(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except ImportError:
        return "not installed"
    return str(getattr(module, "__version__", "installed, version unknown"))
