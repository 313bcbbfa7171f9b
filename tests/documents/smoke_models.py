"""Commands that train, load, convert or export a model, at smoke size: the words, and the weights that they read."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from PADing.data.splits import load_split
from PADing.yaml_files import read_config_tree
from tests.documents.parsing import Parsed
from tests.end_to_end.command_line import SMALL, SMALL_SEMANTIC

BUILD = "model = build_model(load_config({config!r}, {opts!r})); torch.save({{'model': model.state_dict()}}, {path!r})"
IMPORTS = "import torch; from PADing.config import load_config; from detectron2.modeling import build_model; "
Run = Callable[[list[str]], None]


def set_flag(words: list[str], flag: str, *values: object) -> list[str]:
    """With the values of a flag replaced, or the flag put in front."""
    if flag in words:
        place = words.index(flag)
        return [*words[: place + 1], *map(str, values), *words[place + 1 + len(values) :]]
    return [flag, *map(str, values), *words]


def _small_model(parsed: Parsed) -> list[str]:
    config = parsed.args.config_file or "mini"  # the demo's default
    pairs = zip(SMALL[::2], SMALL[1::2], strict=True)
    # The networks of the mini configs are small, and those that the quickstart has trained are read again.
    small = [word for pair in pairs if "mini" not in config or not pair[0].startswith("MODEL.") for word in pair]
    return [*small, "MODEL.DEVICE", "cpu"] + (SMALL_SEMANTIC if "semantic" in config else [])


def train(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    args, opts = parsed.args, list(parsed.opts)
    flags = [flag for flag in ("--eval-only", "--resume", "--overwrite") if getattr(args, _dest(flag))]
    small = _small_model(parsed)
    weights = _value(opts, "MODEL.WEIGHTS")
    if weights and not args.resume:
        _weights(args.config_file, [*opts, *small], weights, run)
    elif not args.eval_only:
        small += ["MODEL.WEIGHTS", ""]
    if _value(opts, "SOLVER.ACCUMULATE"):
        small += ["SOLVER.ACCUMULATE", "2"]  # the small batch has two images
    if not {"--resume", "--overwrite", "--eval-only"} & set(flags):
        flags.append("--overwrite")
    return ["--config-file", args.config_file, "--num-gpus", "0", *flags, *opts, *small]


def _dest(flag: str) -> str:
    return flag[2:].replace("-", "_")


def _value(opts: list[str], key: str) -> str:
    pairs = [word.split("=", 1) for word in opts if "=" in word and word.split("=")[0] == key]
    return dict(zip(opts[::2], opts[1::2], strict=False)).get(key, pairs[0][1] if pairs else "")


def _weights(config: str, opts: list[str], path: str, run: Run) -> None:
    """An untrained model of the config, where the command expects a trained one that no earlier command has made."""
    if not path or "://" in path or os.path.exists(path):
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    run(["-c", IMPORTS + BUILD.format(config=config, opts=opts, path=path)])


def convert(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    args = parsed.args
    trained = {
        os.path.normpath(read_config_tree(path).get("OUTPUT_DIR", "-")): str(path)
        for path in Path("configs").rglob("*pretrain*.yaml")
    }
    config = trained.get(str(Path(args.input_file).parent), f"configs/{args.task_name}-segmentation/pretrain.yaml")
    opts = [*SMALL, "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"]
    if args.split and args.split.endswith(".yaml"):
        names = [s.name for s in load_split(args.split).data_sets if s.kind == args.task_name and s.role == "train"]
        opts += ["DATASETS.SPLIT_FILES", args.split, "DATASETS.TRAIN", names[0], "DATASETS.TEST", names[0]]
    _weights(config, opts, str(args.input_file), run)
    return words if args.overwrite else [*words, "--overwrite"]


def foreign_weights(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    """A small network of the other project; what an earlier command of the page has made stays."""
    args = parsed.args
    load = "import torch; from PADing.modeling.backbone.timm_models import timm_library; "
    make = {
        "torchvision-resnet": "timm_library().create_model('resnet18')",
        "swin": "timm_library().create_model('swin_tiny_patch4_window7_224', embed_dim=24, num_heads=(1, 2, 4, 8))",
    }
    swin = ["MODEL.SWIN.EMBED_DIM", "24", "MODEL.SWIN.NUM_HEADS", "[1,2,4,8]"]
    if args.source in make and not os.path.exists(args.input):
        run(["-c", f"{load}torch.save({make[args.source]}.state_dict(), {str(args.input)!r})"])
    elif args.source == "transformers":
        opts = [*SMALL, *swin, "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"]
        _weights("configs/panoptic-segmentation/pretrain_swin_tiny.yaml", opts, "own.pth", run)
        run(["tools/convert_weights.py", "--to", "transformers", "--input", "own.pth", "--output", "hf", "--overwrite"])
        shutil.copy(Path("hf", "model.safetensors"), args.input)
    elif args.source == "mask2former":
        _weights("configs/panoptic-segmentation/pretrain.yaml", [*SMALL, "MODEL.DEVICE", "cpu"], "own_r18.pth", run)
        code = "import pickle, torch; w = torch.load('own_r18.pth')['model']; "
        code += f"pickle.dump({{k: v.numpy() for k, v in w.items()}}, open({str(args.input)!r}, 'wb'))"
        run(["-c", code])
    return words if args.overwrite else [*words, "--overwrite"]


def look(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    """The demo and the tools that load a config: small models, few images."""
    args, small = parsed.args, _small_model(parsed)
    if parsed.script == "tools/analyze_model.py":
        words = set_flag(words, "--input-size", 64, 64)
    else:
        weights = _value(parsed.opts, "MODEL.WEIGHTS")
        _weights(args.config_file, [*parsed.opts, *small], weights, run)
    if parsed.script == "tools/visualize_predictions.py":
        words = set_flag(words, "--number", 2)
        if args.baseline:
            _weights(args.baseline[0], [*parsed.opts, *small], args.baseline[1], run)
    if parsed.script == "tools/visualize_data.py":
        words = set_flag(words, "--number", 2)
    if parsed.script == "demo/demo.py":
        _images(args.input or (), args.video_input)
    return [*set_flag(words, "--num-gpus", 0), *([] if parsed.opts else ["--opts"]), *small]


def export(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    small = _small_model(parsed)
    _weights(parsed.args.config_file, [*parsed.opts, *small], _value(parsed.opts, "MODEL.WEIGHTS"), run)
    return [*set_flag(words, "--rounds", 0), *([] if parsed.opts else ["--opts"]), *small]


def _images(patterns, video: str | None) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    for pattern in patterns:
        path = Path(pattern.replace("*", "first"))
        path = path if path.suffix else path / "first.jpg"
        if not list(Path().glob(pattern)) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    if video:
        writer = cv2.VideoWriter(video, cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 48))
        for _ in range(2):
            writer.write(pixels)
        writer.release()
