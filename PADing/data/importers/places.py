"""Finds images and annotation files below one folder, and refuses every way out of it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from PADing.data.importers.report import Report
from PADing.data.loaders import IMAGE_EXTENSIONS

_ROLES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class NotFound(Exception):
    """Why there is no image for an annotation; the text is a reason for the report."""


class Place:
    """A folder. Symbolic links in it that lead out of it are not read unless ``follow_links``."""

    def __init__(self, root: Path, report: Report, follow_links: bool = False):
        self.root, self._report, self._follow = root, report, follow_links
        self._real = os.path.realpath(root)
        self._by_name: dict[str, list[Path]] | None = None

    def files(self, suffixes: tuple[str, ...], below: Path | None = None, report: bool = True) -> Iterator[Path]:
        """Files below the folder by the end of their name, sorted folder by folder; hidden ones are skipped.

        ``report``: count links that are not followed.
        """
        met = {self._real}
        for folder, folders, names in os.walk(below or self.root, followlinks=self._follow):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if self._follow:  # a link to a folder above would never end
                real = {name: os.path.realpath(Path(folder, name)) for name in folders}
                folders[:] = [name for name in folders if real[name] not in met]
                met.update(real.values())
            for name in folders:
                if report and not self._follow and os.path.islink(Path(folder, name)):
                    self._report.leave_out("symbolic link to a folder (see --follow-links)", Path(folder, name))
            for name in sorted(names):
                path = Path(folder, name)
                if name.startswith(".") or not name.lower().endswith(suffixes) or not path.is_file():
                    continue
                if self.allows(path):
                    yield path
                elif report:
                    self._report.leave_out("symbolic link that leads out of its folder (see --follow-links)", path)

    def allows(self, path: Path) -> bool:
        """Whether a path is inside the folder, links resolved."""
        return (
            self._follow
            and self._inside(os.path.abspath(path), os.path.abspath(self.root))
            or self._inside(os.path.realpath(path), self._real)
        )

    def relative(self, path: Path) -> str:
        """The path below the folder, with slashes."""
        return PurePosixPath(os.path.relpath(path, self.root)).as_posix()

    def image(self, name: str, near: Path, not_this: Path | None = None) -> Path:
        """The image that an annotation calls ``name``; ``NotFound`` with the reason.

        It is looked for beside the annotation, in the folder, and last by its name alone anywhere in the folder. A path
        that leads out of the folder is never opened.
        """
        name = name.replace("\\", "/")
        if not name.strip("./") or "\0" in name:
            raise NotFound("the annotation names no image")
        found = None
        if not name.startswith("/") and not re.match(r"[A-Za-z]:", name):
            found = self._first(name, near, not_this) or self._first(name, self.root, not_this)
        if found is None:
            alike = self._alike(name.rpartition("/")[2], not_this)
            if len(alike) > 1:
                raise NotFound("several images have the name in the annotation")
            if not alike:
                raise NotFound("there is no such image in the image folder")
            found = alike[0]
        if not self.allows(found):
            raise NotFound("symbolic link that leads out of its folder (see --follow-links)")
        try:
            str(found).encode("utf-8")
        except UnicodeEncodeError:
            raise NotFound("the name of the image is not UTF-8") from None
        return found

    def _first(self, name: str, folder: Path, not_this: Path | None) -> Path | None:
        path = Path(os.path.normpath(folder / name))
        if not self._inside(os.path.abspath(path), os.path.abspath(self.root)):
            return None
        endings = ("",) if path.suffix.lower() in IMAGE_EXTENSIONS else ("", *IMAGE_EXTENSIONS, *_UPPER)
        for ending in endings:
            candidate = Path(f"{path}{ending}")
            try:
                if candidate.suffix.lower() in IMAGE_EXTENSIONS and candidate != not_this and candidate.is_file():
                    return candidate
            except OSError:  # a name that is too long
                return None
        return None

    def _alike(self, name: str, not_this: Path | None) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            for path in self.files(IMAGE_EXTENSIONS, report=False):
                for key in {path.name, path.stem}:
                    self._by_name.setdefault(key, []).append(path)
        return [path for path in self._by_name.get(name, []) if path != not_this]

    @staticmethod
    def _inside(path: str, root: str) -> bool:
        return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


_UPPER = tuple(extension.upper() for extension in IMAGE_EXTENSIONS)


def role_of(path: str) -> str | None:
    """The role that a folder of a relative path names, such as ``valid/`` or ``train2017/``; None without one."""
    for part in reversed(PurePosixPath(path.replace("\\", "/")).parts[:-1]):
        role = _ROLES.get(re.sub(r"[\d_-]+$", "", part.lower()))
        if role:
            return role
    return None
