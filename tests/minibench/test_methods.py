"""What is compared: everything the issue of the benchmark asks for, and a clear answer to each mistake in a file."""

from pathlib import Path

import pytest
import yaml

from minibench.methods import discover, ordered, read_methods
from PADing.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]

ASKED_FOR = [
    *("baseline", "projection", "gmmn", "pading", "pading_no_primitives", "pading_no_disentanglement"),
    *("pading_no_alignment", "pading_no_noise", "pading_self_training"),
    *("d2zero", "d2zero_plain_classifier", "d2zero_no_image_background", "d2zero_unseen_loss"),
]


def test_the_repository_brings_every_method_of_both_papers():
    methods = discover()
    assert set(methods) >= set(ASKED_FOR)
    for name in ASKED_FOR[1:]:
        assert [m.name for m in ordered(methods, [name])][0] == "baseline", "all start from the shared pretraining"
    same = {m.iterations["full"] for m in methods.values() if m.name.startswith(("pading", "gmmn", "projection"))}
    assert len(same - {0}) == 1, "a variant that trains longer than its original proves nothing"


def test_examples_are_found_when_asked_for():
    assert "ridge" not in discover()
    assert discover([REPOSITORY / "examples"])["ridge"].iterations == {"quick": 0, "full": 0}
    assert "ridge" in discover([REPOSITORY / "examples" / "ridge"])


def test_a_method_stands_behind_those_it_needs():
    names = [m.name for m in ordered(discover(), ["pading_self_training"])]
    assert names == ["baseline", "pading", "pading_self_training"]


def _entry(**changes) -> dict:
    entry = {"name": "mine", "title": "Mine", "task": "panoptic", "config": "./mine.yaml", "starts_from": "nothing"}
    entry |= {"iterations": 10, **changes}
    return {key: value for key, value in entry.items() if value is not None}


def _folder(root: Path, *entries: dict, name: str = "mine") -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "mine.yaml").write_text("VERSION: 2\n")
    (folder / "minibench.yaml").write_text(yaml.safe_dump({"methods": list(entries)}))
    return folder


MISTAKES = [
    ([_entry(titel="x")], "unknown key `titel` (did you mean title?)"),
    ([_entry(title=None)], "`title` is missing"),
    ([_entry(title=3)], "`title` must be text"),
    ([_entry(name="My Method")], "a-z, 0-9 and _"),
    ([_entry(name="pretrained")], "not be one of nothing, pretrained, converted"),
    ([_entry(task="semantic")], "panoptic, instance"),
    ([_entry(config="./other.yaml")], "other.yaml does not exist"),
    ([_entry(iterations={"quick": 3})], "`iterations` must be"),
    ([_entry(iterations=-1)], "`iterations` must be"),
    ([_entry(iterations=True)], "`iterations` must be"),
    ([_entry(starts_from="scratch")], "'scratch', which is no method"),
    ([_entry(starts_from="pretrained")], "no method has `role: pretraining`"),
    ([_entry(uses={"MODEL.WEIGHTS": 3})], "`uses` maps config keys"),
    ([_entry(uses={"MODEL.WEIGHTS": "teacher"})], "'teacher', which is no method"),
    ([_entry(ablates="theirs")], "`ablates` names 'theirs'"),
    ([_entry(extends="theirs")], "`extends` names 'theirs'"),
    ([_entry(expected_above={"theirs": "it"})], "`expected_above` names 'theirs'"),
    ([_entry(expected_above={"theirs": 3})], "`expected_above` maps names of methods to headings"),
    ([_entry(role="best")], "pretraining, baseline, main"),
    ([_entry(role="pretraining"), _entry(name="b", role="pretraining")], "is already used by mine"),
    ([_entry(maps_features=1)], "`maps_features` must be true or false"),
    ([_entry(), _entry()], "'mine' is already used"),
    ([_entry(starts_from="b"), _entry(name="b", starts_from="mine")], "circle: mine -> b -> mine"),
    ([_entry(starts_from="b"), _entry(name="b", iterations=0)], "trains nothing"),
    ([_entry(tune={"keys": ["SEED"]})], "`tune` needs `keys`"),
    ([_entry(tune={"keys": ["SEED"], "trials": [[1], [1, 2]]})], "lists 1 values, one for each key, not [1, 2]"),
    ([_entry(tune={"keys": ["SEED"], "trials": [[1]], "iterations": 0})], "`iterations` must be at least 1"),
    ([_entry(tune={"keys": ["SEED"], "trial": [[1]]})], "not trial: "),
    ([_entry(tune={"keys": ["SEED"], "trials": [[1], [2], [3]], "finalists": 2})], "`iterations` must be named"),
    (
        [_entry(tune={"keys": ["SEED"], "trials": [[1], [2], [3]], "iterations": 10**9, "finalists": 2})],
        "no shorter than the full length",
    ),
    (
        [_entry(tune={"keys": ["SEED"], "trials": [[1], [2]], "iterations": 9, "finalists": 2})],
        "fewer than the 2 trials",
    ),
    (["mine"], "must be a mapping"),
]


@pytest.mark.parametrize("entries, message", MISTAKES, ids=[message for _, message in MISTAKES])
def test_each_mistake_gets_an_answer_that_names_file_and_cure(tmp_path, entries, message):
    folder = _folder(tmp_path, *entries)
    with pytest.raises(UserError) as error:
        discover([folder], repository=tmp_path / "nowhere")
    assert message in str(error.value) and str(folder / "minibench.yaml") in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["methods: [", "- a\n", "methods: {}\n", "methods: []\nmore: 1\n"])
def test_a_file_of_another_shape_is_refused(tmp_path, text):
    file = tmp_path / "minibench.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match="minibench.yaml"):
        read_methods(file)


def test_nothing_is_a_variant_of_itself(tmp_path):
    entries = [_entry(name="one", ablates="two"), _entry(name="two", ablates="one")]
    with pytest.raises(UserError, match="`ablates` leads back to it: one -> two -> one"):
        discover([_folder(tmp_path, *entries)], repository=tmp_path / "nowhere")


def test_two_folders_may_not_give_one_name(tmp_path):
    folders = [_folder(tmp_path, _entry(), name=name) for name in ("first", "second")]
    with pytest.raises(UserError, match="already used by .*first"):
        discover(folders, repository=tmp_path / "nowhere")


def test_a_folder_without_methods_and_a_mistyped_name_are_told(tmp_path):
    with pytest.raises(UserError, match="there is no minibench.yaml"):
        discover([tmp_path])
    with pytest.raises(UserError, match="did you mean pading_no_noise"):
        ordered(discover(), ["pading_no_nois"])
