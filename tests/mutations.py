"""Damaged and hostile files, made from good ones: the same for a seed, so that a failure can be repeated.

``mutants(data, kind, count)`` yields ``(number, bytes)``; ``mutant(data, kind, number)`` is one of them.
``survives(function)`` says how reading one may end: it succeeds, or a ``UserError`` says in one message what is wrong.
Any other exception is a defect, and so is a reader that takes long, because nobody knows whether it would end.
"""

import copy
import io
import json
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import yaml

from PADing.errors import UserError
from tests.mutated_weights import spoiled_weights

SECONDS = 30

# What stands in files that a program, a person or an attacker has spoiled.
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63, 10**40, 0.5, -0.0, 1e9, 1e300),
    *(float("nan"), float("inf"), -float("inf"), "", " ", "0", "-1", "\ud800", "text", "nan", "../../x", "/", "a\0b"),
    *([], {}, [[]], [None], [0], ["a"], {"id": 0}, [[1, 2, 3, 4, 5, 6]], [[0] * 7], [[1e12] * 6], [[2**31] * 8]),
    *({"size": [4, 4], "counts": [16]}, {"size": [40, 60], "counts": "0"}, {"size": [40, 60], "counts": [2400, 2400]}),
    *({"size": [2**20, 2**20], "counts": [2**40]}, {"size": [40, 60], "counts": "oooooooooooo"}, {"counts": ""}),
]  # fmt: skip


def mutants(data: bytes, kind: str, count: int, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """``count`` spoiled versions of a file.

    ``kind``: json, yaml, npz, png, table (numbers with commas), pth, pkl, safetensors, or bytes for any other.
    """
    for number in range(count):
        yield number, mutant(data, kind, number, seed)


def mutant(data: bytes, kind: str, number: int, seed: int = 0) -> bytes:
    """One spoiled version of a file."""
    return _mutant(data, kind, random.Random(f"{seed} {kind} {number}"))


def survives(function: Callable[[], object], what: str) -> bool:
    """Call ``function``: True when it succeeds, False when it refuses; everything else fails the test."""
    start = time.perf_counter()
    try:
        function()
        refused = False
    except UserError as error:
        refused = True
        assert len(str(error)) < 5000, f"{what}: the message is {len(str(error))} characters long"
    except Exception as error:
        raise AssertionError(f"{what} ends in {type(error).__name__}: {error}") from error
    seconds = time.perf_counter() - start
    assert seconds < SECONDS, f"{what} takes {seconds:.0f} s"
    return not refused


def _mutant(data: bytes, kind: str, rng: random.Random) -> bytes:
    if kind in ("json", "yaml") and rng.random() < 0.85:
        content = json.loads(data) if kind == "json" else yaml.safe_load(data)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            content = _spoil_tree(content, rng)
        if kind == "json":
            return json.dumps(content).encode("utf-8", "surrogatepass")
        return yaml.dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
    if kind == "yaml" and rng.random() < 0.5:
        lines = data.decode().splitlines()
        place = rng.randrange(len(lines))
        lines[place] = lines[place].partition(":")[0] + rng.choice(
            (": !!int x", ": *a", ": &a [*a]", ": !!python/name:os.system", ":\t{", ": |")
        )
        return "\n".join(lines).encode()
    if kind == "npz" and rng.random() < 0.7:
        return _spoil_arrays(data, rng)
    if kind == "png" and rng.random() < 0.6:
        return _spoil_png(data, rng)
    if kind == "table" and rng.random() < 0.6:
        return _spoil_table(data, rng)
    if kind in ("pth", "pkl", "safetensors") and rng.random() < 0.6:
        return spoiled_weights(data, kind, rng)
    return _spoil_bytes(data, rng)


def _spoil_table(data: bytes, rng: random.Random) -> bytes:
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = rng.randrange(len(rows))
    place = rng.randrange(len(rows[row]))
    action = rng.randrange(5)
    if action == 0:
        del rows[row]
    elif action == 1:
        del rows[row][place]
    elif action == 2:
        rows.insert(row, rows[row])
    else:
        rows[row][place] = rng.choice(("nan", "inf", "1e999", "", "x", "1e39", "0x10", "1_000", "--1", "1;2", "\u0661"))
    return "\n".join(map(",".join, rows)).encode()


def _spoil_tree(content, rng: random.Random):
    """Replace, remove, repeat, rename or wrap one node of nested lists and dicts."""
    paths: list[tuple] = []

    def collect(node, path):
        paths.append(path)
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            collect(child, (*path, key))

    content = copy.deepcopy(content)
    collect(content, ())
    # By depth first, so that the few nodes near the root are met as often as the many leaves.
    depth = rng.choice(sorted({len(path) for path in paths}))
    path = rng.choice([p for p in paths if len(p) == depth])
    if not path:
        return rng.choice((*VALUES, [content], {"x": content}))
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    key, value = path[-1], parent[path[-1]]
    action = rng.randrange(11)
    if action >= 8:
        # Near misses get further than nonsense.
        if isinstance(value, (int, float)):
            parent[key] = value + rng.choice((1, -1, 0.5, 40, -300, 70_000))
        elif isinstance(value, list) and value:
            parent[key] = rng.choice((value[:-1], value[1:], value[::-1], value[:1]))
        elif isinstance(value, dict):
            parent[key] = dict(rng.sample(sorted(value.items(), key=str), len(value) // 2))
        else:
            parent[key] = None
    elif action < 4:
        parent[key] = copy.deepcopy(rng.choice(VALUES))
    elif action == 4:
        del parent[key]
    elif action == 5 and isinstance(parent, list):
        parent.append(copy.deepcopy(value))
    elif action == 5:
        parent[rng.choice(("id", "x", "", key.upper() if isinstance(key, str) else "k"))] = parent.pop(key)
    elif action == 6:
        parent[key] = rng.choice(([value], {"x": value}, str(value), [value, value]))
    else:
        other = content
        for step in rng.choice(paths):
            other = other[step]
        parent[key] = copy.deepcopy(other)
    return content


def _spoil_bytes(data: bytes, rng: random.Random) -> bytes:
    spoiled = bytearray(data)
    action = rng.randrange(7)
    if not spoiled or action == 0:
        return rng.choice((b"", b"\0" * 100, b"<html></html>", b"[" * 100_000, rng.randbytes(200)))
    place = rng.randrange(len(spoiled))
    if action == 1:
        return bytes(spoiled[:place])
    if action == 2:
        spoiled[place : place + 64] = b"\0" * len(spoiled[place : place + 64])
    elif action == 3:
        spoiled[place:place] = rng.randbytes(rng.choice((1, 8, 300)))
    elif action == 4:
        spoiled[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\x01\0\0"))
    else:
        # Headers are short and decide most, so they are hit as often as all the rest.
        for _ in range(rng.choice((1, 1, 3, 30))):
            spoiled[rng.randrange(min(len(spoiled), 200) if action == 5 else len(spoiled))] = rng.randrange(256)
    return bytes(spoiled)


def _spoil_png(data: bytes, rng: random.Random) -> bytes:
    """Another size, depth, kind or content, with right checksums, so that a reader believes it."""
    chunks, position = [], 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        chunks.append([data[position + 4 : position + 8], data[position + 8 : position + 8 + length]])
        position += 12 + length
    header = bytearray(chunks[0][1])
    action = rng.randrange(4)
    if action == 0:
        sizes = (0, 1, 39, 41, 5000, 65535, 2**31 - 1)
        struct.pack_into(">I", header, rng.choice((0, 4)), rng.choice(sizes))
    elif action == 1:
        header[8] = rng.choice((1, 2, 4, 8, 16, 0, 3, 255))
        header[9] = rng.choice((0, 2, 3, 4, 6, 5, 255))
    elif action == 2:
        index = rng.randrange(1, len(chunks))
        chunks[index][1] = _spoil_bytes(chunks[index][1] or b"\0", rng)
    else:
        index = rng.randrange(1, len(chunks))
        rng.choice(
            (lambda: chunks.pop(index), lambda: chunks.insert(index, list(chunks[index])), lambda: chunks.reverse())
        )()
    if chunks and chunks[0][0] == b"IHDR":
        chunks[0][1] = bytes(header)
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return data[:8] + b"".join(parts)


def _spoil_arrays(data: bytes, rng: random.Random) -> bytes:
    with np.load(io.BytesIO(data)) as content:
        arrays = {key: content[key] for key in content.files}
    key = rng.choice(sorted(arrays))
    array = arrays.pop(key)
    others = [
        lambda: None,
        lambda: array[:-1] if array.ndim else array,
        lambda: array[None],
        lambda: array.reshape(-1)[:0],
        lambda: array.astype(object),
        lambda: np.zeros(array.shape, dtype=rng.choice(("c16", "S3", "M8[s]", "?", "i8", "f2", "f8", "V4"))),
        lambda: np.full(array.shape, rng.choice((np.nan, np.inf, 1e300, -1e39))),
        lambda: np.concatenate([array, array]) if array.ndim else array,
    ]
    changed = rng.choice(others)()
    if changed is not None:
        arrays[key] = changed
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
