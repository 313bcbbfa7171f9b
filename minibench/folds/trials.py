"""Trials: second stages with options of their own, on the cached features of a benchmark's folds.

Choosing hyperparameters and the cause experiments are made of them. ``trials.json`` in their folder says what to run;
each trial, fold and second-stage seed is a row with a file of its own, so that a kill costs one row.

    python -m minibench.folds.trials OUTPUT --fold 1

A row is scored faster than in a report: panoptic segmentation alone, on a fixed random part of the validation images,
with fewer points on the curve. Accuracies of found segments are those of all images.
"""

import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minibench.folds.configs import Job, code_hash, job
from minibench.folds.diagnose import Gradients, feature_norms, unseen_only
from minibench.folds.features import check_order, read_features
from minibench.folds.plan import FEATURES, Plan
from minibench.folds.regions import region_metrics
from minibench.folds.scores import Rules, Scorer, score
from minibench.folds.second import predict, train
from minibench.folds.settings import read_settings
from minibench.folds.truth import read_truth
from minibench.methods import PANOPTIC, discover
from PADing.command_line import CommandParser, positive, quiet_ctrl_c, run_command
from PADing.data.mini_v2.split_files import prefix
from PADing.data.mini_v2.worlds import world
from PADing.engine.environment import commit
from PADing.engine.loss_values import Diverged
from PADing.errors import UserError
from PADing.files import read_json, write_json

__all__ = ["IMAGES", "TRIALS", "Trial", "Trials", "exchanged", "write_trials"]

TRIALS, ROWS = "trials.json", "trial_rows"
VERSION = 1  # of training and scoring: all rows change with it
VARIANTS = "minibench.folds.variants"
IMAGES, POINTS = 250, 5  # validation images and quantiles of a row's curve
_KEY = 23  # of the random part of the images
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One setting of a second stage.

    Attributes:
        name: unique in its folder. method: what it is a setting of.
        options: config keys and values, which win over the method's own. track: of class vectors; "": the benchmark's.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    track: str = ""

    def all_options(self) -> dict[str, Any]:
        """``options``, with the plug-in that has the variants' keys if there are any."""
        variant = any(".VARIANT." in key for key in self.options)
        return {**({"PLUGINS": f"('{VARIANTS}',)"} if variant else {}), **self.options}


def write_trials(out: Path, run: Path, trials: Sequence[Trial], seeds: Sequence[int], images: int = IMAGES) -> None:
    """Write ``trials.json``; ``run``: the folder of `minibench run --version 2` or `tune` that has the features."""
    content = {"run": str(run), "seeds": list(seeds), "images": images, "trials": [asdict(trial) for trial in trials]}
    write_json(out / TRIALS, content, indent=1)


class Trials:
    """The trials of a folder.

    Raises:
        UserError: an unknown method, or one that is no second stage; options that its config does not have.
    """

    def __init__(self, out: Path):
        content = read_json(out / TRIALS, "Trials")
        try:
            self.out, self.run, self.images = out, Path(content["run"]), int(content["images"])
            self.seeds = tuple(map(int, content["seeds"]))
            trials = [Trial(**entry) for entry in content["trials"]]
            if not all(isinstance(text, str) for one in trials for text in (one.name, one.method, one.track)):
                raise TypeError("name, method and track of a trial must be text")
            self.trials = {one.name: replace(one, options=dict(one.options)) for one in trials}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{out / TRIALS} is not what this program writes ({error!r}). Delete it.") from error
        self.settings, more = read_settings(self.run)
        self.methods = discover([Path(path) for path in more.get("plugins", ())])
        self.plan = Plan(self.methods, (), self.settings, self.run)
        for trial in self.trials.values():
            self._check(trial)
        self._jobs: dict[tuple[str, int], Job] = {}

    def _check(self, trial: Trial) -> None:
        if self.plan.kinds.get(trial.method) != "second":
            able = ", ".join(name for name, kind in self.plan.kinds.items() if kind == "second")
            what = f"The trial {trial.name} is of {trial.method!r}, which is no second stage"
            raise UserError(f"{what}. These are: {able}.")

    def track(self, trial: Trial) -> str:
        """The track of class vectors."""
        return trial.track or self.settings.track

    def job(self, trial: Trial, fold: int) -> Job:
        """The training."""
        key = trial.name, fold
        if key not in self._jobs:
            settings = replace(self.settings, track=self.track(trial))
            method = self.methods[trial.method]
            self._jobs[key] = job(method, settings, fold, "second", options=trial.all_options())
        return self._jobs[key]

    def digest(self, trial: Trial, fold: int, seed: int) -> str:
        """The identity of a row: all that it depends on, but for the code."""
        parts = [VERSION, self.images, POINTS, fold, seed, self.track(trial), self.job(trial, fold).hash]
        parts += [self.plan.data_hash(), self.plan.segmenter_hash(fold)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def file(self, trial: Trial, fold: int, seed: int) -> Path:
        """Appears when the row is complete; trials with the same settings share it."""
        return self.out / ROWS / f"{trial.method}-fold{fold}-seed{seed}-{self.digest(trial, fold, seed)}.json"

    def files(self, fold: int) -> list[Path]:
        """All rows of a fold."""
        return [self.file(trial, fold, seed) for trial in self.trials.values() for seed in self.seeds]

    def folds(self) -> tuple[int, ...]:
        """The folds of the benchmark whose features are there."""
        return tuple(fold for fold in self.settings.folds if (self.plan.segmenter(fold) / FEATURES).is_file())

    def rows(self, folds: Sequence[int]) -> list[dict[str, Any]]:
        """All finished rows, each with its trial's name.

        Raises:
            UserError: a damaged file.
        """
        found = []
        for fold in folds:
            for trial in self.trials.values():
                for seed in self.seeds:
                    path = self.file(trial, fold, seed)
                    if path.is_file():
                        found.append({"trial": trial.name, "file": path.name, **self._read(path)})
        return found

    def _read(self, path: Path) -> dict[str, Any]:
        advice = f"{path} is damaged. Delete it and run the same command again."
        try:
            entry = read_json(path, "Row")
        except UserError as error:
            raise UserError(f"{advice} ({error})") from error
        if not isinstance(entry.get("metrics"), dict) and not entry.get("diverged"):
            raise UserError(advice)
        return entry

    @cached_property
    def about(self) -> dict[str, Any]:
        """What all rows have in common, for a results file."""
        return {
            "world": self.settings.world,
            "budget": self.settings.budget,
            "seeds": list(self.seeds),
            "images": self.images,
            "points": POINTS,
            "data": self.plan.data_hash(),
            "warm_start": self.plan.warm_hash(),
            "commit": commit() or "",
        }

    # ---- running

    def run_fold(self, fold: int) -> None:
        """Train and score all rows of a fold that are not there yet; UserError at the end if some could not be run."""
        work = _Fold(self, fold)
        failed: list[str] = []
        for trial in self.trials.values():
            for seed in self.seeds:
                path = self.file(trial, fold, seed)
                if path.is_file():
                    continue
                begun = time.process_time()
                try:
                    result = work.row(trial, seed)
                except Exception as error:  # one trial must not stop the others
                    logger.exception("%s", trial.name)
                    failed.append(f"{trial.name}, seed {seed}: {error}")
                    continue
                method, plugins = self.methods[trial.method], self.job(trial, fold).plugins
                entry = {"method": trial.method, "fold": fold, "seed": seed, "track": self.track(trial)}
                entry |= {"options": dict(trial.options), "config": self.job(trial, fold).hash}
                entry |= {"segmenter": self.plan.segmenter_hash(fold), "code": code_hash(method, plugins)}
                entry |= {"processor_seconds": round(time.process_time() - begun, 1), **result}
                write_json(path, entry, indent=1)
                print(f"{trial.name}, seed {seed}: {entry['processor_seconds']:.0f} s", flush=True)
        if failed:
            raise UserError(f"{len(failed)} rows failed; the others are complete. The first: {failed[0]}")


class _Fold:
    """What the rows of a fold share."""

    def __init__(self, trials: Trials, fold: int):
        self.trials, self.fold, self.folder = trials, fold, trials.plan.segmenter(fold)
        self.truth = read_truth(f"{prefix(world(trials.settings.world), fold)}_val_panoptic")
        self.features = read_features(self.folder / FEATURES)
        check_order(self.features.val_images.tolist(), self.truth)
        self.part = part_of(len(self.truth.labels), trials.images)
        self.rules = _rules(trials.plan)
        self.first: tuple[str, Any] = ("", None)  # of self-training: identity and classifier

    def row(self, trial: Trial, seed: int) -> dict[str, Any]:
        """``metrics``, or ``diverged`` with the reason."""
        cfg = self._config(trial, seed)
        variant = cfg.MODEL.MASK_FORMER.get("VARIANT", {})
        try:
            first = self._first(cfg) if variant.get("PSEUDO_LABELS") else None
            gradients = Gradients(cfg.SOLVER.MAX_ITER)
            model = train(cfg, self.features, bool(variant.get("OTHER_IMAGES")), first, gradients)
            logits, names = predict(model, cfg, self.features)
        except Diverged as error:
            return {"diverged": str(error)}
        if names != self.truth.names:
            raise UserError(f"{trial.method} predicts other classes than those of the data set.")
        logits = exchanged(logits, self.truth.unseen, variant.get("EXCHANGED_CLASSES", 0))
        found = {**self._score(logits), **unseen_only(logits, self.features, self.truth)}
        found |= {**gradients.metrics(), **feature_norms(model, self.features)}
        return {"metrics": {key: round(float(v), 6) for key, v in found.items() if math.isfinite(v)}}

    def _config(self, trial: Trial, seed: int):
        plan, settings = self.trials.plan, replace(self.trials.settings, track=self.trials.track(trial))
        vectors = Plan(self.trials.methods, (), settings, plan.out).vectors()
        weights = self.folder / "pretrained_weight_panoptic.pth"
        if not weights.is_file():
            raise UserError(f"{weights} is missing. Run `minibench run` or `tune` again, which makes it.")
        options = ["MODEL.WEIGHTS", str(weights), "MODEL.CLASS_EMBEDDINGS", str(vectors)]
        made = self.trials.job(trial, self.fold)
        seed += made.load().MODEL.MASK_FORMER.get("VARIANT", {}).get("SEED_SHIFT", 0)
        return made.load(*options, "SEED", str(seed), "OUTPUT_DIR", str(self.trials.out / "second"))

    def _first(self, cfg: Any) -> Any:
        """The classifier of a first model: the same config without pseudo labels and other images."""
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.MASK_FORMER.VARIANT.PSEUDO_LABELS = cfg.MODEL.MASK_FORMER.VARIANT.OTHER_IMAGES = False
        known, classifier = self.first
        if known != cfg.dump():
            classifier = train(cfg, self.features).new_fc
            self.first = cfg.dump(), classifier
        return classifier

    def _score(self, logits: np.ndarray) -> dict[str, float]:
        part, found = self.part, self.features.found
        truth = replace(
            self.truth,
            maps=self.truth.maps[part],
            labels=tuple(self.truth.labels[place] for place in part),
            images=tuple(self.truth.images[place] for place in part),
        )
        own = found[np.isin(found[:, 0], part)]
        own = np.stack([np.searchsorted(part, own[:, 0]), own[:, 1], own[:, 2]], axis=1)
        scorer = Scorer(truth, logits[part], truth.names, own, self.rules)
        score(truth, self.features.val_masks[part], [scorer])
        image, query, label = found.T
        region = region_metrics(logits[image, query, :-1], label, truth.unseen)
        return {**scorer.results()["results"][PANOPTIC.key], **region}


def exchanged(logits: np.ndarray, unseen: np.ndarray, number: int) -> np.ndarray:
    """Logits (N, Q, K + 1) in which each of the first ``number`` unseen classes (K,) has those of the next one.

    Raises:
        UserError: there are fewer unseen classes.
    """
    classes = np.flatnonzero(unseen)[:number]
    if len(classes) < number:
        raise UserError(f"VARIANT.EXCHANGED_CLASSES is {number}, but there are {len(classes)} unseen classes.")
    columns = np.arange(logits.shape[-1])
    columns[classes] = np.roll(classes, -1)
    return logits[..., columns]


def _rules(plan: Plan) -> Rules:
    """As in a report, but of panoptic segmentation alone."""
    cfg = plan.job(plan.pretraining.name, 1, "segmenter").load()
    test = cfg.MODEL.MASK_FORMER.TEST
    most = cfg.TEST.DETECTIONS_PER_IMAGE
    return Rules(test.OBJECT_MASK_THRESHOLD, test.OVERLAP_THRESHOLD, most, (PANOPTIC,), POINTS)


def part_of(number: int, wanted: int) -> np.ndarray:
    """Positions of ``wanted`` of ``number`` images, ascending: always the same ones."""
    return np.sort(np.random.default_rng(_KEY).permutation(number)[:wanted])


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__, prog="python -m minibench.folds.trials")
    parser.add_argument("output", type=Path, help="folder with trials.json")
    parser.add_argument("--fold", type=positive, required=True, help="from 1")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    return run_command(lambda: Trials(args.output.absolute()).run_fold(args.fold))


if __name__ == "__main__":
    quiet_ctrl_c()
    sys.exit(main())
