"""The config of each training of version 2, made from the methods of version 1 (docs/add_a_method.md)."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from minibench.folds.chosen import chosen_for
from minibench.folds.settings import BUDGETS, Settings
from minibench.methods import Method
from PADing.config import load_config
from PADing.config_values import leaves
from PADing.data.mini_v2.folds import UNSEEN_STUFF, UNSEEN_THINGS
from PADing.data.mini_v2.split_files import prefix
from PADing.data.mini_v2.worlds import world
from PADing.errors import UserError
from PADing.files import PACKAGES

__all__ = ["FROM_WARM", "VERSION", "Job", "code_hash", "job", "kind_of", "overrides"]

VERSION = 1  # of the recipe: all results change with it
# Stage 2 draws so many unseen classes in each step: all of them, as on COCO.
NUM_CHOOSE = UNSEEN_THINGS + UNSEEN_STUFF
# After the backbone's own training it stays as it is, in all trainings alike: a segmenter then learns in half of the
# time, and 750 images of a fold do not spoil what the warm start has learned.
_FROZEN = {"MODEL.BACKBONE.FREEZE_AT": "5", "MODEL.RESNETS.NORM": "FrozenBN"}
# What starts from nothing in version 1 starts from the warm start in version 2, and trains as long as the segmenter and
# a method after it together.
FROM_WARM = "nothing"
# Keys that are no part of a result's identity.
_NOT_HASHED = (
    "OUTPUT_DIR",
    "MODEL.DEVICE",
    "MODEL.CLASS_EMBEDDINGS",
    "MODEL.WEIGHTS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SEED",
)


@dataclass(frozen=True)
class Job:
    """One training: config file, overrides, and the hash of what its result depends on beside weights and data."""

    config: Path
    opts: tuple[str, ...]
    hash: str
    plugins: tuple[str, ...] = ()

    def load(self, *more: str) -> CfgNode:
        """The whole config."""
        return load_config(self.config, [*self.opts, *more])


def kind_of(method: Method) -> str:
    """How version 2 runs a method: "segmenter", "second", "whole", or why it cannot be run."""
    if method.role == "pretraining":
        return "segmenter"
    if method.toy_clip:
        return "it needs the toy CLIP of version 1"
    if method.uses:
        return "it needs another method's predictions on images, which are not cached"
    if method.starts_from == "converted":
        return "second"
    return "whole" if method.starts_from in ("pretrained", FROM_WARM) else f"it starts from {method.starts_from}"


def job(
    method: Method,
    settings: Settings,
    fold: int | None,
    kind: str,
    of_world: str = "",
    options: Mapping[str, Any] | None = None,
) -> Job:
    """The training of a method.

    Args:
        method: declares config and overrides.
        settings: world, track and lengths.
        fold: None: all classes are seen.
        kind: "backbone", "warm", "segmenter", "second" or "whole".
        of_world: the settings' world by default.
        options: of a second stage, which win over all others; None: those that were chosen for the method.

    Raises:
        UserError: names the method whose config cannot be read or uses other data.
    """
    one, lengths = world(of_world or settings.world), settings.lengths
    if method.import_from and str(method.import_from) not in sys.path:
        sys.path.append(str(method.import_from))
    try:
        opts = [str(item) for pair in method.overrides.items() for item in pair]
        cfg = load_config(method.config, opts)
        for key in ("TRAIN", "TEST"):
            names = [_renamed(name, prefix(one, fold)) for name in cfg.DATASETS[key]]
            opts += [f"DATASETS.{key}", str(tuple(names))]
        if kind == "second" and "MODEL.MASK_FORMER.NUM_CHOOSE" not in method.overrides:
            opts += ["MODEL.MASK_FORMER.NUM_CHOOSE", str(NUM_CHOOSE)]
        if kind != "backbone" and not set(_FROZEN) & set(method.overrides):
            opts += [word for pair in _FROZEN.items() for word in pair]
        length = getattr(lengths, kind) if any(method.iterations.values()) else 0
        if kind == "whole" and method.starts_from == FROM_WARM:
            length += lengths.segmenter
        opts += ["SOLVER.MAX_ITER", str(length), "SOLVER.IMS_PER_BATCH", str(lengths.batch)]
        # Predictions are cached and evaluated for many biases at once, so the training evaluates one image only.
        opts += ["TEST.EVAL_PERIOD", "0", "TEST.MAX_IMAGES", "1"]
        if kind == "second":
            opts += overrides(_scaled(chosen_for(method) if options is None else options, lengths.second))
        opts += ["MODEL.CLASS_EMBEDDINGS", f"datasets/mini2/{one.name}/class_vectors_{settings.track}.npz"]
        cfg = load_config(method.config, opts)
        default = dict(leaves(load_config("", ["PLUGINS", str(tuple(cfg.PLUGINS))])))
    except Exception as error:  # a plug-in's module can fail in any way
        name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"{method.file}: method {method.name}: {name}{error}") from error
    values = {
        key: repr(v) for key, v in leaves(cfg) if key not in _NOT_HASHED and (key not in default or v != default[key])
    }
    text = json.dumps([VERSION, kind, method.name, values], sort_keys=True)
    return Job(method.config, tuple(opts), hashlib.sha256(text.encode()).hexdigest()[:10], tuple(cfg.PLUGINS))


def _scaled(options: Mapping[str, Any], length: int) -> dict[str, Any]:
    """``options`` with ``SOLVER.MAX_ITER``, which is meant for the standard budget, as much shorter as this one is."""
    key, found = "SOLVER.MAX_ITER", dict(options)
    if key in found:
        found[key] = max(1, round(found[key] * length / BUDGETS["standard"][2].second))
    return found


def _renamed(name: str, start: str) -> str:
    if not name.startswith("mini_"):
        raise UserError(f"Its config uses the data set {name!r}, but the benchmark's data sets are named mini_*.")
    return f"{start}_{name.removeprefix('mini_')}"


def overrides(options: Mapping[str, object]) -> list[str]:
    """Config keys and values as words of a command."""
    return [str(word) for pair in options.items() for word in pair]


def code_hash(method: Method, plugins: tuple[str, ...]) -> str:
    """SHA-256 of the Python files of a method's folder, of its plug-ins, and of PADing's second stage.

    A plug-in is a package or a single file. Whoever edits a method's code gets another hash, even if its config is the
    same. The hash is a record in each row and no part of its identity. The rest of the program has the commit.
    """
    places = [method.file.parent, PACKAGES / "PADing" / "generation"]
    for name in plugins:
        path = name.replace(".", "/")
        places += [root / part for root in (method.import_from, PACKAGES) if root for part in (path, f"{path}.py")]
        if file := getattr(sys.modules.get(name), "__file__", None):  # installed, or beside the config
            places.append(Path(file).parent if Path(file).name == "__init__.py" else Path(file))
    # Names are below the repository's folder, or the plug-in's, so that the name of a checkout changes nothing.
    named = {
        (file.relative_to(PACKAGES if file.is_relative_to(PACKAGES) else place.parent).parts[-3:], file.read_bytes())
        for place in map(Path.resolve, places)
        for file in ([place] if place.is_file() else place.rglob("*.py"))
    }
    digest = hashlib.sha256()
    for parts, content in sorted(named):
        digest.update("/".join(parts).encode() + b"\0" + content)
    return digest.hexdigest()[:16]
