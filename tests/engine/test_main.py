"""The command line: usual mistakes end in one message and status 2, before anything slow happens."""

from argparse import Namespace

import pytest
import torch

from PADing.engine import main as main_module
from PADing.engine.main import main, run_command
from PADing.engine.start_check import BUILDING, checked_config
from PADing.errors import UserError
from tests.golden.util import REPOSITORY

MINI = ["--config-file", str(REPOSITORY / "configs" / "mini" / "panoptic-PADing.yaml")]


@pytest.fixture
def never_starts(monkeypatch):
    """Fail if the command gets as far as training."""
    monkeypatch.setattr(main_module, "train_or_evaluate", lambda args: pytest.fail("training began"))


def message_of(argv, capsys):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert err.count("error:") == 1
    return err


def test_mistyped_config_key(never_starts, capsys):
    assert "SOLVER.MAX_ITER" in message_of([*MINI, "--num-gpus", "0", "SOLVER.MAX_ITERS", "3"], capsys)


def test_missing_config_file(never_starts, capsys):
    assert "absent.yaml" in message_of(["--config-file", "absent.yaml"], capsys)


def test_unknown_data_set_names_near_matches(never_starts, capsys):
    argv = [*MINI, "--num-gpus", "0", "DATASETS.TEST", "('mini_val_panoptik',)"]
    assert "did you mean mini_val_panoptic" in message_of(argv, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, so there is no mistake to report")
def test_gpu_config_on_a_machine_without_gpu_names_the_flag(never_starts, capsys):
    assert "--num-gpus 0" in message_of([*MINI, "MODEL.DEVICE", "cuda"], capsys)


def test_missing_split_file(never_starts, capsys):
    argv = [*MINI, "--num-gpus", "0", "DATASETS.SPLIT_FILES", "('absent_split.yaml',)"]
    assert "absent_split.yaml" in message_of(argv, capsys)


def test_num_gpus_0_chooses_the_cpu_unless_a_device_is_named():
    for opts, device in (([], "cpu"), (["MODEL.DEVICE", "meta"], "meta")):
        args = Namespace(config_file=MINI[1], num_gpus=0, opts=opts)
        assert checked_config(args, needs=BUILDING).MODEL.DEVICE == device


def test_file_that_a_library_does_not_find_is_named(capsys):
    def reads():
        open("/no/such/annotations.json")

    assert run_command(reads) == 2
    assert "/no/such/annotations.json" in capsys.readouterr().err


def test_defects_keep_their_traceback():
    """A message without a traceback would hide where our own code went wrong."""

    def broken():
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        run_command(broken)


def test_mistake_found_by_a_data_loading_worker_is_one_message(capsys):
    """torch wraps what a worker raises in its own words and a traceback."""

    class Unreadable(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise UserError("image.jpg cannot be read.")

    assert run_command(lambda: list(torch.utils.data.DataLoader(Unreadable(), num_workers=1))) == 2
    assert capsys.readouterr().err.strip() == "error: image.jpg cannot be read."


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("PADING_TRACEBACK", "1")

    def mistaken():
        raise UserError("wrong path")

    with pytest.raises(UserError):
        run_command(mistaken)


def test_scripts_know_each_other():
    """train_net.py trains everything, train_net_pretrain.py stage 1 only."""
    pretrain = (REPOSITORY / "train_net_pretrain.py").read_text()
    assert 'main(recipes=["OneOptimizer"],' in pretrain
    assert "main(description" in (REPOSITORY / "train_net.py").read_text()
