"""A second classifier: it classifies the predicted masks again in inference, beside the model's own classifier.

``MODEL.SECOND_CLASSIFIER.NAME`` names one that a plug-in registers. It sees the image, the masks and the model's class
scores, and returns class scores in place of these. Any model on ``SegmenterBase`` can be evaluated with it, without
another training.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch import Tensor, nn

from PADing.class_space import ClassSpace
from PADing.data.vocabulary import Entry
from PADing.errors import UserError, did_you_mean
from PADing.registry import NamedRegistry

if TYPE_CHECKING:
    from PADing.meta_arch.vocabulary import Vocabulary

SECOND_CLASSIFIER_REGISTRY: NamedRegistry[type["SecondClassifier"]] = NamedRegistry("a second classifier")


@dataclass(frozen=True)
class OutputClasses:
    """The K classes of a model's outputs.

    Attributes:
        names: of the classes. A class of a vocabulary that the model knows has the model's name for it.
        new: for each class the words of a vocabulary, if the model does not know it; else None.
    """

    names: tuple[str, ...]
    new: tuple[Entry | None, ...]

    @classmethod
    def of_vocabulary(cls, vocabulary: "Vocabulary", own: tuple[str, ...]) -> "OutputClasses":
        """Those of a vocabulary; ``own``: the names that ``kept`` counts."""
        pairs = list(zip(vocabulary.entries, vocabulary.kept, strict=True))
        names = tuple(own[kept] if kept >= 0 else entry.name for entry, kept in pairs)
        return cls(names, tuple(None if kept >= 0 else entry for entry, kept in pairs))


class SecondClassifier(nn.Module):
    """Base of second classifiers. Its constructor takes a config; its weights are not in the model's checkpoints.

    Attributes:
        classes: those of the outputs; see :meth:`set_classes`.
    """

    classes: OutputClasses | None = None

    @classmethod
    def check(cls, cfg: CfgNode, names: tuple[str, ...]) -> None:
        """Called when a command starts: UserError if the config is wrong, or the classes ``names`` cannot be scored."""

    def set_classes(self, classes: OutputClasses) -> None:
        """Score these classes from now on; UserError if that is not possible. The caller sets ``classes``."""
        raise NotImplementedError

    def forward(
        self, class_logits: Tensor, mask_logits: Tensor, pixels: Tensor, image_sizes: list[tuple[int, int]]
    ) -> Tensor:
        """New class logits (B, Q, K + 1): their softmax are the class probabilities, "no object" last.

        Args:
            class_logits: (B, Q, K + 1) float32, the model's own. A class that does not compete has -inf.
            mask_logits: (B, Q, h, w), positive inside; of the padded batch.
            pixels: (B, 3, H, W) on the scale 0..255, channels as in ``INPUT.FORMAT``, padded at the right and bottom.
            image_sizes: of the images in the batch.
        """
        raise NotImplementedError


def second_classifier_type(cfg: CfgNode) -> type[SecondClassifier] | None:
    """The class that a config names; None without a name, UserError if it is not registered."""
    name = cfg.MODEL.SECOND_CLASSIFIER.NAME
    if not name:
        return None
    if name not in SECOND_CLASSIFIER_REGISTRY:
        known = ", ".join(SECOND_CLASSIFIER_REGISTRY) or "none"
        hint = did_you_mean(name, SECOND_CLASSIFIER_REGISTRY) or f" (there are: {known})"
        cure = "Name the module that registers it under PLUGINS, such as frozenclip"
        raise UserError(f"MODEL.SECOND_CLASSIFIER.NAME is {name!r}, which is not registered{hint}. {cure}.")
    return SECOND_CLASSIFIER_REGISTRY[name]


def build_second_classifier(cfg: CfgNode) -> SecondClassifier | None:
    """The second classifier of a config, on the CPU, in evaluation mode and without gradients; None if it has none."""
    kind = second_classifier_type(cfg)
    if kind is None:
        return None
    with torch.device("cpu"):  # it loads weights, which a model of shapes alone (device meta) would lose
        return kind(cfg).eval().requires_grad_(False)


def classes_of(model: Any, vocabulary: "Vocabulary | None") -> OutputClasses:
    """The classes of a model's outputs, its own or those of a vocabulary."""
    if vocabulary is not None:
        return OutputClasses.of_vocabulary(vocabulary, ClassSpace.of(model.metadata).vocabulary)
    names = model.output_names()
    return OutputClasses(tuple(names), (None,) * len(names))


def use_classes(second: SecondClassifier, classes: OutputClasses) -> None:
    """Let a second classifier score these classes, if it does not yet."""
    if second.classes != classes:
        second.set_classes(classes)
        second.classes = classes


@torch.no_grad()
def reclassified(model: Any, class_logits: Tensor, mask_logits: Tensor, images: ImageList) -> Tensor:
    """Class logits (B, Q, K + 1) of a model's second classifier, on the scale of the model's own.

    What the second classifier gets are the logits whose softmax the model takes for class probabilities: multiplied by
    ``inverse_temperature``, and with -inf for the classes that its ``instance_rule`` leaves out.
    """
    second = model.second_classifier.to(model.device)
    use_classes(second, classes_of(model, model.vocabulary))
    scale, columns = model.inverse_temperature, model.instance_rule().columns
    logits = scale * class_logits.float()
    if columns is not None:
        absent = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
        absent[[*columns, -1]] = False
        logits = logits.masked_fill(absent, float("-inf"))
    pixels = images.tensor * model.pixel_std + model.pixel_mean
    sizes = [(int(size[0]), int(size[1])) for size in images.image_sizes]
    return second(logits, mask_logits, pixels, sizes) / scale
