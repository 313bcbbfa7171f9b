"""File names for drawings and predictions: short where possible, always different, always inside their folder."""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

LONGEST = 150  # file systems allow 255 bytes; a temporary name and an ending have to fit too


def safe_stem(name: str) -> str:
    """A file's name without folder and ending; ``name`` may hold anything.

    Control characters, separators and characters that shells or other systems treat specially become "_". A name that
    is empty or too long is replaced or ended by a hash of it.
    """
    stem = PurePosixPath(str(name).replace("\\", "/")).stem
    clean = re.sub(r'[\x00-\x1f\x7f<>:"|?*/\\\ud800-\udfff]', "_", stem).strip(". ")
    if clean and len(clean.encode()) <= LONGEST:
        return clean
    return f"{clean.encode()[:100].decode(errors='ignore')}{'-' if clean else ''}{_hash(name)}"


def output_names(file_names: Iterable[str], suffix: str = ".png", taken: Collection[str] = ()) -> dict[str, str]:
    """A name for what is written for each image: ``folder/a.jpg`` -> ``a.png``.

    Where two images would share a name (or one that is ``taken``), all get the folders below their common one; where
    that does not tell them apart, their ending and at last a hash. So names depend on the whole list, not on its order.
    They are relative paths with "/", without "..", different for each also where case does not count.
    """
    files = sorted(set(map(str, file_names)))
    folders = {file: [part for part in re.split(r"[/\\]+", file)[:-1] if part not in ("", ".", "..")] for file in files}
    depth = len(os.path.commonprefix(list(folders.values()))) if files else 0

    def below(file: str, ending: str = "") -> str:
        # What is added here is what safe_stem takes away.
        return "/".join([*(safe_stem(part + ".x") for part in folders[file][depth:]), safe_stem(file + ending)])

    ways: list[Callable[[str], str]] = [
        safe_stem,
        below,
        lambda file: below(file, ".x"),
        lambda file: f"{safe_stem(file)}-{_hash(file)}",
    ]
    for way in ways:
        names = {file: way(file) + suffix for file in files}
        if len({name.lower() for name in (*names.values(), *taken)}) == len(names) + len(taken):
            break
    return names


def _hash(name: str) -> str:
    return hashlib.sha256(str(name).encode(errors="surrogatepass")).hexdigest()[:16]
