"""Which trainings there are, what they start from, and what makes a result another one."""

import dataclasses
import json
from pathlib import Path

import pytest

from minibench.folds.configs import code_hash
from minibench.folds.plan import SUPERVISED, Plan
from minibench.folds.settings import make_settings, read_settings, write_settings
from minibench.folds.simple import SIMPLE
from minibench.methods import discover
from PADing.data.splits import load_split, mini2_split_files
from PADing.errors import UserError
from PADing.files import REPOSITORY

OUT = Path("/nowhere/out")


@pytest.fixture(scope="module")
def methods():
    return discover()


def _plan(methods, names=("pading", "d2zero", "conse", SUPERVISED), out=OUT, **settings) -> Plan:
    return Plan(methods, names, make_settings(**settings), out)


def _opts(step) -> dict[str, str]:
    words = step.command[step.command.index("--resume") + 1 :]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_every_segmenter_starts_from_the_warm_start_and_shows_its_own_fold(methods):
    plan = _plan(methods, folds=(2, 5))
    steps = {step.name: step for step in plan.steps()}
    known = {data_set.name: data_set for path in mini2_split_files() for data_set in load_split(path).data_sets}
    warm = _opts(steps["warm-start"])
    assert "mini2_warm_start_all_train_panoptic" in warm["DATASETS.TRAIN"] and warm["MODEL.WEIGHTS"].endswith(
        "backbone.pth"
    )
    for name, fold in (("fold2-segmenter", "fold2"), ("fold5-segmenter", "fold5"), ("supervised", "all")):
        opts = _opts(steps[name])
        assert opts["MODEL.WEIGHTS"] == str(plan.warm_weights()) and "warm-start" in steps[name].needs
        for key, role in (("DATASETS.TRAIN", "train"), ("DATASETS.TEST", "val")):
            (data_set,) = eval(opts[key])
            assert data_set == f"mini2_test_{fold}_{role}_panoptic" and data_set in known
    d2zero = _opts(steps["fold5-d2zero"])
    assert d2zero["MODEL.WEIGHTS"] == str(plan.segmenter(5) / "model_final.pth")
    assert d2zero["DATASETS.TRAIN"] == "('mini2_test_fold5_train_instance',)"
    assert d2zero["MODEL.CLASS_EMBEDDINGS"].endswith("mini2/test/class_vectors_clip.npz")
    assert steps["fold5-second"].needs == ("fold5-features",)


def test_nothing_is_trained_that_no_row_needs(methods):
    assert [step.name for step in _plan(methods, ["conse"], folds=(3,)).steps()] == [
        "data-warm_start", "backbone", "warm-start", "data-test", "fold3-segmenter", "fold3-features", "fold3-second",
    ]  # fmt: skip
    names = [step.name for step in _plan(methods, [SUPERVISED], folds=(3,)).steps()]
    assert names == ["data-warm_start", "backbone", "warm-start", "data-test", "supervised", "supervised-scores"]


def test_what_starts_from_nothing_starts_from_the_warm_start():
    methods = discover([REPOSITORY / "minibench" / "folds" / "whole"])
    plan = _plan(methods, ["d2zero_instances"], folds=(3,))
    steps = {step.name: step for step in plan.steps()}
    assert list(steps) == [
        "data-warm_start", "backbone", "warm-start", "data-test", "fold3-d2zero_instances",
        "fold3-d2zero_instances-scores",
    ]  # fmt: skip
    opts, lengths = _opts(steps["fold3-d2zero_instances"]), plan.settings.lengths
    assert opts["MODEL.WEIGHTS"] == str(plan.warm_weights())
    assert int(opts["SOLVER.MAX_ITER"]) == lengths.segmenter + lengths.whole
    assert opts["DATASETS.TRAIN"] == "('mini2_test_fold3_train_instance',)"


def test_a_plug_in_is_found_and_one_that_trains_nothing_is_only_evaluated():
    methods = discover([REPOSITORY / "examples"])
    steps = {step.name: step for step in Plan(methods, ["ridge"], make_settings(folds=(1,)), OUT).steps()}
    assert "fold1-ridge" not in steps and steps["fold1-ridge-scores"].needs == ("fold1-segmenter",)
    trained = {**methods, "ridge": dataclasses.replace(methods["ridge"], iterations={"quick": 9, "full": 9})}
    steps = {step.name: step for step in Plan(trained, ["ridge"], make_settings(folds=(1,)), OUT).steps()}
    assert steps["fold1-ridge"].env["PYTHONPATH"] == str(REPOSITORY / "examples")
    assert steps["fold1-ridge-scores"].needs == ("fold1-ridge",)


def test_tracks_share_segmenters_and_nothing_that_reads_vectors(methods):
    clip, word = (_plan(methods, folds=(1,), track=track) for track in ("clip", "word"))
    assert clip.segmenter(1) == word.segmenter(1) and clip.warm_folder() == word.warm_folder()
    assert clip.whole("d2zero", 1) != word.whole("d2zero", 1)
    hashes = [{row.name: row.hash for row in plan.rows(1)} for plan in (clip, word)]
    assert {name for name in hashes[0] if hashes[0][name] == hashes[1][name]} == {SUPERVISED}


def test_a_result_is_another_one_if_anything_it_depends_on_changes(methods):
    first = _plan(methods, folds=(1, 2), seeds=(1, 2))
    rows = [row for fold in (1, 2) for row in first.rows(fold)]
    assert len({row.hash for row in rows}) == len(rows) == 2 * (2 + 1 + 1 + 1)

    def pading(plan: Plan) -> str:
        return next(row.hash for row in plan.rows(1) if row.name == "pading")

    dropout = {**methods["pading"].overrides, "MODEL.MASK_FORMER.DROP_OUT_ED": 0.5}
    changed = {**methods, "pading": dataclasses.replace(methods["pading"], overrides=dropout)}
    rate = dataclasses.replace(methods["baseline"], overrides={"SOLVER.BASE_LR": 0.5})
    for other in (
        _plan(changed, folds=(1,)),
        _plan({**methods, "baseline": rate}, folds=(1,)),
        _plan(methods, folds=(1,), world="tuning"),
        _plan(methods, folds=(1,), budget="smoke"),
    ):
        assert pading(other) != pading(first)
    assert pading(_plan(methods, folds=(1, 2, 3))) == pading(first)


def test_a_given_warm_start_is_known_by_its_content(methods, tmp_path):
    hashes = set()
    for content in (b"one", b"two"):
        (tmp_path / "start.pth").write_bytes(content)
        plan = _plan(methods, folds=(1,), warm_start=tmp_path / "start.pth")
        hashes.add(plan.segmenter_hash(1))
        assert "data-warm_start" not in [step.name for step in plan.steps()]
    assert len(hashes) == 2


def test_all_methods_that_can_run_are_the_default(methods):
    plan = Plan(methods, None, make_settings(), OUT)
    assert {"baseline", "pading", "projection", "gmmn", "d2zero", *SIMPLE, SUPERVISED} <= set(plan.names)
    for name, reason in (("pading_self_training", "predictions on images"), ("frozenclip", "toy CLIP")):
        assert name not in plan.names
        with pytest.raises(UserError, match=reason):
            _plan(methods, [name])
    with pytest.raises(UserError, match="no method 'padng'.*pading"):
        _plan(methods, ["padng"])


def test_settings_are_checked_and_written(tmp_path):
    settings = make_settings(folds=[3, 1, 3], track="easy")
    write_settings(tmp_path, settings, methods=["pading"])
    assert read_settings(tmp_path) == (settings, {"methods": ["pading"]}) and settings.folds == (3, 1)
    for wrong, message in (
        ({"folds": [0]}, "numbers from 1 to 10"),
        ({"track": "hard"}, "easy, clip, word"),
        ({"world": "warm-start"}, "--world is 'warm-start'"),
        ({"seeds": [-1]}, "Seeds are numbers from 1 to"),
        ({"seeds": [0]}, "but 0 was named"),
        ({"seeds": [2**31]}, "Seeds are numbers"),
        ({"seeds": range(10**12)}, "Seeds must be 1 to 1000 numbers"),
        ({"folds": range(1, 10**12)}, "Folds must be 1 to 1000 numbers"),
        ({"warm_start": tmp_path / "no.pth"}, "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            make_settings(**wrong)
    written = json.loads((tmp_path / "settings.json").read_text())
    for damage in (
        *({key: value} for key in ("world", "folds", "lengths", "methods") for value in (3, None, [["a"]], {"a": 1})),
        {"folds": "123"},
        {"folds": [1.5]},
        {"warm_start": 3},
        {"lengths": {**written["lengths"], "second": "500"}},
    ):
        (tmp_path / "settings.json").write_text(json.dumps({**written, **damage}))
        with pytest.raises(UserError, match="is not what this program writes"):
            read_settings(tmp_path)


@pytest.mark.parametrize(
    "plugin, file", [("one_file", "one_file.py"), ("pack.part", "pack/part.py"), ("pack", "pack/part.py")]
)
def test_one_byte_of_a_plugin_gives_another_hash_of_the_code(methods, tmp_path, plugin, file):
    """A plug-in is a package or a single file, at the top of ``import_from`` or in a package."""
    (tmp_path / "pack").mkdir()
    for name in ("one_file.py", "pack/part.py", "neighbour.py"):
        (tmp_path / name).write_bytes(b"SIGMA = 1\n")
    method = dataclasses.replace(methods["pading"], import_from=tmp_path)
    before, without = code_hash(method, (plugin,)), code_hash(method, ())
    assert before == code_hash(method, (plugin,)) != without
    (tmp_path / "neighbour.py").write_bytes(b"SIGMA = 2\n")
    assert code_hash(method, (plugin,)) == before
    (tmp_path / file).write_bytes(b"SIGMA = 2\n")
    assert code_hash(method, (plugin,)) != before and code_hash(method, ()) == without


def test_the_variants_of_the_cause_experiments_are_in_the_hash_of_the_code(methods):
    assert code_hash(methods["pading"], ("minibench.folds.variants",)) != code_hash(methods["pading"], ())


def test_the_code_is_no_part_of_the_identity_by_which_rows_are_found(tmp_path):
    """Otherwise an edit in the middle of a run would lose the rows that are finished."""
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "minibench.yaml").write_text(
        "methods: [{name: edited, title: Edited, task: panoptic, config: configs/mini/panoptic-PADing.yaml, "
        "starts_from: converted, iterations: 9, set: {PLUGINS: \"('edited_in_a_run',)\"}}]"
    )
    found = []
    for text in ("SIGMA = 1\n", "SIGMA = 2\n"):
        (tmp_path / "edited_in_a_run.py").write_text(text)
        every = discover([tmp_path / "edited"])
        job = _plan(every, ["edited"]).job("edited", 1, "second")
        assert job.plugins == ("edited_in_a_run",)
        found.append((_plan(every, ["edited"]).row("edited", 1, 1), code_hash(every["edited"], job.plugins)))
    (row, code), (again, other) = found
    assert row == again and code != other


def test_the_folder_of_a_checkout_is_not_in_the_hash_of_the_code(methods, tmp_path, monkeypatch):
    """The same code has the same hash on all machines."""
    found = []
    for name in ("first", "second"):
        repository = tmp_path / name
        for file in ("PADing/generation/model.py", "d2zero/heads.py", "d2zero/minibench.yaml"):
            (repository / file).parent.mkdir(parents=True, exist_ok=True)
            (repository / file).write_text("SIGMA = 1\n")
        monkeypatch.setattr("minibench.folds.configs.PACKAGES", repository)
        method = dataclasses.replace(methods["d2zero"], file=repository / "d2zero" / "minibench.yaml")
        found.append(code_hash(method, ("heads_of_no_module",)))
    assert found[0] == found[1]
