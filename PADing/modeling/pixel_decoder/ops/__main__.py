"""``python -m PADing.modeling.pixel_decoder.ops [--build]``: lists the available backends and checks their results."""

import logging
import sys

import torch

from PADing.command_line import CommandParser, run_command

from . import backends, build
from .pytorch import ms_deform_attn_pytorch


def main() -> int:
    """The command; returns its exit status."""
    parser = CommandParser(__doc__, prog="python -m PADing.modeling.pixel_decoder.ops")
    parser.add_argument("--build", action="store_true", help="first compile the kernels that can be compiled here")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_command(check, args.build)


def check(build_first: bool) -> bool:
    """Print a line for each backend; returns whether the results of one are wrong."""
    failed = False
    for kind in build.KINDS:
        reason = backends.load(kind, compile_if_missing=build_first)
        if reason:
            hint = "" if build_first else f" (build: {build.BUILD_COMMAND})"
            print(f"{kind:8} not available: {reason}{hint}")
            continue
        if kind == "cuda" and not torch.cuda.is_available():
            print(f"{kind:8} compiled; no GPU here to check it on")
            continue
        error = _largest_error(kind)
        detail = ""
        if kind == "cpu":
            detail = f", {torch.ops.pading_msda.cpu_instruction_set()}, {torch.get_num_threads()} threads"
        print(f"{kind:8} ready{detail}; largest difference to PyTorch {error:.1e}: {'ok' if error < 1e-4 else 'WRONG'}")
        failed |= not error < 1e-4
    print(f"{'pytorch':8} ready")
    return failed


def _largest_error(kind: str) -> float:
    """Largest difference of output and gradients between a kernel and plain PyTorch, relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    shapes, starts = [(9, 13), (5, 7)], [0, 117]
    value = torch.randn(2, 152, 3, 20, generator=generator)
    locations = torch.rand(2, 31, 3, 2, 4, 2, generator=generator) * 1.4 - 0.2
    weights = torch.rand(2, 31, 3, 2, 4, generator=generator)
    grad = torch.randn(2, 31, 60, generator=generator)
    inputs = [t.to(kind).requires_grad_() for t in (value, locations, weights)]
    output = torch.ops.pading.ms_deform_attn(*inputs, [9, 13, 0, 5, 7, 117], None)
    results = [output, *torch.autograd.grad(output, inputs, grad.to(kind))]
    inputs = [t.double().requires_grad_() for t in (value, locations, weights)]
    output = ms_deform_attn_pytorch(inputs[0], shapes, starts, *inputs[1:])
    wanted = [output, *torch.autograd.grad(output, inputs, grad.double())]
    return max(
        float(((a.cpu() - b).abs().max() / b.abs().max()).detach()) for a, b in zip(results, wanted, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
