"""With any number of processes: the same images, random numbers and gradients.

``test_elastic_torchrun.py`` has the same with torchrun, killed processes and several machines.
"""

import json
import os
import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from PADing.engine.recipes import OneOptimizer, batch_problem, build_recipe
from PADing.engine.shares import Shares, share_number, takes_shares
from PADing.engine.stream import PositionSampler, dealt_anew
from PADing.engine.training_state import RankStates
from PADing.files import write_json
from PADing.generation.recipe import GeneratorClassifier
from tests.engine.phases import in_phases
from tests.engine.test_accumulation import batch as model_batch
from tests.engine.test_accumulation import config as model_config
from tests.engine.tiny import TinyTrainer, config

# ---- positions


@pytest.mark.parametrize("seed", range(20))
def test_every_position_is_used_once_whatever_the_numbers_of_processes(seed):
    """Otherwise a training that loses machines would see some images twice in an epoch, and others never."""
    rng, images = random.Random(seed), 12
    states, order = None, []
    for _ in range(8):
        number = rng.choice([1, 2, 3, 4, 6, 12])
        samplers = [PositionSampler(share, number) for share in range(number)]
        if states:
            for sampler, state in zip(samplers, dealt_anew(states, number), strict=True):
                sampler.load_state_dict(state)
        readers = [iter(sampler) for sampler in samplers]
        for _ in range(rng.randint(0, 4)):
            used = [[next(reader) for _ in range(images // number)] for reader in readers]
            for sampler, positions in zip(samplers, used, strict=True):
                sampler.used(positions)
            order.append(sorted(position for positions in used for position in positions))
        states = [sampler.state_dict() for sampler in samplers]
    # Each iteration has the same images as that of an undisturbed run.
    assert order == [list(range(images * i, images * (i + 1))) for i in range(len(order))]


@pytest.mark.parametrize("seed", range(20))
def test_images_that_wait_in_buckets_are_dealt_anew(seed):
    """Aspect-ratio grouping holds images back; with other processes they must still come, and come once."""
    rng, states, used = random.Random(100 + seed), None, []
    for _ in range(6):
        number = rng.choice([1, 2, 3, 5])
        samplers = [PositionSampler(share, number) for share in range(number)]
        if states:
            for sampler, state in zip(samplers, dealt_anew(states, number), strict=True):
                sampler.load_state_dict(state)
        for sampler in samplers:
            reader = iter(sampler)
            seen = [next(reader) for _ in range(rng.randint(0, 9))]
            taken = rng.sample(seen, rng.randint(0, len(seen)))
            sampler.used(taken)
            used += taken
        states = [sampler.state_dict() for sampler in samplers]
    (rest,) = dealt_anew(states, 1)
    assert len(used) == len(set(used))
    assert sorted(used + rest["pending"]) == list(range(rest["next"]))


# ---- shares


@pytest.mark.parametrize("number", range(1, 17))
def test_processes_compute_all_shares_and_none_much_more_than_the_others(number):
    for world in range(1, number + 1):
        parts = [Shares(number, rank, world) for rank in range(world)]
        assert [share for part in parts for share in part.own] == list(range(number))
        assert max(len(part.own) for part in parts) - min(len(part.own) for part in parts) <= 1
        assert all(part.one_each == (number == world) for part in parts)


def test_number_of_shares():
    """The smallest number that splits the batch and leaves no process without work."""
    assert [share_number(8, processes) for processes in range(1, 10)] == [1, 2, 4, 4, 8, 8, 8, 8, 0]
    assert share_number(8, 1, least=3) == 4
    assert [share_number(12, 3, parts=parts) for parts in (2, 4, 5)] == [3, 3, 0]


def test_recipe_with_a_step_of_its_own_takes_no_shares():
    """The step_shares that it inherits would train in another way than its step."""

    class OwnStep(OneOptimizer):
        def step(self, model, batch, data_time):
            """Anything."""

    class OwnBoth(OwnStep):
        def step_shares(self, model, batches, data_time):
            """The same in shares."""

    assert [takes_shares(kind) for kind in (OneOptimizer, GeneratorClassifier, OwnStep, OwnBoth)] == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("opts", "processes", "shares", "problem"),
    [
        ([], 3, True, ""),
        ([], 3, False, "Set a multiple of 3 (processes)"),
        (["SOLVER.REFERENCE_WORLD_SIZE", 3], 2, True, "Set a multiple of 3 (SOLVER.REFERENCE_WORLD_SIZE)"),
        (["SOLVER.REFERENCE_WORLD_SIZE", 4], 3, True, ""),
        ([], 9, True, "there are 9 processes"),
        (["SOLVER.SHARES", 3], 2, True, "multiple of SOLVER.SHARES, which is 3"),
        (["SOLVER.SHARES", 4], 3, True, ""),
        (["SOLVER.ACCUMULATE", 2], 3, True, ""),
        (["SOLVER.ACCUMULATE", 4], 3, True, "not a multiple of 12"),
    ],
)
def test_batch_that_processes_cannot_share_is_refused_before_the_start(tmp_path, opts, processes, shares, problem):
    found = batch_problem(config(tmp_path, "SOLVER.IMS_PER_BATCH", 8, *opts), processes, shares)
    assert problem in found and bool(problem) == bool(found)


# ---- the training with other numbers of processes

ARCHITECTURES = ("TinyOneOptimizer", "TinyTwoSteps")
# In each phase the number of processes, and the iteration before which it ends (None: the whole training).
UNDISTURBED, DISTURBED = [(3, None)], [(3, 2), (1, 4), (2, 7), (3, None)]


def train_phase(folder, phase):
    for architecture in ARCHITECTURES:
        for name, phases in (("undisturbed", UNDISTURBED), ("disturbed", DISTURBED)):
            if phase < len(phases) and phases[phase][0] == comm.get_world_size():
                _train(f"{folder}/{name}-{architecture}", architecture, phase, phases[phase][1])


def _train(folder, architecture, phase, stop):
    opts = ["SOLVER.IMS_PER_BATCH", 6, "TEST.EVAL_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 9]
    cfg = config(folder, *opts, architecture=architecture)
    os.makedirs(folder, exist_ok=True)
    seed_all_rng(cfg.SEED + comm.get_rank())
    trainer = TinyTrainer(cfg)
    trainer.stop_before = stop
    trainer.resume_or_load(resume=phase > 0)
    try:
        trainer.train()
    except KeyboardInterrupt:
        pass
    comm.synchronize()
    bare = getattr(trainer.model, "module", trainer.model)
    assert len(bare.seen[0]) == 2  # images at once in one process
    write_json(
        f"{folder}/seen-{phase}-{comm.get_rank()}.json", {"own": list(trainer.recipe.shares.own), "seen": bare.seen}
    )


def images_of(folder, phases):
    """The images of each share in each iteration."""
    found = []
    for phase, (world, _) in enumerate(phases):
        content = [json.loads(Path(folder, f"seen-{phase}-{rank}.json").read_text()) for rank in range(world)]
        shares = [c["seen"][i :: len(c["own"])] for c in content for i in range(len(c["own"]))]
        found += [list(images) for images in zip(*shares, strict=True)]
    return found


def test_training_is_the_same_with_other_numbers_of_processes(tmp_path):
    """Images, augmentation, dropout and gradients. Otherwise a lost machine would change the experiment."""
    in_phases(train_phase, tmp_path, [world for world, _ in DISTURBED])
    for architecture in ARCHITECTURES:
        folders = [tmp_path / f"{name}-{architecture}" for name in ("undisturbed", "disturbed")]
        assert images_of(folders[0], UNDISTURBED) == images_of(folders[1], DISTURBED)
        whole, other = (torch.load(folder / "model_final.pth", weights_only=True) for folder in folders)
        assert len(other["ranks"]["ranks"]) == 3
        for mine, theirs in zip(whole["ranks"]["ranks"], other["ranks"]["ranks"], strict=True):
            assert torch.equal(mine["rng"]["torch"], theirs["rng"]["torch"]) and mine["data"] == theirs["data"]
        for key, value in whole["model"].items():
            torch.testing.assert_close(other["model"][key], value, rtol=1e-5, atol=1e-6)


def test_one_process_repeats_a_job_of_two_bit_by_bit(tmp_path):
    """Halves of numbers and sums of two do not depend on the order, so nothing is rounded in another way."""
    in_phases(train_two_or_one, tmp_path, [2, 1])
    results = [torch.load(tmp_path / str(phase) / "model_final.pth", weights_only=True)["model"] for phase in (0, 1)]
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def train_two_or_one(folder, phase):
    cfg = config(f"{folder}/{phase}", "SOLVER.IMS_PER_BATCH", 4, "SOLVER.SHARES", 2, "TEST.EVAL_PERIOD", 0)
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    seed_all_rng(cfg.SEED + comm.get_rank())
    TinyTrainer(cfg).train()


def test_more_processes_than_shares_deal_out_the_images_anew(tmp_path):
    """A machine joins a training that was not planned for it: no process is idle, and no image comes twice."""
    in_phases(grow, tmp_path, [1, 2])
    seen = [
        json.loads((tmp_path / f"seen-{phase}-{rank}.json").read_text())["images"]
        for phase, rank in [(0, 0), (1, 0), (1, 1)]
    ]
    counts = Counter(i for images in seen for i in images)
    assert sorted(counts.values()) == [2, *[3] * 10]  # 8 batches of 4 are nearly three epochs of 11
    assert [len(images) for images in seen] == [5 * 4, 3 * 2, 3 * 2]


def grow(folder, phase):
    opts = ["DATALOADER.ASPECT_RATIO_GROUPING", False, "SOLVER.CHECKPOINT_PERIOD", 1]
    cfg = config(folder, "SOLVER.IMS_PER_BATCH", 4, "TEST.EVAL_PERIOD", 0, *opts)
    seed_all_rng(cfg.SEED + comm.get_rank())
    trainer = TinyTrainer(cfg)
    trainer.stop_before = None if phase else 5
    trainer.resume_or_load(resume=bool(phase))
    try:
        trainer.train()
    except KeyboardInterrupt:
        pass
    bare = getattr(trainer.model, "module", trainer.model)
    write_json(f"{folder}/seen-{phase}-{comm.get_rank()}.json", {"images": [i for images in bare.seen for i in images]})


# ---- the gradients of the models

# The numbers of micro-batches.
QUICK, ALL = {"MaskFormer": (2,), "PADing": (1,)}, {"MaskFormer": (1,), "D2Zero": (1, 2), "PADing": (2,)}
OBJECTS = [[1, 3], [10, 0], [2, 5]]  # of two images of each share; 10 are more than the queries


def update_models(models, folder, phase):
    """Two updates in three shares; by three processes, two, and one."""
    for case, numbers in models.items():
        for parts in numbers:
            own = Path(folder, f"{phase}-{comm.get_rank()}")
            own.mkdir(exist_ok=True)
            shares = Shares(3)
            cfg = model_config(case, own, "SOLVER.IMS_PER_BATCH", 6, "SOLVER.ACCUMULATE", parts)
            torch.save(_updated(cfg, case, shares), own / f"{case}-{parts}.pth")


def _updated(cfg, case, shares):
    from detectron2.utils.events import EventStorage

    from PADing.engine.rng import derived_rng_state, set_rng_state
    from PADing.engine.trainer import wrap_for_processes

    torch.manual_seed(1)
    model = build_model(cfg).train()
    recipe = build_recipe(cfg, model)
    recipe.shares = shares
    shares.generators = [derived_rng_state(5, share) for share in shares.own]
    with EventStorage(0) as storage:
        wrapped = wrap_for_processes(model, recipe.find_unused_parameters) if shares.one_each else model
        set_rng_state(shares.generators[0])
        for update in range(2):
            batches = [model_batch_of(case, share, update) for share in shares.own]
            if shares.one_each:
                recipe.step(wrapped, batches[0], 0.0)
            else:
                recipe.step_shares(model, batches, 0.0)
        logged = {name: value for name, (value, _) in storage.latest().items()}
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"parameters": {name: p.detach() for name, p in model.named_parameters()}, "grads": grads, "logged": logged}


def model_batch_of(case, share, update):
    state = torch.get_rng_state()
    found = model_batch(case, OBJECTS[share], seed=10 * share + update)
    torch.set_rng_state(state)
    return found


@pytest.mark.parametrize("models", [QUICK, pytest.param(ALL, marks=pytest.mark.slow)], ids=["quick", "all"])
def test_gradient_of_every_method_is_that_of_as_many_processes_as_shares(tmp_path, models):
    """Mask losses are divided by the mean number of masks; PADing compares sets of features, and has two updates."""
    in_phases(partial(update_models, models), tmp_path, [3, 2, 1])
    for case, numbers in models.items():
        for parts in numbers:
            whole = torch.load(tmp_path / "0-0" / f"{case}-{parts}.pth")
            for phase in (1, 2):
                other = torch.load(tmp_path / f"{phase}-0" / f"{case}-{parts}.pth")
                assert whole["logged"] == pytest.approx(other["logged"], rel=1e-5)
                for kind in ("parameters", "grads"):
                    common = whole[kind].keys() & other[kind].keys()
                    assert len(common) > 5
                    worst = max((float((whole[kind][k] - other[kind][k]).abs().max()), k) for k in common)
                    assert worst[0] < 1e-5, (case, parts, phase, kind, worst)


def test_statistics_of_batch_normalization_stay_those_of_the_first_share():
    """As in a job with a process for each share, where the first one writes the checkpoint."""
    models = [nn.BatchNorm1d(3) for _ in range(2)]
    batches = [torch.randn(4, 3) + 5 * i for i in range(2)]
    models[0](batches[0])
    shares = Shares(2, 0, 1)
    state = torch.get_rng_state()
    shares.generators = [RankStates(None)._own()[0]["rng"] for _ in range(2)]
    draws = []
    for _ in range(2):
        for batch in shares.each(models[1], batches):
            models[1](batch)
            draws.append(float(torch.rand(())))
        if len(draws) == 2:
            assert all(torch.equal(a, b) for a, b in zip(models[0].buffers(), models[1].buffers(), strict=True))
    assert draws[0] == draws[1] != draws[2] == draws[3]  # each share goes on with its own generators
    assert torch.equal(torch.get_rng_state(), state)
