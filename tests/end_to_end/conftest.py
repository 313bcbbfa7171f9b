"""Data trees for whole runs: COCO's layout with drawn images or real samples, prepared as docs/coco.md says."""

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from tests.end_to_end.command_line import readme_commands, run  # noqa: E402
from tests.tiny_coco import draw_source, make_tiny_coco  # noqa: E402


def prepare(root: Path) -> Path:
    """Run the preparation commands of docs/coco.md on the downloads below ``root``."""
    commands = readme_commands("## Prepare", "docs/coco.md")
    assert len(commands) == 4, commands
    for command in commands:
        run(command, data=root)
    return root


@pytest.fixture(scope="session")
def drawn_coco(tmp_path_factory) -> Path:
    """A prepared COCO-shaped tree of 24 drawn images; it needs nothing beside the repository."""
    source = draw_source(tmp_path_factory.mktemp("drawn"))
    return prepare(make_tiny_coco(tmp_path_factory.mktemp("drawn_coco"), source))


@pytest.fixture(scope="session")
def real_coco(tmp_path_factory) -> Path:
    """The same of 12 real images; skipped where there are none."""
    source = Path(os.environ.get("DATA_DIR", REPOSITORY.parent / "shared" / "data"))
    if not source.is_dir():
        pytest.skip(f"real data samples are not at {source} (set DATA_DIR)")
    return prepare(make_tiny_coco(tmp_path_factory.mktemp("real_coco"), source, count=6))
