"""What the steps need to run from a bare checkout: packages from a folder of wheels, and the search path."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from PADing.errors import UserError
from PADing.files import PACKAGES

# Import name -> package, of all that the steps import.
NEEDED = {
    "torch": "torch", "numpy": "numpy", "scipy": "scipy", "PIL": "pillow", "cv2": "opencv-python-headless",
    "yaml": "PyYAML", "yacs": "yacs", "fvcore": "fvcore", "iopath": "iopath", "pycocotools": "pycocotools",
    "faster_coco_eval": "faster-coco-eval", "shapely": "shapely", "cloudpickle": "cloudpickle",
    "tabulate": "tabulate", "termcolor": "termcolor", "tensorboard": "tensorboard", "matplotlib": "matplotlib",
    "tqdm": "tqdm", "ninja": "ninja", "filelock": "filelock", "safetensors": "safetensors", "jinja2": "jinja2",
    "setuptools": "setuptools", "portalocker": "portalocker",
}  # fmt: skip
D2LITE = PACKAGES / "d2lite" / "src"


def environment(wheels: Path | None, folder: Path) -> dict[str, str]:
    """The environment of the steps, in which everything that they need is found; installs wheels into ``folder``.

    Raises:
        UserError: packages are missing; the message names them and where wheels come from.
    """
    path = [str(PACKAGES)]
    missing = _missing([])
    if wheels is not None and missing:
        if not wheels.is_dir():
            raise UserError(f"--wheels {wheels} is not a folder.")
        _install(wheels, missing, folder)
        path.append(str(folder))
        missing = _missing(path)
    if missing:
        names = " ".join(missing)
        raise UserError(
            f"Packages are missing: {names}. Install them (pip install -r requirements.txt), or give wheels: run "
            f"`pip download --no-deps -d wheels {names}` where pip reaches an index, and add --wheels wheels here."
        )
    if D2LITE.is_dir() and importlib.util.find_spec("d2lite") is None:
        path.append(str(D2LITE))
        if importlib.util.find_spec("detectron2") is None:
            path.append(str(D2LITE / "d2lite" / "standin"))
    known = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *known]), "PYTHONUNBUFFERED": "1"}


def _missing(path: list[str]) -> list[str]:
    """The needed packages that Python does not find, on its own search path or on ``path``."""
    sys.path[:0] = path
    importlib.invalidate_caches()
    try:
        return [package for name, package in NEEDED.items() if importlib.util.find_spec(name) is None]
    finally:
        del sys.path[: len(path)]


def _install(wheels: Path, missing: list[str], folder: Path) -> None:
    """Unpack the wheels of the missing packages; a wheel that is not there is reported by the caller."""
    normal = {package.lower().replace("-", "_") for package in missing}
    files = [str(file) for file in sorted(wheels.glob("*.whl")) if file.name.split("-")[0].lower() in normal]
    if not files:
        return
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--upgrade"]
    result = subprocess.run([*command, "--target", str(folder), *files], capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"The wheels of {wheels} could not be installed: {result.stderr.strip()[-500:]}")
