"""What holds for every test: none leaves its loggers, default dtype or thread count to the next one in its process.

Tests may import ``tests.<folder>.<helper>``, however pytest was started.
"""

import logging
import signal
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = str(Path(__file__).resolve().parents[1])
if REPOSITORY not in sys.path:
    sys.path.insert(0, REPOSITORY)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A script's background jobs (``make test &``) ignore Ctrl-C, as would our programs: tests that send it would fail.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.small_models import drawn, model_options, tool  # noqa: E402, F401  fixtures


@pytest.fixture(autouse=True)
def _no_state_left_behind():
    """Undo what a test (or the code it runs, e.g. ``setup_logger``) did to loggers and to torch's defaults.

    ``caplog`` attaches itself to whichever loggers do not propagate when a test starts, so that a logger left in that
    state by one test would double the records of another, depending on their order.
    """
    loggers = {"": logging.getLogger()} | {n: logging.getLogger(n) for n in _names()}
    before = {name: (x.level, x.propagate, x.disabled, list(x.handlers)) for name, x in loggers.items()}
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    for name in {"", *_names()}:
        logger = logging.getLogger(name)
        logger.level, logger.propagate, logger.disabled, handlers = before.get(name, (logging.NOTSET, True, False, []))
        logger.handlers[:] = handlers
        logger.manager._clear_cache()  # levels are cached per logger


def _names() -> list[str]:
    return [name for name, x in logging.root.manager.loggerDict.items() if isinstance(x, logging.Logger)]
