"""``python -m PADing.installation``: prints the Python, PyTorch and GPUs found, and whether torchvision fits."""

import importlib.metadata
import platform
import re
import sys

import torch


def main() -> int:
    """Print the installation; returns the exit status: 1 if torchvision does not fit, else 0."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print(f"python {platform.python_version()}, torch {torch.__version__}, GPUs: {gpus}")
    problem = torchvision_problem()
    if problem:
        print(f"warning: {problem}", file=sys.stderr)
    return int(bool(problem))


def torchvision_problem() -> str:
    """Why torchvision does not work with this torch, and what to install; "" if it works or is absent.

    timm and open_clip import torchvision; training and evaluation do not.
    """
    try:
        version = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return ""
    try:
        import torchvision  # noqa: F401

        return ""
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
    wanted = re.search(r"torch\s*\(?==\s*([\d.]+)", " ".join(importlib.metadata.requires("torchvision") or []))
    made_for = f" (made for torch {wanted[1]})" if wanted else ""
    minor = int(torch.__version__.split(".")[1]) + 15  # torch 2.4 needs torchvision 0.19, and so on
    variant = torch.__version__.partition("+")[2] or "the default"
    return (
        f"torchvision {version}{made_for} does not work with torch {torch.__version__}: {reason}. Training and "
        "evaluation don't need it; timm and the clip command of tools/class_embeddings.py do. Install torchvision "
        f"0.{minor} in the same build as torch ({variant}), from the same index: pip install --force-reinstall "
        f'--no-deps "torchvision==0.{minor}.*" --index-url INDEX (INDEX: see "Get started" on pytorch.org)'
    )


if __name__ == "__main__":
    sys.exit(main())
