"""Adds to the wheel what pyproject.toml cannot: d2lite, and the files beside the packages.

The wheel holds
- ``d2lite/`` with its stand-ins for Detectron2 and panopticapi, and ``d2lite.pth``, whose line puts their folder at the
  end of ``sys.path``, where a genuine package is found first;
- ``PADing/shipped/``: configs, split files, class embeddings, the trained mini model and scripts, in the folders of the
  repository.
"""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
D2LITE = ROOT / "d2lite" / "src"
STANDINS = Path("d2lite", "standin")
SHIPPED = Path("PADing", "shipped")
BESIDE = ("train_net.py", "train_net_pretrain.py", "configs", "datasets/splits", "datasets/*.py", "tools", "demo")
BESIDE += ("examples", "models")
# By name: the user's own embeddings in this folder are not shipped.
BESIDE += tuple(f"embeddings/coco/{name}" for name in ("NOTICE", "coco_stuff_171_*.npz", "word_w2v_withbg_*.txt"))
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")


class BuildWheel(build_py):
    """``build_py`` that also copies the files outside the packages; an editable install refers to them instead."""

    def run(self) -> None:
        """Build, then add the files."""
        super().run()
        if self.editable_mode:
            # The code stays where it is: the lines are absolute, and the file goes straight into the wheel's folder.
            self._write_pth(self.get_finalized_command("install").install_lib, D2LITE, D2LITE / STANDINS)
            return
        for source, target in self._additions():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        self._write_pth(self.build_lib, STANDINS)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files, with the added ones."""
        outputs = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return outputs
        return [*outputs, *(str(target) for _, target in self._additions()), str(Path(self.build_lib, "d2lite.pth"))]

    def _additions(self) -> list[tuple[Path, Path]]:
        built = Path(self.build_lib)
        found = [(file, built / file.relative_to(D2LITE)) for file in _files(D2LITE / "d2lite")]
        beside = [path for pattern in BESIDE for path in sorted(ROOT.glob(pattern))]
        return found + [(file, built / SHIPPED / file.relative_to(ROOT)) for path in beside for file in _files(path)]

    @staticmethod
    def _write_pth(folder: str, *lines: Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "d2lite.pth").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _files(path: Path) -> list[Path]:
    """``path`` itself or all files below it, without caches and without what the user has put there by hand."""
    if path.is_file():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        dropped = LEFT_OUT(folder, [*folders, *names])
        folders[:] = sorted(set(folders) - dropped)
        found += [Path(folder, name) for name in sorted(set(names) - dropped)]
    return found


setup(cmdclass={"build_py": BuildWheel})
