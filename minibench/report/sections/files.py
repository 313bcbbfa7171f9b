"""Finding the files of runs, and going on without them."""

import logging
from collections.abc import Callable
from pathlib import Path

from minibench.report.bench import Bench, Method, Run
from minibench.report.document import Note, Section
from minibench.report.predictions import Validation, inference_folder, open_validation
from PADing.errors import UserError

__all__ = ["attempt", "data_root", "opened"]

logger = logging.getLogger(__name__)


def data_root(bench: Bench, run: Run) -> Path:
    """``$DETECTRON2_DATASETS`` of a run: every seed has its own data.

    Raises:
        UserError: the data are gone.
    """
    folder = bench.data.get("folders", {}).get(str(run.seed))
    if folder is None or not (bench.folder / folder).is_dir():
        raise UserError(f"The data of seed {run.seed} are gone: {folder}.")
    return bench.folder / folder


def opened(bench: Bench, method: Method) -> tuple[Run, Validation]:
    """The first run of a method whose predictions are there, and its validation set.

    Raises:
        UserError: there is none, and why.
    """
    problem = UserError(f"{method.title} was not run.")
    for run in bench.runs_of(method.name):
        try:
            validation = open_validation(run.folder, data_root(bench, run))
            if not inference_folder(run.folder, validation).is_dir():
                raise UserError(f"The predictions of {run.folder.name} are gone.")
            return run, validation
        except UserError as error:
            problem = error
    raise problem


def attempt(section: Section, method: Method, compute: Callable):
    """What ``compute`` returns; None, with a note in the section, where that fails."""
    try:
        return compute()
    except Exception as error:
        # Hours of training lie behind the figures; a damaged file must cost its own picture only. What is no plain lack
        # of a file is logged in full.
        unexpected = not isinstance(error, (UserError, OSError))
        logger.warning("%s, %s: %s", section.title, method.title, error, exc_info=unexpected)
        section.blocks.append(Note(f"{method.title}: not available; what `minibench.py report` prints says why."))
        return None
