"""Two processes on the CPU end with the same weights, and their gradients are those of one process with all data."""

import gc
import inspect
import os
import socket
import time
import weakref
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

import PADing.meta_arch  # noqa: F401  registers the architecture
from PADing.data.embeddings import save_class_embeddings
from PADing.engine import main as main_module
from PADing.engine.distributed import launch_on_cpus, launched_by_torchrun, torchrun_process_group
from PADing.engine.recipes import build_recipe, log_losses
from PADing.engine.trainer import wrap_for_processes
from tests.engine.tiny import TinyTrainer, config

WORLD = 2


def in_two_processes(check, folder):
    """Run ``check(folder)`` in two processes that find each other as under torchrun."""
    torch.multiprocessing.spawn(_process, args=(check, str(folder), free_port()), nprocs=WORLD)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _process(rank, check, folder, port):
    torch.set_num_threads(1)
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    os.environ.update({key: str(value) for key, value in environment.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    assert launched_by_torchrun()
    with torchrun_process_group(cpu=True):
        assert (comm.get_rank(), comm.get_local_rank(), comm.get_world_size()) == (rank, rank, WORLD)
        check(folder)


# ---- the end of a job


def check_that_the_first_is_slow(folder):
    if comm.get_rank() == 0:
        time.sleep(1.0)
        Path(folder, "done").touch()


def leave(rank, check, folder, port):
    _process(rank, check, folder, port)
    Path(folder, f"process {rank} left {'after' if Path(folder, 'done').exists() else 'before'}").touch()


def test_processes_leave_together(tmp_path):
    """One that ends while another still talks to it may be aborted after all its work is done."""
    torch.multiprocessing.spawn(leave, args=(check_that_the_first_is_slow, str(tmp_path), free_port()), nprocs=WORLD)
    assert {path.name for path in tmp_path.iterdir()} == {"done", "process 0 left after", "process 1 left after"}


def write_whether_the_group_is_there(folder, rank):
    Path(folder, f"{rank} {'within' if torch.distributed.is_initialized() else 'beyond'}").touch()


def check_a_cycle(folder):
    gc.disable()  # only the end of the job may collect it
    cycle = torch.nn.Module()
    cycle.__dict__["itself"] = cycle
    weakref.finalize(cycle, write_whether_the_group_is_there, folder, comm.get_rank())


def test_what_a_job_leaves_in_cycles_is_freed_before_its_group(tmp_path):
    """A trainer is such a cycle. A group of gloo that it kept to the end of Python now and then aborted a process."""
    launch_on_cpus(check_a_cycle, WORLD, args=(str(tmp_path),))
    assert {path.name for path in tmp_path.iterdir()} == {"0 within", "1 within"}


def check_the_timeout(folder):
    """The first process computes for longer than PyTorch's own limit would be; here both are small."""
    if comm.get_rank() == 0:
        time.sleep(3.0)
    comm.synchronize()
    Path(folder, f"process {comm.get_rank()} was patient").touch()


@pytest.mark.parametrize("seconds", [1, 60])
def test_processes_wait_for_one_that_computes_as_long_as_they_are_told(tmp_path, seconds):
    """On COCO the first process scores an evaluation for longer than PyTorch waits by itself."""
    start = partial(launch_on_cpus, check_the_timeout, WORLD, args=(str(tmp_path),), timeout=timedelta(seconds=seconds))
    if seconds > 3:
        start()
        assert len(list(tmp_path.iterdir())) == WORLD
        return
    with pytest.raises(torch.multiprocessing.ProcessRaisedException):
        start()


def test_processes_wait_for_hours():
    """NCCL's limit is 10 minutes, gloo's 30; scoring COCO's val2014 takes longer on a slow machine."""
    for start in (launch_on_cpus, torchrun_process_group):
        assert inspect.signature(start).parameters["timeout"].default >= timedelta(hours=2)
    seen = {}
    flags = {"fast_dev_run": False, "find_batch_size": False, "memory_limit": None, "deterministic": False}
    args = SimpleNamespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto", **flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main_module, "checked_config", lambda *_: SimpleNamespace(MODEL=SimpleNamespace(DEVICE="cuda")))
        patch.setattr(main_module, "launch", lambda *_, **options: seen.update(options))
        main_module.start(args)
    assert seen["timeout"] >= timedelta(hours=2)


def flat(parameters):
    return torch.cat([p.detach().flatten() for p in parameters])


def assert_equal_on_all_ranks(parameters):
    everywhere = comm.all_gather(flat(parameters))
    assert torch.equal(everywhere[0], everywhere[1])


# ---- PADing's two steps


def small_pading(folder):
    """PADing on the mini data set's classes, a fraction of its size, without any image."""
    opts = ["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1, "MODEL.MASK_FORMER.DEC_LAYERS", 2]
    opts += ["MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 32, "MODEL.MASK_FORMER.TRANS_DROP_RATE", 0.0]
    opts += ["MODEL.CLASS_EMBEDDINGS", f"{folder}/vectors.npz", "OUTPUT_DIR", folder]
    from PADing.config import load_config
    from tests.golden.util import REPOSITORY

    return load_config(REPOSITORY / "configs" / "mini" / "panoptic-PADing.yaml", opts)


def images(cfg, rank, objects):
    """Two images of noise with ``objects`` rectangles each, different on each rank."""
    random = torch.Generator().manual_seed(100 + rank)
    batch = []
    for _ in range(2):
        instances = Instances((64, 64))
        instances.gt_classes = torch.randint(0, 1, (objects,), generator=random)
        instances.gt_masks = torch.zeros(objects, 64, 64, dtype=torch.bool)
        instances.gt_masks[:, 8:40, 16:50] = True
        image = torch.randint(0, 256, (3, 64, 64), generator=random, dtype=torch.uint8)
        batch.append({"image": image, "height": 64, "width": 64, "instances": instances})
    return batch


def check_pading(folder):
    cfg = small_pading(folder)
    seed_all_rng(7)
    bare = build_model(cfg)
    recipe = build_recipe(cfg, bare)
    bare.train()
    before = {name: p.detach().clone() for name, p in bare.named_parameters()}
    model = wrap_for_processes(bare, recipe.find_unused_parameters)
    seed_all_rng(7 + comm.get_rank())
    with EventStorage(0):
        # The second time one of the two processes has nothing annotated.
        for objects in (2, 2 * comm.get_rank(), 0):
            recipe.step(model, images(cfg, comm.get_rank(), objects), 0.0)
    assert_equal_on_all_ranks(bare.parameters())
    changed = {name for name, p in bare.named_parameters() if not torch.equal(p, before[name])}
    frozen = {name for name in before if name.startswith(("backbone.", "sem_seg_head."))}
    assert not changed & frozen
    assert {"new_fc.weight", "dict_feature.weight", "generator.layers.0.linear1.weight"} <= changed

    # Classifier gradient: the mean of what each process alone would get. The generator draws the same everywhere.
    width, queries = bare.new_fc.in_features, 5
    halves = torch.Generator().manual_seed(1)
    embeddings = [torch.randn(1, queries, width, generator=halves) for _ in range(WORLD)]
    classes = [torch.full((1, queries), bare.sem_seg_head.num_classes), torch.zeros(1, queries, dtype=torch.int64)]
    expected = torch.zeros_like(bare.new_fc.weight)
    for e, c in zip(embeddings, classes, strict=True):
        bare.zero_grad()
        torch.manual_seed(3)
        bare(None, real_embeddings=e, target_classes=c)["dis_loss"].backward()
        expected += bare.new_fc.weight.grad / WORLD
    bare.zero_grad()
    torch.manual_seed(3)
    rank = comm.get_rank()
    model(None, real_embeddings=embeddings[rank], target_classes=classes[rank])["dis_loss"].backward()
    torch.testing.assert_close(bare.new_fc.weight.grad, expected, rtol=1e-5, atol=1e-7)


def test_both_steps_of_pading_run_in_several_processes(tmp_path):
    """The published second stage works on one GPU only, because its steps bypass DistributedDataParallel."""
    from detectron2.data import MetadataCatalog

    metadata = MetadataCatalog.get("mini_train_panoptic")
    names = metadata.stuff_classes
    vectors = np.random.RandomState(0).randn(len(names), 16)
    save_class_embeddings(tmp_path / "vectors.npz", names, vectors, "random")
    in_two_processes(check_pading, tmp_path)


# ---- the trainer


def train(folder, architecture, resume=False, stop_before=None):
    cfg = config(folder, "TEST.EVAL_PERIOD", 0, architecture=architecture)
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


def check_trainer(folder):
    for architecture in ("TinyOneOptimizer", "TinyTwoSteps"):
        whole = train(f"{folder}/whole-{architecture}", architecture)
        assert_equal_on_all_ranks(whole.model.parameters())
        seen = comm.all_gather(whole.model.module.seen)
        assert not {i for batch in seen[0][:5] for i in batch} & {i for batch in seen[1][:5] for i in batch}
        train(f"{folder}/killed-{architecture}", architecture, stop_before=5)
        resumed = train(f"{folder}/killed-{architecture}", architecture, resume=True)
        assert resumed.start_iter == 3
        assert resumed.model.module.seen == whole.model.module.seen[3:]
        assert torch.equal(flat(resumed.model.parameters()), flat(whole.model.parameters()))
    _check_metrics()


def _check_metrics():
    """Means over processes; a NaN anywhere stops all of them, or the others would wait forever."""
    rank = comm.get_rank()
    with EventStorage(0) as storage:
        log_losses({"loss": torch.tensor(1.0 + 2 * rank)}, data_time=float(rank))
        assert storage.latest()["total_loss"][0] == 2.0
        assert storage.latest()["data_time"][0] == 1.0
        with pytest.raises(FloatingPointError, match="loss"):
            log_losses({"loss": torch.tensor(float("nan") if rank else 1.0)}, 0.0)


def test_trainer_in_several_processes_resumes_exactly(tmp_path):
    """Every process has its own images and random numbers; a checkpoint of the first must bring all of them back."""
    in_two_processes(check_trainer, tmp_path)
