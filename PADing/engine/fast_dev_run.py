"""``--fast-dev-run``: three iterations, a checkpoint and an evaluation on a few images, in a folder of their own."""

import argparse
import os
import shutil
from pathlib import Path

from PADing.config import parse_opts, read_config
from PADing.engine.output_folder import training_in
from PADing.errors import UserError
from PADing.files import explain_os_error

SUFFIX = "_fast_dev_run"
# A folder with this file was made by an earlier trial and may be removed.
MARKER = "fast_dev_run.txt"
SETTINGS = {
    "SOLVER.MAX_ITER": 3,
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "TEST.EVAL_PERIOD": 0,
    "TEST.MAX_IMAGES": 4,
    "TEST.EXPECTED_RESULTS": [],
}


def shorten(args: argparse.Namespace) -> None:
    """Change the flags of ``train_net.py`` to those of a trial, and empty its folder ``<OUTPUT_DIR>_fast_dev_run``.

    Raises:
        UserError: another flag does not go with a trial; the folder is in use, or no trial made it.
    """
    for flag in ("resume", "overwrite", "eval_only"):
        if getattr(args, flag):
            name = f"--{flag.replace('_', '-')}"
            raise UserError(f"--fast-dev-run tries a training from its start. Leave out {name}.")
    args.opts, args.more_opts = parse_opts([*args.opts, *args.more_opts]), []
    cfg, _ = read_config(args.config_file, args.opts)
    folder = Path(cfg.OUTPUT_DIR.rstrip("/") + SUFFIX)
    args.opts += [item for pair in SETTINGS.items() for item in pair] + ["OUTPUT_DIR", str(folder)]
    if int(os.environ.get("RANK", args.machine_rank)) == 0:
        _empty(folder)
    args.overwrite = True  # other processes may check the folder before it is empty


def _empty(folder: Path) -> None:
    try:
        if running := training_in(folder):
            raise UserError(f"{folder} is in use: a trial is running there ({running}). Wait until it ends.")
        if folder.is_symlink() or folder.exists() and not (folder / MARKER).is_file():
            cure = f"--fast-dev-run empties that folder and made no file {MARKER} in it. Move it away."
            raise UserError(f"{folder} exists already, but no trial has made it. {cure}")
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / MARKER).write_text("Made by --fast-dev-run, which empties this folder when it starts.\n")
    except OSError as error:
        raise UserError(f"OUTPUT_DIR: {explain_os_error(folder, error)}") from error
