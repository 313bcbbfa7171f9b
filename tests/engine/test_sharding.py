"""Processes that share an optimizer's state train as without it, and write and read the same checkpoints."""

import copy
import os
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from PADing.engine.merged_steps import AdamW
from PADing.engine.recipes import build_recipe
from PADing.engine.sharding import gather_states, parts_of, shard
from PADing.engine.trainer import wrap_for_processes
from tests.engine.test_accumulation import batch, config, trained
from tests.engine.test_distributed import WORLD, assert_equal_on_all_ranks, in_two_processes
from tests.engine.tiny import TinyTrainer
from tests.engine.tiny import config as tiny_config

ON = ["SOLVER.SHARDING", "optimizer"]
ADAMW = ["SOLVER.OPTIMIZER", "ADAMW", "SOLVER.BASE_LR", 1e-4]
CLIP = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01]
CLIP += ["SOLVER.CLIP_GRADIENTS.CLIP_TYPE"]


def in_both(check, folder):
    in_two_processes(check, folder)
    assert {path.name for path in Path(folder).glob("done*")} == {f"done{rank}" for rank in range(WORLD)}


def done(folder):
    Path(folder, f"done{comm.get_rank()}").touch()


# ---- the numbers


def check_numbers(folder):
    """Bit by bit as two processes that do not share; and as one process with all images."""
    rank = comm.get_rank()
    cases = [
        ("MaskFormer", [*ADAMW, *CLIP, "full_model"]),
        ("MaskFormer", [*CLIP, "value", "SOLVER.AMP.ENABLED", True, "SOLVER.ACCUMULATE", 2]),
        ("D2Zero", [*ADAMW, *CLIP, "norm"]),
        ("PADing", []),
    ]
    for case, opts in cases:
        batches = [batch(case, [1, 3], seed=10 * i + rank) for i in range(3)]
        alone = trained(config(case, folder, *opts), batches, wrap=True)
        shared = trained(config(case, folder, *opts, *ON), batches, wrap=True)
        wrong = [name for name in alone[0] if not torch.equal(shared[0][name], alone[0][name])]
        assert not wrong, (case, opts, wrong)
        assert shared[2].keys() == alone[2].keys()
        assert all(shared[2][name] == alone[2][name] for name in shared[2] if name != "data_time")
        assert_equal_on_all_ranks(shared[0].values())
    done(folder)


def test_numbers_are_those_of_processes_that_do_not_share(tmp_path):
    in_both(check_numbers, tmp_path)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 1))


def optimizer_of(model, kind=AdamW, **options):
    groups = [{"params": [p], "lr": 0.01 * (1 + i % 2), "weight_decay": 0.1} for i, p in enumerate(model.parameters())]
    return kind(groups, 0.01, **options)


def learn(model, optimizer, steps, first=0):
    """Some steps; every process has the mean gradient over all data, as after a backward pass of several processes."""
    for step in range(first, first + steps):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = model(x).square().mean() if step != 1 else model[1:](model[0](x).detach()).square().mean()
        loss.backward()
        optimizer.step()


KINDS = [
    (AdamW, {}),
    (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.SGD, {}),
    (torch.optim.Adafactor if hasattr(torch.optim, "Adafactor") else torch.optim.RMSprop, {}),
]


def check_states(folder):
    """Layout and values of the state are those of one process; states of either are loaded by the other."""
    rank = comm.get_rank()
    for kind, options in KINDS:
        plain, shared = network(), network()
        one, two = optimizer_of(plain, kind, **options), optimizer_of(shared, kind, **options)
        shard(two)
        for optimizer, model in ((one, plain), (two, shared)):
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
            learn(model, optimizer, 3)
            schedule.step()
        assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), shared.parameters(), strict=True))
        assert isinstance(two, kind) and type(two).__name__ == kind.__name__
        gather_states([two])
        whole, mine = copy.deepcopy(one.state_dict()), copy.deepcopy(two.state_dict())
        assert mine["param_groups"] == whole["param_groups"]
        assert rank or list(mine["state"]) == sorted(whole["state"])
        for index, state in mine["state"].items():
            assert state.keys() == whole["state"][index].keys()
            for name, value in state.items():
                expected = whole["state"][index][name]
                assert type(value) is type(expected)
                if isinstance(value, torch.Tensor):
                    assert torch.equal(value, expected) and value.dtype == expected.dtype
        if options or kind is AdamW:  # they have a state
            total = sum(value.nbytes for state in whole["state"].values() for value in state.values() if value.dim())
            own = sum(value.nbytes for state in two.state.values() for value in state.values() if value.dim())
            assert own < 0.6 * total
        learn(plain, one, 2, first=3)
        for loaded in (whole, comm.all_gather(mine)[0]):
            for share in (True, False):
                again = network(seed=1)
                again.load_state_dict(shared.state_dict())
                third = optimizer_of(again, kind, **options)
                if share:
                    shard(third)
                third.load_state_dict(copy.deepcopy(loaded))
                assert not share or rank or list(third.state_dict()["state"]) == sorted(whole["state"])
                learn(again, third, 2, first=3)
                assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), again.parameters(), strict=True))
        # Without this, a checkpoint would lack the state of the other process.
        learn(shared, two, 1)
        if rank == 0:
            with pytest.raises(RuntimeError, match="gather_states"):
                two.state_dict()
    done(folder)


def check_one_process(folder):
    """Each process sees a half of the images."""
    rank = comm.get_rank()
    plain, shared = network(), network()
    one, two = optimizer_of(plain), optimizer_of(shared)
    shard(two)
    wrapped = wrap_for_processes(shared)
    for step in range(6):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        for model, optimizer, images in ((plain, one, x), (wrapped, two, x[rank::WORLD])):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    worst = max((p - q).abs().max().item() for p, q in zip(plain.parameters(), shared.parameters(), strict=True))
    assert worst < 1e-6, worst
    done(folder)


def test_the_update_is_that_of_one_process_with_all_images(tmp_path):
    in_both(check_one_process, tmp_path)


def test_states_are_those_of_one_process(tmp_path):
    in_both(check_states, tmp_path)


def test_parts_are_about_equal():
    """By hand: 9 | 8 | 7, then 5 to the last (12), 4 to the second (12), 3 to the first (12), 1 to the first."""
    assert parts_of([1, 9, 3, 8, 4, 7, 5], 3) == [0, 0, 0, 1, 1, 2, 2]
    assert parts_of([5], 3) == [0] and parts_of([], 2) == []


def test_one_process_is_told_in_one_line(tmp_path, caplog):
    with caplog.at_level("INFO"):
        trainer = TinyTrainer(tiny_config(tmp_path, *ON))
    assert caplog.text.count("SOLVER.SHARDING has no effect: there is one process") == 1
    assert type(next(iter(trainer.recipe.optimizers.values()))) is AdamW


# ---- a training


def train(folder, *opts, resume=False, stop_before=None, architecture="TinyOneOptimizer"):
    cfg = tiny_config(folder, "TEST.EVAL_PERIOD", 0, "SOLVER.EMA.ENABLED", True, *opts, architecture=architecture)
    os.makedirs(folder, exist_ok=True)
    seed_all_rng(cfg.SEED + comm.get_rank())
    trainer = TinyTrainer(cfg)
    trainer.stop_before = stop_before
    trainer.resume_or_load(resume=resume)
    try:
        trainer.train()
    except KeyboardInterrupt:
        pass
    comm.synchronize()
    return trainer


def content(folder, name="model_final"):
    return torch.load(Path(folder, f"{name}.pth"), weights_only=True)


def assert_same_files(one, other):
    """Equal entries; the order of states in a file has no meaning."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_files(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same_files(a, b)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    else:
        assert one == other


def check_training(folder):
    for architecture in ("TinyOneOptimizer", "TinyTwoSteps"):
        kind = {"architecture": architecture}
        place = f"{folder}/{architecture}"
        train(f"{place}-alone", **kind)
        train(f"{place}-shared", *ON, **kind)
        assert_same_files(content(f"{place}-shared"), content(f"{place}-alone"))
        # Killed with, continued without, and the other way round.
        for name, first, then in (("a", ON, []), ("b", [], ON), ("c", ON, ON)):
            train(f"{place}-{name}", *first, stop_before=5, **kind)
            resumed = train(f"{place}-{name}", *then, resume=True, **kind)
            assert resumed.start_iter == 3
            assert_same_files(content(f"{place}-{name}"), content(f"{place}-alone"))
        # The last checkpoint is lost: the finished training writes it again.
        if comm.is_main_process():
            os.rename(f"{place}-c/model_final.pth", f"{place}-c/model_0000007.pth")
            Path(f"{place}-c/last_checkpoint").write_text("model_0000007.pth")
        comm.synchronize()
        train(f"{place}-c", *ON, resume=True, **kind)
        assert_same_files(content(f"{place}-c")["optimizer"], content(f"{place}-alone")["optimizer"])
    train(f"{folder}/half", *ON, stop_before=5)
    done(folder)


def test_trainings_with_and_without_sharing_write_and_continue_the_same_checkpoints(tmp_path):
    in_both(check_training, tmp_path)
    # One process continues the training of two.
    trainer = train(tmp_path / "half", *ON, resume=True)
    assert trainer.start_iter == 3
    found = content(tmp_path / "half")["optimizer"]
    assert found["state"].keys() == content(tmp_path / "TinyOneOptimizer-alone")["optimizer"]["state"].keys()
    assert all(state["step"] == 8 for state in found["state"].values())


def test_recipes_share_all_their_optimizers(tmp_path, monkeypatch):
    """PADing has two."""
    shared = []
    monkeypatch.setattr("PADing.engine.sharding.shard", shared.append)
    monkeypatch.setattr("PADing.engine.sharding.comm.get_world_size", lambda: 2)
    cfg = tiny_config(tmp_path, *ON, architecture="TinyTwoSteps")
    recipe = build_recipe(cfg, TinyTrainer.build_model(cfg))
    assert shared == list(recipe.optimizers.values()) and len(shared) == 2
