"""One step of version 2 of the mini benchmark, as a process of its own; ``minibench run --version 2`` starts it.

    python -m minibench.folds.worker OUTPUT features --fold 1
    python -m minibench.folds.worker OUTPUT second --fold 1
    python -m minibench.folds.worker OUTPUT whole --fold 1 --method d2zero

What is done before is not done again: each row has its own file.
"""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minibench.folds.backbone import train_backbone
from minibench.folds.features import Features, check_order, compute, read_features, write_features
from minibench.folds.plan import BACKBONE, FEATURES, Plan, Row
from minibench.folds.regions import found_segments
from minibench.folds.rows import write_row
from minibench.folds.scores import Rules, Scorer, score
from minibench.folds.second import predict, train
from minibench.folds.settings import WARM_START, read_settings
from minibench.folds.simple import SIMPLE, World
from minibench.folds.truth import Truth, read_truth
from minibench.folds.warm import write_start
from minibench.methods import TASKS, Task, discover
from minibench.runs import RECORD, read_record
from PADing.command_line import CommandParser, count, quiet_ctrl_c, run_command
from PADing.data.embeddings import load_class_embeddings
from PADing.data.mini_v2.split_files import prefix
from PADing.data.mini_v2.worlds import world
from PADing.errors import UserError

KINDS = ("backbone", "start", "features", "second", "whole", "supervised")
logger = logging.getLogger(__name__)


class Work:
    """The steps on one folder."""

    def __init__(self, out: Path):
        settings, more = read_settings(out)
        methods = discover([Path(path) for path in more.get("plugins", ())])
        self.plan = Plan(methods, more.get("methods"), settings, out)
        self.world = world(settings.world)

    def backbone(self, fold: int, name: str) -> None:
        """Train the backbone of the warm start."""
        task = self.plan.job(self.plan.pretraining.name, None, "backbone", WARM_START)
        folder, vectors = self.plan.backbone_folder(), self.plan.vectors(WARM_START)
        folder.mkdir(parents=True, exist_ok=True)
        cfg = task.load("MODEL.CLASS_EMBEDDINGS", str(vectors), "SEED", "1", "OUTPUT_DIR", str(folder))
        train_backbone(cfg, world(WARM_START).categories(), folder / BACKBONE)

    def start(self, fold: int, name: str) -> None:
        """Take the given warm start."""
        write_start(Path(self.plan.settings.warm_start), self.plan.warm_weights())

    def features(self, fold: int, name: str) -> None:
        """Cache what the fold's segmenter makes of all images."""
        cfg = self._second(self.plan.reader.name, fold, 0)
        truth = read_truth(f"{prefix(self.world, fold)}_val_panoptic")
        write_features(
            self.plan.segmenter(fold) / FEATURES, compute(cfg, truth, f"{prefix(self.world, None)}_train_panoptic")
        )

    def second(self, fold: int, name: str) -> None:
        """Train and evaluate all second stages and simple rows of a fold that are not there yet."""
        waiting = [row for row in self.plan.rows(fold, ("segmenter", "second", "simple")) if not row.file.is_file()]
        truth = read_truth(f"{prefix(self.world, fold)}_val_panoptic")
        features = read_features(self.plan.segmenter(fold) / FEATURES)
        check_order(features.val_images.tolist(), truth)
        failed: list[str] = []
        for row in waiting:
            begun = time.process_time()
            try:
                logits, names = self._logits(row, features, truth)
                spent = time.process_time() - begun
                scorer = Scorer(truth, logits, names, features.found, self._rules(TASKS))
                # Row by row, so that a kill costs one row.
                self._finish(truth, features.val_masks, {row: (scorer, spent)})
            except Exception as error:  # one method must not stop the others
                logger.exception("%s", row.file.stem)
                failed.append(f"{row.name}: {error}")
                continue
            total = time.process_time() - begun
            print(f"{row.file.stem}: {spent:.0f} s of training, {total - spent:.0f} s of evaluation", flush=True)
        if failed:
            raise UserError(f"{len(failed)} rows failed; the others are complete. The first: {failed[0]}")

    def _logits(self, row: Row, features: Features, truth: Truth) -> tuple[np.ndarray, tuple[str, ...]]:
        kind = self.plan.kind(row.name)
        if kind == "segmenter":
            return features.val_logits, truth.names
        if kind == "simple":
            vectors = load_class_embeddings(str(self.plan.vectors()), list(truth.names))
            known = World(np.asarray(vectors, dtype=np.float64), truth.unseen)
            return SIMPLE[row.name].classify(features, known, row.seed), truth.names
        cfg = self._second(row.name, row.fold, row.seed)
        return predict(train(cfg, features), cfg, features)

    def _second(self, name: str, fold: int, seed: int):
        """The config of a second stage on the fold's segmenter."""
        from PADing.checkpoint_files import read_checkpoint, write_checkpoint
        from PADing.generation.convert import convert_checkpoint

        folder = self.plan.segmenter(fold)
        converted = folder / "pretrained_weight_panoptic.pth"
        if not converted.is_file():
            content = read_checkpoint(folder / "model_final.pth", "Segmenter")
            write_checkpoint(converted, convert_checkpoint(content, len(self.world.categories())))
        options = ["MODEL.WEIGHTS", str(converted), "MODEL.CLASS_EMBEDDINGS", str(self.plan.vectors())]
        options += ["SEED", str(seed), "OUTPUT_DIR", str(folder / "second")]
        return self.plan.job(name, fold, "second").load(*options)

    def whole(self, fold: int, name: str) -> None:
        """Evaluate a method that has trained the whole network."""
        rows = self.plan.rows(fold, ("whole",))
        row = next((row for row in rows if row.name == name), None)
        if row is None:
            known = ", ".join(row.name for row in rows) or "none"
            raise UserError(f"--method {name!r} trains no whole network here. These do: {known}.")
        folder, method = self.plan.whole(name, fold), self.plan.methods[name]
        truth = read_truth(f"{prefix(self.world, fold)}_val_panoptic")
        weights = folder if self.plan.trains(name) else self.plan.segmenter(fold)
        logits, masks, names, most = self._predictions(name, fold, "whole", weights, truth)
        scorer = Scorer(truth, logits, names, found_segments(truth, masks), self._rules(method.tasks, most))
        record = read_record(folder / RECORD)
        self._finish(truth, masks, {row: (scorer, record.get("seconds", 0.0) * max(record.get("threads", 1), 1))})

    def supervised(self, fold: int, name: str) -> None:
        """Evaluate the supervised oracle on all folds, whose classes are the same, but other ones are unseen."""
        rows = [row for f in self.plan.settings.folds for row in self.plan.rows(f, ("supervised",))]
        waiting = [row for row in rows if not row.file.is_file()]
        every = read_truth(f"{prefix(self.world, None)}_val_panoptic")
        logits, masks, names, most = self._predictions(
            self.plan.pretraining.name, None, "segmenter", self.plan.segmenter(None), every
        )
        found = found_segments(every, masks)
        for row in waiting:
            truth = read_truth(f"{prefix(self.world, row.fold)}_val_panoptic")
            scorer = Scorer(truth, logits, names, found, self._rules(TASKS, most))
            self._finish(truth, masks, {row: (scorer, 0.0)})

    def _predictions(
        self, name: str, fold: int | None, kind: str, folder: Path, truth: Truth
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], int]:
        """Class logits, mask logits, names of the classes and the number of detections of a trained model."""
        from minibench.folds.predictions import predictions

        vectors = str(self.plan.vectors())
        options = ["MODEL.WEIGHTS", str(folder / "model_final.pth"), "MODEL.CLASS_EMBEDDINGS", vectors]
        cfg = self.plan.job(name, fold, kind).load(*options, "OUTPUT_DIR", str(folder), "TEST.MAX_IMAGES", "0")
        return predictions(cfg, truth)

    def _rules(self, tasks: tuple[Task, ...], most: int | None = None) -> Rules:
        cfg = self.plan.job(self.plan.pretraining.name, 1, "segmenter").load()
        test = cfg.MODEL.MASK_FORMER.TEST
        return Rules(test.OBJECT_MASK_THRESHOLD, test.OVERLAP_THRESHOLD, most or cfg.TEST.DETECTIONS_PER_IMAGE, tasks)

    def _finish(self, truth: Truth, masks: np.ndarray, scorers: Mapping[Row, tuple[Scorer, float]]) -> None:
        begun = time.process_time()
        score(truth, masks, [scorer for scorer, _ in scorers.values()])
        share = (time.process_time() - begun) / max(len(scorers), 1)
        for row, (scorer, seconds) in scorers.items():
            write_row(self.plan, row, scorer.results(), seconds + share)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__, prog="python -m minibench.folds.worker")
    parser.add_argument("output", type=Path, help="folder of `minibench run --version 2`")
    parser.add_argument("kind", choices=KINDS, help="the step")
    parser.add_argument("--fold", type=count, default=0, help="from 1")
    parser.add_argument("--method", default="", help="of `whole`")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    return run_command(lambda: getattr(Work(args.output.absolute()), args.kind)(args.fold, args.method))


if __name__ == "__main__":
    quiet_ctrl_c()
    sys.exit(main())
