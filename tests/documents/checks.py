"""Whether what a parsed command names exists: config and overrides, data sets, methods, paths."""

import argparse
import copy
import os
import re
import runpy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from PADing.errors import UserError
from tests.documents.parsing import IMAGINED, Parsed, Rejected
from tests.documents.working_copy import give_own_data

# Arguments that name what a command writes.
OUTPUTS = ("output", "out", "output_file", "save_dir", "logs")
# Arguments that name what a reader brings: those of one script, or of all.
USERS = {
    "demo/demo.py": ("input", "video_input"),
    "tools/class_embeddings.py": ("file", "file_names", "names", "checkpoint"),
    "tools/make_split.py": ("*",),
    "tools/import_data.py": ("source", "images_dir", "names", "val_list"),
    "tools/share_model.py": ("push",),
    "tools/convert_weights.py": ("input",),
    "-m minibench": ("files",),
    "examples/onnx_runner.py": ("input", "model"),
    "datasets/prepare_coco_semantic_annos_from_panoptic_annos.py": ("json", "panoptic_root"),
    "datasets/prepare_coco_stuff_sem_seg.py": ("source",),
    "datasets/prepare_evaluation_set.py": ("labels", "names", "images_list"),
    "datasets/prepare_coco_zsi.py": ("train_json", "val_json"),
    "tools/gzsi_coco_eval.py": ("result", "ann"),
    "tools/zsi_coco_eval.py": ("result", "ann"),
    "tools/visualize_json_results.py": ("input",),
}
SHIPPED = re.compile(r"(configs|embeddings/coco|datasets/splits|docs|tools|examples|baselines)/")
# Downloads, weights from elsewhere, and what stands for a path of the reader's.
BROUGHT = re.compile(r"datasets/(coco|my_\w+|mine)\b|(/path/to|/data|/scratch|~)/|R-50\.pkl|\.\.\.")
PATH = re.compile(r"[^\s\"'(),]*(/|\.(pth|pkl|json|ya?ml|np[yz]|txt|jpe?g|png|mp4|avi|gz|pt|bin))[^\s\"'(),]*")
TRAINING_FILES = re.compile(
    r"(model_(final|\d{7})\.pth|(metrics|results)\.json|log\.txt|config\.yaml|last_checkpoint|events\..*|inference(/.*)?)?"
)
CONFIG_PATHS = (
    "MODEL.WEIGHTS",
    "MODEL.CLASS_EMBEDDINGS",
    "TEST.CLASS_EMBEDDINGS",
    "MODEL.MASK_FORMER.VEC_PATH",
    "MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS",
)


def config_of(parsed: Parsed):
    """The config that the command starts with, checked as the command itself does; None without one."""
    from PADing.engine.start_check import checked_config
    from PADing.meta_arch.contract import architecture_of, contract_of

    args = copy.deepcopy(parsed.args)
    if not getattr(args, "config_file", None):
        return None
    if any(IMAGINED.search(str(word)) for word in (args.config_file, *parsed.opts)):
        return None if not os.path.exists(args.config_file) else _without_imagined(parsed, args)
    if parsed.script == "tools/benchmark.py":  # it has images of its own
        from PADing.config import load_config

        return load_config(args.config_file, parsed.opts)
    if parsed.script.startswith("train_net"):
        args.recipes = ("OneOptimizer",) if "pretrain" in parsed.script else ()
    if parsed.processes:
        args.num_gpus = parsed.processes
    needs = {"model", "test"} if args.eval_only else {"model", "test", "train"}
    if parsed.script == "tools/visualize_data.py":
        needs = {"train"}
    try:
        # As on a machine with GPUs, which many commands are for.
        with mock.patch.object(torch.cuda, "is_available", lambda: True), _gpus(64):
            cfg = checked_config(args, needs)
        problem = contract_of(architecture_of(cfg)).explain_named_weights(cfg)
        if problem and not cfg.MODEL.WEIGHTS and parsed.script.startswith("train_net") and not args.eval_only:
            raise UserError(problem)
        return cfg
    except UserError as error:
        raise Rejected(f"would end with: {error}") from None


def _gpus(number: int):
    return mock.patch.object(torch.cuda, "device_count", lambda: number)


def _without_imagined(parsed: Parsed, args: argparse.Namespace):
    from PADing.config import load_config

    opts = parsed.opts
    pairs = [pair for pair in zip(opts[::2], opts[1::2], strict=False) if not any(map(IMAGINED.search, pair))]
    return load_config(args.config_file, [word for pair in pairs for word in pair])


def check_names(parsed: Parsed) -> None:
    """Data sets, splits and methods, by the registries."""
    from detectron2.data import DatasetCatalog

    args = parsed.args
    if parsed.script == "tools/make_split.py":
        _make_split(parsed)
    elif parsed.script == "tools/class_embeddings.py":
        _make_class_embeddings(args)
    elif parsed.script == "datasets/make_mini_coco.py":
        if args.version == 1:
            _draw_mini_coco(args.out or Path("datasets/mini"))
        else:
            _put_vectors(args.out, args.world or "test")
    elif parsed.script == "datasets/make_emoji_coco.py":
        _put_emoji_vectors(args.out or Path("datasets/emoji"))
    elif parsed.script == "tools/visualize_json_results.py":
        from PADing.data.registration import register_split_files

        register_split_files(args.split_file)
        _known("data set", [args.dataset], DatasetCatalog.list())
    elif parsed.script == "datasets/prepare_coco_stuff_sem_seg.py" and args.data_set:
        from PADing.data.splits import load_split

        split = load_split(args.split_file)
        names = [args.data_set] if isinstance(args.data_set, str) else args.data_set
        _known(f"data set of {args.split_file}", names, [data_set.name for data_set in split.data_sets])
    elif parsed.script == "tools/preprocess_pretrained_weight.py" and args.split:
        try:
            runpy.run_path(parsed.script)["find_splits"](args.split)
        except UserError as error:
            raise Rejected(f"would end with: {error}") from None
    elif parsed.script in ("-m minibench", "tools/minibench.py"):
        from minibench.methods import discover

        methods = getattr(args, "methods", None)
        known = [*discover(list(filter(os.path.isdir, getattr(args, "plugins", ()))))]
        if getattr(args, "version", 1) == 2:
            from minibench.folds.simple import SIMPLE

            known += [*SIMPLE, "oracle_supervised"]
        _known("method", [name for name in methods or () if name != "mine" and not IMAGINED.search(name)], known)
        if "quickstart" in parsed.words:
            _draw_mini_coco(args.out / "data" / "mini")
        if parsed.words[0] == "toy-clip":
            _make_toy_clip(args.out)


def _known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise Rejected(f"there is no {what} {name!r} (there are: {', '.join(sorted(known))})")


def _make_split(parsed: Parsed) -> None:
    """Make the split file, because later commands name its data sets."""
    give_own_data(parsed.args, Path.cwd())
    with mock.patch.object(sys, "argv", [parsed.script, *parsed.words]):
        status = runpy.run_path(parsed.script)["main"](list(parsed.words))
    if status:
        raise Rejected("tools/make_split.py refuses it on a small data set; its message is in the captured output")


def _draw_mini_coco(folder: Path) -> None:
    """Put the small one of the working copy there."""
    if not folder.is_absolute() and not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(Path("datasets/mini").resolve())


def _put_vectors(folder: Path | None, name: str) -> None:
    """Put the class vectors of version 2 there, which other commands read before they start."""
    from PADing.data.mini_v2.vectors import copy_vectors
    from PADing.data.mini_v2.worlds import world

    folder = folder or Path("datasets/mini2", name)
    if not folder.is_absolute():
        folder.mkdir(parents=True, exist_ok=True)
        copy_vectors(world(name), folder)


def _put_emoji_vectors(folder: Path) -> None:
    """The same for the emoji track."""
    from PADing.data.emoji.files import write_vectors

    if not folder.is_absolute() and not folder.exists():
        folder.mkdir(parents=True)
        write_vectors(folder)


def _make_toy_clip(folder: Path) -> None:
    """Make its configuration, because other commands read it before they start."""
    from minibench.toy_clip.command import write_stand_in

    if not folder.exists():
        folder.mkdir(parents=True)
        write_stand_in(folder)


def _make_class_embeddings(args: argparse.Namespace) -> None:
    """Make a file of random numbers, because trainings do not start without one."""
    from PADing.data.clip_models import ClipModel, clip_source
    from PADing.data.embedding_sources import read_names
    from PADing.data.embeddings import save_class_embeddings
    from PADing.data.splits import load_split

    if args.names and not os.path.exists(args.names):
        return
    try:
        splits = [load_split(path) for path in args.split or ()]
    except UserError as error:
        raise Rejected(f"would end with: {error}") from None
    names = read_names(args.names) if args.names else [c.name for split in splits for c in split.categories]
    names = list(dict.fromkeys(names))
    os.makedirs(os.path.dirname(os.path.abspath(args.output)), exist_ok=True)
    width, source = 8, "random numbers"
    if (
        getattr(args, "model", "ViT-B-16-quickgelu") != "ViT-B-16-quickgelu"
    ):  # a CLIP model, to which other files of the page may have to fit
        width, source = ClipModel.of(args.model).embed_dim, clip_source(args.model, args.pretrained, None, "fp32")
    save_class_embeddings(args.output, names, np.random.default_rng(0).normal(size=(len(names), width)), source)


def made_by(parsed: Parsed) -> list[str]:
    """Paths that the command writes; the folder of a training ends with a slash."""
    made = [os.path.normpath(str(getattr(parsed.args, name))) for name in OUTPUTS if getattr(parsed.args, name, None)]
    if parsed.script == "tools/preprocess_pretrained_weight.py" and not parsed.args.output_file:
        made.append(f"pretrained_weight_{parsed.args.task_name}.pth")
    if parsed.script == "datasets/make_mini_coco.py" and parsed.args.version == 2 and not parsed.args.out:
        made.append(f"datasets/mini2/{parsed.args.world or 'test'}")
    if parsed.script == "datasets/make_emoji_coco.py" and not parsed.args.out:
        made.append("datasets/emoji")
    if parsed.script.startswith("train_net"):
        from PADing.config import read_config

        cfg, _ = read_config(parsed.args.config_file, parsed.opts)
        made.append(f"{os.path.normpath(cfg.OUTPUT_DIR)}/")
    return made


def made_by_configs() -> list[str]:
    """The folders of all shipped configs' trainings."""
    from PADing.yaml_files import read_config_tree

    trees = (read_config_tree(path) for path in Path("configs").rglob("*.yaml"))
    return [f"{os.path.normpath(tree['OUTPUT_DIR'])}/" for tree in trees if "OUTPUT_DIR" in tree]


def check_paths(parsed: Parsed, cfg, made: Iterable[str]) -> None:
    """Every path that the command reads is here, made by a command of a page, or the reader's."""
    users = USERS.get(parsed.script, ())
    for name, path in _inputs(parsed, cfg):
        path = os.path.normpath(path)
        if path.startswith(("http:", "https:", "detectron2:", "tcp:", "file:")) or os.path.exists(path):
            continue
        if any(_is_made(path, output) for output in made) or BROUGHT.search(path) or IMAGINED.search(path):
            continue
        if ("*" in users or name in users) and not SHIPPED.match(path):
            continue
        raise Rejected(
            f"{name.replace('_', '-')}: {path} is neither in the repository nor written by a command on any page. "
            "Correct the path, show the command that makes it, or (a file of the reader's) add it to BROUGHT or USERS "
            "in tests/documents/checks.py"
        )


def _is_made(path: str, output: str) -> bool:
    if output.endswith("/"):
        return path == output[:-1] or (path.startswith(output) and bool(TRAINING_FILES.fullmatch(path[len(output) :])))
    return path == output or path.startswith(f"{output}/")


def _inputs(parsed: Parsed, cfg) -> Iterator[tuple[str, str]]:
    for name, value in vars(parsed.args).items():
        if name in OUTPUTS or name in ("opts", "more_opts", "dist_url", "unseen", "device", "function"):
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, str | Path) and PATH.fullmatch(str(item)) and not isinstance(item, bool):
                yield name, str(item)
    named = {word.partition("=")[0] for word in parsed.opts}
    for key in CONFIG_PATHS if cfg is not None else ():
        node = cfg
        for part in key.split("."):
            node = node[part]
        if key in named and node:
            yield key, str(node)
