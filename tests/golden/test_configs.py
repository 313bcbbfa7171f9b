"""Every shipped YAML has the published effective values; else a run is not the published protocol, unnoticed."""

import json
from pathlib import Path

import pytest
from detectron2.config import get_cfg

from PADing.config import load_config
from tests.golden.util import GOLDEN, REPOSITORY

CONFIGS = GOLDEN / "configs"
FILES = sorted(CONFIGS.glob("[!_]*.json"))
# The two published code bases have different defaults for this key. Ours is None; every D2Zero YAML sets it.
CLASHING_DEFAULT = "MODEL.MASK_FORMER.VEC_PATH"


def _flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            # JSON has no tuples; the kind of sequence does not matter to a config.
            yield prefix + key, json.loads(json.dumps(value))


def _compare(cfg, golden: Path):
    ours, theirs = dict(_flat(cfg)), dict(_flat(json.loads(golden.read_text())))
    if golden.name.startswith(("D2Zero_", "_defaults_D2Zero")):
        defaults = dict(_flat(json.loads((CONFIGS / "_defaults_D2Zero.json").read_text())))
        if theirs[CLASHING_DEFAULT] == defaults[CLASHING_DEFAULT]:
            del theirs[CLASHING_DEFAULT]
    wrong = {k: (ours.get(k, "absent"), v) for k, v in theirs.items() if ours.get(k, "absent") != v}
    assert not wrong, f"(ours, published): {wrong}"


@pytest.mark.skipif(not FILES, reason=f"no golden configs in {CONFIGS}")
def test_there_is_a_shipped_file_for_each_published_one():
    assert [f.name for f in FILES if not _path(f).is_file()] == []


def _path(golden: Path) -> Path:
    """``PADing_panoptic-segmentation__PADing.json`` -> ``configs/panoptic-segmentation/PADing.yaml``."""
    return REPOSITORY / "configs" / (golden.stem.split("_", 1)[1].replace("__", "/") + ".yaml")


@pytest.mark.parametrize("golden", FILES, ids=lambda f: f.stem)
def test_effective_values(golden):
    plugins = ["PLUGINS", '("d2zero",)'] if golden.name.startswith("D2Zero_") else []
    _compare(load_config(_path(golden), plugins), golden)


@pytest.mark.parametrize("golden", sorted(CONFIGS.glob("_defaults_*.json")), ids=lambda f: f.stem)
def test_defaults(golden):
    cfg = load_config("", ["PLUGINS", '("d2zero",)'])
    _compare(cfg, golden)


def test_a_frozen_config_survives_dump_and_load(tmp_path):
    """The config.yaml of an output folder starts the same run again."""
    cfg = load_config(REPOSITORY / "configs" / "mini" / "panoptic-PADing.yaml", ["SEED", "3"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert dict(_flat(load_config(tmp_path / "config.yaml"))) == dict(_flat(cfg))
    assert cfg.is_frozen() and not get_cfg().is_frozen()
