"""The process that talks to one tracking service; a script that imports nothing of this package.

It reads one JSON object a line from its standard input (``do``: start, scalars, images, finish), and reports to its
standard output: ``{"id": ..., "url": ...}`` for the run, ``{"error": ...}`` for the first failure. What the service's
library prints goes to standard error, a log file.
"""

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

ONCE_IN = 1.0  # seconds between two looks at whether the training is still there


class Service(Protocol):
    """One service: ``start`` is called first and ``finish`` last."""

    def start(self, run: dict[str, Any]) -> tuple[str, str]:
        """Start or continue a run; returns its id and its address ("" if it has none)."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log numbers."""

    def images(self, step: int, files: dict[str, str]) -> None:
        """Log images, name -> path."""

    def finish(self, complete: bool) -> None:
        """End the run."""


class Wandb:
    """Weights & Biases. Iterations are a metric, because a resumed training may repeat some of them."""

    def start(self, run: dict[str, Any]) -> tuple[str, str]:
        """See ``Service``."""
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self.module = wandb
        self.run = wandb.init(
            project=run["project"],
            name=run["name"],
            id=run["id"] or None,
            resume="allow" if run["id"] else None,
            config=run["config"],
            dir=run["folder"],
            mode="offline" if run["offline"] else None,  # None: as WANDB_MODE says
            settings=wandb.Settings(init_timeout=run["timeout"], console="off"),
        )
        self.run.define_metric("iteration")
        self.run.define_metric("*", step_metric="iteration")
        return str(self.run.id), str(getattr(self.run, "url", None) or "")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """See ``Service``."""
        self.run.log({**values, "iteration": step})

    def images(self, step: int, files: dict[str, str]) -> None:
        """See ``Service``."""
        self.run.log({**{name: self.module.Image(path) for name, path in files.items()}, "iteration": step})

    def finish(self, complete: bool) -> None:
        """See ``Service``."""
        self.run.finish(exit_code=0 if complete else 1)


class Mlflow:
    """MLflow: the server of MLFLOW_TRACKING_URI, or else files in the output folder."""

    def start(self, run: dict[str, Any]) -> tuple[str, str]:
        """See ``Service``."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        local = run["offline"] or not os.environ.get("MLFLOW_TRACKING_URI")
        if local:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow

        self.module = mlflow
        if local:
            mlflow.set_tracking_uri(Path(run["folder"], "mlruns").absolute().as_uri())
        mlflow.set_experiment(run["project"])
        active = None
        if run["id"]:
            try:
                active = mlflow.start_run(run_id=run["id"])
            except Exception as error:
                print(f"The run {run['id']} cannot be continued, so there is a new one: {error}", file=sys.stderr)
        active = active or mlflow.start_run(run_name=run["name"])
        mlflow.log_dict(run["config"], "config.json")
        parameters = [(key, str(value)[:500]) for key, value in run["config"].items()]
        for first in range(0, len(parameters), 100):
            try:
                mlflow.log_params(dict(parameters[first : first + 100]))
            except Exception as error:  # a parameter cannot change, such as SOLVER.MAX_ITER of a longer training
                print(f"Parameters are not logged: {error}", file=sys.stderr)
        return str(active.info.run_id), "" if local else str(mlflow.get_tracking_uri())

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """See ``Service``."""
        self.module.log_metrics({_plain(name): value for name, value in values.items()}, step=step)

    def images(self, step: int, files: dict[str, str]) -> None:
        """See ``Service``."""
        for path in files.values():
            self.module.log_artifact(path, artifact_path="predictions")

    def finish(self, complete: bool) -> None:
        """See ``Service``."""
        self.module.end_run("FINISHED" if complete else "KILLED")


class Trackio:
    """Trackio: a Space or server if the environment names one, or else files in the output folder."""

    def start(self, run: dict[str, Any]) -> tuple[str, str]:
        """See ``Service``."""
        if run["offline"]:
            for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
                os.environ.pop(name, None)
        os.environ.setdefault("TRACKIO_DIR", os.path.join(run["folder"], "trackio"))
        import trackio

        self.module = trackio
        # A run is known by its name.
        name, resume = run["id"] or run["name"], "allow" if run["id"] else "never"
        self.run = trackio.init(project=run["project"], name=name, config=run["config"], resume=resume, embed=False)
        return str(self.run.name), ""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """See ``Service``."""
        self.module.log(values, step=step)

    def images(self, step: int, files: dict[str, str]) -> None:
        """See ``Service``."""
        self.module.log({name: self.module.Image(path) for name, path in files.items()}, step=step)

    def finish(self, complete: bool) -> None:
        """See ``Service``."""
        self.module.finish()


SERVICES: dict[str, Callable[[], Service]] = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


def _plain(name: str) -> str:
    """A metric's name with the characters that MLflow accepts."""
    return re.sub(r"[^A-Za-z0-9_\-. /:]", "_", name)


def main() -> None:
    """Serve the training that has started this process, until it says "finish" or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training decides how Ctrl-C ends
    inbox, outbox = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # no library may ask for a password, or print into the reports
    os.dup2(2, 1)
    told = False

    def report(**content: str) -> None:
        outbox.write(json.dumps(content) + "\n")
        outbox.flush()

    def attempt(action: Callable[[], Any]) -> Any:
        nonlocal told
        try:
            return action()
        except BaseException as error:  # some libraries raise SystemExit
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if not told:
                lines = str(error).strip().splitlines() or ["no message"]
                report(error=f"{type(error).__name__}: {lines[0][:300]}")
            told = True
            return None

    first = json.loads(inbox.readline())
    threading.Thread(target=_end_with, args=(os.getppid(), first["timeout"]), daemon=True).start()
    service = SERVICES[first["service"]]()
    started = attempt(lambda: service.start(first))
    if started is None:
        return
    report(id=started[0], url=started[1])
    complete = False
    for line in inbox:
        message = json.loads(line)
        if message["do"] == "scalars":
            attempt(lambda m=message: service.scalars(m["step"], m["values"]))  # type: ignore[misc]
        elif message["do"] == "images":
            attempt(lambda m=message: service.images(m["step"], m["files"]))  # type: ignore[misc]
        else:
            complete = message["complete"]
            break
    attempt(lambda: service.finish(complete))


def _end_with(training: int, patience: float) -> None:
    """End this process and its children, ``patience`` seconds after the process ``training`` has ended."""
    while os.getppid() == training:
        time.sleep(ONCE_IN)
    time.sleep(patience)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose modules could hide others
    main()
