"""Weight files whose content is another than a training writes, with right checksums where the format has them."""

import collections
import copy
import io
import json
import pickle
import random
import struct

import numpy as np
import torch

VALUES = [
    *(None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), "", "text", b"bytes", [], {}, [1, 2], (1,), [[None]]),
    *({"a": 1}, torch.zeros(0), torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.bool)),
    *(torch.zeros(2, dtype=torch.complex64), torch.eye(6).to_sparse(), torch.full((8, 6), float("nan"))),
    *(torch.full((8, 6), float("inf")), torch.full((8, 6), 1e300, dtype=torch.float64), torch.zeros(8, 6).half()),
    *(torch.empty(8, 6, device="meta"), torch.zeros(1).expand(10**12), collections.OrderedDict()),
]  # fmt: skip
ARRAYS = [
    *(np.zeros(0), np.zeros(3), np.full((8, 6), np.nan), np.full((8, 6), np.inf), np.zeros((8, 6), dtype=np.int8)),
    *(np.zeros((2, 2), dtype=complex), np.array(["a"]), np.zeros((8, 6), dtype=">f4"), np.zeros((6, 8)).T),
    *(None, 1.5, "text", [], {}, [[1.0] * 6] * 8, np.array([{}], dtype=object), np.full((8, 6), 1e300)),
]
ENTRIES = [
    *(None, -1, 2**63, 1e300, "F64", "F7", "I64", [], [0], [6, 8], [48], [-6, -8], [0, 2**62], [8, 6, 1], {}, "x"),
]


def spoiled_weights(data: bytes, kind: str, rng: random.Random) -> bytes:
    """A file of ``kind`` (pth, pkl, safetensors) with one entry missing, renamed, or something else."""
    file = io.BytesIO()
    if kind == "pth":
        torch.save(spoiled(torch.load(io.BytesIO(data), weights_only=True), rng), file)
    elif kind == "pkl":
        pickle.dump(spoiled(pickle.loads(data), rng, ARRAYS), file, protocol=rng.choice((0, 2, 4)))
    else:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.dumps(spoiled(json.loads(data[8 : 8 + length]), rng, ENTRIES)).encode()
        file.write(struct.pack("<Q", len(header)) + header + data[8 + length :])
    return file.getvalue()


def spoiled(content, rng: random.Random, values: list = VALUES):
    """A copy in which one entry is missing, renamed or something else."""
    content = copy.deepcopy(content)
    everywhere = _paths(content)
    depth = rng.choice(sorted({len(path) for path in everywhere}))
    *way, key = rng.choice([path for path in everywhere if len(path) == depth])
    node = content
    for step in way:
        node = node[step]
    action = rng.randrange(4)
    if isinstance(node, dict) and action == 0:
        del node[key]
    elif isinstance(node, dict) and action == 1:
        node[rng.choice((1, None, "x"))] = node.pop(key)
    else:
        node[key] = rng.choice(values)
    return content


def _paths(node, path=()):
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [(*path, key) for key, _ in items] + [p for key, child in items for p in _paths(child, (*path, key))]
