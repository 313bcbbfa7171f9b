"""The trainer on a data set without files: what a run writes, and that a killed run loses nothing."""

import json

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.env import seed_all_rng

from PADing.engine.recipes import TRAINING_RECIPE_REGISTRY, build_recipe
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from tests.engine.tiny import TinyTrainer, config

CLIP = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"]


def run(cfg, resume=False, stop_before=None):
    """One process of training, from its seed to its end or its sudden end."""
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    trainer = TinyTrainer(cfg)
    trainer.stop_before = stop_before
    trainer.resume_or_load(resume=resume)
    try:
        trainer.train()
    except KeyboardInterrupt:
        assert stop_before is not None
    return trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("architecture", ["TinyOneOptimizer", "TinyTwoSteps"])
@pytest.mark.parametrize("grouping", [True, False])
def test_killed_and_resumed_run_gives_the_numbers_of_an_uninterrupted_one(tmp_path, architecture, grouping):
    """Same images, augmentation, dropout and updates: resuming costs nothing but the repeated iterations."""
    opts = ["DATALOADER.ASPECT_RATIO_GROUPING", grouping, *CLIP]
    whole = run(config(tmp_path / "whole", *opts, architecture=architecture))
    killed = run(config(tmp_path / "killed", *opts, architecture=architecture), stop_before=5)
    resumed = run(config(tmp_path / "killed", *opts, architecture=architecture), resume=True)
    assert resumed.start_iter == 3
    assert killed.model.seen == whole.model.seen[:5]
    assert resumed.model.seen == whole.model.seen[3:]
    assert torch.equal(weights(resumed), weights(whole))


def test_resuming_twice_is_as_good(tmp_path):
    whole = run(config(tmp_path / "whole"))
    run(config(tmp_path / "killed"), stop_before=4)
    run(config(tmp_path / "killed"), resume=True, stop_before=7)
    resumed = run(config(tmp_path / "killed"), resume=True)
    assert resumed.start_iter == 6
    assert torch.equal(weights(resumed), weights(whole))


def test_evaluating_more_often_does_not_change_the_training(tmp_path):
    often = run(config(tmp_path / "often", "TEST.EVAL_PERIOD", 1))
    never = run(config(tmp_path / "never", "TEST.EVAL_PERIOD", 0))
    assert torch.equal(weights(often), weights(never))


def test_run_without_seed_differs_from_the_next_but_resumes_its_own_order(tmp_path):
    """SEED -1: the order is drawn once, kept in the checkpoint, and not drawn again."""
    run(config(tmp_path / "a", "SEED", -1), stop_before=4)
    first = run(config(tmp_path / "a", "SEED", -1), resume=True)
    again = torch.load(tmp_path / "a" / "model_0000002.pth", weights_only=True)
    assert first.data_loader.stream.seed == again["ranks"]["ranks"][0]["data"]["seed"]


def test_checkpoint_holds_everything_that_training_needs(tmp_path):
    run(config(tmp_path, architecture="TinyTwoSteps"))
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert set(content) == {
        "model", "optimizer", "optimizer_2", "scaler", "scheduler", "trainer", "ranks", "iteration",
    }  # fmt: skip
    assert content["iteration"] == content["trainer"]["iteration"] == 7
    assert content["scheduler"]["last_epoch"] == 8
    (state,) = content["ranks"]["ranks"]
    assert {"python", "numpy", "torch"} <= set(state["rng"])


def test_older_checkpoint_resumes_with_a_note(tmp_path, caplog):
    """Checkpoints of Detectron2's trainers hold model, first optimizer and iteration; they must not be refused."""
    cfg = config(tmp_path, architecture="TinyTwoSteps")
    run(cfg, stop_before=4)
    path = tmp_path / "model_0000002.pth"
    content = torch.load(path, weights_only=True)
    old = {key: content[key] for key in ("model", "optimizer", "trainer", "iteration")}
    old["trainer"]["hooks"] = {}
    torch.save(old, path)
    with caplog.at_level("INFO"):
        resumed = run(cfg, resume=True)
    assert resumed.start_iter == 3
    assert "optimizer_2, ranks, scaler, scheduler" in caplog.text
    # The data go on behind the images that have been used.
    assert resumed.data_loader.samplers[0].next > 3 * cfg.SOLVER.IMS_PER_BATCH


def test_files_and_scalars_of_a_run(tmp_path):
    """Scripts read these names."""
    run(config(tmp_path, architecture="TinyTwoSteps"))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model_0000002.pth", "model_0000005.pth", "model_final.pth", "last_checkpoint", "metrics.json"} <= names
    assert json.loads((tmp_path / "results.json").read_text()) == {"tiny_numbers": {"tiny": {"images": 11.0}}}
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    names = set().union(*rows)
    assert {"gan_loss_total_loss", "id_loss_total_loss", "lr", "data_time", "time", "iteration"} <= names
    assert not {"total_loss", "generate_loss", "gan_loss_generate_loss"} & names


def test_classifier_rate_stays_while_the_generator_is_scheduled(tmp_path):
    """As published: the schedule drives the first optimizer only."""
    trainer = run(config(tmp_path, architecture="TinyTwoSteps"))
    assert trainer.recipe.optimizers["optimizer"].param_groups[0]["lr"] == pytest.approx(0.001)
    assert trainer.recipe.optimizers["optimizer_2"].param_groups[0]["lr"] == 0.01


def test_gradient_norm_of_all_parameters_is_clipped_together(tmp_path):
    """CLIP_TYPE full_model: one norm, so that the direction of the step stays."""
    opts = ["SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", 0.0, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MAX_ITER", 1]
    opts += ["SOLVER.WARMUP_ITERS", 0, *CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1e-3]
    trainer = TinyTrainer(config(tmp_path, *opts))
    before = weights(trainer)
    trainer.train()
    assert (weights(trainer) - before).norm().item() == pytest.approx(0.01 * 1e-3, rel=1e-2)


def test_non_finite_loss_leaves_the_weights_as_they_were(tmp_path):
    trainer = TinyTrainer(config(tmp_path))
    with torch.no_grad():
        trainer.model.head.bias.fill_(float("nan"))
    before = trainer.model.net[0].weight.clone()
    with pytest.raises(UserError, match="at iteration 0: loss_square = nan.*Lower the learning rate"):
        trainer.train()
    assert torch.equal(trainer.model.net[0].weight, before)


def test_mixed_precision_on_the_cpu_is_bfloat16(tmp_path):
    """SOLVER.AMP.ENABLED is on in most shipped configs; they must run on a machine without a GPU."""
    trainer = run(config(tmp_path, "SOLVER.AMP.ENABLED", True))
    assert trainer.recipe.precision.dtype == torch.bfloat16
    assert not trainer.recipe.precision.scaler.is_enabled()
    assert torch.isfinite(weights(trainer)).all()


def test_recipe_is_the_models_own_unless_the_config_names_one(tmp_path):
    own = TinyTrainer(config(tmp_path, architecture="TinyTwoSteps"))
    assert type(own.recipe) is TRAINING_RECIPE_REGISTRY.get("GeneratorClassifier")
    assert own.model.begun
    other = TinyTrainer(config(tmp_path, "SOLVER.RECIPE", "OneOptimizer", architecture="TinyTwoSteps"))
    assert type(other.recipe) is TRAINING_RECIPE_REGISTRY.get("OneOptimizer")


def test_wrong_recipes_are_named(tmp_path):
    model = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match="'Unheard'.*GeneratorClassifier, OneOptimizer"):
        build_recipe(config(tmp_path, "SOLVER.RECIPE", "Unheard"), model)
    with pytest.raises(UserError, match="trains PADing, but MODEL.META_ARCHITECTURE is Linear"):
        build_recipe(config(tmp_path, "SOLVER.RECIPE", "GeneratorClassifier"), model)
    with pytest.raises(UserError, match="PRECISION is 'half'"):
        build_recipe(config(tmp_path, "SOLVER.AMP.PRECISION", "half"), model)


def test_several_test_sets_are_evaluated_in_one_run(tmp_path):
    cfg = config(tmp_path, "DATASETS.TEST", ("tiny_numbers", "tiny_numbers_again"))
    from detectron2.data import DatasetCatalog

    if "tiny_numbers_again" not in DatasetCatalog:
        DatasetCatalog.register("tiny_numbers_again", lambda: DatasetCatalog.get("tiny_numbers")[:4])
    model = Trainer.build_model(cfg)
    told = []
    model.set_test_metadata = lambda metadata: told.append(metadata.name)
    results = TinyTrainer.test(cfg, model)
    assert {name: r["tiny"]["images"] for name, r in results.items()} == {"tiny_numbers": 11, "tiny_numbers_again": 4}
    assert told == list(cfg.DATASETS.TEST)
    assert set(json.loads((tmp_path / "results.json").read_text())) == set(results)


def test_weights_of_another_shape_are_refused_with_keys_and_shapes(tmp_path):
    trainer = TinyTrainer(config(tmp_path))
    other = dict(trainer.model.state_dict())
    other["head.weight"] = torch.zeros(5, 8)
    torch.save({"model": other}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"head.weight: \(5, 8\) in the file, \(2, 8\) in the model"):
        trainer.checkpointer.load(str(tmp_path / "other.pth"), checkpointables=[])


def test_constants_of_another_length_are_not_refused(tmp_path):
    """Published stage-1 weights hold criterion.empty_weight for the seen classes only; it is not used."""
    trainer = TinyTrainer(config(tmp_path))
    model = trainer.model
    model.criterion = torch.nn.Module()
    model.criterion.register_buffer("empty_weight", torch.ones(5))
    torch.save({"model": {**model.state_dict(), "criterion.empty_weight": torch.ones(3)}}, tmp_path / "seen.pth")
    trainer.checkpointer.load(str(tmp_path / "seen.pth"), checkpointables=[])
    assert len(model.criterion.empty_weight) == 5


def test_missing_and_damaged_weights_are_named(tmp_path):
    trainer = TinyTrainer(config(tmp_path))
    with pytest.raises(UserError, match="absent.pth' do not exist"):
        trainer.checkpointer.load(str(tmp_path / "absent.pth"))
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match="damaged.pth' cannot be read"):
        trainer.checkpointer.load(str(tmp_path / "damaged.pth"))


def test_weights_load_into_detectron2s_own_checkpointer(tmp_path):
    """Other programs read our files through Detectron2; extra entries must not disturb them."""
    trainer = run(config(tmp_path))
    fresh = Trainer.build_model(config(tmp_path))
    DetectionCheckpointer(fresh).load(str(tmp_path / "model_final.pth"))
    assert torch.equal(fresh.head.weight, trainer.model.head.weight)


def test_batch_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    with pytest.raises(UserError, match="IMS_PER_BATCH is 2. Set a multiple of 3"):
        iter(TinyTrainer.build_train_loader(config(tmp_path)))


def test_second_round_reads_the_teacher_before_training(tmp_path):
    """SELF_TRAINING.WEIGHTS is a checkpoint; a wrong path is found before any image is read."""
    told = []
    cfg = config(tmp_path, "MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS", str(tmp_path / "first.pth"))
    model = TinyTrainer.build_model(config(tmp_path, architecture="TinyTwoSteps"))
    model.learn_from = lambda weights, score, max_overlap: told.append((list(weights), score, max_overlap))
    recipe = TRAINING_RECIPE_REGISTRY.get("GeneratorClassifier")
    with pytest.raises(UserError, match="first.pth' do not exist"):
        recipe(cfg, model)
    torch.save({"model": {"new_fc.bias": torch.zeros(2)}}, tmp_path / "first.pth")
    recipe(cfg, model)
    assert told == [(["new_fc.bias"], 0.5, 0.1)]


def test_checkpoint_of_another_training_is_refused_with_a_reason(tmp_path):
    """Same weights, another recipe: its optimizer state fits no parameter."""
    run(config(tmp_path, architecture="TinyTwoSteps"), stop_before=4)
    other = config(tmp_path, "SOLVER.RECIPE", "OneOptimizer", architecture="TinyTwoSteps")
    with pytest.raises(UserError, match="cannot be resumed"):
        TinyTrainer(other).resume_or_load(resume=True)


def test_expected_metric_of_a_task_that_was_not_evaluated_is_named(tmp_path):
    rows = [["tiny", "images", 11.0, 0.0], ["segm", "AP", 1.0, 0.1]]
    trainer = TinyTrainer(config(tmp_path, "TEST.EXPECTED_RESULTS", rows))
    with pytest.raises(UserError, match="EXPECTED_RESULTS names the task 'segm', which was not evaluated.*are: tiny"):
        trainer.train()
    assert (tmp_path / "model_final.pth").exists() and (tmp_path / "results.json").exists()
    met = TinyTrainer(config(tmp_path / "met", "TEST.EXPECTED_RESULTS", rows[:1]))
    assert met.train() == {"tiny": {"images": 11.0}}
    missed = TinyTrainer(config(tmp_path / "missed", "TEST.EXPECTED_RESULTS", [["tiny", "images", 10.0, 0.5]]))
    with pytest.raises(SystemExit):
        missed.train()
