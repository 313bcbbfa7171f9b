"""A table of the environment, for log files and bug reports."""

import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata

import detectron2
import torch
from tabulate import tabulate

LIBRARIES = ("numpy", "torchvision", "fvcore", "iopath", "pycocotools", "pillow", "opencv-python-headless")
VARIABLES = ("DETECTRON2_DATASETS", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def collect_env_info() -> str:
    """The versions of the system, the libraries and the devices, or "unknown"."""
    facts: dict[str, Callable[[], str | None]] = {
        "Platform": platform.platform,
        "Python": lambda: f"{platform.python_version()} ({sys.executable})",
        "Detectron2": lambda: f"{detectron2.__version__}, the stand-in d2lite, {os.path.dirname(detectron2.__file__)}",
        "PyTorch": lambda: f"{torch.__version__}, {os.path.dirname(torch.__file__)}",
        "CPU": lambda: f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use",
        "GPUs": _gpus,
    }
    facts |= {name: partial(metadata.version, name) for name in LIBRARIES}  # not by import, which may take seconds
    facts |= {name: partial(os.environ.get, name) for name in VARIABLES if name in os.environ}
    rows = []
    for name, fact in facts.items():
        try:
            rows.append((name, fact()))
        except metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
        except Exception as error:  # a report must never end a training
            rows.append((name, f"unknown ({type(error).__name__}: {error})"))
    # As text: tabulate would print the version 2.10 as the number 2.1.
    return tabulate(rows, disable_numparse=True)


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that PyTorch can use"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
