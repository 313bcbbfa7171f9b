"""Class embeddings for the classes of an evaluation set, from files alone: an evaluation runs no text encoder."""

import logging
import os
import re
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from PADing.data.clip_models import SOURCE
from PADing.data.embeddings import CLIP_TEMPLATES
from PADing.data.vocabulary import Entry
from PADing.data.vocabulary_vectors import WORD_SOURCE, VocabularyVectors
from PADing.errors import UserError
from PADing.files import REPOSITORY

logger = logging.getLogger(__name__)

KEY = "TEST.CLASS_EMBEDDINGS"
_FILE = re.compile(r"\.(pt|pth|bin|safetensors)$")


class EvaluationVectors(VocabularyVectors):
    """Finds the vectors of an evaluation set's classes.

    Args:
        path, own: see :class:`VocabularyVectors`.
        given: the file of ``TEST.CLASS_EMBEDDINGS``; "": none.
        split_file: of the evaluation set, for the command in messages.
        further: another such file, of classes that are in no image; "": none.

    Raises:
        UserError: as :class:`VocabularyVectors`.
    """

    def __init__(self, path: str, own: Mapping[str, np.ndarray], given: str, split_file: str, further: str = ""):
        super().__init__(path, own, given)
        if further:
            self.known = VocabularyVectors(path, own, further).known | self.known
        self.split_file = split_file

    def of(self, entries: Sequence[Entry]) -> np.ndarray:
        """Vectors (len(entries), e) float32; of a class with synonyms, from the names that the files have.

        Raises:
            UserError: classes of which the files have no name; the message has the command that makes them.
        """
        kept, without, left_out = [], [], 0
        for entry in entries:
            names = tuple(name for name in entry.names if name in self.known)
            whole = entry.known_as[0] in self.known
            if not names and not whole:
                without.append(entry.name)
                continue
            left_out += 0 if whole else len(entry.names) - len(names)
            kept.append(entry if whole else Entry(names, entry.isthing))
        if without:
            raise self._nothing_to_read(without)
        if left_out:
            logger.warning(
                "%d synonyms have no vector in %s; the other names of their classes are used.", left_out,
                self.given or self.path,
            )  # fmt: skip
        return super().of(kept)

    def _nothing_to_read(self, names: Sequence[str]) -> UserError:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        place = f"{KEY} {self.given}" if self.given else f"the model's own file {self.path}"
        name = os.path.splitext(os.path.basename(self.split_file))[0]
        output = f"embeddings/{name}.npz"
        command = same_source_command(self.source, self.templates, self.split_file, output)
        if command:
            cure = f"Make them with the source of the model's own: {command}. Then add {KEY} {output}"
        else:
            cure = (
                f"They must come from the source of the model's own, which is: {self.source}. No command of this "
                f"project makes vectors of it. Name an .npz that has them: {KEY} FILE.npz"
            )
        return UserError(f"{len(names)} classes have no class embedding in {place}: {shown}. {cure}.")


def same_source_command(source: str, templates: Sequence[str], split_file: str, output: str) -> str:
    """The command that makes class embeddings of a split as ``source`` did; "" if no command can.

    Args:
        source, templates: of ``PADing.data.embeddings.embedding_source``.
        split_file: names the classes.
        output: the .npz to write.
    """
    clip, words = SOURCE.match(source), WORD_SOURCE.match(source)
    if clip:
        flags = ["clip"]
        folder = "#" in clip["weights"]  # the source has the name of a model's folder
        if folder or clip["model"] != "ViT-B-16-quickgelu":
            flags += ["--model", "path/to/" * folder + clip["model"]]
        if _FILE.search(clip["weights"]):
            flags += ["--checkpoint", clip["weights"]]
        elif clip["weights"] != "openai" and not folder:
            flags += ["--pretrained", clip["weights"]]
        flags += ["--precision", clip["precision"]] if clip["precision"] != "fp32" else []
        if tuple(templates or CLIP_TEMPLATES) != CLIP_TEMPLATES:
            flags += [word for template in templates for word in ("--template", template)]
    elif words:
        flags = ["words", "--file", words["file"], *(["--normalize"] if words["unit"] else [])]
    else:
        return ""
    split = split_file.removeprefix(f"{REPOSITORY}{os.sep}")
    return shlex.join(["python", "tools/class_embeddings.py", *flags, "--split", split, "--output", output])
