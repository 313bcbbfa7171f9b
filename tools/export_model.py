#!/usr/bin/env python3
"""Export a trained model as a file that runs without this project: ONNX, or a program of torch.export.

    python tools/export_model.py --config-file shared/mini_pading --output model.onnx
    python tools/export_model.py --config-file configs/mini/panoptic-PADing.yaml --output model.pt2 \\
        --outputs panoptic,instance MODEL.WEIGHTS output/mini_panoptic_PADing/model_final.pth
    python tools/export_model.py --config-file ... --output model.onnx --without-grid-sample      # for TensorRT

Batch, height and width may vary. The file is compared with the model at several sizes, and is not kept if it differs.
Exports are float32 and made on the CPU. examples/onnx_runner.py runs ONNX files with onnxruntime, NumPy and Pillow.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import sys
from pathlib import Path

from PADing.command_line import CommandParser, add_opts_flag, count, fraction, positive, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config of the model, or a shared model")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="file to write: .onnx or .pt2")
    text = "any of raw, semantic, semantic-scores, instance, panoptic, with commas between; raw: the logits of queries"
    parser.add_argument("--outputs", default="raw", metavar="NAME,...", help=text)
    text = "write bilinear sampling as gathers, for runtimes that lack GridSample or compute it wrongly"
    parser.add_argument("--without-grid-sample", action="store_true", help=text)
    parser.add_argument("--opset", type=positive, default=18, help="of ONNX")
    text = "largest absolute error of the file's numbers"
    parser.add_argument("--tolerance", type=fraction, default=1e-4, help=text)
    parser.add_argument("--rounds", type=count, default=5, help="runs to measure the latency; 0: do not measure")
    text = "image for the latency (default: the config's size for evaluation)"
    parser.add_argument("--latency-size", type=positive, nargs=2, metavar=("H", "W"), help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    add_opts_flag(parser)
    text = "config overrides at the end of the line: KEY value, or KEY=value"
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=text)
    parser.set_defaults(num_gpus=0, eval_only=True)
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    from detectron2.utils.logger import setup_logger

    from PADing.engine.start_check import PREDICTION, checked_config
    from PADing.export.run import export_model

    if __name__ == "__main__":
        for name in ("fvcore", "PADing"):
            setup_logger(name=name)
    sampling = "gather" if args.without_grid_sample else "grid_sample"
    outputs = [name.strip() for name in args.outputs.split(",") if name.strip()]
    report = export_model(
        checked_config(args, PREDICTION), args.output, outputs, sampling, args.opset, args.tolerance, args.rounds,
        args.latency_size, args.overwrite,
    )  # fmt: skip
    for name, difference in report.differences.items():
        print(f"{name}: {difference}")
    for name, seconds in report.latencies.items():
        print(f"{name}: {seconds * 1000:.0f} ms for {report.size[0]} x {report.size[1]}, {report.threads} CPU threads")
    print(f"Wrote {report.path}, {report.megabytes:.1f} MB.")


if __name__ == "__main__":
    sys.exit(main())
