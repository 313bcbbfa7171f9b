"""``pading doctor``, or ``python -m PADing.installation``: check this installation.

It prints the versions of Python and PyTorch, the GPUs, who provides Detectron2 and panopticapi, where the shipped files
are, and which MSDeformAttn kernels are ready. --build compiles the kernels that can be compiled here.
"""

import argparse
import importlib.metadata
import platform
import re
import sys

import d2lite.__main__ as providers
from PADing.command_line import CommandParser, quiet_ctrl_c, run_command
from PADing.files import REPOSITORY


def main(argv: list[str] | None = None) -> int:
    """Print the report; returns the exit status: 1 if something does not work."""
    parser = CommandParser(__doc__)
    parser.add_argument("--build", action="store_true", help="compile the MSDeformAttn kernels first, where possible")
    return run_command(_report, parser.parse_args(argv))


def _report(args: argparse.Namespace) -> bool:
    import torch

    from PADing.modeling.pixel_decoder.ops.__main__ import check

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print(f"python {platform.python_version()}, torch {torch.__version__}, GPUs: {gpus}")
    problem = torchvision_problem()
    if problem:
        print(f"warning: {problem}", file=sys.stderr)
    print(f"pading {importlib.metadata.version('pading')}\n  configs, split files and scripts are in {REPOSITORY}")
    failed = bool(problem) | bool(providers.main())
    print("MSDeformAttn kernels")
    return bool(check(args.build)) or failed


def torchvision_problem() -> str:
    """Why torchvision does not work with this torch, and what to install; "" if it works or is absent.

    timm and open_clip import torchvision; for timm, ``PADing.torchvision_users`` gets along with another build.
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
    import torch

    wanted = re.search(r"torch\s*\(?==\s*([\d.]+)", " ".join(importlib.metadata.requires("torchvision") or []))
    made_for = f" (made for torch {wanted[1]})" if wanted else ""
    minor = int(torch.__version__.split(".")[1]) + 15  # torch 2.4 needs torchvision 0.19, and so on
    variant = torch.__version__.partition("+")[2] or "the default"
    return (
        f"torchvision {version}{made_for} does not work with torch {torch.__version__}: {reason}. Training and "
        "evaluation don't need it; the clip command of tools/class_embeddings.py does. Install torchvision "
        f"0.{minor} in the same build as torch ({variant}), from the same index: pip install --force-reinstall "
        f'--no-deps "torchvision==0.{minor}.*" --index-url INDEX (INDEX: see "Get started" on pytorch.org)'
    )


if __name__ == "__main__":
    quiet_ctrl_c()
    sys.exit(main())
