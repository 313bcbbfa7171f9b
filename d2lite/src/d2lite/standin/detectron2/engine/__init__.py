"""Training: the loop, its hooks, the default trainer, and starting one process per device."""

from .command_line import default_argument_parser, default_setup
from .defaults import DefaultPredictor, DefaultTrainer, create_ddp_model, default_writers
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
from .train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
