"""The trainings of all folds, where their results lie, and the steps that lead there.

data of the world `warm-start` -> backbone -> warm start
warm start -> segmenter of each fold -> its features -> second stages
    |                           `-> methods that train the whole network
    `-> supervised oracle, once for all folds
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from minibench.folds.configs import FROM_WARM, Job, job, kind_of, overrides
from minibench.folds.settings import WARM_START, Settings
from minibench.folds.simple import SIMPLE
from minibench.methods import Method
from minibench.runs import RECORD, finish_training, read_record
from minibench.steps import Step, training_progress
from PADing.data.mini_v2.hashes import committed
from PADing.data.mini_v2.worlds import world
from PADing.errors import UserError, did_you_mean
from PADing.files import write_json

__all__ = ["SUPERVISED", "Plan", "Row", "row_hash"]

SUPERVISED = "oracle_supervised"
FEATURES, PREDICTIONS, START, BACKBONE = "features.npz", "predictions.npz", "start.pth", "backbone.pth"
# Seconds on two CPU cores: start of a step, an iteration, an image of features, a second stage and its evaluation.
BEGIN, ITERATION, IMAGE, SECOND = 12.0, 0.3, 0.03, 30.0


@dataclass(frozen=True)
class Row:
    """One result: a method on one fold with one second-stage seed (0 where there is none).

    Attributes:
        hash: of the config, of what it starts from, and of the data.
        file: appears when the row is complete.
    """

    name: str
    fold: int
    seed: int
    hash: str
    file: Path


class Plan:
    """All trainings and rows of some methods.

    Args:
        methods: all known methods by name. names: the wanted rows, also those of ``SIMPLE`` and ``SUPERVISED``; None:
            all that version 2 can run.
        settings: see there. out: absolute.

    Raises:
        UserError: an unknown method, or one that version 2 cannot run.
    """

    def __init__(self, methods: Mapping[str, Method], names: Iterable[str] | None, settings: Settings, out: Path):
        self.methods, self.settings, self.out = methods, settings, out
        self.kinds = {name: kind_of(method) for name, method in methods.items()}
        runnable = [name for name, kind in self.kinds.items() if kind in ("segmenter", "second", "whole")]
        every = [*runnable, *SIMPLE, SUPERVISED]
        self.names = list(dict.fromkeys(every if names is None else names))
        for name in self.names:
            if name not in every:
                if name in self.kinds:
                    raise UserError(f"Version 2 cannot run the method {name!r}: {self.kinds[name]}.")
                raise UserError(
                    f"There is no method {name!r}{did_you_mean(name, every, 1)}. Methods: {', '.join(every)}."
                )
        self.pretraining = next(method for name, method in methods.items() if self.kinds[name] == "segmenter")
        # Features come from a second stage's model, whose matching they use.
        self.reader = next(method for name, method in methods.items() if self.kinds[name] == "second")
        self._jobs: dict[tuple, Job] = {}
        self._given_hash = ""
        self.threads = 1  # of a training, for its record

    @cached_property
    def every(self) -> "Plan":
        """The same with all methods, which shares the configs that are read."""
        other = Plan(self.methods, None, self.settings, self.out)
        other._jobs = self._jobs
        return other

    # ---- what belongs together

    def job(self, name: str, fold: int | None, kind: str, of_world: str = "") -> Job:
        """The training of a method; see ``minibench.folds.configs.job``."""
        key = name, fold, kind, of_world
        if key not in self._jobs:
            self._jobs[key] = job(self.methods[name], self.settings, fold, kind, of_world)
        return self._jobs[key]

    def data_hash(self, of_world: str = "") -> str:
        """The frozen SHA-256 of a world; with the numbers of images if they are not all."""
        lengths = self.settings.lengths
        part = "" if lengths.train is None and lengths.val is None else f":{lengths.train}/{lengths.val}"
        return committed(world(of_world or self.settings.world))["world"] + part

    def vector_hash(self) -> str:
        """The frozen SHA-256 of the track's class vectors."""
        return committed(world(self.settings.world))["vectors"][self.settings.track]

    def data(self, of_world: str = "") -> Path:
        """The folder of a world."""
        lengths = self.settings.lengths
        small = "" if lengths.train is None else f"-{lengths.train}-{lengths.val}"
        return self.out / f"data{small}" / "mini2" / (of_world or self.settings.world)

    @property
    def roots(self) -> Path:
        """``DETECTRON2_DATASETS``."""
        return self.data().parents[1]

    def warm_hash(self) -> str:
        """The identity of the warm start: of its recipe, or of the file's content."""
        if self.settings.warm_start:
            self._given_hash = self._given_hash or _of_file(Path(self.settings.warm_start))
            return self._given_hash
        return _digest(self.job(self.pretraining.name, None, "warm", WARM_START).hash, self.backbone_hash())

    def backbone_hash(self) -> str:
        """The identity of the warm start's backbone."""
        return _digest(self.job(self.pretraining.name, None, "backbone", WARM_START).hash, self.data_hash(WARM_START))

    def backbone_folder(self) -> Path:
        """Where the warm start's backbone is trained."""
        return self.out / "runs" / f"backbone-{self.backbone_hash()}"

    def segmenter_hash(self, fold: int | None) -> str:
        """The identity of a fold's segmenter; None: of the supervised oracle."""
        return _digest(self.job(self.pretraining.name, fold, "segmenter").hash, self.warm_hash(), self.data_hash())

    def warm_folder(self) -> Path:
        """Where the warm start is trained."""
        return self.out / "runs" / f"warm-start-{self.warm_hash()}"

    def warm_weights(self) -> Path:
        """The weights that all segmenters start from, without a class head."""
        return self.out / "runs" / f"warm-start-{self.warm_hash()}" / START

    def segmenter(self, fold: int | None) -> Path:
        """The folder of a fold's segmenter."""
        name = "supervised" if fold is None else f"fold{fold}-segmenter"
        return self.out / "runs" / f"{name}-{self.segmenter_hash(fold)}"

    def whole(self, name: str, fold: int) -> Path:
        """The folder of a method that trains the whole network."""
        digest = _digest(self.job(name, fold, "whole").hash, self.start_hash(name, fold), self.settings.track)
        return self.out / "runs" / f"fold{fold}-{name}-{digest}"

    def from_warm(self, name: str) -> bool:
        """Whether a method starts from the warm start, not from a fold's segmenter."""
        return name in self.methods and self.kinds[name] == "whole" and self.methods[name].starts_from == FROM_WARM

    def start_hash(self, name: str, fold: int) -> str:
        """The identity of the weights that a method starts from."""
        return _digest(self.warm_hash(), self.data_hash()) if self.from_warm(name) else self.segmenter_hash(fold)

    def trains(self, name: str) -> bool:
        """Whether a method trains anything; else the start weights are evaluated."""
        return any(self.methods[name].iterations.values())

    def kind(self, name: str) -> str:
        """One of "segmenter", "second", "whole", "simple" and "supervised"."""
        return "simple" if name in SIMPLE else "supervised" if name == SUPERVISED else self.kinds[name]

    def rows(self, fold: int, kinds: Iterable[str] = ()) -> list[Row]:
        """The rows of a fold, of some kinds or of all."""
        found = []
        for name in self.names:
            kind = self.kind(name)
            if kinds and kind not in kinds:
                continue
            seeded = kind == "second" or (kind == "simple" and SIMPLE[name].seeded)
            for seed in self.settings.seeds if seeded else (0,):
                found.append(self.row(name, fold, seed))
        return found

    def row(self, name: str, fold: int, seed: int) -> Row:
        """The row of a method, with any fold and seed."""
        kind = self.kind(name)
        config = self.job(name, fold, kind).hash if kind in ("second", "whole") else ""
        start = self.segmenter_hash(None) if kind == "supervised" else self.start_hash(name, fold)
        digest = row_hash(kind, name, fold, seed, self.data_hash(), config, self.settings.track, start)
        return Row(name, fold, seed, digest, self.out / "rows" / f"{name}-fold{fold}-seed{seed}-{digest}.json")

    # ---- steps

    def steps(self, after: Callable[[], object] = lambda: None, warm_only: bool = False) -> list[Step]:
        """The commands, each after those that it needs; ``after`` is called when rows may have been added."""
        steps = []
        if not self.settings.warm_start:
            steps += [self._data(WARM_START), self._backbone(), self._warm()]
        if warm_only:
            return steps
        if self.settings.warm_start:
            steps.append(self._given())
        steps.append(self._data(self.settings.world))
        if any(self.kind(name) == "supervised" for name in self.names):
            steps.append(self._train("supervised", None))
            rows = [row for fold in self.settings.folds for row in self.rows(fold, ("supervised",))]
            steps.append(self._work("supervised-scores", ("supervised", 0, ""), ("supervised",), rows, after))
        for fold in self.settings.folds:
            steps += self._of_fold(fold, after)
        return steps

    def _of_fold(self, fold: int, after: Callable[[], object]) -> list[Step]:
        start, second = f"fold{fold}", self.rows(fold, ("segmenter", "second", "simple"))
        whole = self.rows(fold, ("whole",))
        steps = []
        if second or any(not self.from_warm(row.name) for row in whole):
            steps.append(self._train(f"{start}-segmenter", fold))
        if second:
            features = self.segmenter(fold) / FEATURES
            steps.append(
                self._work(f"{start}-features", ("features", fold, ""), (f"{start}-segmenter",), [], after, features)
            )
            steps.append(self._work(f"{start}-second", ("second", fold, ""), (f"{start}-features",), second, after))
        for row in whole:
            name, needs = f"{start}-{row.name}", "warm-start" if self.from_warm(row.name) else f"{start}-segmenter"
            if self.trains(row.name):
                steps.append(self._train(name, fold, row.name))
                needs = name
            steps.append(self._work(f"{name}-scores", ("whole", fold, row.name), (needs,), [row], after))
        return steps

    def _step(self, name: str, command: list, done: Callable[[], bool], **more: Any) -> Step:
        command = [sys.executable, *map(str, command)]
        return Step(name, command, self.out / "logs" / f"{name}.txt", done, **more)

    def _data(self, of_world: str) -> Step:
        folder, lengths = self.data(of_world), self.settings.lengths
        name = f"data-{of_world.replace('-', '_')}"
        command = ["datasets/make_mini_coco.py", "--version", 2, "--world", of_world, "--output", folder]
        command += ["--folds", "1" if of_world == WARM_START else ",".join(map(str, self.settings.folds))]
        command += ["--train", lengths.train, "--val", lengths.val] if lengths.train else []
        folds = (1,) if of_world == WARM_START else self.settings.folds
        there = lambda: all((folder / f"fold{fold}").is_dir() for fold in folds)  # noqa: E731
        return self._step(name, command, there, kind="data", usual=60.0)

    def _given(self) -> Step:
        weights = self.warm_weights()
        return self._step(
            "warm-start", ["-m", "minibench.folds.worker", self.out, "start"], weights.is_file, usual=BEGIN
        )

    def _warm(self) -> Step:
        task = self.job(self.pretraining.name, None, "warm", WARM_START)
        folder, lengths = self.warm_folder(), self.settings.lengths
        backbone = str(self.backbone_folder() / BACKBONE)
        return self._training("warm-start", task, folder, backbone, lengths.warm, ("backbone",), self.warm_weights())

    def _backbone(self) -> Step:
        folder, iterations = self.backbone_folder(), self.settings.lengths.backbone
        step = self._work("backbone", ("backbone", 0, ""), ("data-warm_start",), [], lambda: None, folder / BACKBONE)
        before = read_record(folder / RECORD).get("seconds", 0.0)

        def note(state: str, seconds: float) -> None:
            about = {"state": state, "seconds": round(before + seconds, 1), "threads": self.threads}
            write_json(folder / RECORD, about, indent=1)

        step.note, step.usual = note, BEGIN + ITERATION * iterations
        step.progress = lambda: training_progress(folder, iterations)
        step.measured = lambda: read_record(folder / RECORD).get("seconds")
        return step

    def _train(self, name: str, fold: int | None, method: str = "") -> Step:
        """A fold's segmenter, the supervised oracle, or a method that trains the whole network."""
        lengths, of_data = self.settings.lengths, f"data-{self.settings.world}"
        if method:
            task, folder = self.job(method, fold, "whole"), self.whole(method, fold or 0)
            if self.from_warm(method):
                start, iterations, needs = (
                    self.warm_weights(),
                    lengths.segmenter + lengths.whole,
                    (of_data, "warm-start"),
                )
            else:
                start, iterations = self.segmenter(fold) / "model_final.pth", lengths.whole
                needs = (of_data, f"fold{fold}-segmenter")
            step = self._training(name, task, folder, str(start), iterations, needs)
            if path := self.methods[method].import_from:
                step.env = {**step.env, "PYTHONPATH": str(path)}
            return step
        task = self.job(self.pretraining.name, fold, "segmenter")
        weights = str(self.warm_weights())
        return self._training(name, task, self.segmenter(fold), weights, lengths.segmenter, (of_data, "warm-start"))

    def _training(
        self, name: str, task: Job, folder: Path, weights: str, iterations: int, needs: tuple[str, ...],
        start: Path | None = None,
    ) -> Step:  # fmt: skip
        """``train_net.py`` in a folder; ``start``: also write the weights without the class head there."""
        final, record = folder / "model_final.pth", folder / RECORD
        options = {"SEED": 1, "OUTPUT_DIR": folder, "SOLVER.CHECKPOINT_PERIOD": max(1, -(-iterations // 4))}
        options |= {"MODEL.WEIGHTS": weights} if weights else {}
        options["MODEL.CLASS_EMBEDDINGS"] = self.vectors(WARM_START if start else "")
        command = ["train_net.py", "--config-file", task.config, "--num-gpus", 0, "--resume", *task.opts]
        before = read_record(record).get("seconds", 0.0)

        def note(state: str, seconds: float) -> None:
            if state == "done" and not final.is_file():
                return
            if state == "done":
                finish_training(folder)
                if start is not None:
                    from minibench.folds.warm import write_start

                    write_start(final, start)
            about = {"state": state, "seconds": round(before + seconds, 1), "threads": self.threads, "hash": task.hash}
            write_json(record, about, indent=1)

        images = self.settings.lengths.batch / 8
        return self._step(
            name,
            [*command, *overrides(options)],
            lambda: read_record(record).get("state") == "done" and (start or final).is_file(),
            needs=needs,
            env={"DETECTRON2_DATASETS": str(self.roots)},
            note=note,
            progress=lambda: training_progress(folder, iterations),
            usual=BEGIN + ITERATION * images * iterations,
            kind=f"training {iterations}",
            measured=lambda: read_record(record).get("seconds"),
        )

    def vectors(self, of_world: str = "") -> Path:
        """The class vectors of the track."""
        return self.data(of_world) / f"class_vectors_{self.settings.track}.npz"

    def _work(
        self, name: str, what: tuple[str, int, str], needs: tuple[str, ...], rows: list[Row],
        after: Callable[[], object], file: Path | None = None,
    ) -> Step:  # fmt: skip
        """A step of ``minibench.folds.worker`` that writes rows or a file."""
        kind, fold, method = what
        command = ["-m", "minibench.folds.worker", self.out, kind, "--fold", fold]
        command += ["--method", method] if method else []
        files = [row.file for row in rows] + ([file] if file else [])

        def note(state: str, seconds: float) -> None:
            if state == "done":
                after()

        usual = BEGIN + (SECOND * len(rows) if rows else IMAGE * 6000)
        return self._step(
            name,
            command,
            lambda: all(path.is_file() for path in files),
            needs=needs,
            env={"DETECTRON2_DATASETS": str(self.roots)},
            note=note,
            usual=usual,
            kind=kind,
        )


def row_hash(kind: str, name: str, fold: int, seed: int, data: str, config: str, track: str, start: str) -> str:
    """The identity of a row; all but ``kind`` is in the row itself. ``start``: of the weights that it starts from."""
    own = {"second": [config, track], "whole": [config, track], "simple": [track]}.get(kind, [])
    return _digest(kind, name, str(fold), str(seed), data, *own, start)


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()[:10]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
