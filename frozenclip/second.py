"""FrozenCLIP's second classifier for models of other methods: CLIP classifies their masks, too."""

import logging
import os
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from frozenclip.backbone import NAME_KEY, WEIGHTS_KEY, clip_of, load_encoder, names_weights
from frozenclip.class_table import ClassTable
from frozenclip.classes import table_of, trained_names
from frozenclip.encoder import STRIDES, ImageEncoder
from frozenclip.ensembled import ensembled
from frozenclip.text import clip_text
from PADing.class_space import ClassSpace
from PADing.data.vocabulary_vectors import VocabularyVectors
from PADing.errors import UserError
from PADing.meta_arch.second_classifier import SECOND_CLASSIFIER_REGISTRY, OutputClasses, SecondClassifier

logger = logging.getLogger(__name__)

OUTSIDE = -1.0  # mask logit


@SECOND_CLASSIFIER_REGISTRY.register("FrozenCLIPClassifier")
class FrozenCLIPClassifier(SecondClassifier):
    """Runs CLIP's image encoder beside a model, classifies its masks, and joins both by the geometric ensemble.

    The first classifier's probabilities are those of the model itself, whatever its temperature and whichever classes
    compete. Vectors of new words come from CLIP's text encoder, not from the model's source.

    Raises:
        UserError: no such CLIP model, no weights, or text embeddings of another model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        node = cfg.MODEL.FROZENCLIP
        clip = clip_of(cfg)
        self.encoder = ImageEncoder(clip)
        if names_weights(cfg):
            load_encoder(self.encoder, cfg)
        else:
            logger.warning(
                "THE SECOND CLASSIFIER, CLIP %s, HAS RANDOM WEIGHTS, so results mean nothing. For other purposes than "
                "tests, name its weights: %s TAG_OR_FILE, or a folder with weights in %s.",
                clip.label, WEIGHTS_KEY, NAME_KEY,
            )  # fmt: skip
        self.text, self.trained = clip_text(cfg), trained_names(cfg)
        self.own = ClassSpace.of_config(cfg).vocabulary
        self.exponents = node.ALPHA, node.BETA
        self.swapped = cfg.INPUT.FORMAT == "BGR"
        self.text_source = clip.folder or (node.PRETRAINED if os.path.isfile(node.PRETRAINED) else "")
        for name, values in (("mean", clip.mean), ("std", clip.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)
        self.table: Any = None

    @classmethod
    def check(cls, cfg: CfgNode, names: tuple[str, ...]) -> None:
        """UserError if the text embeddings lack classes or come from another CLIP."""
        clip_text(cfg).of(names)

    def set_classes(self, classes: OutputClasses) -> None:
        """See the base class; new words are encoded by CLIP's text encoder."""
        places = range(len(classes.names))
        known, words = [k for k in places if classes.new[k] is None], [entry for entry in classes.new if entry]
        own = table_of([classes.names[k] for k in known], self.text, self.trained) if known else None
        vectors, owners = [self._encoded(words)] if words else [], [k for k in places if classes.new[k]]
        seen = [False] * len(places)
        if own is not None:
            vectors.append(own.vectors)
            owners += [known[i] for i in own.owner.tolist()]
            for k, is_seen in zip(known, own.seen.tolist(), strict=True):
                seen[k] = is_seen
        owner, order = torch.tensor(owners).sort(stable=True)
        self.table = ClassTable(torch.cat(vectors)[order], seen, owner).to(self.encoder.logit_scale.device)

    def _encoded(self, words: list) -> Tensor:
        own = dict(zip(self.own, self.text.of(self.own).numpy(), strict=True))
        try:
            return torch.from_numpy(VocabularyVectors(self.text.path, own, "", self.text_source).of(words))
        except UserError as error:
            raise UserError(f"The second classifier cannot score the new words. {error}") from error

    def forward(
        self, class_logits: Tensor, mask_logits: Tensor, pixels: Tensor, image_sizes: list[tuple[int, int]]
    ) -> Tensor:
        """Log probabilities (B, Q, K + 1) of the ensemble; arguments as in the base class."""
        images = (pixels.flip(1) if self.swapped else pixels).sub(self.mean).div(self.std)
        for image, (height, width) in zip(images, image_sizes, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        height, width = pixels.shape[-2:]
        below, right = -height % STRIDES[-1], -width % STRIDES[-1]
        if below or right:
            images = F.pad(images, (0, right, 0, below))
            rows, columns = mask_logits.shape[-2:]
            more = round(right * columns / width), round(below * rows / height)
            mask_logits = F.pad(mask_logits, (0, more[0], 0, more[1]), value=OUTSIDE)
        last = self.encoder.maps(images)[-1]
        padded = images.shape[-2], images.shape[-1]
        return ensembled(class_logits, mask_logits, last, self.encoder, self.table, self.exponents, padded, image_sizes)
