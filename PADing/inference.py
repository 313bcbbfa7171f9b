"""From Python: load a model of any method, and segment images with it.

>>> predictor = Predictor(load_config("configs/panoptic-segmentation/PADing.yaml", ["MODEL.WEIGHTS", "model.pth"]))
>>> result = predictor(image)  # image: (H, W, 3) uint8 RGB

A shared model needs no config and no data set:

>>> result = from_pretrained("OWNER/NAME")(image)

``from_pretrained("mini")`` is a small model that comes with the package; it knows drawn shapes.

Classes of one's own, which nobody has annotated:

>>> predictor.set_vocabulary("zebra; traffic light, signal; stuff: grass")
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from PADing.class_space import ClassSpace
from PADing.config import load_config
from PADing.data.dataset_mappers.view import image_tensor
from PADing.data.resizing import resized
from PADing.data.vocabulary import parse_vocabulary
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.engine.compilation import compile_model
from PADing.engine.evaluation_precision import use_evaluation_precision
from PADing.engine.start_check import PREDICTION, on_present_device, start_problems
from PADing.engine.weight_average import choice_of_weights
from PADing.errors import UserError, refuse
from PADing.meta_arch.augmented import augmented
from PADing.meta_arch.class_embeddings import ClassEmbeddings
from PADing.meta_arch.contract import check_takes_vocabulary, contract_of
from PADing.meta_arch.named_classes import NamedClasses, is_evaluation_only
from PADing.meta_arch.vocabulary import Vocabulary, VocabularyMaker, own_classes, use_vocabulary
from PADing.meta_arch.vocabulary_file import is_vocabulary_file, read_vocabulary, save_vocabulary
from PADing.sharing.layout import HUB, check_folder
from PADing.sharing.places import named_model

__all__ = ["Predictor", "from_pretrained", "load_model"]

SEGMENTER = "sem_seg_head."


class Predictor:
    """Segments images with the classes of the config's first evaluation set.

    Args:
        cfg: ``MODEL.WEIGHTS`` names the weights, ``DATASETS.TEST[0]`` the classes. No file of the data set is read.
            Images are resized by ``INPUT.MIN_SIZE_TEST`` and ``MAX_SIZE_TEST``.
        one_result: compute only the first of panoptic, instance and semantic results that the config asks for.

    Attributes:
        model: in evaluation mode, on ``MODEL.DEVICE``.
        metadata: of the classes that it predicts: those of the evaluation set, or of a vocabulary.

    Raises:
        UserError: as :func:`load_model`.
    """

    def __init__(self, cfg: CfgNode, one_result: bool = False):
        self.model = load_model(cfg)
        if one_result:
            contract_of(self.model).keep_first_result()
        self.cfg = cfg
        self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        self._first: Vocabulary | None = getattr(self.model, "vocabulary", None)  # of a set of other classes
        self.vocabulary: Vocabulary | None = None
        self.predict = augmented(cfg, self.model).eval()
        self.format = cfg.INPUT.FORMAT

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> dict:
        """Segment one image.

        Args:
            image: (H, W, 3) uint8 RGB, for any value of ``INPUT.FORMAT``.

        Returns:
            the model's results at the size of the image: any of ``panoptic_seg``, ``instances``, ``sem_seg``.
        """
        height, width = image.shape[:2]
        ordered = image[:, :, ::-1] if self.format == "BGR" else image
        tensor = image_tensor(resized(ordered, self.cfg.INPUT.MIN_SIZE_TEST, self.cfg.INPUT.MAX_SIZE_TEST))
        return self.predict([{"image": tensor, "height": height, "width": width}])[0]

    def set_vocabulary(
        self,
        words: str | os.PathLike | Sequence[str] | None,
        *,
        keep_own: bool = False,
        embeddings: str | os.PathLike = "",
        text_source: str | os.PathLike = "",
    ) -> ClassSpace:
        """Predict the classes of a vocabulary from now on; results and ``metadata`` are those of its classes.

        Class i of the vocabulary is ``category_id`` or ``pred_classes`` i, and channel i of ``sem_seg``. A class that
        the model knows by one of its names keeps what the model has learned about it; others are new and unseen.

        Args:
            words: ``"zebra; traffic light, signal; stuff: grass"`` (``;`` between classes, ``,`` between synonyms), a
                list with one class each, a text file with one class a line, an ``.npz`` of class embeddings or of
                :meth:`save_vocabulary`; None: the model's own classes again, with the results as before.
            keep_own: the model's own classes are predicted, too.
            embeddings: an ``.npz`` with vectors of the new classes, from the source of the model's own.
            text_source: weights of the text encoder, or the file of word vectors, that made the model's own class
                embeddings; it makes the missing vectors. Without it, a CLIP encoder is found by its name.

        Returns:
            the classes that are predicted now.

        Raises:
            UserError: the model has fixed classes; mistakes in the words; no vectors, or vectors of another source; a
                file of another model. The former classes stay in use then.
        """
        own = MetadataCatalog.get(self.cfg.DATASETS.TEST[0])
        check_takes_vocabulary(self.model)
        if words is None:
            use_vocabulary(self.model, self._first)
            self.metadata, self.vocabulary = own, None
            return ClassSpace.of(own)
        state: dict[str, torch.Tensor] = {}
        if is_vocabulary_file(words):
            if embeddings:
                raise UserError(f"Both {words} and {embeddings} hold vectors. Name one of them.")
            embeddings = str(words).strip()
            entries, state = read_vocabulary(embeddings)
        else:
            entries = parse_vocabulary(words)
        known = own if self._first is None else MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0])
        maker = VocabularyMaker(self.cfg, own_classes(self.cfg, known))
        vocabulary = maker.make(entries, keep_own, os.fspath(embeddings), os.fspath(text_source))
        vocabulary.state.update(state)
        use_vocabulary(self.model, vocabulary)
        self.metadata, self.vocabulary = vocabulary.metadata, vocabulary
        return vocabulary.space

    def save_vocabulary(self, path: str | os.PathLike) -> None:
        """Write the vocabulary in use to an ``.npz`` for :meth:`set_vocabulary`, with what the model has learned of it.

        Raises:
            UserError: no vocabulary is in use, or the file cannot be written.
        """
        if self.vocabulary is None:
            raise UserError(f"{path} is not written: no vocabulary is in use. Call set_vocabulary first.")
        own = ClassEmbeddings.of_config(self.cfg, ClassSpace.of_config(self.cfg))
        save_vocabulary(path, self.vocabulary, own.path)


def from_pretrained(
    name_or_folder: str | os.PathLike,
    revision: str | None = None,
    opts: Sequence = (),
    trust_plugins: bool = False,
    one_result: bool = False,
) -> Predictor:
    """Load a shared model: a folder of ``tools/share_model.py``, here or on the Hugging Face Hub.

    No data set is needed, and no code that comes with the model is run. A download goes to the cache of
    ``huggingface_hub``.

    Args:
        name_or_folder: a folder, ``OWNER/NAME``, ``hf://OWNER/NAME[@revision]``, or ``mini``, which the package holds.
        revision: branch, tag or commit on the Hub; None: the main branch.
        opts: overrides of its config, such as ``["MODEL.DEVICE", "cpu"]``.
        trust_plugins: import modules beyond this program that the model's config names under PLUGINS. They must be
            installed, or be in the current folder, and can do anything.
        one_result: as of :class:`Predictor`.

    Raises:
        UserError: no such folder or name, no connection, a torn download, an incomplete or damaged folder, or as
            :func:`load_model`.
    """
    name = named_model(name_or_folder, revision)
    if not name.startswith(HUB):
        check_folder(Path(name))
    return Predictor(load_config(name, opts, trust_plugins), one_result)


def load_model(cfg: CfgNode) -> torch.nn.Module:
    """Load the model of a config with ``MODEL.WEIGHTS``, in evaluation mode, for the first evaluation set.

    Without a GPU the model runs on the CPU, even if ``MODEL.DEVICE`` asks for a GPU.

    Raises:
        UserError: the config names no evaluation set or no weights, or has wrong values or names; the weights do not
            fit or hold a backbone only.
    """
    if not cfg.MODEL.WEIGHTS:
        raise UserError(
            "MODEL.WEIGHTS is empty, and an untrained model predicts at random. Name a trained checkpoint: "
            "MODEL.WEIGHTS path/to/model_final.pth (in the demo: after --opts)."
        )
    cfg = on_present_device(cfg)
    refuse(start_problems(cfg, PREDICTION))
    model = build_model(cfg).eval()
    compile_model(cfg, model)
    use_evaluation_precision(cfg, model)
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    contract_of(model).set_test_metadata(metadata)
    checkpointer = _TrainedCheckpointer(model)
    checkpointer.weights_from = choice_of_weights(cfg, training=False)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    if is_evaluation_only(cfg.DATASETS.TEST[0]):
        use_vocabulary(model, NamedClasses(cfg, metadata).vocabulary())
    return model


class _TrainedCheckpointer(TrainingCheckpointer):
    """Refuses the weights of a backbone alone: training may start from them, inference may not."""

    def _load_model(self, checkpoint: dict):
        incompatible = super()._load_model(checkpoint)
        segmenter = {key for key in self.model.state_dict() if key.startswith(SEGMENTER)}
        if segmenter and segmenter <= set(incompatible.missing_keys):
            raise UserError(
                "MODEL.WEIGHTS holds no segmenter, only other parts such as a backbone, so the model would predict at "
                "random. Name a checkpoint that train_net.py has written: MODEL.WEIGHTS path/to/model_final.pth."
            )
        return incompatible
