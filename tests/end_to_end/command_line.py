"""Running the commands of the documentation, at sizes that a laptop finishes in seconds."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# A segmenter of every part of the full one, but small; two iterations; everything on the CPU.
SMALL = """
    MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64
    MODEL.SEM_SEG_HEAD.CONVS_DIM 32 MODEL.SEM_SEG_HEAD.MASK_DIM 32 MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS 1
    MODEL.MASK_FORMER.HIDDEN_DIM 32 MODEL.MASK_FORMER.DIM_FEEDFORWARD 32 MODEL.MASK_FORMER.NUM_OBJECT_QUERIES 8
    MODEL.MASK_FORMER.DEC_LAYERS 3 MODEL.MASK_FORMER.TRAIN_NUM_POINTS 112 MODEL.MASK_FORMER.TRANS_MEMORY_NUM_QUERY 8
    INPUT.IMAGE_SIZE 64 INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2
    DATALOADER.NUM_WORKERS 0 SEED 3 VERSION 2
""".split()
SMALL_SEMANTIC = ["INPUT.CROP.SIZE", "[64,64]", "INPUT.SIZE_DIVISIBILITY", "64", "INPUT.MIN_SIZE_TRAIN", "[64]"]


def run(
    command, *args, cwd: Path = REPOSITORY, data: Path | None = None, expect: int = 0, packages: Path = REPOSITORY
) -> str:
    """Run a command (text or list; ``python`` is this one) and return its output; its exit status must be ``expect``.

    Args:
        args: added to the command.
        data: ``$DETECTRON2_DATASETS``.
        packages: the folder that Python imports our packages from.
    """
    words = [*(shlex.split(command) if isinstance(command, str) else command), *map(str, args)]
    words = [sys.executable if word == "python" else str(word) for word in words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(packages)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    if data is not None:
        environment["DETECTRON2_DATASETS"] = str(data)
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == expect, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def train_net(script: str, config: str, *opts, processes: int = 1, torchrun: bool = False, **options) -> str:
    """Run ``train_net.py`` or ``train_net_pretrain.py`` on the CPU with the small sizes.

    Args:
        config: below ``configs/``, or absolute.
        opts: flags and config keys; these win over the small sizes.
        processes, torchrun: how many, and whether torchrun starts them instead of ``--num-gpus``.
    """
    start = ["python"]
    if torchrun:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", processes, "--master-port", free_port()]
    flags = [word for word in map(str, opts) if word.startswith("--")]
    keys = [word for word in map(str, opts) if not word.startswith("--")]
    cpu = ["--num-gpus", processes if processes > 1 and not torchrun else 0]
    small = SMALL + (SMALL_SEMANTIC if "semantic" in config else [])
    config = REPOSITORY / "configs" / config
    command = [*start, REPOSITORY / script, "--config-file", config, *cpu, *flags]
    return run(command, "MODEL.DEVICE", "cpu", *small, *keys, **options)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def results(folder: Path) -> dict:
    """``results.json`` of an output folder: metrics by data set."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def readme_commands(heading: str, file: str = "docs/your_data.md") -> list[str]:
    """The shell commands below a page's heading, in order: of ``sh`` blocks, and those that begin tables' cells."""
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    section = text.split(f"{heading}\n", 1)[1].split("\n## ", 1)[0]
    commands = []
    for block, cell in re.findall(r"```sh\n(.*?)```|\| `(python [^`]+)`", section, flags=re.DOTALL):
        lines = re.sub(r"\\\n\s*", " ", block or cell).splitlines()
        lines = [line.split(" #")[0].strip() for line in lines]
        commands += [line for line in lines if line and not line.startswith("#")]
    return commands
