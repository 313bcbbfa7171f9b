"""The notebooks run from a folder of a clone, and what they store is what a reader should see."""

import json
import re
from pathlib import Path

import pytest

from tests.documents.pages import REPOSITORY, name_of
from tests.documents.working_copy import make_working_copy

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))
# What the slow test puts in the place of the sizes.
SMOKE = {
    "TRAINING_IMAGES, VALIDATION_IMAGES, SIDE": "24, 8, 64",
    "STAGE_1, STAGE_2": "4, 4",
    "ITERATIONS": "4",
}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)


def _cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {"first_zero_shot_model", "your_own_classes"}


@every_notebook
def test_stored_outputs_are_clean(path):
    code = [cell for cell in _cells(path) if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in code), "run all cells before you save the notebook"
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    text = json.dumps([{**output, "data": None} for output in outputs]) + json.dumps([cell["source"] for cell in code])
    assert not re.search(r"/home/|/root/|/tmp/|/work/|[A-Z]:\\\\|[Ww]arning", text)
    assert path.stat().st_size < 700_000


@every_notebook
def test_links_lead_somewhere(path):
    text = "".join("".join(cell["source"]) for cell in _cells(path) if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (path.parent / target).exists(), target


@pytest.mark.slow
@every_notebook
def test_notebook_runs(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    folder = make_working_copy(tmp_path / "clone") / "somewhere" / "inside"
    folder.mkdir(parents=True)
    notebook, replaced = nbformat.read(path, as_version=4), 0
    for cell in notebook.cells:
        for names, values in SMOKE.items():
            cell.source, count = re.subn(rf"^{names} = .*", f"{names} = {values}", cell.source, flags=re.MULTILINE)
            replaced += count
    assert replaced == 2, "the sizes have other names now: change SMOKE"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 3
