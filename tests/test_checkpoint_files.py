"""Checkpoints: damage is noticed, a full disk costs nothing that was there, and --resume finds what is good."""

import errno
import logging
import os
import pickle
import shutil
import subprocess
import tracemalloc

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from PADing.engine.checkpoint_file import newest_good, read_checkpoint, what_is_wrong, write_checkpoint
from PADing.engine.checkpointer import TAG, TrainingCheckpointer, read_weights
from PADing.errors import UserError
from tests.engine.tiny import TinyTrainer, config


def damage(path, block=4096):
    """Zero a block in the middle of the weights, as a bad sector does."""
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    assert any(content[start : start + block])
    content[start : start + block] = bytes(block)
    path.write_bytes(content)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model_0000004.pth"
    write_checkpoint(path, {"model": {"weight": torch.randn(300, 300)}, "trainer": {"iteration": 4}, "iteration": 4})
    return path


def test_damage_that_torch_does_not_notice_is_noticed(checkpoint):
    assert what_is_wrong(checkpoint) == ""
    damage(checkpoint)
    torch.load(checkpoint, weights_only=True)  # not a word
    assert what_is_wrong(checkpoint).startswith("damaged: its part archive/data/0")
    for read in (lambda: read_checkpoint(checkpoint, "File"), lambda: read_weights(str(checkpoint))):
        with pytest.raises(UserError, match=r"model_0000004.pth'? cannot be read: it is damaged"):
            read()


def test_every_cut_and_every_kind_of_damage_is_one_message(checkpoint):
    """Whatever a broken download leaves."""
    whole = checkpoint.read_bytes()
    places = (0, 3, 30, 100, len(whole) // 2, len(whole) - 500, len(whole) - 100, len(whole) - 22, len(whole) - 1)
    for place in places[1:]:
        checkpoint.write_bytes(whole[:place])
        with pytest.raises(UserError, match="model_0000004.pth"):
            read_checkpoint(checkpoint, "File")
    for place in places:
        content = bytearray(whole)
        content[place] ^= 0xFF
        checkpoint.write_bytes(content)
        try:
            same = read_checkpoint(checkpoint, "File")
        except UserError:
            continue
        # Some bytes mean nothing; then the content is as it was.
        expected = torch.load(_written(checkpoint, whole), weights_only=True)
        assert torch.equal(same["model"]["weight"], expected["model"]["weight"])


def _written(path, content):
    path.write_bytes(content)
    return path


def test_files_without_checksums_load_with_a_note(tmp_path, caplog):
    """PyTorch's old format has none, and they can be switched off; then nobody can tell whether the file is whole."""
    caplog.set_level(logging.INFO)
    content = {"model": {"weight": torch.ones(3)}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, tmp_path / "without.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    for name in ("old.pth", "without.pth"):
        for read in (lambda path: read_checkpoint(path, "File")["model"], lambda path: read_weights(str(path))):
            caplog.clear()
            assert torch.equal(read(tmp_path / name)["weight"], torch.ones(3))
            assert [line for line in caplog.messages if f"{name} has no checksums" in line]


@pytest.mark.parametrize("version, refused", [("2.4.1", True), ("2.5.1+cu121", True), ("2.6.0", False)])
def test_old_format_is_refused_where_torch_reads_it_unsafely(tmp_path, monkeypatch, version, refused):
    """Before 2.6, weights_only=True can be circumvented by files in the format from before PyTorch 1.6."""
    content = {"model": {"weight": torch.ones(3)}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(content, tmp_path / "new.pth")
    monkeypatch.setattr(torch, "__version__", version)
    read_weights(str(tmp_path / "new.pth"))
    for read in (lambda path: read_checkpoint(path, "File"), lambda path: read_weights(str(path))):
        if refused:
            with pytest.raises(UserError, match="old.pth.*Update PyTorch to 2.6"):
                read(tmp_path / "old.pth")
        else:
            read(tmp_path / "old.pth")


def test_wrong_files_are_called_what_they_are(tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>")
    (tmp_path / "empty.pth").touch()
    torch.save([1, 2], tmp_path / "list.pth")
    for name, expected in (("page.pth", "web page"), ("empty.pth", "an empty file"), ("list.pth", "holds a list")):
        with pytest.raises(UserError, match=expected):
            read_checkpoint(tmp_path / name, "File")
    with pytest.raises(UserError, match="page.pth' cannot be read: it is a web page"):
        read_weights(str(tmp_path / "page.pth"))
    with pytest.raises(UserError, match="cannot be read: it is a folder"):
        read_weights(str(tmp_path))


def test_check_needs_little_memory(tmp_path):
    write_checkpoint(tmp_path / "large.pth", {"model": {"weight": torch.zeros(10, 1024, 1024)}})
    tracemalloc.start()
    assert what_is_wrong(tmp_path / "large.pth") == ""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    """Also not where the installed Detectron2 and torch would allow it."""

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"model": {}, "x": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(UserError, match="harmful.pth' cannot be read"):
        read_weights(str(tmp_path / "harmful.pth"))
    assert not (tmp_path / "harm").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# ---- a full disk


def test_full_disk_is_called_so_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    checkpointer = TrainingCheckpointer(torch.nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    before = (tmp_path / "model_0000001.pth").read_bytes()

    def refuse(self, content):
        self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise self.error

    monkeypatch.setattr("PADing.engine.checkpoint_file._Sink.write", refuse)
    for name in ("model_0000002", "model_0000001"):
        with pytest.raises(UserError, match=rf"Disk full: .*{name}.pth .* model_0000001.pth, is intact: --resume"):
            checkpointer.save(name, iteration=2)
    assert (tmp_path / "model_0000001.pth").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"model_0000001.pth", TAG}


def test_disk_that_is_really_full(tmp_path):
    """What torch makes of it depends on its version, so a small file system is filled where that is allowed."""
    mount = shutil.which("mount")
    place = tmp_path / "small"
    place.mkdir()
    if os.name != "posix" or os.geteuid() or not mount:
        pytest.skip("mounting a file system needs root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        checkpointer = TrainingCheckpointer(torch.nn.Linear(100, 100), str(place))
        checkpointer.save("model_0000001", iteration=1)
        checkpointer.add_checkpointable("large", torch.nn.Linear(400, 400))
        with pytest.raises(UserError, match=r"Disk full: .*model_0000002.pth .*model_0000001.pth, is intact"):
            checkpointer.save("model_0000002", iteration=2)
        assert {path.name for path in place.iterdir()} == {"model_0000001.pth", TAG}
        assert what_is_wrong(place / "model_0000001.pth") == ""
    finally:
        subprocess.run(["umount", place], check=True)


# ---- which checkpoint --resume takes


@pytest.fixture
def run(tmp_path):
    """A folder with model_0000002, model_0000005 and model_final (iteration 7)."""
    cfg = config(tmp_path, "TEST.EVAL_PERIOD", 0)
    TinyTrainer(cfg).train()
    return cfg


def resume(cfg):
    trainer = TinyTrainer(cfg)
    trainer.resume_or_load(resume=True)
    return trainer.start_iter


def test_damaged_last_checkpoint_is_named_with_the_newest_good_one(run, tmp_path):
    damage(tmp_path / "model_final.pth", 1024)
    with pytest.raises(UserError, match=r"(?s)model_final.pth', which is damaged.*model_0000005.pth \(iteration 5\)"):
        resume(run)
    damage(tmp_path / "model_0000005.pth", 1024)
    with pytest.raises(UserError, match=r"model_0000002.pth \(iteration 2\).*move the damaged file away"):
        resume(run)
    (tmp_path / "model_final.pth").rename(tmp_path / "damaged")
    assert resume(run) == 3


@pytest.mark.parametrize("text", [None, "", "model_fin", "\x00\x00\x00"])
def test_torn_or_missing_tag_does_not_begin_at_zero(run, tmp_path, text, caplog, monkeypatch):
    """A new run would replace the checkpoints of the old one, one by one."""
    (tmp_path / TAG).unlink()
    if text is not None:
        (tmp_path / TAG).write_text(text)
    monkeypatch.setattr(logging.getLogger("fvcore.common.checkpoint"), "handlers", [caplog.handler])
    assert resume(run) == 8
    assert f"Resuming from the newest good checkpoint, {tmp_path / 'model_final.pth'} (iteration 7)" in caplog.text


def test_newest_is_by_iterations_not_by_name_or_time(run, tmp_path):
    """model_final of a training that was prolonged is older than the checkpoints behind it."""
    content = torch.load(tmp_path / "model_0000005.pth", weights_only=True)
    write_checkpoint(tmp_path / "model_0000010.pth", {**content, "iteration": 10})
    os.utime(tmp_path / "model_final.pth")
    assert newest_good(tmp_path.glob("*.pth")) == (tmp_path / "model_0000010.pth", 10)
    assert newest_good(tmp_path.glob("model_f*.pth")) == (tmp_path / "model_final.pth", 7)
    assert newest_good([tmp_path / "absent.pth", tmp_path / "metrics.json"]) is None


@pytest.mark.parametrize("name", ["../elsewhere.pth", "/etc/passwd", "deeper/model.pth"])
def test_tag_that_leads_out_of_the_folder_is_refused(run, tmp_path, name):
    (tmp_path / TAG).write_text(name)
    with pytest.raises(UserError, match="outside the folder"):
        resume(run)


def test_folder_with_nothing_to_resume_says_so(tmp_path):
    cfg = config(tmp_path, "TEST.EVAL_PERIOD", 0)
    assert resume(cfg) == 0  # empty: a new run
    (tmp_path / TAG).write_text("model_0000002.pth")
    with pytest.raises(UserError, match="names 'model_0000002.pth', which is not there"):
        resume(cfg)
    (tmp_path / TAG).unlink()
    torch.save({"model": TinyTrainer(cfg).model.state_dict()}, tmp_path / "model_final.pth")
    with pytest.raises(UserError, match=r"model_final.pth: damaged, or weights without a training's state"):
        resume(cfg)
    (tmp_path / TAG).write_text("model_final.pth")
    with pytest.raises(UserError, match="holds weights only"):
        resume(cfg)


def test_damaged_and_missing_weights_without_the_stand_ins_kindness(tmp_path, monkeypatch):
    """The genuine Detectron2 answers both with a bare AssertionError; it must not be asked."""
    monkeypatch.setattr("detectron2.checkpoint.DetectionCheckpointer.load", lambda *_, **__: pytest.fail("asked"))
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 not really")
    trainer = TinyTrainer(config(tmp_path))
    for name, message in (("absent.pth", "do not exist"), ("damaged.pth", "it is damaged")):
        with pytest.raises(UserError, match=f"{name}' {'cannot be read: ' if 'it' in message else ''}{message}"):
            trainer.checkpointer.resume_or_load(str(tmp_path / name), resume=False)


def test_no_code_of_a_pickle_is_run_whoever_provides_detectron2(tmp_path, monkeypatch):
    """Beside the genuine package too, which unpickles whatever the file says."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    def as_genuine(self, filename):
        with open(filename, "rb") as file:
            return pickle.load(file)

    monkeypatch.setattr(DetectionCheckpointer, "_load_file", as_genuine)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": {"weight": Hostile()}, "__author__": "x"}))
    with pytest.raises(UserError, match=r"R-50\.pkl.*mkdir"):
        TrainingCheckpointer(nn.Linear(1, 1)).load(str(path))
    assert not (tmp_path / "ran").exists()
