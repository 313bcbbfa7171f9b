"""A small data set of a user, as awkward as real ones, and the way to real COCO samples."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))  # for tests.mutations, however pytest was started

from tests.data.own_data import OwnData, forget_own, make_own  # noqa: E402


@pytest.fixture
def own(tmp_path) -> Iterator[OwnData]:
    """See ``make_own``."""
    yield make_own(tmp_path / "own")
    forget_own()


@pytest.fixture
def shared_data() -> Path:
    """The folder of real COCO samples; the test is skipped where it is not."""
    folder = Path(os.environ.get("DATA_DIR", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data samples are not at {folder} (set DATA_DIR)")
    return folder
