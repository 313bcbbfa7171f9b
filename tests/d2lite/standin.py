"""Marks tests of what the genuine Detectron2 does not do, so that the suite passes with either one."""

import detectron2
import pytest

standin_only = pytest.mark.skipif(
    not hasattr(detectron2, "__standin__"), reason="what the stand-in does beyond the genuine package"
)
