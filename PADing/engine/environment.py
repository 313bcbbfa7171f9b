"""``environment.json``: where and how each run of an output folder has been made."""

import importlib.metadata
import importlib.util
import logging
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from PADing.errors import UserError
from PADing.files import PACKAGES, read_json, write_json

logger = logging.getLogger(__name__)

FILE = "environment.json"
MOST_RUNS = 100
PACKAGE_NAMES = """
    pading torch torchvision numpy scipy pillow opencv-python-headless fvcore iopath pycocotools faster-coco-eval
    detectron2 panopticapi tensorboard tqdm
""".split()
# Only these variables are recorded: others may hold secrets.
VARIABLES = """
    OMP_NUM_THREADS OMP_WAIT_POLICY GOMP_SPINCOUNT KMP_BLOCKTIME MKL_NUM_THREADS CUDA_VISIBLE_DEVICES
    MALLOC_MMAP_MAX_ MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_ MALLOC_TOP_PAD_ GLIBC_TUNABLES
    CUBLAS_WORKSPACE_CONFIG PYTHONHASHSEED
    PYTORCH_CUDA_ALLOC_CONF TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD DETECTRON2_DATASETS WORLD_SIZE LOCAL_WORLD_SIZE
    SLURM_JOB_ID NCCL_P2P_DISABLE WANDB_MODE
""".split()


def record_run(cfg: CfgNode, kind: str, fresh: bool) -> None:
    """Append this run to ``<OUTPUT_DIR>/environment.json``; a file that cannot be read is replaced.

    Args:
        cfg: the config.
        kind: "training", "resumed training" or "evaluation".
        fresh: forget earlier runs of the folder.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(cfg.OUTPUT_DIR, FILE)
    runs: list[Any] = []
    if path.is_file() and not fresh:
        try:
            found = read_json(path, "Environment of earlier runs").get("runs")
            runs = found if isinstance(found, list) else []
        except UserError as error:
            logger.warning("%s It is replaced.", error)
    write_json(path, {"runs": [*runs[1 - MOST_RUNS :], environment(cfg, kind)]}, indent=2)


def environment(cfg: CfgNode, kind: str) -> dict[str, Any]:
    """What may matter to repeat a run: versions, devices, threads, commit, command line, seed, named variables."""
    return {
        "run": kind,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "seed": cfg.SEED,
        "commit": commit(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": comm.get_world_size(),
        "device": cfg.MODEL.DEVICE,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "providers": _providers(),
        "packages": {name: version for name in PACKAGE_NAMES if (version := _version(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _providers() -> dict[str, str]:
    """Where ``detectron2`` and ``panopticapi`` are imported from: a genuine package, or ``d2lite/standin``."""
    found = {name: importlib.util.find_spec(name) for name in ("detectron2", "panopticapi")}
    return {name: str(Path(spec.origin).parent) for name, spec in found.items() if spec and spec.origin}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The Git commit of the code, with "+" if tracked files differ from it; None without Git or a checkout."""
    if not (PACKAGES / ".git").exists():
        return None
    try:
        found = _git("rev-parse", "HEAD")
        return found + "+" * bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(PACKAGES), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
