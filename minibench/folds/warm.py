"""The warm start: a checkpoint of the world `warm-start`, whose parts occur in no other world.

It has the role of ImageNet's weights: every segmenter starts from it. Its class head is left out, because its classes
mean nothing elsewhere.
"""

from pathlib import Path

from PADing.checkpoint_files import read_checkpoint, write_checkpoint
from PADing.errors import UserError

__all__ = ["CLASS_HEAD", "write_start"]

CLASS_HEAD = "sem_seg_head.predictor.class_embed."


def write_start(trained: Path, start: Path) -> None:
    """Write the weights of a trained segmenter without the class head; UserError if it is no segmenter."""
    model = read_checkpoint(trained, "Warm start").get("model")
    if not isinstance(model, dict) or not any(key.startswith("sem_seg_head.") for key in model):
        raise UserError(f"{trained} holds no segmenter, so it is no warm start. Name one of `minibench warm-start`.")
    for key in [key for key in model if key.startswith(CLASS_HEAD)]:
        del model[key]
    write_checkpoint(start, {"model": model})
