"""A disk cache of a frozen segmenter's outputs: several trainings on the same weights and images run it once."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from PADing.checkpoint_files import read_checkpoint, write_checkpoint
from PADing.errors import UserError

logger = logging.getLogger(__name__)
# The segmenter's outputs that matching, stage 2 and inference read.
KEPT = ("pred_logits", "pred_masks", "pred_embed")


class SegmenterCache:
    """A cache by content: the file name is a hash of the modules and their weights, the batch's pixels, the precision.

    So other weights or pixels never match, and several processes can share a folder. The hash does not cover the code:
    if the segmenter's code changes, delete the folder. With the same number of threads, results are identical to the
    last bit. The folder grows with every new batch (0.09 MB for an image of 128 px with 20 queries).

    Args:
        folder: created when it is needed.
        modules: the frozen modules.
    """

    def __init__(self, folder: str | Path, modules: Sequence[nn.Module]):
        self.folder, self.modules = Path(folder), tuple(modules)
        self._versions: tuple[int, ...] | None = None
        self._weights = b""

    def __call__(self, images: Tensor, segment: Callable[[], dict]) -> dict[str, Tensor]:
        """The outputs ``KEPT`` for ``images`` (B, 3, H, W): from the folder, or else from ``segment``."""
        path = self.folder / f"{self._key(images)}.pt"
        if path.is_file():
            try:
                kept = read_checkpoint(path, "Segmenter's outputs")
                return {name: value.to(images.device) for name, value in kept.items()}
            except UserError as error:  # damaged, for example by a power failure
                logger.warning("%s The file is written again.", error)
        outputs = segment()
        # Copies, because torch.save writes the whole tensor behind a view.
        kept = {name: outputs[name].detach().clone(memory_format=torch.contiguous_format) for name in KEPT}
        write_checkpoint(path, kept)
        return kept

    def _key(self, images: Tensor) -> str:
        digest = hashlib.blake2b(self._weights_digest(), digest_size=16)
        kind = images.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
        digest.update(f"{tuple(images.shape)} {images.dtype} {precision}".encode())
        digest.update(_bytes(images))
        return digest.hexdigest()

    def _weights_digest(self) -> bytes:
        """The hash of all weights; computed again when a weight has changed, as by loading a checkpoint."""
        state = [item for module in self.modules for item in module.state_dict().items()]
        versions = tuple(value._version for _, value in state)
        if versions != self._versions:
            digest = hashlib.blake2b("".join(map(repr, self.modules)).encode(), digest_size=16)
            for name, value in state:
                digest.update(name.encode() + _bytes(value))
            self._versions, self._weights = versions, digest.digest()
        return self._weights


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
