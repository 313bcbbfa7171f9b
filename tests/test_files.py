"""Files are complete or as they were when something stops the writer, and each failure is one message."""

import errno
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from PADing import files, leftovers
from PADing.errors import UserError
from PADing.files import read_json, replacing, replacing_folder, write_json


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "model.pth"
    with replacing(path) as first, replacing(path) as second:
        assert first != second and first.suffix == second.suffix == ".pth"
        first.write_bytes(b"a" * 10)
        second.write_bytes(b"b" * 10)
    assert path.read_bytes() == b"a" * 10  # the outer block ends last; nothing is mixed


def test_a_full_disk_is_called_so_and_the_old_file_stays(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(UserError, match=r"Disk full: .*results\.json"), replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_text() == "old"


def test_a_decoders_error_is_not_taken_for_one_of_writing(tmp_path):
    with pytest.raises(OSError, match="truncated image"), replacing(tmp_path / "label.png"):
        raise OSError("truncated image")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "label.png"):
        open(tmp_path / "input.png")


def test_folders_and_devices_are_not_replaced(tmp_path):
    """Root may rename a file over /dev/null, which ends that machine's day."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("folder", "a folder"), ("pipe", "a device or pipe")):
        with pytest.raises(UserError, match=f"{name} cannot be written: it is {kind}"), replacing(tmp_path / name):
            pytest.fail("writing began")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_file_in_place_of_the_folder_is_one_message(tmp_path):
    (tmp_path / "output").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "output" / "results.json", {})


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    (tmp_path / "b.json").write_text("{}")
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == stat.S_IMODE((tmp_path / "b.json").stat().st_mode)
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"[1, 2]", "must hold an object"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_no_json_object_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"Split: .*x\.json.*{message}"):
        read_json(tmp_path / "x.json", "Split")


ITEMS = [{"a": [1, 2.5, None, "x]},["]}, 12345, 'text \\ and " ä', [], {}, -0.5e3, True, [[["deep"]]], 7]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50, 2**22])
@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"separators": (",", ":")}])
def test_a_list_is_read_item_by_item(tmp_path, monkeypatch, block, layout):
    """Wherever the blocks of the file end: within a number, a string, an escape or the space between."""
    monkeypatch.setattr(files, "_BLOCK", block)
    for items in (ITEMS, [], [1], [12, 34]):
        (tmp_path / "x.json").write_text(" \n" + json.dumps(items, **layout) + "\n ")
        assert list(files.read_json_list(tmp_path / "x.json", "Results")) == items


@pytest.mark.parametrize(
    "text", ["", "[1", "[1,", "[1 2]", "[1]]", "[1] x", "[1,]", "{}", "null", "[tru", "[" * 9999, '["a', "[1}", "\x00"]
)
@pytest.mark.parametrize("block", [1, 2**22])
def test_a_damaged_list_is_one_message(tmp_path, monkeypatch, text, block):
    monkeypatch.setattr(files, "_BLOCK", block)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match="Results: .*x.json"):
        list(files.read_json_list(tmp_path / "x.json", "Results"))
    with pytest.raises(UserError, match="does not exist"):
        list(files.read_json_list(tmp_path / "gone.json", "Results"))


def test_what_is_written_item_by_item_is_a_list(tmp_path):
    """NaN becomes null, and what is no character is written as JSON's escape for it."""
    items = [{"a": float("nan"), "b": [float("inf"), 1]}, {"name": "\ud800 ä"}]
    files.write_json_texts(tmp_path / "x.json", map(files.json_text, items))
    want = [{"a": None, "b": [None, 1]}, {"name": "\ud800 ä"}]
    assert json.loads((tmp_path / "x.json").read_text()) == want
    assert list(files.read_json_list(tmp_path / "x.json", "Results")) == want
    files.write_json(tmp_path / "y.json", items, indent=2)
    assert json.loads((tmp_path / "y.json").read_text()) == want
    files.write_json_texts(tmp_path / "x.json", [])
    assert json.loads((tmp_path / "x.json").read_text()) == []


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "model"
    with replacing_folder(target) as folder:
        (folder / "one").touch()
        assert not target.exists() and folder.parent == target.parent
    assert [path.name for path in target.iterdir()] == ["one"] and target.stat().st_mode & 0o055
    with pytest.raises(ZeroDivisionError), replacing_folder(target) as folder:
        (folder / "two").touch()
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["one"]
    with replacing_folder(target) as folder:
        (folder / "three").touch()
    assert [path.name for path in target.iterdir()] == ["three"] and [*target.parent.iterdir()] == [target]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    rename = os.replace

    def full(source, place):
        if Path(place) == target and Path(source).suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device", str(place))
        rename(source, place)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="Disk full: .*model cannot be written"):
        patch.setattr(os, "replace", full)
        with replacing_folder(target):
            pass
    assert [path.name for path in target.iterdir()] == ["old"] and [*tmp_path.iterdir()] == [target]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a folder of this path is a file"), replacing_folder(tmp_path / "file" / "x"):
        pass


# ---- what killed processes leave


def leave(folder, kind, hours=2.0):
    """Start to write and be killed; what remains in the folder."""
    code = "import os, sys; from pathlib import Path; from PADing.files import replacing, replacing_folder\n"
    code += f"with {kind}(Path(sys.argv[1])) as temporary:\n"
    code += (
        "    (temporary / 'x' if temporary.is_dir() else temporary).write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, folder / "thing.json"], cwd=files.PACKAGES)
    assert run.returncode == -9
    (left,) = [path for path in folder.iterdir() if ".tmp" in path.name]
    os.utime(left, (time.time() - 3600 * hours,) * 2)
    return left


@pytest.mark.parametrize("kind", ["replacing", "replacing_folder"])
def test_what_a_killed_process_has_left_is_removed_once_it_is_old(tmp_path, kind, monkeypatch):
    """Else each end of a job would take disk space, for a data set as much as the data set's."""
    monkeypatch.setattr(leftovers, "_looked", set())
    left = leave(tmp_path, kind, hours=0.5)
    mine = tmp_path / ".thing.tmp.json"
    mine.write_text("a user's own file")
    os.utime(mine, (0, 0))
    write_json(tmp_path / "other.json", {})
    assert left.exists()  # perhaps in use on another machine
    os.utime(left, (time.time() - 7200,) * 2)
    leftovers._looked.clear()
    write_json(tmp_path / "other.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [mine.name, "other.json"]


def test_a_temporary_file_in_use_stays_however_old_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "_looked", set())
    with replacing(tmp_path / "a.json") as temporary, replacing_folder(tmp_path / "data") as folder:
        for path in (temporary, folder):
            path.chmod(0o700)
            os.utime(path, (0, 0))
        leftovers._looked.clear()
        write_json(tmp_path / "b.json", {})
        assert temporary.exists() and folder.exists()
        temporary.write_text("whole")
    assert (tmp_path / "a.json").read_text() == "whole" and (tmp_path / "data").is_dir()


def test_long_names_of_long_letters_can_be_written(tmp_path):
    """The system counts bytes: 80 of these letters are 240 of the 255 that it allows."""
    path = tmp_path / f"{'漢' * 80}.json"
    write_json(path, {})
    assert path.is_file()
