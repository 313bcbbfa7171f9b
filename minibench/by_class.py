"""Metrics of a run by class: PQ from the panoptic evaluator, AP50 of masks from the instance evaluator."""

import math
from collections.abc import Mapping
from pathlib import Path

from minibench.methods import INSTANCE, PANOPTIC
from PADing.errors import UserError
from PADing.files import read_json

# Task -> the evaluator's file below a run's ``inference`` folder, and the keys that lead to its list of classes.
_FILES = {
    PANOPTIC: ("panoptic_results.json", ("per_class",)),
    INSTANCE: ("instance_results.json", ("per_class", INSTANCE.key)),
}


def read_classes(run_folder: Path) -> dict[str, dict[str, float | None]]:
    """Task key -> class name -> the task's metric in percent; without tasks whose evaluator wrote no classes."""
    found = {}
    for task, (name, keys) in _FILES.items():
        path = next(run_folder.glob(f"inference/**/{name}"), None)
        try:
            content = None if path is None else read_json(path, "Results by class")
            for key in keys:
                content = (content or {}).get(key)
            classes = {str(entry["name"]): entry[task.metric] for entry in content or ()}
        except (UserError, AttributeError, KeyError, TypeError):
            continue  # a damaged file, or one of a version that had no metrics by class
        if classes:
            found[task.key] = classes
    return found


def numbers_by_class(value: object) -> Mapping[str, Mapping[str, float]]:
    """The same as read from ``results.json``, without what is no number."""
    tasks = value.items() if isinstance(value, Mapping) else ()
    tables = {str(task): classes for task, classes in tasks if isinstance(classes, Mapping)}
    return {
        task: {str(name): float(v) for name, v in classes.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        for task, classes in tables.items()
    }
