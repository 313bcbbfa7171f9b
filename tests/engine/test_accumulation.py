"""An update of several micro-batches is the update of the whole batch: gradients, parameters, logged losses, draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

import PADing.meta_arch  # noqa: F401  registers the architecture
from PADing.config import load_config
from PADing.data.embeddings import save_class_embeddings
from PADing.engine.recipes import TRAINING_RECIPE_REGISTRY, Diverged, OneOptimizer, build_recipe
from PADing.engine.start_check import BUILDING, start_problems
from PADing.engine.trainer import wrap_for_processes
from PADing.errors import UserError
from tests.engine.test_distributed import in_two_processes
from tests.engine.tiny import TinyTrainer
from tests.engine.tiny import config as tiny_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "mini"
NODE = "MODEL.MASK_FORMER."
# SGD, or a small step of Adam, which turns a rounding error of a gradient near zero into a step of full length.
PLAIN = ["MODEL.RESNETS.NORM", "FrozenBN", "SOLVER.OPTIMIZER", "SGD"]
PLAIN += ["SOLVER.BASE_LR", 0.01, "SOLVER.GENERATOR_LR", 1e-5]
SMALL = [NODE + "TRAIN_NUM_POINTS", 32, NODE + "NUM_OBJECT_QUERIES", 8, NODE + "DEC_LAYERS", 3]
SMALL += [NODE + "TRANS_DROP_RATE", 0.0, NODE + "DROP_OUT_ED", 0.0, "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1]
UNSEEN = ["MODEL.D2ZERO.UNSEEN_LOSS_WEIGHT", 1.0]
# Without dropout, whose draws depend on the layout of the batch.
CASES = {
    "MaskFormer": ("panoptic-pretrain.yaml", []),
    "D2Zero": (
        "d2zero.yaml",
        ["MODEL.D2ZERO.UNSEEN_LOSS_WEIGHT", 1.0, "MODEL.D2ZERO.SEMANTIC_DIM", 32, NODE + "TRANS_DROP_OUT_RATE", 0.0],
    ),
    "PADing": ("panoptic-PADing.yaml", [NODE + "RANDOM_SEGMENTER", True]),
}

TOLERANCE = 1e-6


def config(case, folder, *opts):
    file, own = CASES[case]
    name = "mini_val_instance" if case == "D2Zero" else "mini_train_panoptic"
    names = MetadataCatalog.get(name).vocabulary if case == "D2Zero" else MetadataCatalog.get(name).stuff_classes
    vectors = Path(folder) / f"vectors{comm.get_rank()}.npz"
    if not vectors.exists():
        save_class_embeddings(vectors, names, np.random.RandomState(0).randn(len(names), 12), "random")
    own = own if case == "MaskFormer" else [*own, "MODEL.CLASS_EMBEDDINGS", str(vectors)]
    return load_config(CONFIGS / file, [*SMALL, *PLAIN, *own, *opts])


def batch(case, objects, seed=0):
    """Images of equal size with so many objects each, of classes that every case has seen."""
    torch.manual_seed(seed)
    samples = []
    for count in objects:
        instances = Instances((64, 64))
        instances.gt_classes = torch.randint(4, (count,))
        instances.gt_masks = torch.rand(count, 64, 64) > 0.6
        image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
        samples.append({"image": image, "height": 64, "width": 64, "instances": instances})
    return samples


def trained(cfg, batches, wrap=False):
    """Parameters, gradients of the first update, logged losses and the next random number after some updates.

    Later gradients are no sums of rounding errors alone: parameters that differ by 1e-8 may turn an activation on.
    """
    torch.manual_seed(1)
    model = build_model(cfg).train()
    recipe = build_recipe(cfg, model)
    wrapped = wrap_for_processes(model, recipe.find_unused_parameters) if wrap else model
    torch.manual_seed(2 + comm.get_rank())
    grads: dict[str, torch.Tensor] = {}
    with EventStorage(0) as storage:
        for samples in batches:
            recipe.step(wrapped, samples, 0.0)
            grads = grads or {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        logged = {name: value for name, (value, _) in storage.latest().items()}
    return {name: p.detach() for name, p in model.named_parameters()}, grads, logged, torch.rand(())


def assert_same(one, other, tolerance=TOLERANCE):
    for name, mine, theirs in zip(("parameters", "gradients"), one[:2], other[:2], strict=True):
        assert mine.keys() == theirs.keys()
        worst = max((float((mine[key] - theirs[key]).abs().max()), key) for key in mine)
        assert worst[0] <= tolerance, f"{name}: {worst}"
    assert one[2] == pytest.approx(other[2], rel=1e-5)
    assert torch.equal(one[3], other[3])


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_micro_batches_make_the_update_of_the_whole_batch(case, number, tmp_path):
    """Otherwise a schedule for 16 images would mean something else on a small GPU. Images differ in their objects."""
    # More objects than queries, and an image without any.
    batches = [batch(case, [1, 3, 10, 0]), batch(case, [2, 2, 5, 1], seed=5)]
    whole = trained(config(case, tmp_path), batches)
    assert_same(trained(config(case, tmp_path, "SOLVER.ACCUMULATE", number), batches), whole)


def check_processes(folder):
    for case in ("MaskFormer", "PADing"):
        batches = [batch(case, [1, 3, 5, 2], seed=comm.get_rank())]
        whole = trained(config(case, folder), batches, wrap=True)
        parts = trained(config(case, folder, "SOLVER.ACCUMULATE", 2), batches, wrap=True)
        assert_same(parts, whole)
    (Path(folder) / f"done{comm.get_rank()}").touch()


def test_micro_batches_in_several_processes(tmp_path):
    """The masks of all micro-batches of all processes share one divisor."""
    in_two_processes(check_processes, tmp_path)
    assert {path.name for path in tmp_path.glob("done*")} == {"done0", "done1"}


def test_processes_communicate_once_an_update(monkeypatch):
    """Without this, N micro-batches would cost N times the communication."""
    calls = []

    class Wrapped(torch.nn.parallel.DistributedDataParallel):
        def __init__(self, module):
            torch.nn.Module.__init__(self)
            self.module = module

        def no_sync(self):
            calls.append("no_sync")
            return torch.enable_grad()

        def forward(self, samples):
            calls.append("forward")
            return self.module(samples)

    cfg = tiny_config("", "SOLVER.ACCUMULATE", 2)
    model = build_model(cfg).train()
    samples = [{"image_id": i, "x": torch.ones(6)} for i in range(2)]
    with EventStorage(0):
        build_recipe(cfg, model).step(Wrapped(model), samples, 0.0)
    assert calls == ["no_sync", "forward", "forward"]


def test_resumed_training_goes_on_bit_by_bit(tmp_path):
    """A checkpoint lies between two updates, never between two micro-batches."""
    results = []
    for stop in (None, 4):
        folder = tmp_path / str(stop)
        cfg = tiny_config(folder, "SOLVER.ACCUMULATE", 2, "SOLVER.CHECKPOINT_PERIOD", 2)
        torch.manual_seed(3)
        trainer = TinyTrainer(cfg)
        if stop:
            trainer.stop_before = stop
            with pytest.raises(KeyboardInterrupt):
                trainer.train()
            trainer = TinyTrainer(cfg)
            trainer.resume_or_load(resume=True)
        trainer.train()
        results.append(torch.load(folder / "model_final.pth", weights_only=True)["model"])
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_a_loss_that_is_not_finite_changes_nothing(monkeypatch):
    cfg = tiny_config("", "SOLVER.ACCUMULATE", 2)
    model = build_model(cfg).train()
    before = [p.detach().clone() for p in model.parameters()]
    samples = [{"image_id": 0, "x": torch.full((6,), float("nan"))}, {"image_id": 1, "x": torch.ones(6)}]
    with EventStorage(7), pytest.raises(Diverged, match="iteration 7: .*loss_square = nan"):
        build_recipe(cfg, model).step(model, samples, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_mixed_precision_accumulates(tmp_path):
    batches = [batch("MaskFormer", [1, 3, 2, 0])]
    opts = ["SOLVER.AMP.ENABLED", True]
    whole = trained(config("MaskFormer", tmp_path, *opts), batches)
    parts = trained(config("MaskFormer", tmp_path, *opts, "SOLVER.ACCUMULATE", 2), batches)
    assert parts[2] == pytest.approx(whole[2], rel=0.02)


def test_whole_batch_is_forgotten_after_an_update(tmp_path):
    """Otherwise the next evaluation or step would be divided by another batch's masks."""
    cfg = config("MaskFormer", tmp_path, "SOLVER.ACCUMULATE", 2)
    model = build_model(cfg).train()
    samples = batch("MaskFormer", [1, 2])
    del samples[1]["instances"]
    with EventStorage(0), pytest.raises(UserError, match="without instances"):
        build_recipe(cfg, model).step(model, samples, 0.0)
    assert model.criterion.whole is None


@pytest.mark.parametrize(("number", "processes"), [(3, 1), (4, 4), (16, 1)])
def test_batch_that_cannot_be_split_is_refused_before_the_start(number, processes, tmp_path):
    cfg = config("MaskFormer", tmp_path, "SOLVER.ACCUMULATE", number)
    problems = start_problems(cfg, BUILDING | {"train"}, processes)
    assert any(f"IMS_PER_BATCH is 8, not a multiple of {number * processes}" in problem for problem in problems)
    with pytest.raises(UserError, match="IMS_PER_BATCH is 8") if processes == 1 else pytest.raises(AssertionError):
        build_recipe(cfg, build_model(cfg))
        raise AssertionError  # one process alone could split it


def test_recipe_with_a_step_of_its_own_is_refused(tmp_path):
    """It would silently train on the whole batch at once, and run out of memory."""

    class OwnStep(OneOptimizer):
        def step(self, model, samples, data_time):
            """Anything."""

    TRAINING_RECIPE_REGISTRY._do_register("OwnStep", OwnStep)
    try:
        cfg = tiny_config(tmp_path, "SOLVER.ACCUMULATE", 2, "SOLVER.RECIPE", "OwnStep")
        with pytest.raises(UserError, match="the recipe OwnStep cannot accumulate"):
            build_recipe(cfg, build_model(cfg))
    finally:
        TRAINING_RECIPE_REGISTRY._obj_map.pop("OwnStep")
    two = tiny_config(tmp_path, "SOLVER.ACCUMULATE", 2, architecture="TinyTwoSteps")
    with pytest.raises(UserError, match="takes no micro-batches"):
        build_recipe(two, build_model(two))
