"""The shared trainer: Detectron2's ``DefaultTrainer`` around a training recipe."""

import inspect
import logging
import os
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import DatasetEvaluator, print_csv_format, verify_results
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch.nn.parallel import DistributedDataParallel

from PADing.checkpoint_files import file_problem
from PADing.data.dataset_mappers import EvaluationLoader, build_mapper
from PADing.engine.backbone_weights import load_backbone_weights
from PADing.engine.background import BackgroundWriter
from PADing.engine.best import BestCheckpoint, StoppedByPatience
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.engine.compilation import compile_model
from PADing.engine.determinism import explaining_determinism
from PADing.engine.evaluation_precision import use_evaluation_precision
from PADing.engine.interruption import STOP, StopHook, explain_stop, without_stop_signals
from PADing.engine.job_watch import report_lost_process
from PADing.engine.memory import explaining_memory
from PADing.engine.predicted_classes import predicted_classes
from PADing.engine.progress import ProgressHook
from PADing.engine.recipes import TrainingRecipe, build_recipe
from PADing.engine.recomputation import recompute_activations
from PADing.engine.rng import preserved_rng
from PADing.engine.running_statistics import share_running_statistics
from PADing.engine.shares import choose_shares
from PADing.engine.stream import StreamLoader, build_stream_loader
from PADing.engine.timed_checkpoint import TimedCheckpoint
from PADing.engine.training_state import RankStates
from PADing.engine.weight_average import ENTRY, WeightAverage, choice_of_weights
from PADing.errors import Interrupted, UserError, short
from PADing.evaluation import build_evaluator
from PADing.evaluation.base import evaluate_readable
from PADing.files import explain_os_error, is_disk_full, write_json
from PADing.meta_arch.augmented import augmented
from PADing.tracking.writer import TrackingWriter

logger = logging.getLogger(__name__)


class RecipeLoop(SimpleTrainer):
    """Detectron2's inner trainer; each iteration is a step of the recipe."""

    def __init__(self, model: torch.nn.Module, data_loader, recipe: TrainingRecipe, average: WeightAverage | None):
        super().__init__(model, data_loader, next(iter(recipe.optimizers.values())))
        self.recipe, self.average = recipe, average
        self._own_batches: Iterator[Any] | None = None

    def run_step(self) -> None:
        """One iteration, on the next batch."""
        assert self.model.training, "The model is in eval mode. The code that called model.eval() must restore it."
        start, shares = time.perf_counter(), self.recipe.shares
        if self._own_batches is None:
            # Starting a loader draws a random seed for its workers, and a resumed run starts one loader more.
            with preserved_rng(), without_stop_signals():
                self._own_batches = iter(self.data_loader)
                batch = next(self._own_batches)
        else:
            batch = next(self._own_batches)
        if shares.one_each:
            self.recipe.step(self.model, batch, time.perf_counter() - start)
        else:
            bare = self.model.module if isinstance(self.model, DistributedDataParallel) else self.model
            self.recipe.step_shares(bare, batch, time.perf_counter() - start)
        if self.average is not None:
            self.average.update()
        if isinstance(self.data_loader, StreamLoader):
            self.data_loader.used(batch)


class Trainer(DefaultTrainer):
    """Trains any registered meta-architecture by its recipe, in one or several processes, on CPUs or GPUs.

    Override the same methods as of Detectron2's trainer; only optimizers belong to the recipe
    (``PADing.engine.recipes``). A checkpoint holds ``model``, ``trainer`` (iteration and hooks), ``iteration``, the
    recipe's optimizers (``optimizer`` is the first), ``scaler``, ``scheduler``, and ``ranks``: each share's random
    generators and position in the data. A resumed run gives the same numbers as an uninterrupted one. Exception: with
    several data-loading workers and ``ASPECT_RATIO_GROUPING``, images may be grouped into other batches.
    """

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer's constructor supports one optimizer, and several processes on GPUs only.
        TrainerBase.__init__(self)
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        self.recipe = build_recipe(cfg, model)
        self.average = WeightAverage.of_config(cfg, model)
        data_loader = self.build_train_loader(cfg)
        if comm.get_world_size() > 1:
            model = wrap_for_processes(model, self.recipe.find_unused_parameters)
        self._trainer = RecipeLoop(model, data_loader, self.recipe, self.average)
        self.scheduler = self.build_lr_scheduler(cfg, self._trainer.optimizer)
        self.ranks = RankStates(data_loader, self.recipe.optimizers.values())
        parts: dict[str, Any] = {"trainer": weakref.proxy(self), "scheduler": self.scheduler, "ranks": self.ranks}
        if self.average is not None:
            parts[ENTRY] = self.average
            # The hook for evaluations calls ``self.test``.
            self.test = partial(_test_average, type(self), self.average)  # type: ignore[method-assign]
        self.checkpointer = TrainingCheckpointer(model, cfg.OUTPUT_DIR)
        self.checkpointer.weights_from = choice_of_weights(cfg, training=True)
        self.checkpointer.keep = cfg.SOLVER.CHECKPOINT_KEEP
        self.checkpointer.background = BackgroundWriter() if cfg.SOLVER.CHECKPOINT_ASYNC else None
        for name, part in (parts | self.recipe.checkpointables()).items():
            self.checkpointer.add_checkpointable(name, part)
        self.start_iter = 0
        self.least_shares = 0  # of the batch; set to the processes of the first start if there are fewer now
        self.done_iter = -1  # the last iteration after which everything could be saved
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """As in the base class, with the activation checkpointing of the config, and compiled parts."""
        model = super().build_model(cfg)
        recompute_activations(cfg, model)
        compile_model(cfg, model)
        use_evaluation_precision(cfg, model)
        return model

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer):
        """Detectron2's schedules and DeepLab's ``WarmupPolyLR``."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        """A resumable loader with the mapper of ``INPUT.DATASET_MAPPER_NAME``."""
        return build_stream_loader(cfg, build_mapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """Every image once, without annotation; ``INPUT.ON_CORRUPT skip`` leaves out unreadable images."""
        return EvaluationLoader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        """The evaluators for the data set's ``evaluator_type`` and the model's results."""
        return build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators=None, averaged: bool = False):
        """Evaluate on every set of ``DATASETS.TEST``, and write all results to ``<OUTPUT_DIR>/results.json``.

        ``averaged``: the model has averaged weights; log and file say so (``"weights": "ema"`` beside the sets).
        Returns the results by set; for a single set, its results alone.
        """
        if averaged:
            logger.info("Evaluating the averaged weights (SOLVER.EMA).")
        evaluators = [None] * len(cfg.DATASETS.TEST) if evaluators is None else list(evaluators)
        if len(evaluators) != len(cfg.DATASETS.TEST):
            raise ValueError(f"{len(evaluators)} evaluators for the {len(cfg.DATASETS.TEST)} sets of DATASETS.TEST")
        if number := STOP.agreed():
            raise Interrupted(number)
        results: dict[str, Any] = {}
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        share_running_statistics(bare)
        for name, evaluator in zip(cfg.DATASETS.TEST, evaluators, strict=True):
            with preserved_rng(), predicted_classes(cfg, bare, name) as predicted:
                loader = cls.build_test_loader(cfg, name)
                evaluator = predicted.around(evaluator or cls.build_evaluator(cfg, name))
                results[name] = evaluate_readable(augmented(cfg, bare), loader, evaluator)
                if predicted.distractors and results[name]:
                    results[name]["distractors"] = {"classes": predicted.distractors}
            if comm.is_main_process():
                logger.info("Evaluation results for %s in csv format:", name)
                print_csv_format(results[name])
            # The other processes wait here while the first one scores; see TIMEOUT in PADing.engine.distributed.
            comm.synchronize()
        if comm.is_main_process():
            said = {"weights": ENTRY} if averaged else {}
            write_json(os.path.join(cfg.OUTPUT_DIR, "results.json"), {**results, **said}, indent=2)
        return next(iter(results.values())) if len(results) == 1 else results

    def resume_or_load(self, resume: bool = True) -> None:
        """Load ``MODEL.WEIGHTS`` (a backbone that it lacks has its own); or, with ``resume``, continue the training."""
        rest = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if not self.checkpointer.resumed:
            if self.checkpointer.lacks("backbone."):
                load_backbone_weights(self.cfg, self.checkpointer.model)
            return
        done = rest.get("iteration", 0)
        if not all(type(number) is int and number >= -1 for number in (self.iter, done)):
            raise UserError(f"{self.cfg.OUTPUT_DIR}: the checkpoint cannot be resumed: its iteration is {short(done)}.")
        self.start_iter = max(self.iter, done) + 1  # a checkpoint holds the last iteration that is done
        if self.start_iter >= self.max_iter:
            logger.info(
                "The training in %s is finished: %d iterations are done, and SOLVER.MAX_ITER is %d. Only the "
                "evaluation runs now.", self.cfg.OUTPUT_DIR, self.start_iter, self.max_iter,
            )  # fmt: skip
            final = os.path.join(self.cfg.OUTPUT_DIR, "model_final.pth")
            # It may be lost, or damaged, if last_checkpoint was lost, too.
            if self.start_iter == self.max_iter and (not os.path.exists(final) or file_problem(final)):
                self.checkpointer.save("model_final", iteration=self.max_iter - 1)
        elif self.is_complete():
            self.max_iter = self.start_iter
            logger.info(
                "The training in %s has ended by TEST.BEST.PATIENCE after %d iterations. Only the evaluation runs now. "
                "To continue, set a larger TEST.BEST.PATIENCE.", self.cfg.OUTPUT_DIR, self.start_iter,
            )  # fmt: skip

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks, before evaluation ``TimedCheckpoint`` and ``StopHook``, after it ``BestCheckpoint``.

        The progress bar is last.
        """
        self.tracking: list[TrackingWriter] = []
        built = list(super().build_hooks())
        places = [i for i, hook in enumerate(built) if isinstance(hook, EvalHook)]
        place = places[0] if places else len(built)
        if self.cfg.TEST.BEST.METRIC:
            built.insert(place + 1, BestCheckpoint(self.cfg))
        if self.tracking:
            from PADing.tracking.hook import TrackingHook  # imports what draws

            built.insert(place + 1, TrackingHook(self.cfg, self.tracking))
        built[place:place] = [TimedCheckpoint(self.cfg.SOLVER.CHECKPOINT_MINUTES), StopHook()]
        return [*built, ProgressHook(self.cfg)] if comm.is_main_process() else built

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's writers, and one for each service of ``TRACKING``; in the main process."""
        self.tracking = [TrackingWriter(service, self.cfg) for service in self.cfg.TRACKING]
        return [*super().build_writers(), *self.tracking]

    def is_complete(self) -> bool:
        """Whether the training is done: all iterations, or an end by ``TEST.BEST.PATIENCE``."""
        exhausted = any(isinstance(hook, BestCheckpoint) and hook.exhausted for hook in self._hooks)
        return self.iter >= self.max_iter or exhausted

    def latest_results(self) -> dict[str, Any] | None:
        """What the last evaluation of this run has returned in the main process; None if there was none."""
        return getattr(self, "_last_eval_results", None)

    def evaluate_after(self, iteration: int) -> None:
        """Evaluate now, and record the metrics as those after ``iteration``; all processes call this together."""
        self._last_eval_results = self.test(self.cfg, self.model)
        for name, value in flatten_results_dict(self._last_eval_results or {}).items():
            self.storage.put_scalar(name, float(value), smoothing_hint=False, cur_iter=iteration)

    def train(self):
        """Run the training; Ctrl-C and SIGTERM end it with a checkpoint and ``Interrupted`` (see ``STOP``).

        Returns the last evaluation's results in the main process, if ``TEST.EXPECTED_RESULTS`` names metrics.
        """
        try:
            # Not DefaultTrainer.train: it raises KeyError if an expected metric is absent.
            with self._finishing_checkpoints(), self._ending_by_patience():
                TrainerBase.train(self, self.start_iter, self.max_iter)
            if not self.cfg.TEST.EXPECTED_RESULTS or not comm.is_main_process():
                return None
            compare_with_expected(self.cfg, self._last_eval_results)
            return self._last_eval_results
        except Interrupted as stop:
            STOP.settled()
            report_lost_process()
            if comm.is_main_process():
                # Stopped in an evaluation: nothing has changed since the iteration, and rank 0 has all states.
                if self.ranks.collected == self.done_iter > self.checkpointer.last_iteration:
                    self.checkpointer.save(f"model_{self.done_iter:07d}", iteration=self.done_iter)
                    self.checkpointer.wait()
                logger.warning(explain_stop(stop.number, self.checkpointer, self.max_iter))
            raise Interrupted(stop.number, told=True) from None
        finally:
            STOP.deferred = False

    @contextmanager
    def _finishing_checkpoints(self) -> Iterator[None]:
        """For a block that trains: at its end no checkpoint is being written; UserError if the last one cannot be."""
        try:
            yield
        except BaseException:
            try:
                self.checkpointer.wait()
            except UserError as error:
                logger.error("%s", error)  # the exception that has ended the training is raised
            raise
        self.checkpointer.wait()

    @contextmanager
    def _ending_by_patience(self) -> Iterator[None]:
        """For a block that trains: when ``TEST.BEST.PATIENCE`` ends it, save ``model_final`` as after a whole run."""
        try:
            yield
        except StoppedByPatience:
            # The loop may have stopped before its first iteration, by an evaluation that it made up for.
            last = self.iter if self.done_iter == self.iter else self.start_iter - 1
            if comm.is_main_process():
                self.checkpointer.save("model_final", iteration=last)
                logger.info(
                    "The training ends after %d of %d iterations, because %d evaluations in a row have not improved "
                    "%s (TEST.BEST.PATIENCE).", last + 1, self.max_iter, self.cfg.TEST.BEST.PATIENCE,
                    self.cfg.TEST.BEST.METRIC,
                )  # fmt: skip
            comm.synchronize()

    def stop_if_asked(self) -> None:
        """After each iteration but the last: if any process of the job was told to stop, save and stop all."""
        self.done_iter = self.iter
        number = STOP.agreed()
        if not number or self.iter + 1 >= self.max_iter:
            return
        STOP.settled()
        self.ranks.collect(self.iter)
        if comm.is_main_process():
            self.checkpointer.wait()
            if self.checkpointer.last_iteration < self.iter:
                self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
                self.checkpointer.wait()  # torchrun ends this process soon after the others have left
        comm.synchronize()
        raise Interrupted(number)

    def before_train(self) -> None:
        """Continue the data order and the random generators of the stopped run."""
        super().before_train()
        if self.average is not None:
            self.average.begin()
        least = max(self.ranks.recorded, self.least_shares)
        streamed = isinstance(self.ranks.data_loader, StreamLoader)
        self.recipe.shares = choose_shares(self.cfg.SOLVER, type(self.recipe), self.model, streamed, least)
        self.ranks.restore(self.start_iter, self.cfg.SOLVER.IMS_PER_BATCH, self.recipe.shares)

    def run_step(self) -> None:
        """One iteration."""
        with explaining_memory(self.cfg, training=True), explaining_determinism():
            super().run_step()

    def after_step(self) -> None:
        """Gather the states of all processes before a hook may write a checkpoint, then call the hooks."""
        done = self.iter + 1
        periods = (self.cfg.SOLVER.CHECKPOINT_PERIOD, self.cfg.TEST.EVAL_PERIOD)
        if done >= self.max_iter or any(period > 0 and done % period == 0 for period in periods):
            self.ranks.collect(self.iter)
        with self._explaining_full_disk(), explaining_memory(self.cfg, training=False):
            super().after_step()

    def after_train(self) -> None:
        """Call the hooks."""
        with self._explaining_full_disk():
            super().after_train()

    @contextmanager
    def _explaining_full_disk(self) -> Iterator[None]:
        # From writers of metrics.json and event files.
        try:
            yield
        except OSError as error:
            if not is_disk_full(error):
                raise
            problem = explain_os_error(error.filename or os.path.join(self.cfg.OUTPUT_DIR, "metrics.json"), error)
            raise UserError(f"{problem} {self.checkpointer.what_is_kept()}") from error

    # Iteration and hooks; optimizers are separate entries of a checkpoint.
    state_dict, load_state_dict = TrainerBase.state_dict, TrainerBase.load_state_dict


def _test_average(kind: type[Trainer], average: WeightAverage, cfg: CfgNode, model: torch.nn.Module):
    with average.applied():
        return kind.test(cfg, model, averaged=True)


def compare_with_expected(cfg: CfgNode, results: Mapping[str, Any]) -> None:
    """Exit with status 1 if a metric differs from ``TEST.EXPECTED_RESULTS``; UserError if it was not evaluated."""
    for task, *_ in cfg.TEST.EXPECTED_RESULTS:
        if task not in results:
            known = f"There are: {', '.join(results) or 'none'}."
            known += f" All results are in {os.path.join(cfg.OUTPUT_DIR, 'results.json')}."
            raise UserError(f"TEST.EXPECTED_RESULTS names the task {task!r}, which was not evaluated. {known}")
    verify_results(cfg, results)


def wrap_for_processes(
    model: torch.nn.Module, find_unused_parameters: bool = False, **options: Any
) -> DistributedDataParallel:
    """Wrap a model so that all processes of the job share its gradients, on GPUs or CPUs; ``options``: further ones."""
    device = next(model.parameters()).device
    # Gradients lie in the buckets that are sent; copies of them would take as much memory as the parameters.
    # PyTorch warns that those of another memory layout are copied there, which costs little.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    options = {"gradient_as_bucket_view": True, **options}
    options["device_ids"] = [device.index] if device.type == "cuda" else None
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # in newer torch
    options["forward_sync_buffers" if renamed else "broadcast_buffers"] = False
    return DistributedDataParallel(model, find_unused_parameters=find_unused_parameters, **options)
