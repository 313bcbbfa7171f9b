"""The commands of the pages are run, in the order of each page, at smoke size, in a working copy with drawn data.

The fast test runs what takes a second; the slow one runs everything that ``smoke.why_not`` does not except.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from PADing.data.mini_files import make_mini_coco
from PADing.errors import UserError
from tests.documents.checks import check_names, made_by
from tests.documents.pages import PAGES, REPOSITORY, commands_of, name_of
from tests.documents.parsing import Rejected, parse
from tests.documents.smoke import is_quick, prepared, why_not
from tests.documents.test_commands_parse import ON_OWN_DATA, unchanged_catalogs
from tests.documents.working_copy import make_working_copy
from tests.tiny_coco import draw_source, make_tiny_coco

SOURCES = [path for path in PAGES if commands_of(path)]
# Statuses that are no failure: 1 of a check that has found something missing.
ALLOWED = {"-m PADing.data.verify": (0, 1), "-m PADing.installation": (0, 1)}

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


class Runner:
    """Runs words in the current folder, by a fork server; ``Rejected`` with the end of the output of one that fails."""

    def __init__(self, log: Path):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("DETECTRON2_DATASETS", None)
        command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        self.log, pipes = log, {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server = subprocess.Popen(command, env=environment, **pipes)

    def __call__(self, words: list[str], allowed=(0,), stand_in: bool = False, environment=()) -> None:
        status = self._alone(words, dict(environment)) if environment else self._fork(words, stand_in)
        if status not in allowed:
            said = self.log.read_text(errors="replace")[-1500:]
            raise Rejected(f"ends with status {status}. As run: python {' '.join(words)}\n{said}")

    def _fork(self, words: list[str], stand_in: bool) -> int:
        job = {"words": words, "cwd": os.getcwd(), "log": str(self.log), "stand_in": stand_in}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline() or -1)

    def _alone(self, words: list[str], environment: dict[str, str]) -> int:
        """In a process of its own: the server has read its variables when it registered the data sets."""
        with open(self.log, "wb") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
            return subprocess.call([sys.executable, *words], env=environment, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("log") / "log.txt")
    yield runner
    runner.server.stdin.close()
    runner.server.wait(20)


@pytest.fixture(scope="module")
def base(tmp_path_factory, runner):
    """A working copy with drawn COCO, prepared, the mini data set, class embeddings and split files of all pages."""
    folder = make_working_copy(tmp_path_factory.mktemp("pages"))
    make_mini_coco(folder / "datasets" / "mini", train=4, val=2, size=64)
    make_tiny_coco(folder / "datasets", draw_source(tmp_path_factory.mktemp("drawn")))
    with pytest.MonkeyPatch.context() as monkeypatch, unchanged_catalogs():
        monkeypatch.chdir(folder)
        for path in (REPOSITORY / page for page in ON_OWN_DATA):
            for parsed in (parsed for command in commands_of(path) for parsed in parse(command)):
                if parsed.script in ("tools/make_split.py", "tools/class_embeddings.py"):
                    check_names(parsed)
        for script in ("get_zsp_json", "prepare_coco_semantic_annos_from_panoptic_annos", "prepare_coco_zsi"):
            runner([f"datasets/{script}.py"])
        runner(["datasets/prepare_coco_stuff_sem_seg.py", "--workers", "1"])
        splits = sorted(map(str, Path("datasets/splits").glob("coco_*.yaml")))
        clip = ["tools/class_embeddings.py", "clip", "--output", "embeddings/coco/coco_clip_vitb16.npz"]
        runner([*clip, "--split", *splits], stand_in=True)
    return folder


@pytest.fixture
def here(base, tmp_path, monkeypatch):
    """A copy of it as the current folder."""
    monkeypatch.chdir(shutil.copytree(base, tmp_path / "copy", symlinks=True))
    with unchanged_catalogs():
        yield


def run_page(path: Path, runner: Runner, quick: bool) -> list[str]:
    """What fails. Split files are made in any case."""
    wrong = []
    for command in commands_of(path):
        try:
            for parsed in parse(command):
                if parsed.script == "tools/make_split.py":
                    check_names(parsed)
                if why_not(parsed) or (quick and not is_quick(parsed)):
                    continue
                words, allowed = prepared(parsed, runner), ALLOWED.get(parsed.script, (0,))
                # A folder of data that no command of this page has made: the drawn data set serves as well.
                given = command.environment
                given = [pair for pair in given if pair[0] != "DETECTRON2_DATASETS" or Path(pair[1]).is_dir()]
                runner(words, allowed, stand_in=True, environment=given)
                trained = made_by(parsed)[0] if parsed.script.startswith("train_net") else ""
                if trained and not json.loads(Path(trained, "results.json").read_text()):
                    raise Rejected("leaves no metrics")
        except (Rejected, UserError, OSError) as error:
            wrong.append(f"{command.place}: {command.text}\n    {error}")
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_quick_commands_run(path, here, runner):
    wrong = run_page(path, runner, quick=True)
    assert not wrong, "\n\n" + "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_all_commands_run(path, here, runner):
    wrong = run_page(path, runner, quick=False)
    assert not wrong, "\n\n" + "\n".join(wrong)
