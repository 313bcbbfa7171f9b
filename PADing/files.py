"""Reads and writes files: a file appears only when it is complete, and each disk error becomes one message."""

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from PADing.errors import UserError
from PADing.leftovers import hold, release, remove_leftovers

# The folder of the packages. A checkout also has configs, split files, embeddings and scripts there.
PACKAGES = Path(__file__).resolve().parents[1]
_SHIPPED = PACKAGES / "PADing" / "shipped"  # where the wheel puts these files, see setup.py
REPOSITORY = _SHIPPED if _SHIPPED.is_dir() else PACKAGES
_BLOCK = 2**22  # characters of a JSON file to read at a time


def or_shipped(path: str | os.PathLike) -> str:
    """``path``; or, if nothing is there and it is relative, what this project ships under that path, if anything.

    So ``configs/mini/d2zero.yaml`` is found from any folder, and without a checkout.
    """
    path = os.fspath(path)
    shipped = os.path.join(REPOSITORY, path)
    return shipped if not os.path.exists(path) and os.path.exists(shipped) else path


@contextmanager
def replacing(path: str | os.PathLike, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; it is renamed to ``path`` if the block raises no error.

    The temporary name is unique and keeps the suffix, by which image writers choose their format. The folder of
    ``path`` is created.

    Args:
        path: the file to write.
        sync: wait until the content is on the disk (``fsync``), so that a crash of the machine leaves either the old
            file or the new one. Set False for one of thousands of files that can be made again.

    Raises:
        UserError: the folder cannot be created or written to, the disk is full, or ``path`` is a folder or device. An
            old file stays unchanged.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a device or pipe"
            raise UserError(f"{path} cannot be written: it is {kind}. Name a file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        mode = _new_file_mode(path)
        # The system counts bytes of a name, of which a letter may have four.
        stem = os.fsencode(path.stem)[:100].decode("utf-8", "ignore")
        handle, name = tempfile.mkstemp(prefix=f".{stem}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    except OSError as error:
        raise UserError(explain_os_error(path, error)) from error
    temporary, lock = Path(name), hold(name, handle)
    try:
        yield temporary
        temporary.chmod(mode)
        if sync:
            _sync(temporary)
        release(lock)  # before, because some file systems cannot rename an open file
        lock = None
        os.replace(temporary, path)
        if sync:
            _sync(path.parent)
    except OSError as error:
        if error.errno is None or isinstance(error, FileNotFoundError) and error.filename != os.fspath(temporary):
            raise  # not an error of writing this file, but of a decoder or of a file that the block reads
        release(lock)
        lock = None
        with suppress(OSError):
            temporary.unlink()  # before the message, which reports the free space
        raise UserError(explain_os_error(path, error)) from error
    finally:
        release(lock)
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it is renamed to ``path`` if the block raises no error.

    The folder above ``path`` is created. A folder that is at ``path`` is replaced as a whole, so the caller must know
    that it may be. It stays as it is if anything fails.

    Raises:
        UserError: the folder cannot be made or renamed.
    """
    path = Path(os.path.abspath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:50]}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise UserError(explain_os_error(path, error)) from error
    lock = hold(folder)
    try:
        yield folder
        release(lock)  # before, because some file systems cannot rename an open folder
        lock = None
        try:
            folder.chmod(0o777 & ~_umask())  # a temporary folder is private
            _put_in_place(folder, path)
        except OSError as error:
            raise UserError(explain_os_error(path, error)) from error
    finally:
        release(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, path: Path) -> None:
    if not path.exists():
        os.replace(folder, path)
        return
    old = folder.with_name(f"{folder.name}.old")
    os.replace(path, old)
    try:
        os.replace(folder, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def existing_folder(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(filter(Path.exists, (path, *path.parents)), path)


def is_disk_full(error: OSError) -> bool:
    """Whether the disk or the user's quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def explain_os_error(path: str | os.PathLike, error: OSError) -> str:
    """The message for a file that cannot be written: disk full, no permission, or a file in place of a folder."""
    if is_disk_full(error):
        free = shutil.disk_usage(existing_folder(Path(path).parent)).free / 2**20
        cure = "Make room and run the command again. Files that were complete before are intact."
        return f"Disk full: {path} cannot be written ({free:.0f} MiB are free there). {cure}"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{path} cannot be written: a folder of this path is a file. Choose another path."
    return f"{path} cannot be written: {error.strerror or error}."


def write_json(path: str | os.PathLike, content: Any, indent: int | None = None) -> None:
    """Write ``content`` as strict JSON (NaN and infinity as null); the file appears when it is complete."""
    with _json_file(path) as file:
        try:
            json.dump(content, file, indent=indent, ensure_ascii=False, allow_nan=False)
        except ValueError:
            file.seek(0)
            file.truncate()
            json.dump(_finite(content), file, indent=indent, ensure_ascii=False)


def json_text(item: Any) -> bytes:
    """``item`` as strict JSON on one line, as :func:`write_json` writes it."""
    try:
        text = _encode(item)
    except ValueError:
        text = _encode(_finite(item))
    return text.encode("utf-8", "backslashreplace")


def write_json_texts(
    path: str | os.PathLike,
    texts: Iterable[bytes],
    start: bytes = b"[\n",
    separator: bytes = b",\n",
    end: bytes = b"\n]\n",
) -> None:
    """Write a list of items that are JSON already, with only one of ``texts`` in memory at a time.

    Each text may hold several items with the separator between them. ``start``, ``end``: what stands around them; by
    default that of a list with one item a line. Without any item, a line break after ``start`` and before ``end`` is
    left out.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        between = start
        for text in texts:
            file.write(between)
            file.write(text)
            between = separator
        file.write(end if between == separator else start.rstrip() + end.lstrip())


@contextmanager
def _json_file(path: str | os.PathLike) -> Iterator[TextIO]:
    # A lone surrogate is not valid UTF-8, so it is written as a JSON escape.
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        yield file


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _finite(value: Any) -> Any:
    """``value`` with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike, what: str, kind: type = dict) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        what: the kind of file, with which messages begin.
        kind: type of the outermost value, ``dict`` or ``list``.

    Raises:
        UserError: no such file, not UTF-8, not JSON, nested too deep, or another type of value.
    """
    with _reading_json(path, what) as file:
        content = json.load(file)
    if not isinstance(content, kind):
        wanted = "an object {...}" if kind is dict else "a list [...]"
        raise UserError(f"{what}: {path} must hold {wanted}, not a {type(content).__name__}.")
    return content


def read_json_list(path: str | os.PathLike, what: str) -> Iterator[Any]:
    """Yield the items of a JSON list one by one; UserError as :func:`read_json`, when the damaged place is reached."""
    with _reading_json(path, what) as file:
        if re.match(r"\s*\[", file.read(1000)):
            file.seek(0)
            yield from _items(file)
            return
    yield from read_json(path, what, list)  # raises the message for another type


@contextmanager
def _reading_json(path: str | os.PathLike, what: str) -> Iterator[TextIO]:
    """An open JSON file; errors of reading and parsing inside the block become a UserError."""
    try:
        with open(path, encoding="utf-8") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{what}: {path} does not exist.") from error
    except OSError as error:
        raise UserError(f"{what}: {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what}: {path} is not valid JSON ({error}). Is the download complete?") from error


def _items(file: TextIO) -> Iterator[Any]:
    """The items of a JSON list; ValueError where it is damaged."""
    decoder, space = json.JSONDecoder(), re.compile(r"[ \t\r\n]*")
    text, place = file.read(_BLOCK), 0

    def more() -> bool:
        # Double the text, so that even a long item is parsed only a few times.
        nonlocal text, place
        added = file.read(max(_BLOCK, len(text) - place))
        if added:
            text, place = text[place:] + added, 0
        return bool(added)

    def next_mark() -> str:
        nonlocal place
        while True:
            skipped = space.match(text, place)
            place = skipped.end() if skipped else place
            if place < len(text) or not more():
                return text[place : place + 1]

    next_mark()
    place += 1  # the bracket
    mark = next_mark()
    if mark == "]":
        place += 1
    while mark != "]":
        next_mark()
        while True:
            try:
                item, end = decoder.raw_decode(text, place)
            except ValueError:
                if not more():
                    raise
                continue
            # A number at the end of the text may continue in the next block: "12" as "123", "1e" as "1e5".
            if end < len(text) and text[end] not in ".eE" or not more():
                break
        yield item
        place = end
        mark = next_mark()
        place += 1
        if mark not in ("]", ","):
            raise ValueError(f"',' or ']' is missing after an item, at {text[place - 1 : place + 20]!r}")
    if next_mark():
        raise ValueError("something follows the end of the list")


def _new_file_mode(path: Path) -> int:
    """The permissions that ``open(path, "w")`` would give: those of the old file, or the default by the umask."""
    with suppress(OSError):
        return path.stat().st_mode & 0o777
    return 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; ignores file systems that cannot sync a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
