"""Checkpoints of a training: a full disk costs nothing that was there, and --resume finds what is good."""

import errno
import logging
import os
import pickle
import shutil
import subprocess

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from PADing.checkpoint_files import file_problem, newest_good, write_checkpoint
from PADing.engine.checkpointer import TAG, TrainingCheckpointer
from PADing.errors import UserError
from tests.engine.tiny import TinyTrainer, config
from tests.test_checkpoint_files import damage

# ---- a full disk


def test_full_disk_is_called_so_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    checkpointer = TrainingCheckpointer(torch.nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    before = (tmp_path / "model_0000001.pth").read_bytes()

    def refuse(self, content):
        self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise self.error

    monkeypatch.setattr("PADing.checkpoint_files._Sink.write", refuse)
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
        assert file_problem(place / "model_0000001.pth") == ""
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
    """Beside the genuine package too, which unpickles any file."""

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


def test_file_of_which_nothing_fits_is_refused(tmp_path):
    """A model would be evaluated with random weights, beside a warning among hundreds of lines."""
    torch.save({"model": {"another.weight": torch.zeros(2, 3)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="'other.pth' have nothing for this model: the file has 1 weights, but none"):
        TrainingCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "other.pth"))


@pytest.mark.parametrize(("layers", "more"), [(3, 0), (4, 0), (5, 2), (9, 10)])
def test_of_many_weights_of_another_shape_eight_are_shown(tmp_path, layers, more):
    torch.save({"model": nn.ModuleList(nn.Linear(3, 2) for _ in range(layers)).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="0.weight: .2, 3. in the file, .4, 5. in the model") as raised:
        TrainingCheckpointer(nn.ModuleList(nn.Linear(5, 4) for _ in range(layers))).load(str(tmp_path / "other.pth"))
    assert str(raised.value).count("in the file") == min(8, 2 * layers)
    assert (f"\n  ... and {more} more\n" in str(raised.value)) == bool(more)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_kind_are_not_rounded(tmp_path, kind):
    torch.save({"model": {"weight": torch.zeros(2, 3, dtype=kind), "bias": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="weight has floating-point numbers in the model"):
        TrainingCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e300])
def test_numbers_that_no_network_can_compute_with_are_refused(tmp_path, value):
    """Such a model loads without an error, and predicts NaN."""
    weights = nn.Linear(2, 2).state_dict() | {"weight": torch.full((2, 2), value, dtype=torch.float64)}
    torch.save({"model": weights}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="its weight weight holds infinite numbers, or larger ones than torch.float32"):
        TrainingCheckpointer(nn.Linear(2, 2)).load(str(tmp_path / "model.pth"))
    mask = nn.Module()
    mask.register_buffer("mask", torch.zeros(2))
    torch.save({"model": {"mask": torch.zeros(2), "other": weights["weight"]}}, tmp_path / "model.pth")
    TrainingCheckpointer(mask).load(str(tmp_path / "model.pth"))  # what the model does not take does no harm


def test_an_expanded_weight_that_would_fill_the_memory_is_refused_by_its_shape(tmp_path):
    """One number, which the file shows as 10^12: four terabytes."""
    torch.save({"model": {"weight": torch.ones(1).expand(10**12)}}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="weight: .1000000000000,. in the file, .2, 2. in the model"):
        TrainingCheckpointer(nn.Linear(2, 2)).load(str(tmp_path / "model.pth"))


def test_damaged_final_weights_of_a_finished_training_are_written_again(run, tmp_path, caplog, monkeypatch):
    """Without ``last_checkpoint`` the numbered checkpoint is found, but the next user wants the final one."""
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    write_checkpoint(tmp_path / "model_0000007.pth", content)
    damage(tmp_path / "model_final.pth", 1024)
    (tmp_path / TAG).unlink()
    assert resume(run) == 8
    assert file_problem(tmp_path / "model_final.pth") == ""
    assert (tmp_path / TAG).read_text() == "model_final.pth"


@pytest.mark.parametrize("folder", ["what?", "what?matching_heuristics=True", "a#b", "line\nbreak", "tab\there", "ü ?"])
def test_folders_whose_names_look_like_addresses(tmp_path, folder):
    """Detectron2 cuts off what follows a question mark, and drops line breaks."""
    (tmp_path / folder).mkdir()
    weights = nn.Linear(2, 2).state_dict()
    for name, content in (("a.pth", {"model": weights}), ("b.pth", dict(weights))):
        torch.save(content, tmp_path / folder / name)
        model = nn.Linear(2, 2)
        TrainingCheckpointer(model).load(str(tmp_path / folder / name))
        assert torch.equal(model.weight, weights["weight"])


def test_missing_parts_are_named_by_their_module(tmp_path, caplog):
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ModuleDict({"c": nn.Linear(2, 2), "d": nn.Linear(2, 2)})})
    held = {key: value for key, value in model.state_dict().items() if key in ("a.weight", "b.c.weight", "b.c.bias")}
    torch.save({"model": {**held, "e.x": torch.zeros(1), "e.y": torch.zeros(1)}}, tmp_path / "part.pth")
    with caplog.at_level("WARNING"):
        TrainingCheckpointer(model).load(str(tmp_path / "part.pth"))
    assert "ignored in the file: e; not in the file, so started from scratch: a.bias, b.d." in caplog.text
