"""What kind of file a name leads to, by its first bytes: a web page, an image or a folder cannot be weights."""

import os
from pathlib import Path

__all__ = ["describe_wrong_file"]

# Enough for the tags that open a page and for the whole of a Git LFS pointer.
HEAD = 1024
# First bytes of whole files -> what the file is.
SIGNATURES = {
    b"\x89PNG\r\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF-": "a PDF document",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ\x00": "an xz archive; unpack it first",
    b"7z\xbc\xaf'\x1c": "a 7z archive; unpack it first",
    b"Rar!\x1a\x07": "a RAR archive; unpack it first",
    b"\x7fELF": "a program or library",
    b"\x89HDF\r\n": "an HDF5 file of another framework",
    b"\x93NUMPY": "a single NumPy array",
}
PAGE = "a web page, not the file that the page offers. Open the address in a browser and download the file itself"
LFS_POINTER = "a Git LFS pointer, which only names the file. Run `git lfs pull` in its repository"


def describe_wrong_file(path: str | os.PathLike) -> str:
    """Say what ``path`` is when its first bytes show that it cannot be weights.

    Args:
        path: a file or folder of this machine, as ``MODEL.WEIGHTS`` names it.

    Returns:
        the end of a sentence "<path> is ...", for example "an empty file" or "a PNG image"; "" when the file may hold
        weights, or when there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(file.name for pattern in ("*.pth", "*.pkl") for file in path.glob(pattern))
        return "a folder" + (f". Name a file in it: {', '.join(inside[:5])}" if inside else "")
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return ""
    if not head:
        return "an empty file. The download or the copy that made it has failed; get it again"
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            return kind
    return _kind_of_text(head)


def _kind_of_text(head: bytes) -> str:
    # Pickles of protocol 0 are text too, but hold no "<" or "{" at their beginning.
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return LFS_POINTER
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start and start.startswith(b"<"):
        return PAGE
    if start.startswith((b"<?xml", b"<!doctype", b"<error")):
        return "an XML document, perhaps the error message of a download server. Get the file again"
    if start.startswith((b"{", b"[")):
        return "a JSON or text file"
    if _is_text(head) and (b":" in head.split(b"\n", 1)[0] or head.startswith(b"#")):
        return "a text file"
    return ""


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)
