"""``PathManager`` opens files on this machine, on web servers, and of Detectron2's model zoo."""

import os
from urllib.parse import urlparse

from iopath.common import file_io as iopath

PathHandler = iopath.PathHandler


class DownloadHandler(iopath.HTTPURLHandler):
    """Files on web servers: each is downloaded once, into ``$FVCORE_CACHE`` or else ``~/.torch/iopath_cache``.

    Unlike iopath's, it never uses a folder that all users share, because others could place files there.
    """

    def _get_local_path(self, path: str, force: bool = False, cache_dir: str | None = None, **others) -> str:
        folder = os.path.expanduser(cache_dir or os.environ.get("FVCORE_CACHE") or "~/.torch/iopath_cache")
        server_folder, name = os.path.dirname(urlparse(path).path).lstrip("/"), path.split("/")[-1]
        place = os.path.join(folder, server_folder, name)  # as iopath has it
        if os.path.isfile(place) and not force:
            return place
        try:
            if folder.startswith("~"):
                raise FileNotFoundError("it is not known where your home is")
            os.makedirs(folder, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError("you may not write there")
        except OSError as error:
            cure = "Set FVCORE_CACHE to your own folder."
            raise OSError(f"{path} cannot be kept in {folder}: {error}. {cure}") from error
        try:
            return super()._get_local_path(path, force=force, cache_dir=folder, **others)
        except OSError as error:
            raise FileNotFoundError(
                f"{path} cannot be downloaded: {error}. Fetch it elsewhere, and copy it to {place}."
            ) from error


class Detectron2Handler(DownloadHandler):
    """Files named ``detectron2://...``, of Detectron2's model zoo."""

    PREFIX = "detectron2://"
    S3_DETECTRON2_PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, cache_dir: str | None = None, **others) -> str:
        url = path.replace(self.PREFIX, self.S3_DETECTRON2_PREFIX, 1)
        try:
            return super()._get_local_path(url, force=force, cache_dir=cache_dir, **others)
        except OSError as error:
            raise FileNotFoundError(f"{path}: {error}") from error


PathManager = iopath.PathManager()
for _handler in (DownloadHandler, iopath.OneDrivePathHandler, Detectron2Handler):
    PathManager.register_handler(_handler())
