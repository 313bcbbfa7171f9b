"""Which runs there are: the right data, weights and seed in each command, and a hash that changes when they do."""

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest

from minibench.methods import discover
from minibench.plan import Plan
from minibench.settings import make_settings
from PADing.data.mini import UNSEEN, categories
from PADing.data.splits import load_split
from PADing.errors import UserError
from PADing.files import REPOSITORY

OUT = Path("/nowhere/out")


def _plan(names=("pading_self_training", "d2zero"), methods=None, out=OUT, **settings) -> Plan:
    return Plan(methods or discover(), names, make_settings(**{"budget": "quick", **settings}), out)


def _hashes(plan: Plan) -> dict[str, str]:
    return {run.name: run.hash for run in plan.runs}


def _opts(plan: Plan, name: str) -> dict[str, str]:
    command = plan.command(next(run for run in plan.runs if run.name == name))
    rest = command[next(i for i, item in enumerate(command) if "." in item and item[0].isupper()) :]
    return dict(zip(rest[::2], rest[1::2], strict=True))


def _changed(method: str, **changes):
    methods = discover()
    return {**methods, method: dataclasses.replace(methods[method], **changes)}


def test_all_seeds_share_the_rules_and_nothing_else():
    plan = _plan(["pading"], seeds=(1, 5))
    assert [run.name for run in plan.runs] == ["baseline-seed1", "pading-seed1", "baseline-seed5", "pading-seed5"]
    assert len(set(_hashes(plan).values())) == 4
    for seed in (1, 5):
        opts = _opts(plan, f"pading-seed{seed}")
        assert opts["SEED"] == str(seed)
        assert opts["MODEL.WEIGHTS"].startswith(f"{OUT}/runs/baseline-seed{seed}-")
        assert f"-seed{seed}-" in opts["MODEL.CLASS_EMBEDDINGS"]


def test_steps_wait_for_data_and_weights():
    needs = {step.name: set(step.needs) for step in _plan().steps()}
    assert needs["data-seed1"] == set()
    assert needs["baseline-seed1"] == {"data-seed1"}
    assert needs["convert-seed1"] == {"baseline-seed1"}
    assert needs["pading-seed1"] == {"data-seed1", "convert-seed1", "baseline-seed1"}
    assert needs["pading_self_training-seed1"] >= {"pading-seed1", "convert-seed1"}
    assert needs["d2zero-seed1"] == {"data-seed1", "baseline-seed1"}
    assert "convert-seed1" not in {step.name for step in _plan(["d2zero"]).steps()}


def test_runs_on_one_frozen_segmenter_share_its_answers_until_the_last_is_done(tmp_path):
    plan = _plan(["pading", "gmmn", "d2zero"], out=tmp_path, seeds=(1, 2))
    key = "MODEL.MASK_FORMER.SEGMENTER_CACHE"
    cache = {name: _opts(plan, name).get(key) for name in _hashes(plan)}
    assert cache["pading-seed1"] == cache["gmmn-seed1"] != cache["pading-seed2"]
    assert cache["baseline-seed1"] is None and cache["d2zero-seed1"] is None
    for seed in (1, 2):
        Path(cache[f"pading-seed{seed}"]).mkdir(parents=True)
    steps = {step.name: step for step in plan.steps()}
    for name, left in (("pading-seed1", True), ("gmmn-seed1", False)):
        folder = next(run.folder for run in plan.runs if run.name == name)
        folder.mkdir(parents=True)
        (folder / "results.json").write_text("{}")
        steps[name].note("done", 1.0)
        assert Path(cache["gmmn-seed1"]).is_dir() == left
    assert Path(cache["gmmn-seed2"]).is_dir()


def test_a_plug_in_does_not_share_the_answers_of_another_segmenter():
    changed = _changed("gmmn", overrides={"PLUGINS": '("d2zero",)'})
    plan = _plan(["pading", "gmmn"], methods=changed)
    key = "MODEL.MASK_FORMER.SEGMENTER_CACHE"
    assert key in _opts(plan, "pading-seed1") and key not in _opts(plan, "gmmn-seed1")


def test_self_training_is_taught_by_pading_of_the_same_seed():
    plan = _plan(seeds=(2,))
    pading = next(run for run in plan.runs if run.method.name == "pading")
    opts = _opts(plan, "pading_self_training-seed2")
    assert opts["MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS"] == str(pading.folder / "model_final.pth")


@pytest.mark.parametrize("split", sorted(UNSEEN))
def test_a_split_trains_and_tests_on_its_own_data_sets(split):
    """Else metrics would be reported of other unseen classes than the title says."""
    plan = _plan(split=split)
    seed = plan.settings.seeds[0]
    declared = load_split(REPOSITORY / "datasets" / "splits" / f"{plan.settings.split_name}.yaml")
    assert set(declared.unseen) == set(UNSEEN[split])
    assert [c.name for c in declared.categories] == [c.name for c in categories()]
    names = {data_set.name: data_set for data_set in declared.data_sets}
    for method, kind in (("pading", "panoptic"), ("d2zero", "instance")):
        opts = _opts(plan, f"{method}-seed{seed}")
        (train,), (test,) = (eval(opts[f"DATASETS.{key}"]) for key in ("TRAIN", "TEST"))
        assert (names[train].kind, names[train].role, names[train].subset) == (kind, "train", "seen")
        assert (names[test].kind, names[test].role, names[test].subset) == (kind, "val", "all")
        assert names[test].json.startswith(plan.settings.split_name + "/")
    data = next(step for step in plan.steps() if step.name.startswith("data")).command
    assert data[data.index("--split") + 1] == split
    assert Path(data[data.index("--out") + 1]).name == plan.settings.split_name


def test_settings_are_chosen_on_classes_and_images_that_no_report_shows():
    unseen = UNSEEN
    assert not set(unseen["tuning"]) & set(unseen["compositional"])
    assert make_settings(split="tuning").seeds == (0,)
    assert 0 not in make_settings().seeds
    for split in ("compositional", "hard"):
        with pytest.raises(UserError, match="on which hyperparameters are chosen"):
            make_settings(split=split, seeds=(0, 1))


def test_a_hash_covers_what_the_metrics_depend_on():
    base = _hashes(_plan())
    assert _hashes(_plan(out=Path("/else/where"))) == base, "the place does not matter"
    assert _hashes(_plan(["d2zero"]))["d2zero-seed1"] == base["d2zero-seed1"], "nor does the company"
    for changed in (
        _plan(budget="full", seeds=(1,)),
        _plan(split="hard"),
        _plan(noise=0.3),
        _plan(val=200),
        _plan(methods=_changed("baseline", overrides={"SOLVER.BASE_LR": 0.002})),  # everything starts from it
    ):
        assert not set(_hashes(changed).values()) & set(base.values())
    own = [_hashes(_plan(methods=_changed("baseline", overrides={"MODEL.WEIGHTS": file}))) for file in ("a", "b")]
    assert own[0]["baseline-seed1"] != own[1]["baseline-seed1"], "weights of one's own"
    other = _hashes(_plan(methods=_changed("pading", overrides={"MODEL.MASK_FORMER.NOISE": False})))
    moved = {name for name in base if other[name] != base[name]}
    assert moved == {"pading-seed1", "pading_self_training-seed1"}, "only what uses the change is repeated"


def test_a_new_key_that_changes_nothing_leaves_finished_runs_valid(monkeypatch):
    import PADing.config

    base, add = _hashes(_plan()), PADing.config.add_maskformer2_config

    def add_more(cfg):
        add(cfg)
        cfg.MODEL.MASK_FORMER.SOMETHING_NEW = 1.0

    monkeypatch.setattr(PADing.config, "add_maskformer2_config", add_more)
    assert _hashes(_plan()) == base


def test_the_config_file_counts_wherever_it_lies(tmp_path):
    folder = shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    moved = folder / "mini" / "panoptic-PADing.yaml"
    assert _hashes(_plan(methods=_changed("pading", config=moved))) == _hashes(_plan())
    moved.write_text(moved.read_text().replace("CLASS_ECO: 50.0", "CLASS_ECO: 49.0"))
    assert _hashes(_plan(methods=_changed("pading", config=moved)))["pading-seed1"] != _hashes(_plan())["pading-seed1"]


def test_a_method_that_trains_nothing_is_evaluated():
    plan = _plan(["ridge"], methods=discover([REPOSITORY / "examples"]))
    assert "--eval-only" in plan.command(plan.runs[-1]) and "--resume" in plan.command(plan.runs[0])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"overrides": {"MODEL.MASK_FORMER.NOIS": False}}, "did you mean MODEL.MASK_FORMER.NOISE"),
        ({"config": REPOSITORY / "configs" / "panoptic-segmentation" / "PADing.yaml"}, "are named mini_"),
        ({"weights_key": "MODEL.WEIGHT"}, "MODEL.WEIGHT should name weights"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_anything_runs(changes, message):
    with pytest.raises(UserError, match=message) as error:
        _plan(methods=_changed("pading", **changes))
    assert "method pading" in str(error.value)


def test_a_plug_in_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    folder = tmp_path / "crooked"
    folder.mkdir()
    (folder / "__init__.py").write_text("def (:")
    changes = {"import_from": tmp_path, "overrides": {"PLUGINS": '("crooked",)'}}
    with pytest.raises(UserError, match="method pading: SyntaxError"):
        _plan(methods=_changed("pading", **changes))


@pytest.mark.parametrize("wrong", [{"seeds": ()}, {"seeds": (-1,)}, {"val": 0}, {"size": 100}, {"noise": -0.1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UserError):
        make_settings(**wrong)


def test_a_toy_clip_is_trained_once_per_seed():
    """Its held-out compositions follow the split; methods without one keep their hashes."""
    key = "MODEL.FROZENCLIP.CLASS_EMBEDDINGS"
    plugins = {"PLUGINS": ("d2zero", "frozenclip")}
    methods = _changed("d2zero", toy_clip={key: "class_vectors.npz"}, overrides=plugins)
    plan = _plan(["d2zero", "pading"], methods, seeds=(3, 4), split="hard")
    steps = {step.name: step for step in plan.steps()}
    for seed in (3, 4):
        step, folder = steps[f"toy_clip-seed{seed}"], OUT / plan.settings.data_folder(seed) / "toy_clip"
        words = " ".join(step.command)
        assert f"--split hard --seed {seed}" in words and f"--output {folder} " in words
        assert f"toy_clip-seed{seed}" in steps[f"d2zero-seed{seed}"].needs
        assert f"toy_clip-seed{seed}" not in steps[f"pading-seed{seed}"].needs
        opts = _opts(plan, f"d2zero-seed{seed}")
        assert opts[key] == str(folder / "class_vectors.npz")
        assert not [value for value in _opts(plan, f"pading-seed{seed}").values() if "toy_clip" in value]
    without = _plan(["d2zero", "pading"], _changed("d2zero", overrides=plugins), seeds=(3, 4), split="hard")
    assert not [step.name for step in without.steps() if "toy" in step.name]
    differ = {name for name, digest in _hashes(plan).items() if _hashes(without)[name] != digest}
    assert differ == {"d2zero-seed3", "d2zero-seed4"}
    with pytest.raises(UserError, match="MODEL.NO_SUCH is not a config key"):
        _plan(["d2zero"], _changed("d2zero", toy_clip={"MODEL.NO_SUCH": "."}))
