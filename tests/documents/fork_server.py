"""Runs Python commands one after the other, each in a fork of a process that has the slow imports behind it.

A line of standard input is a job in JSON, {"words", "cwd", "log", "stand_in"}; a line of standard output is its status.
"""

import importlib
import json
import os
import runpy
import sys
import traceback
import zlib
from pathlib import Path

HEAVY = ("PADing.engine.trainer", "PADing.inference", "PADing.visualization", "PADing.data.embedding_sources", "d2zero")


def main() -> None:
    """Serve until standard input ends."""
    for name in HEAVY:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        if child := os.fork():
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(status, flush=True)
        else:
            _run(job)


def _run(job: dict) -> None:
    """In the child: never returns."""
    status = 1
    try:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(job["cwd"])
        if job["stand_in"]:
            _clip_without_download()
        status = _start(job["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def _start(words: list[str]) -> int:
    sys.argv = words[1:] if words[0] in ("-m", "-c") else words
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            exec(compile(words[1], "-c", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _clip_without_download() -> None:
    import torch

    from PADing.data import embedding_sources

    real = embedding_sources.clip_embeddings

    def stand_in(names, model="", *rest, **options):
        """The same random vector for the same name in every command; the text encoder of a folder is used."""
        if Path(model).is_dir():
            return real(names, model, *rest, **options)
        seeds = (torch.Generator().manual_seed(zlib.crc32(name.encode())) for name in names)
        return torch.stack([torch.randn(8, generator=seed) for seed in seeds])

    embedding_sources.clip_embeddings = stand_in


if __name__ == "__main__":
    main()
