"""Every config key is explained, in one place, and docs/configuration*.md says the same."""

import re
from pathlib import Path

import pytest

from PADing.config_reference import all_keys, main, pages
from PADing.config_rules import RULES
from PADing.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def keys():
    return all_keys()


def test_every_key_has_a_meaning_and_every_meaning_a_key(keys):
    assert len(keys) > 250
    for key in keys:
        assert key.values and key.origin and bool(key.meaning) != bool(key.reason), key


def test_the_committed_pages_are_what_the_command_writes(keys):
    made = pages(keys)
    for path, text in made.items():
        committed = (REPOSITORY / "docs" / path).read_text(encoding="utf-8")
        assert committed == text, f"docs/{path} is old: run python -m PADing.config_reference --write"
    assert {f"configuration/{page.name}" for page in (REPOSITORY / "docs/configuration").iterdir()} == made.keys() - {
        "configuration.md"
    }


def _code(*folders: str) -> str:
    files = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    own = ("config.py", "config_rules.py", "config_reference.py")
    return "\n".join(path.read_text(encoding="utf-8") for path in files if path.name not in own)


def test_keys_are_read_or_marked(keys):
    """A mark is wrong when our code has ``.SECTION.KEY``; it is missing when no code has ``KEY`` at all."""
    own = ("PADing", "d2zero", "frozenclip")
    ours, every = _code(*own, "baselines"), _code(*own, "d2lite/src")
    for key in keys:
        section, _, last = key.name.rpartition(".")
        if key.reason:
            read = rf"\b{section.rpartition('.')[2]}\.{last}\b" if section else rf"\bcfg\.{last}\b"
            assert not re.search(read, ours), f"{key.name} is read"
        else:
            assert re.search(rf"\b{last}\b", every), f"{key.name} is not read"


def test_no_rule_for_a_key_without_effect(keys):
    """A value that changes nothing must not be refused, nor look as if it mattered."""
    silent = {key.name for key in keys if key.reason}
    assert {"SOLVER.BIAS_LR_FACTOR", "SOLVER.WEIGHT_DECAY_BIAS"} <= silent
    assert not silent & {name for rule in RULES for name in rule.full_keys()}


def test_one_key_a_section_and_a_typo(capsys):
    assert main(["--key", "MODEL.MASK_FORMER.NOISE"]) == 0
    assert "Gaussian noise" in capsys.readouterr().out
    assert main(["--key", "SOLVER.AMP"]) == 0
    assert {"SOLVER.AMP.ENABLED", "SOLVER.AMP.PRECISION"} <= set(capsys.readouterr().out.splitlines())
    assert main(["--key", "MODEL.RPN.HEAD_NAME"]) == 0
    assert "no effect" in capsys.readouterr().out
    assert main(["--key", "SOLVER.BASE_LRR"]) == 2
    assert "did you mean SOLVER.BASE_LR" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, message",
    [
        ("mine: {MODEL.OTHER: what}", "MODEL.OTHER, which is not a config key"),
        ("mine: {}", "MODEL.MY_KEY has no meaning"),
        ("mine: {MODEL.MY_KEY: what it does}", ""),
    ],
)
def test_a_plugin_explains_its_keys(tmp_path, monkeypatch, text, message):
    name = f"plugin_of_keys_{len(text)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("def add_config(cfg):\n    cfg.MODEL.MY_KEY = 1.5\n")
    (tmp_path / name / "config_keys.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    if message:
        with pytest.raises(UserError, match=message):
            all_keys(("d2zero", name))
    else:
        found = {key.name: key for key in all_keys(("d2zero", name))}["MODEL.MY_KEY"]
        assert (found.meaning, found.default, found.origin) == ("what it does", 1.5, "mine")
