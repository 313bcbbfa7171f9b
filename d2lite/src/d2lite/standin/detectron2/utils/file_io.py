"""``PathManager`` opens files on this machine, on web servers, and of Detectron2's model zoo."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

from iopath.common import file_io as iopath

__all__ = ["PathHandler", "PathManager"]

PathHandler = iopath.PathHandler


class Detectron2Handler(iopath.HTTPURLHandler):
    """Files named ``detectron2://...``: they are downloaded once, to where iopath caches what it downloads.

    That is ``$FVCORE_CACHE``, or else ``~/.torch/iopath_cache``. A file that was put there is found without a network.
    """

    PREFIX = "detectron2://"
    S3_DETECTRON2_PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, cache_dir: str | None = None, **others) -> str:
        url = path.replace(self.PREFIX, self.S3_DETECTRON2_PREFIX, 1)
        try:
            return super()._get_local_path(url, force=force, cache_dir=cache_dir, **others)
        except OSError as error:
            place = Path(iopath.get_cache_dir(cache_dir), urlparse(url).path.lstrip("/"))
            raise FileNotFoundError(
                f"{path} cannot be downloaded: {error}. Fetch {url} elsewhere, and copy it to {place}."
            ) from error


PathManager = iopath.PathManager()
for _handler in (iopath.HTTPURLHandler, iopath.OneDrivePathHandler, Detectron2Handler):
    PathManager.register_handler(_handler())
