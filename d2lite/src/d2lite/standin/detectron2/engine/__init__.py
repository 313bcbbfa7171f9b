"""Training: the loop, its hooks, the default trainer, and starting one process per device."""

from d2lite.omitted import omitted_names

from .command_line import default_argument_parser, default_setup
from .defaults import DefaultTrainer, create_ddp_model, default_writers
from .hooks import (
    BestCheckpointer,
    CallbackHook,
    EvalHook,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    PreciseBN,
)
from .launch import DEFAULT_TIMEOUT, launch
from .predictor import DefaultPredictor
from .train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase

__getattr__ = omitted_names(__name__)
