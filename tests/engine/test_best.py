"""The best checkpoint and patience: the right file is kept, and a stop or a resume changes no decision."""

import json
import logging

import pytest
import torch
from detectron2.utils.env import seed_all_rng

from PADing.engine.best import best_problems, unknown_metric
from PADing.errors import UserError
from tests.engine.tiny import DATA, Evaluator, TinyTrainer, config

METRIC = "tiny/score"
NAN = float("nan")


class Scripted(TinyTrainer):
    """Evaluations give the numbers of ``scores``, by the number of finished iterations."""

    scores: dict = {}
    now = None  # () -> the number of finished iterations

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return ScriptedEvaluator()


class ScriptedEvaluator(Evaluator):
    def evaluate(self):
        return {"tiny": {"score": Scripted.scores[Scripted.now()], "images": float(self.count)}}


def run(folder, scores, *opts, resume=False, stop_before=None, patience=0, iterations=8):
    """Train ``iterations`` with an evaluation every second one; ``scores`` by finished iterations."""
    keys = ["TEST.BEST.METRIC", METRIC, "TEST.BEST.PATIENCE", patience, "SOLVER.MAX_ITER", iterations, *opts]
    cfg = config(folder, *keys)
    seed_all_rng(cfg.SEED)
    trainer = Scripted(cfg)
    trainer.stop_before = stop_before
    trainer.resume_or_load(resume=resume)
    # after_step: iter is the one that ends; before_train and after_train: iterations before iter are finished
    Scripted.scores = scores
    Scripted.now = staticmethod(lambda: trainer.iter + (trainer.done_iter == trainer.iter))
    try:
        trainer.train()
    except KeyboardInterrupt:
        assert stop_before is not None
    return trainer


def best(folder):
    return torch.load(folder / "model_best.pth", weights_only=True)


def hook(trainer):
    return next(h for h in trainer._hooks if type(h).__name__ == "BestCheckpoint")


def test_the_file_holds_the_best_model_and_its_metric(tmp_path):
    run(tmp_path, {2: 1.0, 4: 3.0, 6: 2.0, 8: 2.5})
    content = best(tmp_path)
    assert content["best"] == {"metric": METRIC, "mode": "max", "value": 3.0, "iteration": 3}
    assert content["iteration"] == content["trainer"]["iteration"] == 3
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    run(tmp_path / "short", {2: 1.0, 4: 3.0}, iterations=4)
    # WarmupMultiStepLR is the same for the first iterations of both
    final = torch.load(tmp_path / "short" / "model_final.pth", weights_only=True)
    assert all(torch.equal(content["model"][name], final["model"][name]) for name in final["model"])


@pytest.mark.parametrize(
    ("mode", "scores", "iteration"),
    [
        ("min", {2: 3.0, 4: 1.0, 6: 2.0, 8: 5.0}, 3),
        ("max", {2: NAN, 4: 1.0, 6: NAN, 8: NAN}, 3),
        ("max", {2: 1.0, 4: float("inf"), 6: 1.0, 8: 0.0}, 1),  # neither infinity nor an equal value is better
        ("max", {2: 1.0, 4: 2.0, 6: 3.0, 8: 4.0}, 7),  # the evaluation after the last iteration
    ],
)
def test_which_model_is_the_best(tmp_path, mode, scores, iteration):
    run(tmp_path, scores, "TEST.BEST.MODE", mode)
    assert best(tmp_path)["best"]["iteration"] == best(tmp_path)["trainer"]["iteration"] == iteration


def test_nan_alone_gives_no_best_model(tmp_path):
    run(tmp_path, dict.fromkeys((2, 4, 6, 8), NAN))
    assert not (tmp_path / "model_best.pth").exists()


def test_patience_ends_as_a_finished_training(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer = run(tmp_path, {2: 5.0, 4: 1.0, 6: 2.0}, patience=2, iterations=20)
    assert trainer.iter == 5
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 5
    assert "ends after 6 of 20 iterations, because 2 evaluations in a row have not improved tiny/score" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines[-1]["tiny/score"] == 2.0
    again = run(tmp_path, {6: 2.0}, patience=2, iterations=20, resume=True)
    assert again.iter == 6 and "Only the evaluation runs now" in caplog.text
    longer = run(tmp_path, {8: 1.0}, patience=3, iterations=20, resume=True)
    assert longer.iter == 7


@pytest.mark.parametrize("stop_before", [3, 4, 5, 6, 7, 8, 9])
def test_a_killed_and_resumed_run_decides_as_an_uninterrupted_one(tmp_path, stop_before):
    """Periodic checkpoints come every three, evaluations every two iterations; after six, both are due."""
    scores = {2: 1.0, 4: 3.0, 6: 2.0, 8: 2.5, 10: 3.0, 12: 9.0}
    whole = run(tmp_path / "whole", scores, patience=3, iterations=12)
    run(tmp_path / "cut", scores, patience=3, iterations=12, stop_before=stop_before)
    resumed = run(tmp_path / "cut", scores, patience=3, iterations=12, resume=True)
    assert resumed.iter == whole.iter == 9
    assert hook(resumed).state_dict() == hook(whole).state_dict()
    assert best(tmp_path / "cut")["best"] == best(tmp_path / "whole")["best"]
    finals = [torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"] for name in ("whole", "cut")]
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


def test_an_evaluation_that_the_checkpoint_lacks_can_end_the_training(tmp_path):
    """Killed between the last evaluation before the end by patience and model_final."""
    scores = {2: 3.0, 4: 2.0, 6: 1.0}
    run(tmp_path, scores, patience=2, iterations=12, stop_before=6)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    trainer = run(tmp_path, scores, patience=2, iterations=12, resume=True)
    assert trainer.model.seen == []
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert content["iteration"] == content["trainer"]["iteration"] == 5


def test_a_longer_training_keeps_the_best_model_of_the_shorter_one(tmp_path):
    run(tmp_path, {2: 1.0, 4: 2.0, 5: 9.0}, iterations=5)
    run(tmp_path, {6: 3.0, 8: 4.0}, iterations=8, resume=True)
    assert best(tmp_path)["best"]["value"] == 9.0


def test_a_damaged_best_file_is_replaced_and_a_state_of_another_metric_left(tmp_path, caplog):
    run(tmp_path, {2: 1.0, 4: 2.0}, iterations=4)
    (tmp_path / "model_best.pth").write_bytes(b"torn")
    trainer = run(tmp_path, {4: 2.0, 6: 1.5, 8: 4.0}, resume=True)
    assert "cannot be compared with" in caplog.text and hook(trainer).value == 4.0
    caplog.set_level(logging.INFO)
    run(tmp_path, {8: 11.0, 10: 11.0}, "TEST.BEST.METRIC", "tiny/images", iterations=10, resume=True)
    assert "starts afresh" in caplog.text and best(tmp_path)["best"]["value"] == 11.0


def test_an_unknown_metric_is_refused_at_the_first_evaluation_with_those_that_there_are(tmp_path):
    with pytest.raises(UserError, match=r"did you mean tiny/score, .*There are: tiny/images, tiny/score\."):
        run(tmp_path, {2: 1.0}, "TEST.BEST.METRIC", "tiny/scor")
    many = {f"sem_seg/IoU-{i}": 0.0 for i in range(100)} | {"sem_seg/hIoU": 0.0}
    message = unknown_metric("x", many)
    assert "There are: sem_seg/hIoU, sem_seg/IoU-0" in message and "and 61 more" in message


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.BEST.METRIC", "", "TEST.BEST.PATIENCE", 2], "needs TEST.BEST.METRIC"),
        (["TEST.BEST.PATIENCE", 2, "TEST.EVAL_PERIOD", 0], "TEST.EVAL_PERIOD is 0"),
        (["TEST.BEST.METRIC", "PQ"], "Write TASK/METRIC"),
        (["DATASETS.TEST", (DATA, "other")], "write SET/TASK/METRIC"),
        (["DATASETS.TEST", ("mini_val_panoptic",), "TEST.BEST.METRIC", "panoptc_seg/PQ",
          "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True], "did you mean panoptic_seg?"),
    ],
)  # fmt: skip
def test_mistakes_that_can_be_known_are_found_before_the_start(tmp_path, opts, message):
    (problem,) = best_problems(config(tmp_path, "TEST.BEST.METRIC", METRIC, *opts))
    assert message in problem


def test_right_names_pass(tmp_path):
    assert not list(best_problems(config(tmp_path, "TEST.BEST.METRIC", METRIC)))
    both = ["DATASETS.TEST", (DATA, "other"), "TEST.BEST.METRIC", f"{DATA}/tiny/score"]
    assert not list(best_problems(config(tmp_path, *both)))


def test_a_resumed_training_without_evaluations_on_the_way_goes_on(tmp_path):
    run(tmp_path, {}, "TEST.EVAL_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD", 2, stop_before=3)
    trainer = run(tmp_path, {8: 1.0}, "TEST.EVAL_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD", 2, resume=True)
    assert trainer.start_iter == 2 and best(tmp_path)["iteration"] == 7
