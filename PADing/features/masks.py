"""Encodings of mask logits (Q, h, w): exact, half precision, or one bit for each cell."""

import zlib

import numpy as np

from PADing.errors import UserError

__all__ = ["decoded", "encoded"]

_MOST_CELLS = 2**31  # of the masks of an image
_FINITE = 6e4  # within float16; its sigmoid is 0 or 1
_LEVEL = 12.0  # of a query without cells on one side; its sigmoid is 1 but for 6e-6


def encoded(logits: np.ndarray, encoding: str) -> tuple[bytes, np.ndarray | None]:
    """Bytes of mask logits (Q, h, w) float32, and for "bits" the two levels (Q, 2) of each query, else None.

    "bits" keeps the sign of each logit. A level is the logit of the mean probability of the cells outside, and inside,
    of a mask, so that the soft masks have the right mean on either side. All encodings are compressed by zlib.

    Raises:
        UserError: NaN.
    """
    if np.isnan(logits).any():
        raise UserError("The segmenter's masks hold NaN. Its weights are unusable: train it again.")
    if encoding == "bits":
        inside = logits > 0
        return zlib.compress(np.packbits(inside).tobytes(), 6), _levels(logits, inside)
    return zlib.compress(logits.clip(-_FINITE, _FINITE).astype(encoding).tobytes(), 1), None


def _levels(logits: np.ndarray, inside: np.ndarray) -> np.ndarray:
    probability = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -50, 50)))
    levels = np.empty((len(logits), 2), dtype=np.float32)
    for side, cells in enumerate((~inside, inside)):
        number = cells.sum((1, 2))
        mean = (probability * cells).sum((1, 2)) / np.maximum(number, 1)
        level = np.log(np.maximum(mean, 1e-12)) - np.log1p(-np.minimum(mean, 1 - 1e-12))
        levels[:, side] = np.where(number > 0, np.clip(level, -_LEVEL, _LEVEL), (-_LEVEL, _LEVEL)[side])
    return levels


def decoded(
    data: bytes, encoding: str, shape: tuple[int, int, int], levels: np.ndarray | None, where: str
) -> np.ndarray:
    """The mask logits (Q, h, w) float32; ``where`` names the record in messages.

    Raises:
        UserError: the bytes are damaged, or not those of such masks. No more memory is used than the masks need.
    """
    cells = shape[0] * shape[1] * shape[2]
    if cells > _MOST_CELLS:
        raise UserError(f"{where}: masks of the size {shape} are too large. Copy or write the features again.")
    size = -(-cells // 8) if encoding == "bits" else cells * np.dtype(encoding).itemsize
    try:
        expander = zlib.decompressobj()
        raw = expander.decompress(data, size + 1)
    except zlib.error as error:
        raise UserError(f"{where}: the masks are damaged ({error}). Copy or write the features again.") from error
    if len(raw) != size or not expander.eof:
        raise UserError(f"{where}: the masks do not have the size {shape}. Copy or write the features again.")
    if encoding != "bits":
        return np.frombuffer(raw, dtype=encoding).reshape(shape).astype(np.float32)
    assert levels is not None
    inside = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=cells).reshape(shape[0], -1).astype(bool)
    low, high = levels[:, :1].astype(np.float32), levels[:, 1:].astype(np.float32)
    return np.where(inside, high, low).reshape(shape)
