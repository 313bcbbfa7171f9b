"""Make ``tests.tiny_coco`` importable, however pytest was started."""

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real COCO samples; the test is skipped where it is not."""
    folder = Path(os.environ.get("DATA_DIR", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data samples are not at {folder} (set DATA_DIR)")
    return folder
