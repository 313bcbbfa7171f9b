"""The event writer of one tracking service, and the check of the keys at the start."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from PADing.config_values import leaves
from PADing.errors import did_you_mean
from PADing.tracking.process import TrackingProcess

SERVICES = ("wandb", "mlflow", "trackio")
FOLDER = "tracking"  # under OUTPUT_DIR


class TrackingWriter(EventWriter):
    """Sends the scalars of ``metrics.json``, and images, to a service. Nothing it does can fail or block."""

    def __init__(self, service: str, cfg: CfgNode, window_size: int = 20):
        node, folder = cfg.TRACKING_RUN, Path(cfg.OUTPUT_DIR)
        self._process = TrackingProcess(service, folder / FOLDER, node.TIMEOUT)
        self._run: dict[str, Any] = {
            "project": node.PROJECT or "pading",
            "name": node.NAME or folder.absolute().name or "run",
            "offline": node.OFFLINE,
            "config": {key: _plain(value) for key, value in leaves(cfg)},
        }
        self._window, self._written_until, self.complete = window_size, -1, False

    def start(self, resume: bool) -> None:
        """Start a run; with ``resume``, continue that of the output folder."""
        self._process.start(self._run, resume)

    def write(self) -> None:
        """Send the scalars that are new."""
        fresh: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self._window).items():
            if iteration > self._written_until:
                fresh.setdefault(iteration, {})[name] = float(value)
        for iteration, values in sorted(fresh.items()):
            self._written_until = iteration
            self._process.send(do="scalars", step=iteration, values=values)

    def write_images(self, files: Mapping[str, str | os.PathLike], iteration: int) -> None:
        """Send images, name -> path of a file that stays."""
        paths = {name: os.path.abspath(path) for name, path in files.items()}
        self._process.send(do="images", step=iteration, files=paths)

    def close(self) -> None:
        """End the run: as complete if ``complete`` is set."""
        self._process.close(self.complete)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def tracking_problems(cfg: CfgNode) -> Iterator[str]:
    """Mistakes in ``TRACKING``: an unknown or repeated service, or a package that is not installed."""
    names = cfg.TRACKING
    for name in names:
        if name not in SERVICES:
            hint = did_you_mean(name, SERVICES) or f" (there are: {', '.join(SERVICES)})"
            yield f"TRACKING names {name!r}, which is not a service{hint}."
        elif not _installed(name):
            package = "mlflow-skinny" if name == "mlflow" else name
            problem = f"TRACKING names {name}, but its package is not installed."
            yield f'{problem} Run: pip install {package}, or for all services pip install "pading[tracking]"'
    if len(set(names)) < len(names):
        yield f"TRACKING is {names!r}. Name each service once."


def _installed(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    # Without an origin it is a folder of this name, such as the one that wandb writes.
    return spec is not None and spec.origin is not None
