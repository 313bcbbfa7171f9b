"""Loads and saves checkpoints, with clear messages for usual mistakes: no such file, another number of classes."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import Checkpointer
from torch import Tensor, nn

from d2lite.restricted_pickle import load_checkpoint
from PADing.checkpoint_files import UNREADABLE, check_file, file_problem, newest_good, weights_problem, write_checkpoint
from PADing.engine.background import BackgroundWriter, copied
from PADing.engine.same_checkpoint import same_checkpoint
from PADing.engine.training_state import guarded_state, short_reason
from PADing.engine.weight_average import averaged_weights
from PADing.errors import UserError
from PADing.files import replacing
from PADing.meta_arch.contract import contract_of
from PADing.safetensors_files import is_safetensors, read_safetensors
from PADing.sharing.places import local_weights

# The file beside the checkpoints that names the last one.
TAG = "last_checkpoint"
NUMBERED = re.compile(r"model_(\d{7,})\.pth")
# Constants that the model computes itself; in published files they have other lengths.
HARMLESS = ("criterion.empty_weight",)


class TrainingCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that refuses weights that do not fit and reports missing parts of a training state.

    Attributes:
        resumed: whether ``resume_or_load`` has found a training to continue.
        weights_from: which weights of a file to load, see ``choice_of_weights``; a resumed training ignores it.
        averaged: whether the loaded weights are averaged ones.
        last_iteration: the iteration after which the last checkpoint was written or loaded; -1: none was.
        begun: the iteration of the last checkpoint whose writing has begun; -1: none.
        keep: how many numbered checkpoints ``save`` leaves, the newest ones; 0: all.
        background: writes numbered checkpoints beside the training; None: ``save`` returns when they are written.
    """

    resumed = False
    last_iteration = begun = -1
    weights_from = "model"
    averaged = False
    keep = 0
    _is_plain = False
    background: BackgroundWriter | None = None
    _fresh: frozenset[str] | None = None  # weights that the last file has not given; None: no file was loaded

    def load(self, path: str, *args, **kwargs) -> dict:
        """As fvcore's; ``path`` may also name a shared model (``PADing.sharing.places``).

        UserError if the file does not exist, is damaged, or holds weights of another model.
        """
        path = local_weights(path)
        if path:
            self._check_file(path)
        # Detectron2 reads a path as an address, in which these have a meaning.
        self._is_plain = os.path.isfile(path) and any(letter in path for letter in "?\n\r\t")
        if self._is_plain:
            return Checkpointer.load(self, path, *args, **kwargs)
        return super().load(path, *args, **kwargs)

    def _check_file(self, path: str) -> None:
        # Detectron2 fails with an assertion for a missing file, and loads a damaged one.
        bare = path if os.path.isfile(path) else path.partition("?matching_heuristics=")[0]
        try:
            local = bare if os.path.exists(bare) else self.path_manager.get_local_path(bare)
        except (OSError, AssertionError) as error:
            # The error says what to do without a network.
            raise UserError(f"Weights {bare!r} cannot be fetched: {error}") from error
        if not os.path.exists(local):
            raise UserError(f"Weights {bare!r} do not exist. Check MODEL.WEIGHTS (or OUTPUT_DIR).")
        check_file(local, f"Weights {bare!r}")

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """Load the last checkpoint of the output folder with its training state, or else the weights of ``path``.

        All processes of a job call this together. Sets ``resumed``. Returns the entries of the checkpoint that were
        not loaded into a part.

        Raises:
            UserError: as ``load``; ``last_checkpoint`` names a damaged file, or one of another folder; there are
                checkpoints, but none can be resumed; the processes of the job have found different ones; the model
                needs weights and ``path`` is empty.
        """
        file = same_checkpoint(self._file_to_resume, self.save_dir) if resume else ""
        self.resumed = bool(file)
        if not file:
            if resume:
                self.logger.info("No checkpoint in %s to resume from.", self.save_dir)
            if not path:
                self._explain_missing(list(self.model.state_dict()), [])
            return self.load(path, checkpointables=[])
        if "trainer" in self.checkpointables:
            self.weights_from = "model"  # the average is a part of its own
        with guarded_state(self.checkpointables, file):
            rest = self.load(file)
        if "trainer" in self.checkpointables and not {"trainer", "iteration"} & self._held:
            raise UserError(f"{file} cannot be resumed: it holds weights only. Use it as MODEL.WEIGHTS elsewhere.")
        self.last_iteration = self.begun = rest.get("iteration", -1)
        absent = sorted(set(self.checkpointables) - self._held)
        if absent:
            self.logger.info("%s does not hold %s (another program or version wrote it); these start from scratch.",
                             os.path.basename(file), ", ".join(absent))  # fmt: skip
        return rest

    def _file_to_resume(self) -> str:
        """The checkpoint that ``last_checkpoint`` names, or else the newest undamaged one; "" if there is none."""
        folder, name = Path(self.save_dir), last_checkpoint(self.save_dir)
        if name and name != os.path.basename(name):
            cure = "which is not loaded. Write the name of a checkpoint of the folder into it."
            raise UserError(f"{folder / TAG} names {name!r}, a file outside the folder, {cure}")
        problem = ""
        if name and (folder / name).is_file():
            problem = file_problem(folder / name)
            if not problem:
                return str(folder / name)
        others = sorted(path for path in folder.glob("model_*.pth") if path.name != name)
        newest = newest_good(others)
        state = "does not exist" if name is None else f"names {name!r}, which is {problem or 'not there'}"
        if problem:
            cure = "No other checkpoint of the folder can be resumed, so start again in another OUTPUT_DIR."
            if newest:
                cure = f"The newest good one is {newest[0]} (iteration {newest[1]}). To continue from it, move the "
                cure += "damaged file away and run the same command again."
            raise UserError(f"{folder / TAG} {state}. {cure}")
        if newest:
            self.logger.warning("%s %s. Resuming from the newest good checkpoint, %s (iteration %d).",
                                folder / TAG, state, *newest)  # fmt: skip
            return str(newest[0])
        if name is None and not others:
            return ""
        unfit = ", ".join(path.name for path in others)
        why = f" ({unfit}: damaged, or weights without a training's state)" if others else ""
        problem = f"--resume: {folder / TAG} {state}, and no file of the folder can be resumed{why}."
        raise UserError(f"{problem} To start from scratch, remove {TAG}, or choose another OUTPUT_DIR.")

    def save(self, name: str, **kwargs) -> None:
        """Write the model, all checkpointables and ``kwargs`` to ``<save_dir>/<name>.pth``; record it as the last.

        With ``background``, a numbered checkpoint is copied here and written later: it is the last one when ``wait``
        returns, or when the next ``save`` begins to write. UserError if it, or the one before, cannot be written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path, content = Path(self.save_dir, f"{name}.pth"), self._content(kwargs)
        self.begun = kwargs.get("iteration", self.begun)
        if self.background is not None and NUMBERED.fullmatch(path.name):
            self.wait()  # before the copy, so that there is one at a time
            self.background.start(partial(self._write_last, path, copied(content)))
            return
        self.wait()
        self._write_last(path, content)

    def wait(self) -> None:
        """Wait until no checkpoint is being written; UserError if the last one cannot be."""
        if self.background is not None:
            self.background.wait()

    def raise_failure(self) -> None:
        """UserError if the last checkpoint could not be written; do not wait."""
        if self.background is not None:
            self.background.check()

    def _write_last(self, path: Path, content: dict) -> None:
        self._write(path, content)
        with self._telling_what_is_kept(), replacing(Path(self.save_dir, TAG)) as temporary:
            temporary.write_text(path.name)
        self.last_iteration = content.get("iteration", self.last_iteration)
        if self.keep > 0:
            self._remove_old()

    def _remove_old(self) -> None:
        """Remove numbered checkpoints but the last ``keep``; after ``last_checkpoint`` names the newest one."""
        numbers = {path: NUMBERED.fullmatch(path.name) for path in Path(self.save_dir).glob("model_*.pth")}
        # Later ones are of a training that this one repeats in part, and still a choice of the user.
        past = {path: int(n[1]) for path, n in numbers.items() if n and int(n[1]) <= self.last_iteration}
        last = last_checkpoint(self.save_dir)
        for path in sorted(past, key=lambda path: past[path])[: -self.keep]:
            if path.name == last:
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self.logger.warning("%s cannot be removed (SOLVER.CHECKPOINT_KEEP): %s.", path, error.strerror)
            else:
                self.logger.info("Removed %s (SOLVER.CHECKPOINT_KEEP is %d).", path, self.keep)

    def save_beside(self, name: str, **kwargs) -> Path:
        """Write a checkpoint as ``save`` does, but do not record it as the last one; returns its path."""
        path = Path(self.save_dir, f"{name}.pth")
        self._write(path, self._content(kwargs))
        return path

    def _content(self, further: dict) -> dict:
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        if "trainer" in states and "iteration" in further:  # the loop may be ahead, at the end or before the start
            states["trainer"] = {**states["trainer"], "iteration": further["iteration"]}
        return {"model": self.model.state_dict(), **states, **further}

    def _write(self, path: Path, content: dict) -> None:
        self.logger.info("Saving checkpoint to %s", path)
        with self._telling_what_is_kept():
            write_checkpoint(path, content)

    @contextmanager
    def _telling_what_is_kept(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(f"{error} {self.what_is_kept()}") from error

    def what_is_kept(self) -> str:
        """One sentence on the last checkpoint, for the message when a training ends early."""
        name = last_checkpoint(self.save_dir)
        return (
            f"The last checkpoint, {name}, is intact: --resume continues from it." if name else "Nothing is saved yet."
        )

    def _load_file(self, filename: str) -> dict:
        try:
            if filename.endswith(".pkl"):  # the genuine Detectron2 would run code in the file
                with open(filename, "rb") as file:
                    content = load_checkpoint(file, filename)
            elif is_safetensors(filename):
                content = read_safetensors(filename)
            else:
                with _plain_values_only():
                    load = Checkpointer._load_file if self._is_plain else DetectionCheckpointer._load_file
                    content = load(self, filename)
                content = content if "model" in content else {"model": content}
        except UNREADABLE as error:
            reason = short_reason(error)
            raise UserError(f"Weights {filename!r} cannot be read: damaged, or not a checkpoint. {reason}") from error
        problem = weights_problem(content)
        average = None if problem else averaged_weights(content, self.weights_from, filename)
        self.averaged = average is not None
        if average is not None:
            content["model"] = dict(average)
            problem = weights_problem(content)
        if problem:
            raise UserError(f"Weights {filename!r} cannot be used: {problem}.")
        self._held = set(content)  # stored now, because fvcore removes the entries that it loads
        self._file_name = os.path.basename(filename)
        return content

    def _load_model(self, checkpoint: dict):
        found = [key.removeprefix("module.") for key in checkpoint["model"]]
        own = self.model.state_dict()
        for name, value in checkpoint["model"].items():
            if name in own and own[name].is_floating_point():
                self._check_numbers(name, torch.as_tensor(value), own[name])
        incompatible = super()._load_model(checkpoint)
        contract = contract_of(self.model)
        harmless = HARMLESS + contract.harmless_weights()
        wrong = [entry for entry in incompatible.incorrect_shapes if not entry[0].startswith(harmless)]
        if wrong:
            raise UserError(_explain_shapes(wrong, contract.explain_wrong_shapes([key for key, *_ in wrong])))
        self._explain_missing(incompatible.missing_keys, found)
        if own and own.keys() <= {*incompatible.missing_keys, *(entry[0] for entry in incompatible.incorrect_shapes)}:
            problem = f"nothing for this model: the file has {len(found)} weights, but none of the model's {len(own)}."
            cure = "Check that MODEL.WEIGHTS and MODEL.META_ARCHITECTURE belong together."
            raise UserError(f"Weights {self._file_name!r} have {problem} {cure}")
        self._found = found
        self._fresh = frozenset(incompatible.missing_keys)
        return incompatible

    def _check_numbers(self, name: str, value: Tensor, own: Tensor) -> None:
        if not value.is_floating_point():
            reason = f"{name} has floating-point numbers in the model, but not in the file."
            raise UserError(f"MODEL.WEIGHTS does not fit the model: {reason}")
        if value.shape != own.shape:  # reported later; an expanded tensor in a crafted file may not fit into memory
            return
        if not value.to(own.dtype).isfinite().all():  # a file of float64 may hold larger numbers than the model can
            problem = f"its weight {name} holds infinite numbers, or larger ones than {own.dtype} has."
            raise UserError(f"Weights {self._file_name!r} cannot be used: {problem} Use an earlier checkpoint.")

    def lacks(self, prefix: str) -> bool:
        """Whether no weight of the model whose name begins with ``prefix`` was loaded."""
        return self._fresh is None or {key for key in self.model.state_dict() if key.startswith(prefix)} <= self._fresh

    def _explain_missing(self, missing: list[str], found: list[str]) -> None:
        if problem := contract_of(self.model).explain_missing_weights(missing, found):
            raise UserError(problem)

    def _log_incompatible_keys(self, incompatible) -> None:
        """Log one line in place of fvcore's lists: a file of another stage or method fits in part by design."""
        own_constants = [key for key, *_ in incompatible.incorrect_shapes]
        fresh = [key for key in incompatible.missing_keys if key not in own_constants]
        parts = {
            "ignored in the file": [*_whole_parts(incompatible.unexpected_keys, self._found), *own_constants],
            "not in the file, so started from scratch": _whole_parts(fresh, self.model.state_dict()),
        }
        said = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)
        if said:
            self.logger.warning("%s: everything else is loaded; %s.", self._file_name, said)


def last_checkpoint(folder: str) -> str | None:
    """The name that ``TAG`` in an output folder holds; None without that file, UserError if it cannot be read."""
    try:
        with open(os.path.join(folder, TAG), encoding="utf-8", errors="replace") as file:
            return file.read(1000).strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{Path(folder, TAG)} cannot be read: {error.strerror}.") from error


def _whole_parts(keys: Sequence[str], among: Iterable[str]) -> list[str]:
    """``keys`` in short: a module's name in place of its keys, where ``keys`` has all that are ``among`` the keys."""
    others = set(among).difference(keys)
    mixed = {key[:i] for key in others for i, letter in enumerate(key) if letter == "."}
    names: dict[str, None] = {}
    for key in keys:
        ends = [i for i, letter in enumerate(key) if letter == "."]
        names[next((key[:i] for i in ends if key[:i] not in mixed), key)] = None
    return list(names)


def _explain_shapes(wrong: list[tuple[str, tuple, tuple]], advice: str) -> str:
    lines = [f"  {key}: {tuple(has)} in the file, {tuple(needs)} in the model" for key, has, needs in wrong[:8]]
    lines += [f"  ... and {len(wrong) - 8} more"] if len(wrong) > 8 else []
    advice = advice or "Check that MODEL.WEIGHTS and the config belong together."
    return "\n".join(["MODEL.WEIGHTS does not fit the model:", *lines, advice])


@contextmanager
def _plain_values_only() -> Iterator[None]:
    """Inside, every call of ``torch.load`` refuses objects that could run code, in every version of torch."""
    # The second variable would allow them.
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ.update({name: value for name, value in before.items() if value is not None})


class _Reader(TrainingCheckpointer):
    def _load_model(self, checkpoint: dict) -> None:
        self.content = checkpoint["model"]


def read_weights(path: str) -> dict[str, Tensor]:
    """The ``model`` entry of a checkpoint, on the CPU; UserError as ``TrainingCheckpointer.load``."""
    reader = _Reader(nn.Module())
    reader.load(path, checkpointables=[])
    return reader.content
