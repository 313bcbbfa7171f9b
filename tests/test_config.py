"""Mistakes in a config end in one message that says what, where and what was meant."""

import pytest

from PADing.config import load_config, parse_opts
from PADing.errors import UserError


def _yaml(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return path


def test_a_mistyped_key_names_file_and_near_match(tmp_path):
    path = _yaml(tmp_path, "SOLVER:\n  BASE_LRR: 0.1\n")
    with pytest.raises(UserError, match=r"own\.yaml(.|\n)*SOLVER\.BASE_LRR.*SOLVER\.BASE_LR"):
        load_config(path)


def test_a_mistyped_override_names_the_key(tmp_path):
    with pytest.raises(UserError, match=r"command line(.|\n)*MODEL\.MASKFORMER\.NOISE.*MODEL\.MASK_FORMER\.NOISE"):
        load_config("", ["MODEL.MASKFORMER.NOISE", "False"])


def test_a_key_in_the_wrong_section_is_found_by_its_last_part():
    with pytest.raises(UserError, match=r"did you mean .*SOLVER\.AMP\.PRECISION"):
        load_config("", ["AMP_PRECISION.PRECISION", "bfloat16"])


def test_a_wrong_type_names_the_place(tmp_path):
    with pytest.raises(UserError, match=r"own\.yaml(.|\n)*MAX_ITER"):
        load_config(_yaml(tmp_path, 'SOLVER:\n  MAX_ITER: "many"\n'))


def test_a_missing_file_and_a_missing_base(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match=r"_BASE_ of .*own\.yaml.*nowhere\.yaml does not exist"):
        load_config(_yaml(tmp_path, "_BASE_: nowhere.yaml\n"))


def test_text_that_is_no_yaml(tmp_path):
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(_yaml(tmp_path, "MODEL: [1, 2\n"))


def test_a_plugin_adds_its_keys_and_an_absent_one_is_named(tmp_path, monkeypatch):
    (tmp_path / "my_zero_shot_method.py").write_text("def add_config(cfg):\n    cfg.MODEL.MY_KEY = 1.5\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = _yaml(tmp_path, 'PLUGINS: ("my_zero_shot_method",)\nMODEL:\n  MY_KEY: 2.5\n')
    assert load_config(path).MODEL.MY_KEY == 2.5
    with pytest.raises(UserError, match="no_such_method"):
        load_config(path, ["PLUGINS", '("no_such_method",)'])


def test_overrides_as_pairs_or_with_equals_signs():
    assert parse_opts(["A.B", "1", "C=x=y", "D", "k=v"]) == ["A.B", "1", "C", "x=y", "D", "k=v"]
    with pytest.raises(UserError, match="'SEED' has no value"):
        load_config("", ["SEED"])


def test_loaded_configs_are_frozen():
    with pytest.raises(AttributeError):
        load_config("").SEED = 4


def test_a_flag_behind_the_overrides_is_told_where_it_belongs():
    """It would otherwise be called an unknown config key."""
    with pytest.raises(UserError, match="--num-gpus comes after a config override"):
        parse_opts(["MODEL.DEVICE", "cpu", "--num-gpus", "0"])
