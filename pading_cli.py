"""``pading COMMAND ...``: every script of this project under one name, from any folder, with or without a checkout.

A command is a script of the repository or a module; it gets the rest of the line. This file imports neither PyTorch nor
PADing, so ``pading --help`` answers at once.
"""

import difflib
import importlib.util
import os
import runpy
import signal
import sys
import types
from pathlib import Path

# Command -> its script or module, arguments that it begins with, and what it does.
COMMANDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "train": ("train_net.py", (), "train PADing (stage 2), D2Zero or a method of your own"),
    "pretrain": ("train_net_pretrain.py", (), "train stage 1 of PADing: Mask2Former on the seen classes"),
    "submit": ("tools/submit.py", (), "submit a training to SLURM, which goes on after time limits"),
    "convert": ("tools/preprocess_pretrained_weight.py", (), "turn the weights of stage 1 into those of stage 2"),
    "convert-weights": ("tools/convert_weights.py", (), "take weights of torchvision, timm, Swin, Mask2Former, ..."),
    "eval": ("train_net.py", ("--eval-only",), "evaluate a checkpoint on the sets of DATASETS.TEST"),
    "demo": ("demo/demo.py", (), "segment images, a video or a webcam, and draw the result"),
    "embeddings": ("tools/class_embeddings.py", (), "make a file of class embeddings"),
    "data verify": ("-m PADing.data.verify", (), "check data sets, images and configs"),
    "data import": ("tools/import_data.py", (), "turn LabelMe, CVAT, VOC, YOLO, COCO or label PNGs into your own data"),
    "data split": ("tools/make_split.py", (), "write a split file for your own data"),
    "data mini": ("datasets/make_mini_coco.py", (), "draw the mini data set"),
    "data emoji": ("datasets/make_emoji_coco.py", (), "draw the emoji track: scenes with names of COCO classes"),
    "data show": ("tools/visualize_data.py", (), "draw annotations, or what training sees"),
    "data panoptic": ("datasets/get_zsp_json.py", (), "prepare COCO panoptic annotation"),
    "data panoptic-labels": (
        "datasets/prepare_coco_semantic_annos_from_panoptic_annos.py", (), "semantic labels from panoptic annotation",
    ),
    "data semantic": ("datasets/prepare_coco_stuff_sem_seg.py", (), "prepare COCO-Stuff or your own label PNGs"),
    "data other": ("datasets/prepare_evaluation_set.py", (), "prepare ADE20K, Context, VOC or Cityscapes"),
    "data val2017": ("datasets/prepare_coco_val2017.py", (), "COCO's val2017 alone: prepare, train, report"),
    "data instance": ("datasets/prepare_coco_zsi.py", (), "prepare COCO instance annotation"),
    "show": ("tools/visualize_predictions.py", (), "draw predictions beside the ground truth"),
    "show-results": ("tools/visualize_json_results.py", (), "draw a file of instance results"),
    "share": ("tools/share_model.py", (), "make a folder of a model to share, and upload it"),
    "features": ("tools/features.py", (), "keep a frozen segmenter's outputs; train and evaluate stage 2 on them"),
    "export": ("tools/export_model.py", (), "write a model as an ONNX file or a program of torch.export"),
    "analyze": ("tools/analyze_model.py", (), "count operations, activations and parameters"),
    "benchmark": ("tools/benchmark.py", (), "time the attention operator or the whole model beside others"),
    "gpu-check": ("tools/gpu_check.py", (), "try in minutes all that needs a GPU, and measure it"),
    "quickstart": ("-m minibench", ("quickstart",), "draw data, train, evaluate and draw: the whole way in minutes"),
    "minibench": ("-m minibench", (), "compare all methods on the mini data set"),
    "completion": ("-m PADing.commands.completion", (), "print a script for completion with Tab, for bash or zsh"),
    "doctor": ("-m PADing.installation", (), "check this installation; --build compiles the kernels"),
}  # fmt: skip
STATUS_USER_ERROR = 2


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(_version())
        return 0
    name, rest = _command(words)
    if name is None:
        return STATUS_USER_ERROR
    target, first, _ = COMMANDS[name]
    sys.argv = [f"pading {name}", *first, *rest]
    try:
        return _run(target)
    except KeyboardInterrupt:  # before the command's own handling began
        return 128 + signal.SIGINT


def _overview(group: str = "") -> str:
    names = [name for name in COMMANDS if name.startswith(group)]
    width = max(map(len, names))
    lines = [f"  {name:{width}}  {COMMANDS[name][2]}" for name in names]
    return "\n".join(
        [f"usage: pading {group}COMMAND ...", "", *lines, "", "`pading COMMAND --help` explains a command."]
    )


def _command(words: list[str]) -> tuple[str | None, list[str]]:
    """The command that ``words`` begin with, and the words after it; None if there is none, after a message."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    in_group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if in_group and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_overview(f"{words[0]} "))
        raise SystemExit(0)
    wrong = " ".join(words[:2]) if in_group else words[0]
    known = in_group or [*COMMANDS, *{name.split()[0] for name in COMMANDS}]
    near = difflib.get_close_matches(wrong, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    print(f"error: {wrong!r} is not a command.{hint} `pading --help` lists all.", file=sys.stderr)
    return None, []


def _version() -> str:
    from importlib.metadata import version

    return f"pading {version('pading')}"


def _run(target: str) -> int:
    try:
        if target.startswith("-m "):
            runpy.run_module(target.removeprefix("-m "), run_name="__main__", alter_sys=False)
        else:
            script = _home() / target
            sys.path.insert(0, str(script.parent))  # as `python script` does
            # Not by runpy, which would put the script's path in place of the command's name in messages. Processes that
            # the command starts find the script by __file__.
            main_module = types.ModuleType("__main__")
            main_module.__file__ = str(script)
            sys.modules["__main__"] = main_module
            exec(compile(script.read_bytes(), str(script), "exec"), main_module.__dict__)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def _home() -> Path:
    """The checkout, or what the wheel holds in its place (``PADing.files.REPOSITORY``)."""
    spec = importlib.util.find_spec("PADing")
    package = Path(os.fspath(spec.origin)).parent if spec and spec.origin else Path(__file__).parent / "PADing"
    shipped = package / "shipped"
    return shipped if shipped.is_dir() else package.parent


if __name__ == "__main__":
    sys.exit(main())
