"""The section about names that no image shows, from ``distractors.json``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minibench.bench import Spread, spread
from minibench.distractor_runs import read_distractors
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC, Task
from minibench.report.document import Cell, Row, Section, Table, Text, heading, say

# Columns: of IoU the harmonic mean alone, so that the table stays narrow.
COLUMNS = (
    *((PANOPTIC, metric, kind) for metric, kind in zip(PANOPTIC.metrics, ("seen", "unseen", "HM"), strict=True)),
    (SEMANTIC, SEMANTIC.harmonic, "HM"),
    *((INSTANCE, metric, kind) for metric, kind in zip(INSTANCE.metrics, ("seen", "unseen", "HM"), strict=True)),
)


def distractor_section(folder: Path) -> Section | None:
    """Metrics by method and number of distractors, as means over seeds; None if ``folder`` has no such file."""
    entries = read_distractors(folder)
    if not entries:
        return None
    rows: list[Row] = []
    for name in dict.fromkeys(entry["method"] for entry in entries):
        runs = [entry for entry in entries if entry["method"] == name]
        rows.append(heading(runs[0]["title"]))
        for number in sorted({int(number) for run in runs for number in run["numbers"]}):
            spreads = [_spread(runs, number, task, metric) for task, metric, _ in COLUMNS]
            cells = [Cell(*s.parts()) for s in spreads]
            rows.append(Row([Cell(f"{number:,}"), *cells, Cell(str(max(s.n for s in spreads)))]))
    columns = ["Distractors", *(f"{task.metric} {kind}" for task, _, kind in COLUMNS), "n"]
    seeds = sorted({entry["seed"] for entry in entries})
    images = sorted({entry["images"] for entry in entries})
    text = say("distractors", seeds=seeds, images=images)
    table = Table("Metrics with names that no image shows", columns, rows)
    return Section("Names that no image shows", "distractors", [table, Text(text, "note")])


def _spread(runs: Sequence[Mapping[str, Any]], number: int, task: Task, metric: str) -> Spread:
    found = {run["seed"]: run["numbers"].get(str(number), {}).get(task.key, {}).get(metric) for run in runs}
    return spread({seed: value for seed, value in found.items() if value is not None})
