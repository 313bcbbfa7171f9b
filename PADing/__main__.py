"""``python -m PADing``: what is installed, and whether it fits together."""

import importlib.metadata
import platform
import re
import sys

import torch


def main() -> int:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print(f"python {platform.python_version()}, torch {torch.__version__}, GPUs: {gpus}")
    problem = torchvision_problem()
    if problem:
        print(f"warning: {problem}", file=sys.stderr)
    return int(bool(problem))


def torchvision_problem() -> str:
    """Why torchvision does not work with this torch, and the cure; "" if it does.

    Nothing here imports torchvision, but timm and open_clip do, and fail with a message that names neither package.
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
    minor = int(torch.__version__.split(".")[1]) + 15  # torch 2.4 belongs to torchvision 0.19, and so on
    return (
        f"torchvision {version}{made_for} does not work with torch {torch.__version__}: {reason}. Training and "
        "evaluation don't need it, but timm and tools/class_embeddings.py do. Install the one made for this torch, "
        f'from where torch came: pip install "torchvision==0.{minor}.*"'
    )


if __name__ == "__main__":
    sys.exit(main())
