"""A frozen segmenter's outputs, kept on disk: many second stages on the same weights and images run it once."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from PADing.checkpoint_files import read_checkpoint, write_checkpoint
from PADing.errors import UserError

logger = logging.getLogger(__name__)
# What matching, the second stage and inference read of the segmenter's outputs.
KEPT = ("pred_logits", "pred_masks", "pred_embed")


class SegmenterCache:
    """Outputs by content: a file is named after the modules and their weights, the pixels of the batch, the precision.

    So other weights or pixels find nothing, and several processes may use one folder. The name does not cover the
    program: when the segmenter's code changes, delete the folder. With one number of threads, results are the same to
    the last bit. The folder grows with every new batch (0.09 MB for an image of 128 px with 20 queries).

    Args:
        folder: made when it is needed.
        modules: whose weights count, frozen.
    """

    def __init__(self, folder: str | Path, modules: Sequence[nn.Module]):
        self.folder, self.modules = Path(folder), tuple(modules)
        self._versions: tuple[int, ...] | None = None
        self._weights = b""

    def __call__(self, images: Tensor, segment: Callable[[], dict]) -> dict[str, Tensor]:
        """The outputs ``KEPT`` for ``images`` (B, 3, H, W): from the folder, or else those of ``segment``."""
        path = self.folder / f"{self._key(images)}.pt"
        if path.is_file():
            try:
                kept = read_checkpoint(path, "Segmenter's outputs")
                return {name: value.to(images.device) for name, value in kept.items()}
            except UserError as error:  # cut off when the power went
                logger.warning("%s It is written again.", error)
        outputs = segment()
        # Copies, because a view would be saved with all that it is a view of.
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
        """Of all weights; computed again when one of them was written to, as by loading a checkpoint."""
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
