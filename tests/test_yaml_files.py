"""YAML files that are hostile or damaged: no code runs, memory stays bounded, and one message says what is wrong."""

import os
import subprocess
import sys

import pytest

from PADing.config import load_config
from PADing.data.splits import load_split
from PADing.errors import UserError
from PADing.yaml_files import evaluate_arithmetic, read_config_tree, read_yaml


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "own.yaml"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def _running(target) -> list[str]:
    """Documents that would make the file ``target`` if any code of theirs ran."""
    command = f"import pathlib; pathlib.Path({str(target)!r}).touch()"
    return [
        f"SEED: !!python/object/apply:os.system ['touch {target}']\n",
        f"SEED: !!python/object/apply:builtins.exec [{command!r}]\n",
        f"SEED: !!python/object/new:os.system ['touch {target}']\n",
        f'SEED: !!python/object/apply:eval [\'__import__("os").system("touch {target}")\']\n',
        "SEED: !!python/object/apply:eval ['[x.__class__ for x in range(3)]', {}]\n",
        f"? !!python/object/apply:os.system ['touch {target}']\n: 1\n",
        "SEED: !!python/name:os.system\n",
        "SEED: !!python/module:antigravity\n",
    ]


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("reader", [load_config, load_split, read_config_tree])
def test_no_code_in_a_file_is_run(tmp_path, write, index, reader):
    target = tmp_path / "ran"
    path = write(_running(target)[index])
    with pytest.raises(UserError, match="own.yaml"):
        reader(path)
    with pytest.raises(UserError, match="own.yaml"):
        read_config_tree(write("_BASE_: own.yaml\n", "child.yaml"))
    assert not target.exists()


def test_only_the_variable_lets_code_run(tmp_path, write, monkeypatch):
    path = write("SOLVER:\n  MAX_ITER: !!python/object/apply:math.factorial [4]\n")
    with pytest.raises(UserError, match="PADING_UNSAFE_YAML=1"):
        load_config(path)
    monkeypatch.setenv("PADING_UNSAFE_YAML", "1")
    assert load_config(path).SOLVER.MAX_ITER == 24


def test_tuples_and_arithmetic_of_published_files_are_read(write):
    """Mask2Former's files list training sizes in this way."""
    cfg = load_config(
        write(
            "INPUT:\n"
            '  MIN_SIZE_TRAIN: !!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 8)]"]\n'
            'DATASETS:\n  TRAIN: !!python/tuple ["a", "b"]\n'
        )
    )
    assert cfg.INPUT.MIN_SIZE_TRAIN == (320, 384, 448) and cfg.DATASETS.TRAIN == ("a", "b")


@pytest.mark.parametrize(
    ("text", "value"),
    [("(1, 2.5)", (1, 2.5)), ("-7 // 2 + 3 % 2", -3), ("list(range(3))", [0, 1, 2]), ("round(1 / 3)", 0)],
)
def test_arithmetic(text, value):
    assert evaluate_arithmetic(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "open('x')", "().__class__", "'a' * 9", "[0] * 10 ** 9", "2 ** 99", "[x for x in range(10**9)]", "range",
        "[[y for y in range(9999)] for x in range(9999)]", "list(range(10001))", "1 / 0",
        "round(7, -999999999)", "int('5')", "lambda: 1",
        "[" * 400, "1 if 2 else 3", "x", "",
    ],
)  # fmt: skip
def test_what_is_not_arithmetic_is_refused(text):
    with pytest.raises(ValueError):
        evaluate_arithmetic(text)


BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: 0, l: 1}\n" + "".join(
    f"{new}: &{new}\n  <<: [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "aliases"),
        (MERGE_BOMB, "aliases"),
        ("a: &a [*a]\n", "alias contains itself"),
        ("a0: &a0 {b: 1}\n" + "".join(f"a{i}: &a{i} {{b: *a{i - 1}}}\n" for i in range(1, 300)), "nested too deep"),
        ("[" * 50_000, "not valid YAML"),
        ("a: " + "{b: " * 2_000 + "}" * 2_000, "not valid YAML|too deep"),
        (PNG, "not UTF-8 text"),
        ("SEED: 1\n".encode("utf-16"), "not UTF-8 text"),
        (b"SEED: 1\0\n", "not text"),
        ("", "is empty"),
        ("# nothing yet\n", "is empty"),
        ("- 1\n- 2\n", "not a list"),
        ("just text\n", "not a str"),
        ("1: 2\n", "key 1 must be text"),
        ("MODEL:\n  2024-01-01: 2\n", "in MODEL must be text"),
        ("SEED: 2024-99-99\n", "not valid YAML"),
        (f"SEED: {'9' * 5000}\n", "not valid YAML"),
        ("SEED: !!int abc\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "not valid YAML|must be text"),
        ("SEED: !unknown 3\n", "refused"),
        ("_BASE_: 3\n", "_BASE_ must be a path"),
        ("_BASE_: [[x]]\n", "_BASE_ must be a path"),
        ("_BASE_: .\n", "is a folder"),
        ("VERSION: 3\n", "VERSION 3 is unknown"),
        ("PLUGINS: 5\n", "PLUGINS must be"),
        ('PLUGINS: ["../x"]\n', "not the name of a module"),
    ],
)
def test_a_damaged_file_ends_in_one_message(write, content, message):
    path = write(content)
    with pytest.raises(UserError, match=message) as info:
        load_config(path)
    assert "own.yaml" in str(info.value) or "PLUGINS" in str(info.value)


def test_a_file_that_leads_back_to_itself_names_the_way(write):
    write("_BASE_: b.yaml\n", "a.yaml")
    write("_BASE_: ./c.yaml\n", "b.yaml")
    first = write("_BASE_: a.yaml\n", "c.yaml")
    with pytest.raises(UserError, match=r"c\.yaml -> .*a\.yaml -> .*b\.yaml -> .*c\.yaml"):
        load_config(first)


def test_bases_that_multiply_are_bounded(write):
    """Each file names the next one ten times: ten billion readings for ten files."""
    write("SEED: 1\n", "10.yaml")
    for i in range(10):
        write(f"_BASE_: [{', '.join([f'{i + 1}.yaml'] * 10)}]\n", f"{i}.yaml")
    with pytest.raises(UserError, match="more than 50 _BASE_ files"):
        read_config_tree(write("_BASE_: 0.yaml\n"))


def test_later_bases_win_and_the_file_wins_over_all(write):
    write("A: {x: 1, y: 1, z: 1}\nB: 1\n", "one.yaml")
    write("A: {y: 2, z: 2}\n", "two.yaml")
    path = write("_BASE_: [one.yaml, two.yaml]\nA: {z: 3}\nC: 3\n")
    assert read_config_tree(path) == {"A": {"x": 1, "y": 2, "z": 3}, "B": 1, "C": 3}
    with pytest.raises(UserError, match="B is a section here"):
        read_config_tree(write("_BASE_: one.yaml\nB: {x: 1}\n"))


def test_overwriting_one_section_leaves_its_alias_alone(write):
    write("A: &a {x: 1}\nB: *a\n", "base.yaml")
    assert read_config_tree(write("_BASE_: base.yaml\nA: {x: 2}\n")) == {"A": {"x": 2}, "B": {"x": 1}}


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_yaml(tmp_path, "Split file")
    with pytest.raises(UserError, match="Split file .*absent.yaml does not exist"):
        read_yaml(tmp_path / "absent.yaml", "Split file")
    os.mkfifo(tmp_path / "pipe.yaml")  # reading it would wait for ever
    with pytest.raises(UserError, match="does not exist"):
        read_yaml(tmp_path / "pipe.yaml", "Split file")


def test_a_bomb_takes_little_memory(write):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))\n"
        "from PADing.yaml_files import read_yaml\nfrom PADing.errors import UserError\n"
        "try:\n    read_yaml(sys.argv[1], 'File')\nexcept UserError as error:\n    print(error)\n"
        "from PADing.peak_memory import peak_memory; print(peak_memory() < 2**30)"
    )
    answer = subprocess.run([sys.executable, "-c", code, write(BOMB)], capture_output=True, text=True)
    assert "aliases" in answer.stdout and answer.stdout.split()[-1] == "True", answer.stderr
