"""The checkpointer of trainers and of everything else that loads weights."""

import os
import pickle
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlparse

import detectron2.utils.comm as comm
import torch
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer

from d2lite.restricted_pickle import load_arrays

from .c2_model_loading import align_and_update_state_dicts

__all__ = ["DetectionCheckpointer"]


class DetectionCheckpointer(Checkpointer):
    """Saves ``.pth`` files; loads those and the ``.pkl`` files of Detectron2's and Caffe2's model collections.

    Args:
        model: a module; a wrapper for several processes is taken off.
        save_dir: folder of the checkpoints.
        save_to_disk: by default, only the main process saves.
        checkpointables: named objects with ``state_dict`` and ``load_state_dict``, saved and loaded with the model.
    """

    def __init__(
        self, model: torch.nn.Module, save_dir: str = "", *, save_to_disk: bool | None = None, **checkpointables
    ):
        super().__init__(
            model,
            save_dir,
            save_to_disk=comm.is_main_process() if save_to_disk is None else save_to_disk,
            **checkpointables,
        )
        self.path_manager = PathManager
        self._ask_matching = False

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        """Load a file; see fvcore's ``Checkpointer.load`` for the arguments and the result.

        ``path`` may end in ``?matching_heuristics=True``, which matches names as for files from other models.

        Raises:
            FileNotFoundError: a process cannot see the file.
            ValueError: the file contains objects that could run code.
        """
        if path:
            url = urlparse(path)
            query = parse_qs(url.query)
            self._ask_matching = query.pop("matching_heuristics", ["False"]) == ["True"]
            if query:
                raise ValueError(f"Unsupported query in checkpoint path {path}: {sorted(query)}")
            path = url._replace(query="").geturl()
            self._check_visible(path)
        return super().load(path, *args, **kwargs)

    def _check_visible(self, path: str) -> None:
        local = path if os.path.isfile(path) else self.path_manager.get_local_path(path)
        ranks = [rank for rank, found in enumerate(comm.all_gather(os.path.isfile(local))) if not found]
        if ranks:
            where = f" by the processes of rank {ranks}" if comm.get_world_size() > 1 else ""
            raise FileNotFoundError(f"Checkpoint {path} not found{where}! Check MODEL.WEIGHTS or OUTPUT_DIR.")

    def save(self, name: str, **kwargs) -> None:
        """Write ``save_dir/name.pth`` with the model, all checkpointables and ``kwargs``, and note it as the last one.

        A file appears under its name only when it is complete.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update((key, item.state_dict()) for key, item in self.checkpointables.items())
        data.update(kwargs)
        filename = f"{name}.pth"
        assert os.path.basename(filename) == filename, filename
        path = os.path.join(self.save_dir, filename)
        self.logger.info("Saving checkpoint to %s", path)
        with _replacing(path) as temporary, self.path_manager.open(temporary, "wb") as file:
            torch.save(data, file)
        self.tag_last_checkpoint(filename)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the file name of the last checkpoint into ``save_dir/last_checkpoint``."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        with _replacing(path) as temporary, self.path_manager.open(temporary, "w") as file:
            file.write(last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            with self.path_manager.open(filename, "rb") as file:
                data = load_arrays(file, filename)
            if not isinstance(data, dict) or not all(isinstance(key, str) for key in data.get("blobs", data)):
                raise ValueError(f"{filename} does not hold named weights.")
            if "model" in data and "__author__" in data:
                self.logger.info("Reading a file from '%s'", data["__author__"])
                return data
            blobs = data.get("blobs", data)
            model = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
            return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}

        try:
            loaded = torch.load(filename, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{filename} cannot be loaded with weights_only=True: only tensors, numbers, text and containers of "
                "them are admitted, because other pickled objects could run code. Save the file again with plain "
                f"values if you trust its source. ({str(error).splitlines()[0]})"
            ) from error
        if "model" not in loaded:
            loaded = {"model": loaded}
        if self._ask_matching:
            loaded["matching_heuristics"] = True
        return loaded

    def _load_model(self, checkpoint: dict[str, Any]):
        if checkpoint.get("matching_heuristics", False):
            self._convert_ndarray_to_tensor(checkpoint["model"])
            checkpoint["model"] = align_and_update_state_dicts(
                self.model.state_dict(), checkpoint["model"], c2_conversion=checkpoint.get("__author__") == "Caffe2"
            )
        incompatible = super()._load_model(checkpoint)
        # Constants of the model itself: files need not have them.
        own = dict(self.model.named_buffers(recurse=False))
        for name in ("pixel_mean", "pixel_std"):
            if name in own and name in incompatible.missing_keys:
                incompatible.missing_keys.remove(name)
        return incompatible


@contextmanager
def _replacing(path: str):
    """Yields a temporary name beside ``path``; renames it to ``path`` when the block ends well, else removes it."""
    if "://" in path:  # storage behind a protocol has no rename
        yield path
        return
    temporary = path + ".tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
