"""Overrides and YAML values are understood where their meaning is plain; anything else is shown the form to write."""

import pytest

from PADing.config import load_config, read_config
from PADing.errors import UserError


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", "1e-4", 1e-4),
        ("SOLVER.MAX_ITER", "1e3", 1000),
        ("SOLVER.MAX_ITER", "20_000", 20000),
        ("SOLVER.STEPS", "(1e3, 2e3)", (1000, 2000)),
        ("SOLVER.STEPS", "500", (500,)),
        ("SOLVER.STEPS", "[500, 700]", (500, 700)),
        ("SOLVER.STEPS", "()", ()),
        ("INPUT.CROP.SIZE", "(640, 640)", [640, 640]),
        ("DATASETS.TRAIN", "mini_train_panoptic", ("mini_train_panoptic",)),
        ("DATASETS.TRAIN", "a,b", ("a", "b")),
        ("DATASETS.TRAIN", "(a,)", ("a",)),
        ("DATASETS.TRAIN", "['a', 'b']", ("a", "b")),
        ("DATASETS.TRAIN", '("a",)', ("a",)),
        ("MODEL.PIXEL_STD", "(1.0, 2.0, 3.0)", [1.0, 2.0, 3.0]),
        ("MODEL.MASK_FORMER.NOISE", "false", False),
        ("MODEL.MASK_FORMER.NOISE", "0", False),
        ("MODEL.MASK_FORMER.VEC_PATH", "None", None),
        ("MODEL.MASK_FORMER.VEC_PATH", "a.txt", "a.txt"),
        ("MODEL.WEIGHTS", "None", ""),
        ("MODEL.WEIGHTS", "'a b.pth'", "a b.pth"),
        ("OUTPUT_DIR", "2026", "2026"),
        ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", "inf", float("inf")),
    ],
)
def test_values_are_understood_on_the_command_line_and_in_files(tmp_path, key, written, value):
    found = load_config("", [key, written])
    *sections, last = key.split(".")
    text = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    (tmp_path / "a.yaml").write_text(f"{text}{'  ' * len(sections)}{last}: {written}\n")
    for cfg in (found, load_config(tmp_path / "a.yaml")):
        for section in sections:
            cfg = cfg[section]
        assert cfg[last] == value and type(cfg[last]) is type(value)


@pytest.mark.parametrize(
    ("key", "written", "form"),
    [
        ("SOLVER.MAX_ITER", "1.5", "a whole number, such as 40000"),
        ("SOLVER.MAX_ITER", "many", "a whole number"),
        ("SOLVER.MAX_ITER", "True", "a whole number"),
        ("SOLVER.MAX_ITER", "None", "a whole number"),
        ("SOLVER.BASE_LR", "fast", "a number, such as 0.001"),
        ("SOLVER.BASE_LR", "(1.0,)", "a number"),
        ("MODEL.MASK_FORMER.NOISE", "2", "True or False"),
        ("MODEL.MASK_FORMER.NOISE", "maybe", "True or False"),
        ("DATASETS.TRAIN", "None", 'a list, such as DATASETS.TRAIN \'("name_1", "name_2")\''),
        ("SOLVER.STEPS", "{1: 2}", "a list, such as SOLVER.STEPS '(30000,)'"),
        ("MODEL.WEIGHTS", "['a.pth']", None),
        ("MODEL.MASK_FORMER", "3", "such as MODEL.MASK_FORMER.DEEP_SUPERVISION"),
    ],
)
def test_other_values_are_shown_the_form(key, written, form):
    if form is None:  # a text may look like anything
        assert load_config("", [key, written]).MODEL.WEIGHTS == written
        return
    with pytest.raises(UserError) as error:
        load_config("", [key, written])
    assert f"command line: {key} is" in str(error.value) and form in str(error.value)


def test_all_mistakes_are_named_at_once_and_the_rest_is_set(tmp_path):
    (tmp_path / "a.yaml").write_text("SOLVER:\n  MAX_ITR: 3\n  BASE_LR: fast\nSEED: 5\n")
    opts = ["model.weights", "x", "INPUT.IMAGE_SIZE", "big", "TEST.WRITE_PNG", "1"]
    cfg, problems = read_config(tmp_path / "a.yaml", opts)
    assert cfg.SEED == 5 and cfg.TEST.WRITE_PNG is True
    assert [problem.split(": ")[1].split()[0] for problem in problems] == [
        "SOLVER.MAX_ITR", "SOLVER.BASE_LR", "model.weights", "INPUT.IMAGE_SIZE",
    ]  # fmt: skip
    assert "did you mean SOLVER.MAX_ITER" in problems[0] and "did you mean MODEL.WEIGHTS" in problems[2]
    with pytest.raises(UserError, match="4 mistakes:"):
        load_config(tmp_path / "a.yaml", opts)


def test_none_takes_back_what_a_file_has_set(tmp_path):
    """The type is that of the default: VEC_PATH is None there, so None does not become a text."""
    (tmp_path / "a.yaml").write_text("MODEL: {MASK_FORMER: {VEC_PATH: a.txt}, WEIGHTS: b.pth}\n")
    cfg = load_config(tmp_path / "a.yaml", ["MODEL.MASK_FORMER.VEC_PATH", "None", "MODEL.WEIGHTS", "None"])
    assert cfg.MODEL.MASK_FORMER.VEC_PATH is None and cfg.MODEL.WEIGHTS == ""


def test_yaml_lists_and_numbers_of_the_other_kind(tmp_path):
    (tmp_path / "a.yaml").write_text("SOLVER: {BASE_LR: 1, STEPS: [1, 2]}\nDATASETS: {TRAIN: one, TEST: [a, b]}\n")
    cfg = load_config(tmp_path / "a.yaml")
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS) == (1.0, (1, 2))
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("one",), ("a", "b"))


def test_later_overrides_do_not_hide_earlier_mistakes():
    """--num-gpus 0 adds MODEL.DEVICE at the end; "MODEL 4" before it went unnoticed."""
    with pytest.raises(UserError, match=r"(?s)2 mistakes.*MODEL is a section.*SEED\.X is not a config key"):
        load_config("", ["MODEL", "4", "SEED.X", "1", "MODEL.DEVICE", "cpu"])
    with pytest.raises(UserError, match="'' is not a config key"):
        load_config("", ["", "3"])
