"""``PathManager``: one way to open local paths, URLs and ``detectron2://`` names."""

import os

from iopath.common.file_io import HTTPURLHandler, OneDrivePathHandler, PathHandler
from iopath.common.file_io import PathManager as PathManagerBase

__all__ = ["PathManager", "PathHandler"]

PathManager = PathManagerBase()


class Detectron2Handler(PathHandler):
    """Resolves ``detectron2://NAME`` to Detectron2's public model storage, downloaded once into iopath's cache.

    The cache folder is ``$FVCORE_CACHE``, by default ``~/.torch/iopath_cache``. To work offline, put the file there.
    """

    PREFIX = "detectron2://"
    S3_DETECTRON2_PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, **kwargs) -> str:
        url = self.S3_DETECTRON2_PREFIX + path[len(self.PREFIX) :]
        try:
            return PathManager.get_local_path(url, **kwargs)
        except OSError as error:
            # iopath's cache mirrors the URL's path below its root.
            root = os.path.expanduser(os.getenv("FVCORE_CACHE", "~/.torch/iopath_cache"))
            cached = os.path.join(root, "detectron2", path[len(self.PREFIX) :])
            raise FileNotFoundError(
                f"{path} could not be downloaded from {url} ({error}). "
                f"Without a network, fetch that URL elsewhere and put the file at {cached}."
            ) from error

    def _open(self, path: str, mode: str = "r", **kwargs):
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(HTTPURLHandler())
PathManager.register_handler(OneDrivePathHandler())
PathManager.register_handler(Detectron2Handler())
