"""What a model may tell the rest of the program: the whole extension contract, every item with a default.

Training, evaluation and checkpoints ask ``contract_of(model)``, so a model that knows nothing of this project, such as
one of Detectron2's own, gets the defaults. ``docs/your_method.md`` lists the items with examples.
"""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from PADing.class_space import ClassSpace


class ModelContract:
    """What a meta-architecture may define. Inherit it beside ``nn.Module``, or inherit ``SegmenterBase``.

    Attributes:
        training_recipe: registered name of the recipe that trains the model when ``SOLVER.RECIPE`` is empty.
        find_unused_parameters: a training step may leave trainable parameters without a gradient.
        restricts_to_unseen: results are restricted to unseen classes in evaluation sets that show no others.
        built_on_host: the networks are built from the host's config keys, so the values of these keys are checked.
    """

    training_recipe: str = "OneOptimizer"
    find_unused_parameters: bool = False
    restricts_to_unseen: bool = False
    built_on_host: bool = False

    # ---- asked of the class, before a model is built
    @classmethod
    def count_classes(cls, cfg: CfgNode) -> int:
        """The value that ``MODEL.SEM_SEG_HEAD.NUM_CLASSES -1`` stands for; default: the training set's classes."""
        return len(ClassSpace.of_config(cfg))

    @classmethod
    def check_start(cls, cfg: CfgNode, training: bool) -> None:
        """Check that config and files fit together, when a command starts; UserError if not."""

    @classmethod
    def explain_named_weights(cls, cfg: CfgNode) -> str:
        """Why a training cannot start from ``MODEL.WEIGHTS``, judged by its name alone; "": it can."""
        return ""

    @classmethod
    def further_weights(cls, cfg: CfgNode) -> dict[str, str]:
        """Files that a training reads beside ``MODEL.WEIGHTS``, by config key: they are checked when it starts."""
        return {}

    # ---- asked of the model
    def set_test_metadata(self, metadata: Any) -> None:
        """Called with the metadata of an evaluation set before the set is evaluated; UserError if it does not fit."""

    def keep_first_result(self) -> None:
        """Compute only the most complete result from now on; called when a caller uses no other."""

    # ---- asked of the model when weights are loaded
    def harmless_weights(self) -> tuple[str, ...]:
        """Prefixes of keys whose shape may differ from the file's; such weights are left out."""
        return ()

    def explain_missing_weights(self, missing: list[str], found: list[str]) -> str:
        """Why the model cannot go on without ``missing`` keys; "": it can. ``found``: the file's keys; []: no file."""
        return ""

    def explain_wrong_shapes(self, keys: Sequence[str]) -> str:
        """Advice for a file in which these keys have another shape than in the model; "": no advice of its own."""
        return ""


def contract_of(model: Any) -> ModelContract:
    """The contract of a model or of a meta-architecture; what it does not define has the default."""
    if isinstance(model, ModelContract):
        return model
    contract = ModelContract()
    own = {name: getattr(model, name) for name in dir(ModelContract) if name[0] != "_" and hasattr(model, name)}
    vars(contract).update(own)
    return contract


def architecture_of(cfg: CfgNode) -> Any:
    """What is registered under ``MODEL.META_ARCHITECTURE``; None if nothing is."""
    name = cfg.MODEL.META_ARCHITECTURE
    return META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None


def count_classes(cfg: CfgNode) -> int:
    """How many classes the architecture needs for its data sets; -1 if it or the training set is not registered."""
    architecture, train = architecture_of(cfg), cfg.DATASETS.TRAIN
    if architecture is None or not train or train[0] not in DatasetCatalog.list():
        return -1
    return contract_of(architecture).count_classes(cfg)
