"""How each command of ours is run at smoke size: what is put in the place of its sizes, and what it finds to read."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util

from PADing.data.embedding_sources import read_names
from PADing.data.emoji.font import find_font
from PADing.data.splits import load_split
from PADing.errors import UserError
from tests import fake_downloads
from tests.data.importers import samples
from tests.documents.parsing import IMAGINED, Parsed, Rejected
from tests.documents.smoke_models import Run, convert, export, foreign_weights, look, set_flag, train
from tests.documents.working_copy import give_own_data

# Run by the fast test: about a second each.
QUICK = (
    "tools/make_split.py", "tools/import_data.py",
    "datasets/make_mini_coco.py", "datasets/get_zsp_json.py", "datasets/prepare_coco_zsi.py",
    "datasets/prepare_coco_stuff_sem_seg.py", "datasets/prepare_coco_semantic_annos_from_panoptic_annos.py",
    "datasets/prepare_evaluation_set.py",
    "datasets/make_emoji_coco.py",
    "tools/class_embeddings.py", "tools/gzsi_coco_eval.py", "tools/zsi_coco_eval.py", "-m d2lite",
    "-m PADing.installation", "-m PADing.config_reference", "-m PADing.modeling.pixel_decoder.ops",
)  # fmt: skip


def emoji_font_is_there() -> bool:
    try:
        return bool(find_font())
    except UserError:
        return False


def is_quick(parsed: Parsed) -> bool:
    listing = parsed.script == "-m minibench" and parsed.words[:1] == ("list",)
    shallow = parsed.script == "-m PADing.data.verify" and not parsed.args.deep
    return parsed.script in QUICK or listing or shallow


def why_not(parsed: Parsed) -> str:
    """Why a command is parsed only; "" for one that is run."""
    args, words = parsed.args, parsed.words
    if any(IMAGINED.search(word) for word in words) or "mine" in (getattr(args, "methods", None) or ()):
        return "it speaks of a config or a module that the reader writes"
    if not all(map(os.path.exists, getattr(args, "plugins", None) or ())):
        return "it speaks of a folder that the reader writes"
    if parsed.script == "datasets/prepare_coco_val2017.py":
        return "it needs COCO's val2017; tests/datasets/test_val2017.py has a part of it"
    if parsed.script == "tools/features.py":
        return "it needs trained weights and feature folders; tests/features has both"
    if parsed.script == "tools/submit.py":
        return "it needs a cluster, or submitit; tests/slurm has both"
    if getattr(args, "num_machines", 1) > 1 or "--nnodes" in parsed.command.words:
        return "it needs several machines"
    if parsed.script == "demo/demo.py" and (args.webcam or (not args.output and (args.input or args.video_input))):
        return "it shows a window"
    if parsed.script == "-m tests.faults":
        return "it takes an hour; tests/faults/test_sample.py runs a part"
    if parsed.script == "examples/onnx_runner.py":
        return "it needs an exported model; tests/export has it"
    if parsed.script == "-m PADing.modeling.pixel_decoder.ops" and args.build:
        return "it compiles; tests/ops does so"
    if parsed.script == "-m PADing.config_reference" and args.write:
        return "it writes pages of the repository"
    if parsed.script == "-m PADing.data.mini_v2.split_files" and args.write:
        return "it writes split files of the repository"
    if parsed.script == "-m PADing.data.mini_v2.verify" and not args.folders:
        return "it draws 8,000 images; tests/data/mini_v2 does so"
    if parsed.script == "datasets/make_emoji_coco.py" and not args.classes and not emoji_font_is_there():
        return "it needs the emoji font; tests/data/emoji draws with one of its own"
    if any("emoji" in word for word in words) and parsed.script.startswith("train_net"):
        return "it needs the emoji track, so its font; tests/data/emoji loads such data"
    if parsed.script == "demo/demo.py" and args.vocabulary and not args.vocabulary_embeddings:
        return "it needs a text encoder; tests/data/test_vocabulary_vectors.py has one"
    if any("frozenclip" in word or "laion2b" in word for word in words):
        return "it needs a CLIP model; tests/frozenclip has small ones"
    if "TEST.DISTRACTORS" in words:
        return "it needs a file of further names; tests/tools/test_distractors.py has one"
    if "MODEL.WEIGHTS_FROM" in words:
        return "it needs a checkpoint with averaged weights; tests/engine has it"
    if parsed.script == "-m minibench" and words[0] == "pool":
        return "it needs several finished benchmarks; tests/minibench has it"
    if parsed.script.startswith("-m minibench.folds.") or (
        parsed.script == "-m minibench" and words[0] in ("verify", "leaderboard")
    ):
        return "it needs a finished benchmark of version 2; tests/minibench/folds has it"
    if parsed.script == "-m minibench.analysis" or (
        parsed.script == "-m minibench" and words[0] in ("report", "tune", "causes")
    ):
        return "it needs a finished benchmark, or hours; tests/minibench has it"
    return ""


def prepared(parsed: Parsed, run: Run) -> list[str]:
    """The words of the command at smoke size, with everything there that it reads; ``run`` runs helping commands."""
    rule = RULES.get(parsed.script)
    if rule is None:
        raise Rejected(f"no rule says how to run {parsed.script}: add one to RULES in tests/documents/smoke.py")
    return [*parsed.script.split(), *rule(parsed, list(parsed.words), run)]


def _unchanged(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    return words


def _draw(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    words = ["drawn" + word if word.startswith("/") else word for word in words]
    if parsed.args.version == 2:
        return [*words, "--train", "20", "--val", "20", "--folds", "1", "--force"]
    return [*words, "--train", "3", "--val", "2", "--size", "64", "--force"]


def _draw_emoji(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    return words if parsed.args.classes else [*words, "--train", "3", "--val", "2", "--force"]


def _verify_mini2(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    for folder in parsed.args.folders:
        world, small = folder.name, ["--train", "20", "--val", "20", "--force"]
        run(["datasets/make_mini_coco.py", "--version", "2", "--world", world, "--output", str(folder), *small])
    return set_flag(words, "--workers", 1)


def _split(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    give_own_data(parsed.args, Path.cwd())
    return words


def _embeddings(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    args = parsed.args
    names = [c.name for file in args.split or () for c in load_split(file).categories] or ["plain disc", "zebra"]
    for file in filter(None, (args.names, getattr(args, "file_names", None))):
        if not os.path.exists(file):
            Path(file).write_text(json.dumps(names), encoding="utf-8")
    if args.names or getattr(args, "file_names", None):
        names = read_names(args.names or args.file_names)
    file = getattr(args, "file", None)
    if args.kind == "matrix" and not os.path.exists(file):
        np.save(file, np.random.default_rng(0).normal(size=(len(names), 8)))
    if args.kind == "words" and not os.path.exists(file):
        parts = {part for name in names for part in (name, *name.replace("-", " ").split())}
        parts |= {word for text in args.text for word in text.partition("=")[2].split()}
        lines = [
            f"{part} {' '.join(['0.5', '1.5', str(k)])}" for k, part in enumerate(sorted(parts)) if " " not in part
        ]
        Path(file).write_text("\n".join(lines), encoding="utf-8")
    model = getattr(args, "model", "")
    if "toy_clip" in model and not os.path.exists(model):
        run(
            [
                "-m",
                "minibench",
                "toy-clip",
                "--output",
                model,
                "--iterations",
                "2",
                "--scenes",
                "4",
                "--checked-scenes",
                "4",
            ]
        )
    return words


def _evaluation_set(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    args = parsed.args
    further = {"names": True} if args.names else {}
    fake_downloads.DOWNLOADS[args.set](Path("datasets"), **further)
    return [*words, "--subset", *([] if args.overwrite else ["--overwrite"]), "--workers", "1"]


def _labels(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    return set_flag(words, "--workers", 1)


def _verify(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    return set_flag(words, "--workers", 1)


def _detections(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    """Results that repeat the annotation."""
    args = parsed.args
    path = Path(getattr(args, "result", None) or args.input)
    found = []
    if hasattr(args, "ann"):
        if not os.path.exists(args.ann):
            kind = "gzsi" if "gzsi" in parsed.script else "unseen"
            shutil.copy(f"datasets/coco/annotations/ZSIS/instances_val2014_{kind}_48_17.json", args.ann)
        content = json.loads(Path(args.ann).read_text())
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        for annotation in content["annotations"]:
            rle = mask_util.merge(mask_util.frPyObjects(annotation["segmentation"], *sizes[annotation["image_id"]]))
            rle["counts"] = rle["counts"].decode()
            kept = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
            found.append({**kept, "segmentation": rle, "score": 0.9})
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return words if hasattr(args, "ann") else set_flag(words, "--number", 2)


def _minibench(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    command, *rest = words
    if command in ("quickstart", "packaged-model"):
        rest = set_flag(rest, "--num-gpus", 0) if "--num-gpus" in rest else rest
        return [command, *rest] if "--smoke" in rest else [command, *rest, "--smoke"]
    if command == "distractors":
        if parsed.args.data is None and not Path(parsed.args.folder, "results.json").is_file():
            run(["-m", "minibench", "run", "--budget", "smoke", "--methods", "projection", "--no-report"])
        elif parsed.args.data is not None and not Path(parsed.args.folder, "config.yaml").is_file():
            run(["-m", "minibench", "quickstart", "--smoke"])
        return [command, *set_flag(rest, "--numbers", "0,3"), "--images", "2"]
    if command == "toy-clip":
        flags = {"--iterations": 2, "--scenes": 4, "--checked-scenes": 4}
        for flag, value in flags.items():
            rest = set_flag(rest, flag, value)
        return [command, *rest] if "--overwrite" in rest else [command, *rest, "--overwrite"]
    if command == "warm-start":
        rest = set_flag(rest, "--budget", "smoke")
    if command == "run":
        rest = [word for flag, word in zip([None, *rest], rest, strict=False) if "--folds" not in (flag, word)]
        methods = getattr(parsed.args, "methods", None) or ["projection"]
        rest = set_flag(set_flag(rest, "--budget", "smoke"), "--methods", methods[0])
        rest = [word for flag, word in zip([None, *rest], rest, strict=False) if "--seeds" not in (flag, word)]
        rest = set_flag(rest, "--seed-list", (getattr(parsed.args, "seed_list", None) or [1])[0])
    return [command, *rest]


def _benchmark(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    if "data" in words:
        return [*words, "--rounds", "1", "--repeats", "1", "--height", "96", "--width", "128"]
    if "model" in words:
        return [*words, "--rounds", "1", "--repeats", "1", "--task", "floor"]
    if "scaling" in words:
        place = words.index("scaling") + 1  # config keys may be last
        small = ["--config-file", "configs/mini/panoptic-pretrain.yaml", "--side", "64"]
        rest = set_flag(set_flag(words[place:], "--rounds", 1), "--repeats", 1)
        return [*words[:place], *(small if "--config-file" not in rest else []), *rest]
    return [*words, "--rounds", "1", "--seconds", "0.1", "--case", "512x512", "--dtype", "float32"]


def _import(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    """A sample of the format is in the reader's folders; a result of before is gone."""
    args = parsed.args
    for folder in (args.output, args.source, args.images_dir):
        shutil.rmtree(folder or "", ignore_errors=True)
    sample = Path(".sample")
    shutil.rmtree(sample, ignore_errors=True)
    getattr(samples, args.format.replace("-", "_"))(sample)
    if args.images_dir:
        shutil.copytree(sample / "images", args.images_dir)
        sample /= "maps"
    shutil.copytree(sample, args.source)
    return words


def _gpu_check(parsed: Parsed, words: list[str], run: Run) -> list[str]:
    return [*words, "--cpu", "--overwrite", "--steps", "build", "nccl"]


RULES = {
    "train_net.py": train,
    "train_net_pretrain.py": train,
    "tools/preprocess_pretrained_weight.py": convert,
    "tools/convert_weights.py": foreign_weights,
    "demo/demo.py": look,
    "tools/analyze_model.py": look,
    "tools/export_model.py": export,
    "tools/visualize_predictions.py": look,
    "tools/visualize_data.py": look,
    "tools/visualize_json_results.py": _detections,
    "tools/gzsi_coco_eval.py": _detections,
    "tools/zsi_coco_eval.py": _detections,
    "tools/make_split.py": _split,
    "tools/import_data.py": _import,
    "tools/class_embeddings.py": _embeddings,
    "tools/benchmark.py": _benchmark,
    "tools/gpu_check.py": _gpu_check,
    "tools/submit.py": _unchanged,
    "tools/features.py": _unchanged,
    "datasets/prepare_coco_val2017.py": _unchanged,
    "-m PADing.modeling.pixel_decoder.ops.benchmark": _benchmark,
    "datasets/make_mini_coco.py": _draw,
    "datasets/make_emoji_coco.py": _draw_emoji,
    "-m PADing.data.mini_v2.make_vectors": _unchanged,
    "-m PADing.data.mini_v2.split_files": _unchanged,
    "-m PADing.data.mini_v2.verify": _verify_mini2,
    "datasets/get_zsp_json.py": _unchanged,
    "datasets/prepare_coco_zsi.py": _unchanged,
    "datasets/prepare_coco_stuff_sem_seg.py": _labels,
    "datasets/prepare_evaluation_set.py": _evaluation_set,
    "datasets/prepare_coco_semantic_annos_from_panoptic_annos.py": _labels,
    "-m PADing.data.verify": _verify,
    "-m minibench": _minibench,
    "tools/minibench.py": _minibench,
    "-m PADing.config_reference": _unchanged,
    "-m PADing.modeling.pixel_decoder.ops": _unchanged,
    "-m PADing.installation": _unchanged,
    "-m PADing.commands.completion": _unchanged,
    "-m d2lite": _unchanged,
    "-c": _unchanged,
}
