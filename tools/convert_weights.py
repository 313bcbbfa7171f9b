#!/usr/bin/env python3
"""Convert weights of other projects into a checkpoint for MODEL.WEIGHTS, or a MaskFormer for transformers.

    python tools/convert_weights.py --from torchvision-resnet --input resnet50-11ad3fa6.pth --output r50.safetensors
    python tools/convert_weights.py --from swin --input swin_tiny_patch4_window7_224.pth --output swin_tiny.safetensors
    python tools/convert_weights.py --from mask2former --input model_final.pkl --output start.pth --drop-class-head
    python tools/convert_weights.py --to transformers --input model_final.pth --output folder

It prints the config keys that the weights need. --drop-class-head leaves out the classifier, so that a training can
start with other classes. No code in a file is run.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import sys
from pathlib import Path

from PADing.command_line import CommandParser, run_command
from PADing.errors import UserError

# Those of PADing.conversion.run, which imports PyTorch.
SOURCES = {
    "torchvision-resnet": "ResNets of torchvision",
    "timm-resnet": "ResNets of timm with torchvision's parts",
    "swin": "Swin's releases, and Swins of timm",
    "mask2former": "Mask2Former's model zoo",
    "transformers": "Mask2FormerForUniversalSegmentation",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    direction = parser.add_mutually_exclusive_group(required=True)
    known = "; ".join(f"{name}: {what}" for name, what in SOURCES.items())
    direction.add_argument("--from", dest="source", choices=SOURCES, help=f"convert to here ({known})")
    direction.add_argument("--to", choices=["transformers"], help="convert from here")
    parser.add_argument("--input", type=Path, required=True, metavar="FILE", help="weights to convert")
    output = "file to write, .pth or .safetensors; for --to transformers a folder"
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=output)
    parser.add_argument("--drop-class-head", action="store_true", help="leave out the classifier, for other classes")
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    from detectron2.utils.logger import setup_logger

    from PADing.conversion.run import as_overrides, convert_to_ours, convert_to_transformers

    if __name__ == "__main__":
        setup_logger(name="PADing")
    if args.to and args.drop_class_head:
        raise UserError("--drop-class-head belongs to --from: a model of transformers has a class head.")
    if args.to:
        convert_to_transformers(args.input, args.output, args.overwrite)
        print(f"Wrote {args.output}")
        return
    sizes = convert_to_ours(args.source, args.input, args.output, args.drop_class_head, args.overwrite)
    print(f"Wrote {args.output}. Its network:\n{as_overrides(sizes)}")


if __name__ == "__main__":
    sys.exit(main())
