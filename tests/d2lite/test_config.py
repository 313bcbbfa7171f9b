"""If these fail, published YAML files mean something else here than they do with Detectron2."""

import pytest
import yaml
from detectron2.config import CfgNode, configurable, get_cfg


def write(path, text):
    path.write_text(text)
    return str(path)


def test_default_config_is_a_copy():
    first = get_cfg()
    first.SOLVER.BASE_LR = 7.0
    assert get_cfg().SOLVER.BASE_LR == 0.001


def test_bases_are_merged_relative_to_the_file_and_the_file_wins(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "base.yaml", "VERSION: 2\nSOLVER:\n  MAX_ITER: 7\n  BASE_LR: 0.5\nMODEL:\n  WEIGHTS: base\n")
    path = write(tmp_path / "sub" / "a.yaml", "_BASE_: ../base.yaml\nSOLVER:\n  MAX_ITER: 9\n")
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.MODEL.WEIGHTS) == (9, 0.5, "base")
    assert cfg.SOLVER.GAMMA == 0.1


def test_expressions_in_files_are_evaluated_where_the_user_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("D2LITE_UNSAFE_YAML", "1")  # the genuine package does not ask
    path = write(tmp_path / "a.yaml", 'VERSION: 2\nINPUT:\n  MIN_SIZE_TRAIN: !!python/object/apply:eval ["[1, 2]"]\n')
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert cfg.INPUT.MIN_SIZE_TRAIN == (1, 2)  # a tuple, as the default is
    with pytest.raises(Exception, match="constructor"):
        get_cfg().merge_from_file(path, allow_unsafe=False)


def test_no_code_in_a_file_is_run(tmp_path, run_standin):
    """Stand-in alone: the genuine package runs it."""
    write(tmp_path / "a.yaml", f"VERSION: 2\nSEED: !!python/object/apply:os.system ['touch {tmp_path / 'ran'}']\n")
    write(tmp_path / "b.yaml", "_BASE_: a.yaml\n")
    code = (
        "import sys, yaml\nfrom detectron2.config import get_cfg\n"
        "for name in 'ab':\n"
        f"    try:\n        get_cfg().merge_from_file({str(tmp_path)!r} + f'/{{name}}.yaml', allow_unsafe=True)\n"
        "    except yaml.constructor.ConstructorError as error:\n        print('refused', error.problem)\n"
    )
    assert run_standin(code).count("refused could not determine a constructor") == 2
    assert not (tmp_path / "ran").exists()


def test_tuples_in_published_files_are_read(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path / "a.yaml", 'VERSION: 2\nDATASETS:\n  TRAIN: !!python/tuple ["a", "b"]\n'))
    assert cfg.DATASETS.TRAIN == ("a", "b")


def test_a_base_that_leads_back_is_refused(tmp_path, run_standin):
    """Stand-in alone: in the genuine package it ends in a RecursionError."""
    write(tmp_path / "a.yaml", "_BASE_: b.yaml\n")
    write(tmp_path / "b.yaml", "_BASE_: a.yaml\n")
    code = f"""
from detectron2.config import get_cfg
try:
    get_cfg().merge_from_file({str(tmp_path / "a.yaml")!r})
except ValueError as error:
    print(error)
"""
    assert "leads back" in run_standin(code)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SOLVER.STEPS", "(1, 2)", (1, 2)),
        ("SOLVER.STEPS", "[1, 2]", (1, 2)),
        ("SOLVER.WEIGHT_DECAY_BIAS", "1e-4", 1e-4),
        ("SOLVER.WEIGHT_DECAY_BIAS", "text", "text"),
        ("MODEL.WEIGHTS", "None", None),
        ("SOLVER.BASE_LR", "1.0", 1.0),
    ],
)
def test_overrides_are_literals_and_lists_fit_tuples(key, text, value):
    cfg = get_cfg()
    cfg.merge_from_list([key, text])
    node, leaf = key.rsplit(".", 1)
    found = cfg
    for part in node.split("."):
        found = found[part]
    assert found[leaf] == value and type(found[leaf]) is type(value)


@pytest.mark.parametrize(("key", "text"), [("SOLVER.BASE_LR", "1"), ("SOLVER.MAX_ITER", "1.5"), ("MODEL.WEIGHTS", "3")])
def test_a_value_of_another_type_is_refused(key, text):
    with pytest.raises(ValueError):
        get_cfg().merge_from_list([key, text])


def test_unknown_keys_missing_files_and_newer_versions_are_refused(tmp_path):
    with pytest.raises(KeyError):
        get_cfg().merge_from_file(write(tmp_path / "a.yaml", "VERSION: 2\nSOLVER:\n  BASE_LEARNING_RATE: 1.0\n"))
    with pytest.raises(AssertionError, match="b.yaml"):
        get_cfg().merge_from_file(str(tmp_path / "b.yaml"))
    with pytest.raises(AssertionError):
        get_cfg().merge_from_file(write(tmp_path / "c.yaml", "VERSION: 3\n"))


def test_what_is_dumped_can_be_merged_again(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.STEPS", "(3, 4)", "DATASETS.TRAIN", "('a', 'b')"])
    again = get_cfg()
    again.merge_from_file(write(tmp_path / "config.yaml", cfg.dump()))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    assert again.SOLVER.STEPS == (3, 4) and again.DATASETS.TRAIN == ("a", "b")


def test_a_frozen_config_cannot_be_changed():
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.SOLVER.BASE_LR = 1.0
    copy = cfg.clone()
    copy.defrost()
    copy.SOLVER.BASE_LR = 1.0
    assert cfg.SOLVER.BASE_LR == 0.001


class Thing:
    @configurable
    def __init__(self, width, depth=2, *, name="x"):
        self.args = (width, depth, name)

    @classmethod
    def from_config(cls, cfg, depth):
        return {"width": cfg.WIDTH, "depth": depth, "name": "from cfg"}


class Greedy(Thing):
    @classmethod
    def from_config(cls, cfg, **kwargs):
        return {"width": cfg.WIDTH, "name": str(sorted(kwargs))}


def test_configurable_takes_arguments_or_a_config():
    cfg = CfgNode({"WIDTH": 5})
    assert Thing(1).args == (1, 2, "x")
    assert Thing(width=1, name="n").args == (1, 2, "n")
    assert Thing(cfg, 3).args == (5, 3, "from cfg")
    assert Thing(cfg=cfg, depth=4).args == (5, 4, "from cfg")
    # A keyword that from_config does not name overrides its result.
    assert Thing(cfg, 3, name="mine").args == (5, 3, "mine")
    # One with **kwargs takes them all.
    assert Greedy(cfg, name="mine").args == (5, 2, "['name']")


def test_configurable_functions():
    @configurable(from_config=lambda cfg, b: {"a": cfg.WIDTH, "b": b})
    def add(a, b, c=0):
        return (a, b, c)

    assert add(1, 2) == (1, 2, 0)
    assert add(CfgNode({"WIDTH": 5}), 7, c=1) == (5, 7, 1)


def test_misuse_of_configurable_is_an_error_of_the_programmer():
    class NoFromConfig:
        @configurable
        def __init__(self, a):
            pass

    class WrongFirst:
        @configurable
        def __init__(self, a):
            pass

        @classmethod
        def from_config(cls, config):
            return {}

    for cls in (NoFromConfig, WrongFirst):
        with pytest.raises((TypeError, AttributeError)):
            cls(CfgNode())
    with pytest.raises(AssertionError):
        configurable(from_config=3)
    with pytest.raises(AssertionError):
        configurable(lambda cfg: None)

    class NotBound(NoFromConfig):
        def from_config(self, cfg):
            return {}

    with pytest.raises(TypeError):
        NotBound(CfgNode())
