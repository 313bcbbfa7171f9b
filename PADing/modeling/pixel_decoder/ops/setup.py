"""``python setup.py build install``: compile the kernels of ms_deform_attn ahead of time, into lib/ beside this file.

A kernel that cannot be compiled is skipped with a message; if you name it (``python setup.py build cuda``), that is an
error.
"""

import argparse
import importlib.util
import logging
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """The command; returns its exit status: 1 if an extension that the user named cannot be compiled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", default=[], metavar="build|install|cpu|cuda")
    words = parser.parse_args().words
    unknown = set(words) - {"build", "install", "develop", "cpu", "cuda"}
    if unknown:
        parser.error(f"unknown command: {' '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Import by path, because building must work without importing the project.
    spec = importlib.util.spec_from_file_location("msda_build", HERE / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    wanted = [kind for kind in build.KINDS if kind in words]
    status = 0
    for kind in wanted or build.KINDS:
        try:
            print(f"{kind}: {build.build(kind, HERE / 'lib')}")
        except build.Unavailable as error:
            print(f"{kind}: skipped: {error}", file=sys.stderr)
            status |= kind in wanted
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
