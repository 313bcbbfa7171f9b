"""Adds one file to what pyproject.toml describes: ``d2lite.pth``, next to the package in site-packages.

Its single line names the folder of the stand-ins. Python appends the folders in ``.pth`` files after
site-packages, so a genuine ``detectron2`` or ``panopticapi`` is found first and no file of it is ever overwritten.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PTH_FILE = "d2lite.pth"
STANDIN_FOLDER = "d2lite/standin"


class BuildWithPth(build_py):
    """``build_py`` that also writes ``d2lite.pth``, for wheels and for editable installs."""

    def run(self) -> None:
        """Build, then write the file."""
        super().run()
        if self.editable_mode:
            # The code stays where it is, so the line must be absolute; the file goes straight into the wheel's folder.
            wheel_folder = self.get_finalized_command("install").install_lib
            self._write(wheel_folder, Path(__file__).parent.resolve() / "src" / STANDIN_FOLDER)
        else:
            self._write(self.build_lib, STANDIN_FOLDER)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files, with this one."""
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(Path(self.build_lib, PTH_FILE))]

    @staticmethod
    def _write(folder: str, line: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, PTH_FILE).write_text(f"{line}\n", encoding="utf-8")


setup(cmdclass={"build_py": BuildWithPth})
