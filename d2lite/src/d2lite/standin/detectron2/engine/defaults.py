"""A trainer that is built from a config, and its parts."""

import functools
import logging
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2 import data, modeling, solver
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format, verify_results
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from fvcore.nn.precise_bn import get_bn_modules
from torch.nn.parallel import DistributedDataParallel

from . import hooks
from .command_line import default_argument_parser, default_setup  # noqa: F401 - people import them from here
from .train_loop import AMPTrainer, SimpleTrainer, TrainerBase

logger = logging.getLogger(__name__)


def create_ddp_model(model: torch.nn.Module, **kwargs) -> torch.nn.Module:
    """On several processes, wrap the model by ``DistributedDataParallel``; on the CPU with ``device_ids=None``."""
    if comm.get_world_size() == 1:
        return model
    return DistributedDataParallel(model, **{"device_ids": [comm.get_local_rank()], **kwargs})


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Make the folder, and writers of log lines, ``metrics.json`` and, where TensorBoard works, its event files."""
    os.makedirs(output_dir, exist_ok=True)
    metrics = os.path.join(output_dir, "metrics.json")
    writers: list[EventWriter] = [CommonMetricPrinter(max_iter), JSONWriter(metrics)]
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as error:  # not installed, or its dependencies are broken
        logger.warning("TensorBoard cannot be used (%s): there will be no event files.", error)
        return writers
    return [*writers, TensorboardXWriter(output_dir)]


def _of_inner_trainer(name: str) -> Any:
    """An attribute that is the inner trainer's attribute of the same name."""
    return property(lambda self: getattr(self._trainer, name), lambda self, new: setattr(self._trainer, name, new))


class DefaultTrainer(TrainerBase):
    """Trains, saves, evaluates and logs as a config says. Each part is made by a method that subclasses may replace.

    An inner trainer, ``_trainer``, runs the iterations and has ``model`` (wrapped if there are several processes),
    ``optimizer`` and ``data_loader``. ``cfg`` is scaled to the number of processes.
    """

    model = _of_inner_trainer("model")
    optimizer = _of_inner_trainer("optimizer")
    data_loader = _of_inner_trainer("data_loader")
    _last_eval_results: dict | None = None

    def __init__(self, cfg: CfgNode):
        super().__init__()
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()  # the script has not called it, so nothing would be shown
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        bare = self.build_model(cfg)
        optimizer, loader = self.build_optimizer(cfg, bare), self.build_train_loader(cfg)
        kind = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer: TrainerBase = kind(create_ddp_model(bare, broadcast_buffers=False), loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        # The trainer owns the checkpointer, which has only a weak reference to the trainer.
        self.checkpointer = DetectionCheckpointer(self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Adapt a config for ``SOLVER.REFERENCE_WORLD_SIZE`` processes to ``num_workers`` processes.

        The number of images per process stays. More images per iteration mean a larger learning rate and fewer
        iterations. Returns a changed copy, frozen if ``cfg``
        is; or ``cfg`` itself if it fits or its reference is 0 (no scaling).
        """
        old = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if old in (0, num_workers):
            return cfg
        assert not cfg.SOLVER.IMS_PER_BATCH % old, (
            f"SOLVER.REFERENCE_WORLD_SIZE is {old}, but so many processes cannot share SOLVER.IMS_PER_BATCH "
            f"({cfg.SOLVER.IMS_PER_BATCH}) evenly."
        )
        factor, scaled = num_workers / old, cfg.clone()
        scaled.defrost()
        steps = scaled.SOLVER
        steps.REFERENCE_WORLD_SIZE = num_workers
        steps.IMS_PER_BATCH, steps.BASE_LR = round(steps.IMS_PER_BATCH * factor), steps.BASE_LR * factor
        for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
            steps[key] = round(steps[key] / factor)
        steps.STEPS = tuple(round(step / factor) for step in steps.STEPS)
        scaled.TEST.EVAL_PERIOD = round(scaled.TEST.EVAL_PERIOD / factor)
        if cfg.is_frozen():
            scaled.freeze()
        logger.info("The config for %d processes is scaled to %d:\n%s", old, num_workers, scaled.SOLVER)
        return scaled

    def resume_or_load(self, resume: bool = True) -> None:
        """Load ``MODEL.WEIGHTS``; or, with ``resume``, continue from the last checkpoint of ``OUTPUT_DIR`` if any."""
        goes_on = resume and self.checkpointer.has_checkpoint()
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if goes_on:
            self.start_iter = 1 + self.iter  # checkpoints are written at the end of an iteration

    def run_step(self) -> None:
        """Run one iteration of the inner trainer."""
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def train(self):
        """Run the iterations that are left; return results compared with ``TEST.EXPECTED_RESULTS``, if any."""
        super().train(self.start_iter, self.max_iter)
        if not self.cfg.TEST.EXPECTED_RESULTS or not comm.is_main_process():
            return None
        results = self._last_eval_results
        assert results is not None, "TEST.EXPECTED_RESULTS names metrics, but nothing has been evaluated."
        verify_results(self.cfg, results)
        return results

    def load_state_dict(self, state_dict: dict) -> None:
        """Also the inner trainer's."""
        self._trainer.load_state_dict(state_dict["_trainer"])
        super().load_state_dict(state_dict)

    def state_dict(self) -> dict:
        """Also the inner trainer's."""
        return super().state_dict() | {"_trainer": self._trainer.state_dict()}

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """A model with random weights, on ``MODEL.DEVICE``."""
        made = modeling.build_model(cfg)
        logger.info("Model:\n%s", made)
        return made

    build_optimizer = staticmethod(solver.build_optimizer)
    build_lr_scheduler = staticmethod(solver.build_lr_scheduler)
    build_train_loader = staticmethod(data.build_detection_train_loader)
    build_test_loader = staticmethod(data.build_detection_test_loader)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator of a data set; a subclass must define it."""
        raise NotImplementedError(f"{cls.__name__} does not define build_evaluator(cfg, dataset_name).")

    def build_writers(self) -> list[EventWriter]:
        """:func:`default_writers`."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def build_hooks(self) -> Sequence[hooks.HookBase | None]:
        """Time, rate, batch norm, then (main process) checkpoints, before an evaluation that may fail, and logs."""
        period = self.cfg.TEST.EVAL_PERIOD
        made = [hooks.IterationTimer(), hooks.LRScheduler(), self._precise_bn(period)]
        evaluation = hooks.EvalHook(period, functools.partial(_evaluate, weakref.proxy(self)))
        if not comm.is_main_process():
            return [*made, evaluation]
        checkpoints = hooks.PeriodicCheckpointer(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD)
        return [*made, checkpoints, evaluation, hooks.PeriodicWriter(self.build_writers())]

    def _precise_bn(self, period: int) -> hooks.PreciseBN | None:
        precise = self.cfg.TEST.PRECISE_BN
        if not precise.ENABLED or not get_bn_modules(self.model):
            return None
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # workers would keep their memory until the next use
        return hooks.PreciseBN(period, self.model, self.build_train_loader(cfg), precise.NUM_ITER)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators=None) -> dict:
        """Evaluate on each data set of ``DATASETS.TEST``; the model's mode is kept.

        ``evaluators``: one, or a list with one for each data set; by default, what ``build_evaluator`` makes. Returns
        data set -> what its evaluator returns, empty without an evaluator; for one data set, its results alone.
        """
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        evaluators = evaluators or [None] * len(names)
        assert len(evaluators) == len(names), f"{len(evaluators)} evaluators for {len(names)} data sets: {names}"
        results = {name: cls._test_on(cfg, model, name, own) for name, own in zip(names, evaluators, strict=True)}
        return results.popitem()[1] if len(results) == 1 else results

    @classmethod
    def _test_on(cls, cfg: CfgNode, model: torch.nn.Module, name: str, evaluator: DatasetEvaluator | None) -> dict:
        loader = cls.build_test_loader(cfg, name)
        if evaluator is None:
            try:
                evaluator = cls.build_evaluator(cfg, name)
            except NotImplementedError as error:
                logger.warning("%s is not evaluated: %s", name, error)
                return {}
        found = inference_on_dataset(model, loader, evaluator)
        if comm.is_main_process():
            assert isinstance(found, dict), f"The evaluator of {name} must return a dict, but returned {found!r}."
            logger.info("Evaluation results for %s in csv format:", name)
            print_csv_format(found)
        return found


def _evaluate(trainer: DefaultTrainer) -> dict:
    trainer._last_eval_results = trainer.test(trainer.cfg, trainer.model)
    return trainer._last_eval_results


class DefaultPredictor:
    """The model of a config, for one image prepared as ``INPUT`` says; ``metadata`` of the first test data set."""

    def __init__(self, cfg: CfgNode):
        size = cfg.INPUT
        assert size.FORMAT in ("BGR", "RGB"), f"INPUT.FORMAT is {size.FORMAT!r}, but must be 'BGR' or 'RGB'."
        self.cfg, self.input_format = cfg.clone(), size.FORMAT
        self.aug = data.transforms.ResizeShortestEdge(2 * [size.MIN_SIZE_TEST], size.MAX_SIZE_TEST)
        self.model = modeling.build_model(self.cfg).eval()
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        for name in cfg.DATASETS.TEST[:1]:
            self.metadata = data.MetadataCatalog.get(name)

    @torch.no_grad()
    def __call__(self, original_image: np.ndarray) -> dict:
        """What the model returns for an image, H x W x 3, uint8, always in the order blue, green, red."""
        ordered = original_image if self.input_format == "BGR" else np.flip(original_image, axis=2)
        resized = self.aug.get_transform(ordered).apply_image(ordered)
        pixels = torch.from_numpy(np.array(resized, dtype=np.float32)).permute(2, 0, 1).contiguous()
        sample = {"image": pixels.to(self.cfg.MODEL.DEVICE)}
        sample["height"], sample["width"] = original_image.shape[:2]
        (output,) = self.model([sample])
        return output
