"""Loading and saving with answers to the usual mistakes: no such file, weights of another class count."""

import os
import pickle
from collections.abc import Iterable, Sequence

from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from PADing.errors import UserError

# Constants that the model holds itself; published files have them in other lengths.
HARMLESS = ("criterion.empty_weight",)


class TrainingCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, which refuses weights that do not fit and says which parts of a state are missing.

    A model may define ``harmless_weights() -> tuple[str, ...]``, prefixes of keys whose shape may differ, and
    ``explain_missing_weights(missing: list[str], found: list[str]) -> str``, why it cannot go on without them (empty:
    it can).
    """

    def load(self, path: str, *args, **kwargs) -> dict:
        """Load a file and return what nobody asked for, as fvcore's ``Checkpointer.load``.

        Raises:
            UserError: the file does not exist, or holds weights of another model.
        """
        try:
            return super().load(path, *args, **kwargs)
        except (FileNotFoundError, AssertionError) as error:
            if isinstance(error, AssertionError) and "not found" not in str(error):
                raise
            # A name to be downloaded comes with what to do without a network.
            advice = str(error) if "://" in path else "Check MODEL.WEIGHTS (or OUTPUT_DIR)."
            raise UserError(f"Weights {path!r} do not exist. {advice}") from error
        except OSError as error:
            raise UserError(f"Weights {path!r} cannot be fetched: {error}") from error

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """The last checkpoint of the output folder with all training state, or the weights of ``path`` alone."""
        if not (resume and self.has_checkpoint()):
            if resume:
                self.logger.info("No checkpoint in %s to resume from: a new run begins.", self.save_dir)
            return super().resume_or_load(path, resume=False)
        file = self.get_checkpoint_file()
        try:
            rest = super().resume_or_load(path, resume=True)
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{file} cannot be resumed: it was written by a training with other settings ({error}). Start afresh "
                "in another OUTPUT_DIR, or restore the settings of that run (config.yaml beside it)."
            ) from error
        absent = sorted(set(self.checkpointables) - self._held)
        if absent:
            self.logger.info(
                "%s does not hold %s (it was written by another program or version); they start afresh.",
                os.path.basename(file),
                ", ".join(absent),
            )
        return rest

    def _load_file(self, filename: str) -> dict:
        try:
            content = super()._load_file(filename)
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(f"Weights {filename!r} cannot be read: damaged, or not a checkpoint. {error}") from error
        self._held = set(content)  # noted now, because fvcore takes out what it uses
        self._file_name = os.path.basename(filename)
        return content

    def _load_model(self, checkpoint: dict):
        found = [key.removeprefix("module.") for key in checkpoint["model"]]
        incompatible = super()._load_model(checkpoint)
        harmless = HARMLESS + tuple(getattr(self.model, "harmless_weights", tuple)())
        wrong = [entry for entry in incompatible.incorrect_shapes if not entry[0].startswith(harmless)]
        if wrong:
            raise UserError(_explain_shapes(wrong))
        explain = getattr(self.model, "explain_missing_weights", None)
        problem = explain(incompatible.missing_keys, found) if explain else ""
        if problem:
            raise UserError(problem)
        self._found = found
        return incompatible

    def _log_incompatible_keys(self, incompatible) -> None:
        """One line in place of fvcore's lists, because a file of another stage or method fits in part by design."""
        own_constants = [key for key, *_ in incompatible.incorrect_shapes]
        fresh = [key for key in incompatible.missing_keys if key not in own_constants]
        parts = []
        if incompatible.unexpected_keys or own_constants:
            names = [*_whole_parts(incompatible.unexpected_keys, self._found), *own_constants]
            parts.append(f"left out of the file: {', '.join(names)}")
        if fresh:
            names = _whole_parts(fresh, self.model.state_dict())
            parts.append(f"not in the file, so started afresh: {', '.join(names)}")
        if parts:
            self.logger.warning("%s: everything else is loaded; %s.", self._file_name, "; ".join(parts))


def _whole_parts(keys: Sequence[str], among: Iterable[str]) -> list[str]:
    """Names of the largest modules all of whose keys (of those ``among``) are in ``keys``; else single keys."""
    others = set(among).difference(keys)
    mixed = {key[:i] for key in others for i, letter in enumerate(key) if letter == "."}
    names = {}
    for key in keys:
        ends = [i for i, letter in enumerate(key) if letter == "."]
        names[next((key[:i] for i in ends if key[:i] not in mixed), key)] = None
    return list(names)


def _explain_shapes(wrong: list[tuple[str, tuple, tuple]]) -> str:
    lines = [f"  {key}: {tuple(has)} in the file, {tuple(needs)} in the model" for key, has, needs in wrong[:8]]
    if len(wrong) > 8:
        lines.append(f"  ... and {len(wrong) - 8} more")
    advice = "Check that MODEL.WEIGHTS and the config belong together."
    if all("class_embed" in key or "new_fc" in key for key, *_ in wrong):
        advice = (
            "The file was trained with another number of classes. Weights of stage 1 become weights of stage 2 with: "
            "python tools/preprocess_pretrained_weight.py --task_name panoptic|instance|semantic --input_file <file>. "
            "Otherwise choose the config of the file's split."
        )
    return "MODEL.WEIGHTS does not fit the model:\n" + "\n".join(lines) + "\n" + advice


class _Reader(TrainingCheckpointer):
    def _load_model(self, checkpoint: dict) -> None:
        self.content = checkpoint["model"]


def read_weights(path: str) -> dict[str, Tensor]:
    """The ``model`` entry of a checkpoint, on the CPU; UserError as ``TrainingCheckpointer.load``."""
    reader = _Reader(nn.Module())
    reader.load(path, checkpointables=[])
    return reader.content


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside a ``DistributedDataParallel`` wrapper, or the model itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
