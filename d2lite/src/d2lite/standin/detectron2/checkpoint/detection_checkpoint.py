"""The checkpointer, for trainers and for loading weights."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch
from detectron2.utils.comm import is_main_process
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer

from d2lite.restricted_pickle import load_checkpoint

from .c2_model_loading import align_and_update_state_dicts

# Constants that a model may hold as buffers, and that its files need not have.
_CONSTANTS = ("pixel_mean", "pixel_std")


class DetectionCheckpointer(Checkpointer):
    """fvcore's checkpointer, also for ``.pkl`` files, with names matched by ends; saves in the main process."""

    def __init__(
        self, model: torch.nn.Module, save_dir: str = "", *, save_to_disk: bool | None = None, **checkpointables
    ):
        saves = is_main_process() if save_to_disk is None else save_to_disk
        super().__init__(model, save_dir, save_to_disk=saves, **checkpointables)
        self.path_manager = PathManager
        self._match_names = False

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        """As fvcore's; a path may end in ``?matching_heuristics=True``, for weights of another model.

        AssertionError if there is no such file; ValueError or UnpicklingError if it could run code.
        """
        parts = urlsplit(path)
        asked = parse_qs(parts.query)
        self._match_names = asked.pop("matching_heuristics", None) == ["True"]
        assert not asked, f"{path} asks for {', '.join(asked)}; only matching_heuristics=True is known"
        return super().load(parts._replace(query="").geturl(), *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            with self.path_manager.open(filename, "rb") as file:
                return load_checkpoint(file, filename)
        content = torch.load(filename, map_location="cpu", weights_only=True)
        content = content if "model" in content else {"model": content}
        return content | {"matching_heuristics": True} if self._match_names else content

    def _load_model(self, checkpoint: dict[str, Any]):
        if checkpoint.get("matching_heuristics"):
            self._convert_ndarray_to_tensor(checkpoint["model"])
            from_caffe2 = checkpoint.get("__author__") == "Caffe2"
            checkpoint["model"] = align_and_update_state_dicts(
                self.model.state_dict(), checkpoint["model"], c2_conversion=from_caffe2
            )
        result = super()._load_model(checkpoint)
        result.missing_keys[:] = [key for key in result.missing_keys if key not in _CONSTANTS]
        return result
