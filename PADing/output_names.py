"""File names for drawings and predictions: short if possible, always unique, always inside the output folder."""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

LONGEST = 150  # bytes; file systems allow 255, and a temporary prefix and a suffix must fit too


def safe_stem(name: str) -> str:
    """A file name without folder and extension, from any text.

    Control characters, separators and characters that are special in shells or on other systems become "_". An empty
    name is replaced by a hash; a long one is cut and ends in a hash.
    """
    stem = PurePosixPath(str(name).replace("\\", "/")).stem
    clean = re.sub(r'[\x00-\x1f\x7f<>:"|?*/\\\ud800-\udfff]', "_", stem).strip(". ")
    if clean and len(clean.encode()) <= LONGEST:
        return clean
    return f"{clean.encode()[:100].decode(errors='ignore')}{'-' if clean else ''}{_hash(name)}"


def output_names(file_names: Iterable[str], suffix: str = ".png", taken: Collection[str] = ()) -> dict[str, str]:
    """The output name of each image: ``folder/a.jpg`` -> ``a.png``.

    If two images would share a name, or a name is ``taken``, all names include the folders below the common one. If
    that is not enough, they also include the extension, or at last a hash. So names depend on the whole list, but not
    on its order. They are relative paths with "/" and without "..", unique on case-insensitive file systems, too.
    """
    files = sorted(set(map(str, file_names)))
    folders = {file: [part for part in re.split(r"[/\\]+", file)[:-1] if part not in ("", ".", "..")] for file in files}
    depth = len(os.path.commonprefix(list(folders.values()))) if files else 0

    def below(file: str, ending: str = "") -> str:
        # safe_stem removes an extension, so add one.
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
