"""If these fail, trials are other trainings than they say, or measuring them changes them."""

import json

import numpy as np
import pytest
import torch

from minibench.folds.settings import make_settings, write_settings
from minibench.folds.trials import Trial, Trials, _Fold, exchanged, part_of, write_trials
from minibench.folds.variants import class_mmd
from PADing.errors import UserError
from PADing.generation.losses import mmd

WEIGHT = "MODEL.MASK_FORMER.STRUCTURE_WEIGHT"


def _trials(folder, trials, **settings):
    write_settings(folder, make_settings("tuning", budget="smoke", **settings), plugins=[])
    write_trials(folder, folder, trials, (1, 2), 10)
    return Trials(folder)


def test_a_row_is_another_one_if_anything_it_depends_on_changes(tmp_path):
    first = Trial("a", "pading", {WEIGHT: 0.5})
    same, weight, track = (
        Trial("b", "pading", {WEIGHT: 0.5}),
        Trial("c", "pading", {WEIGHT: 0.6}),
        Trial("d", "pading", {WEIGHT: 0.5}, "word"),
    )
    trials = _trials(tmp_path, [first, same, weight, track])
    files = {trial.name: trials.file(trial, 1, 1) for trial in trials.trials.values()}
    assert files["a"] == files["b"], "equal settings are trained once"
    assert len(set(files.values())) == 3 and trials.file(first, 2, 1) != trials.file(first, 1, 2) != files["a"]
    write_trials(tmp_path, tmp_path, [first], (1,), 11)
    assert Trials(tmp_path).file(first, 1, 1) != files["a"], "other validation images"


def test_rows_of_other_settings_in_the_same_folder_are_left_alone(tmp_path):
    trials = _trials(tmp_path, [Trial("a", "projection")])
    path = trials.file(trials.trials["a"], 1, 1)
    path.parent.mkdir()
    (path.parent / "projection-fold1-seed1-000000000000.json").write_text("{}")
    path.write_text(json.dumps({"method": "projection", "fold": 1, "seed": 1, "metrics": {"PQ_hm": 1.0}}))
    assert [(row["trial"], row["seed"]) for row in trials.rows((1, 2))] == [("a", 1)]
    assert trials.folds() == (), "there are no features"
    for torn in ('{"method": "proj', "[]", "{}"):
        path.write_text(torn)
        with pytest.raises(UserError, match="Delete it and run the same command again"):
            trials.rows((1,))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"a is of 'padng', which is no second stage.*pading"):
        _trials(tmp_path, [Trial("a", "padng")])
    with pytest.raises(UserError, match="no second stage"):
        _trials(tmp_path, [Trial("a", "d2zero")])
    trials = _trials(tmp_path, [Trial("a", "pading", {"MODEL.NO_SUCH": 1})])
    with pytest.raises(UserError, match="NO_SUCH"):
        trials.files(1)
    for options, words in (
        ({"SYNTHESIS": "mean"}, "one of mmd"),
        ({"SYNTHESIS": "squared"}, "GENERATOR varied"),
        ({"SEED_SHIFT": -1}, "at least 0"),
        ({"EXCHANGED_CLASSES": 1}, "0 or at least 2"),
    ):
        options = {f"MODEL.MASK_FORMER.VARIANT.{key}": value for key, value in options.items()}
        made = _trials(tmp_path, [trial := Trial("a", "pading", options)]).job(trial, 1)
        from PADing.config_check import value_problems

        assert any(words in problem for problem in value_problems(made.load(), ("model",)))
    about = {"run": str(tmp_path), "seeds": [1], "images": 9}
    for content in (
        {"run": "x"},
        {**about, "trials": [3]},
        {**about, "trials": [{"name": "a", "method": ["pading"]}]},
        {**about, "trials": [{"name": "a", "method": "pading", "options": 3}]},
        {**about, "images": "many", "trials": []},
    ):
        (tmp_path / "trials.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="is not what this program writes"):
            Trials(tmp_path)


def test_mmd_by_class_sees_what_the_published_one_does_not():
    """Features of two classes exchanged: the sets are equal, the classes are not."""
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    real = torch.randn(6, 4) + 5 * labels[:, None]
    exchanged = real.flip(0)
    assert mmd(exchanged, real) < 1e-3 < 1 < class_mmd(exchanged, real, labels)
    expected = (4 * mmd(real[:4] + 1, real[:4]) + 2 * mmd(real[4:] + 1, real[4:])) / 6
    torch.testing.assert_close(class_mmd(real + 1, real, torch.tensor([3, 3, 3, 3, 8, 8])), expected)


def test_the_part_of_the_images_is_always_the_same():
    part = part_of(500, 250)
    assert len(set(part.tolist())) == 250 and (part == part_of(500, 250)).all() and (part[1:] > part[:-1]).all()
    assert part_of(20, 250).tolist() == list(range(20))


def test_the_planted_effect_takes_the_chosen_unseen_classes_alone():
    logits, unseen = np.random.default_rng(0).random((2, 3, 7)), np.array([0, 1, 1, 0, 1, 1], bool)
    assert exchanged(logits, unseen, 0) is not logits and np.array_equal(exchanged(logits, unseen, 0), logits)
    found = exchanged(logits, unseen, 3)
    assert np.array_equal(found[..., [0, 1, 2, 3, 4, 5, 6]], logits[..., [0, 2, 4, 3, 1, 5, 6]])
    with pytest.raises(UserError, match="is 5, but there are 4 unseen classes"):
        exchanged(logits, unseen, 5)


def test_a_shifted_seed_is_another_training(tmp_path):
    """Two rows of one method are equal if their seeds are; with a shift no seed of one is a seed of the other."""
    shift = {"MODEL.MASK_FORMER.VARIANT.SEED_SHIFT": 100}
    trials = _trials(tmp_path, [Trial("a", "pading"), Trial("b", "pading", shift)])
    (weights := trials.plan.segmenter(1) / "pretrained_weight_panoptic.pth").parent.mkdir(parents=True)
    weights.touch()
    work = object.__new__(_Fold)
    work.trials, work.fold, work.folder = trials, 1, weights.parent
    assert [work._config(trial, 2).SEED for trial in trials.trials.values()] == [2, 102]
