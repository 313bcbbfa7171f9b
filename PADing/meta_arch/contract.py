"""The extension contract: everything that a model may tell training, evaluation and checkpoints, with defaults.

The rest of the program asks ``contract_of(model)``, so a model without these attributes, such as one of Detectron2's,
has the defaults. ``docs/your_method.md`` lists the items with examples.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from PADing.class_space import ClassSpace
from PADing.errors import UserError

if TYPE_CHECKING:
    from PADing.meta_arch.vocabulary import Vocabulary


class ModelContract:
    """What a meta-architecture may define. Inherit it beside ``nn.Module``, or inherit ``SegmenterBase``.

    Attributes:
        training_recipe: registered name of the model's recipe, used if ``SOLVER.RECIPE`` is empty.
        find_unused_parameters: whether a training step may leave trainable parameters without a gradient.
        restricts_to_unseen: whether the model predicts only unseen classes on evaluation sets of unseen classes.
        built_on_host: whether the networks are built from the host's config keys, whose values are checked then.
    """

    training_recipe: str = "OneOptimizer"
    find_unused_parameters: bool = False
    restricts_to_unseen: bool = False
    built_on_host: bool = False

    # ---- asked of the class, before a model is built
    @classmethod
    def count_classes(cls, cfg: CfgNode) -> int:
        """The value for ``MODEL.SEM_SEG_HEAD.NUM_CLASSES -1``; default: the number of the training set's classes."""
        return len(ClassSpace.of_config(cfg))

    @classmethod
    def check_start(cls, cfg: CfgNode, training: bool) -> None:
        """Called when a command starts; UserError if config and files do not fit together."""

    @classmethod
    def explain_named_weights(cls, cfg: CfgNode) -> str:
        """Why the name in ``MODEL.WEIGHTS`` cannot be right for a training; "" if it can."""
        return ""

    @classmethod
    def further_weights(cls, cfg: CfgNode) -> dict[str, str]:
        """Config key -> path of further checkpoints that a training reads; they are checked when it starts."""
        return {}

    @classmethod
    def text_source(cls, cfg: CfgNode) -> str:
        """Where the text encoder is that made the class embeddings, if the config says it; "" if not."""
        return ""

    # ---- asked of the model
    def set_test_metadata(self, metadata: Any) -> None:
        """Called before an evaluation, with the metadata of the data set; UserError if it does not fit."""

    def set_vocabulary(self, vocabulary: "Vocabulary | None") -> None:
        """From now on output i is class i of ``vocabulary``; None: the model's own classes, exactly as before.

        A model without this method has fixed classes. Called by ``PADing.meta_arch.vocabulary.use_vocabulary``;
        UserError if the model cannot take these classes.
        """

    def keep_first_result(self) -> None:
        """From now on compute only the most complete result; for callers that use no other."""

    def begin_micro_batches(self, parts: Sequence[list[dict]]) -> None:
        """Called before an update that sees its batch in several ``parts``, and with () after it.

        The recipe divides the losses of each part by their number. That is right for means over images; any other loss
        takes its divisor from the whole batch, see ``PADing.modeling.WholeBatch``.
        """

    def begin_shares(self, batches: Sequence[list[dict]], number: int) -> None:
        """Called by all processes before an update if they compute ``batches`` one by one, and with ((), 0) after it.

        The batch of the job has ``number`` shares; ``batches`` are those of this process, whose number differs between
        processes. So a forward pass must not exchange anything: a loss that needs numbers of all shares gets them here.
        """

    # ---- asked of the model when weights are loaded
    def harmless_weights(self) -> tuple[str, ...]:
        """Prefixes of keys whose shape may differ from the file's; such weights are not loaded."""
        return ()

    def explain_missing_weights(self, missing: list[str], found: list[str]) -> str:
        """Why the model cannot work without the ``missing`` keys; "" if it can. ``found``: the file's keys, or []."""
        return ""

    def explain_wrong_shapes(self, keys: Sequence[str]) -> str:
        """Advice for a file in which ``keys`` have other shapes than in the model; "": the default advice."""
        return ""


def contract_of(model: Any) -> ModelContract:
    """The contract of a model or a meta-architecture, with defaults for what it does not define."""
    if isinstance(model, ModelContract):
        return model
    contract = ModelContract()
    own = {name: getattr(model, name) for name in dir(ModelContract) if name[0] != "_" and hasattr(model, name)}
    vars(contract).update(own)
    return contract


def takes_vocabulary(model: Any) -> bool:
    """Whether a model or meta-architecture implements ``ModelContract.set_vocabulary``."""
    kind = model if isinstance(model, type) else type(model)
    method = getattr(kind, "set_vocabulary", ModelContract.set_vocabulary)
    return method is not ModelContract.set_vocabulary


def check_takes_vocabulary(model: Any) -> None:
    """UserError if a model has one fixed output for each class of its training."""
    if not takes_vocabulary(model):
        name = (model if isinstance(model, type) else type(model)).__name__
        raise UserError(
            f"{name} has a fixed output for each class of its training and no class embeddings, so it "
            "cannot take other names. PADing and D2Zero can; for a method of your own see docs/vocabulary.md."
        )


def architecture_of(cfg: CfgNode) -> Any:
    """The meta-architecture of a config; None if the name is not registered."""
    name = cfg.MODEL.META_ARCHITECTURE
    return META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None


def count_classes(cfg: CfgNode) -> int:
    """How many classes the meta-architecture needs; -1 if it or the training set is not registered."""
    architecture, train = architecture_of(cfg), cfg.DATASETS.TRAIN
    if architecture is None or not train or train[0] not in DatasetCatalog.list():
        return -1
    return contract_of(architecture).count_classes(cfg)
