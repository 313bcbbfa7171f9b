"""The split files of the mini data, version 2: for each world one a fold, and one without unseen classes.

    python -m PADing.data.mini_v2.split_files             # says which files differ
    python -m PADing.data.mini_v2.split_files --write

They lie in ``datasets/splits/mini2``. The files of one world share a table of categories,
``datasets/splits/tables/mini2_*.yaml``. Training sets of all folds read the same annotation: the loader leaves out
images that show an unseen class of the fold. In ``*_all.yaml`` all classes are seen: for warm starts and oracles.
"""

import argparse
import sys
from pathlib import Path

from PADing.command_line import CommandParser, run_command
from PADing.data.mini_v2.folds import unseen
from PADing.data.mini_v2.worlds import FOLDS, WORLDS, World
from PADing.errors import UserError
from PADing.files import REPOSITORY, replacing

__all__ = ["contents", "data_set_names", "prefix"]


def prefix(world: World, fold: int | None) -> str:
    """The beginning of the names of a fold's data sets, such as ``mini2_test_fold1``; None: all classes are seen."""
    return f"mini2_{world.name.replace('-', '_')}_{_part(fold)}"


def _part(fold: int | None) -> str:
    return "all" if fold is None else f"fold{fold}"


def _data_sets(world: World, fold: int | None) -> list[dict[str, str]]:
    root, own = f"mini2/{world.name}", f"mini2/{world.name}/fold{fold}"
    folds = "" if fold is None else f" --folds {fold}"
    common = {"made_by": f"python datasets/make_mini_coco.py --version 2 --world {world.name}{folds}"}

    def one(name: str, kind: str, subset: str, **more: str) -> dict[str, str]:
        role = name.partition("_")[0]
        entry = {"name": f"{prefix(world, fold)}_{name}", "role": role, "kind": kind, "subset": subset}
        order = {} if kind == "panoptic" else {"class_order": "seen_first"}
        return {**entry, **order, "image_root": f"{root}/{role}", **more, **common}

    def panoptic(role: str) -> dict[str, str]:
        return {
            "json": f"{root}/annotations/instances_{role}.json",
            "panoptic_root": f"{root}/panoptic_{role}",
            "panoptic_json": f"{root}/annotations/panoptic_{role}.json",
            "sem_seg_root": f"{root}/panoptic_semseg_{role}",
        }

    unlabelled = panoptic("train") | {"panoptic_json": f"{own}/panoptic_train_unlabelled.json"}
    del unlabelled["sem_seg_root"]
    instances = {role: f"{root}/annotations/instances_{role}.json" for role in ("train", "val")}
    if fold is None:
        return [
            one("train_panoptic", "panoptic", "seen", **panoptic("train")),
            one("train_instance", "instance", "seen", json=instances["train"]),
            one("val_panoptic", "panoptic", "all", **panoptic("val")),
            one("val_instance", "instance", "all", json=instances["val"]),
        ]
    return [
        one("train_panoptic", "panoptic", "seen", **panoptic("train")),
        one("train_panoptic_unlabelled", "panoptic", "seen", **unlabelled),
        one("train_instance", "instance", "seen", json=instances["train"]),
        one("train_semantic", "semantic", "seen", sem_seg_root=f"{own}/sem_seg_train_seen"),
        one("val_panoptic", "panoptic", "all", **panoptic("val")),
        one("val_instance", "instance", "all", json=instances["val"]),
        one("val_semantic", "semantic", "all", sem_seg_root=f"{own}/sem_seg_val_all"),
        one("val_instance_unseen_only", "instance", "unseen", json=f"{own}/instances_val_unseen.json"),
    ]


def data_set_names(world: World, fold: int | None) -> list[str]:
    """The names of a fold's data sets, as ``DATASETS.TRAIN`` and ``DATASETS.TEST`` take them."""
    return [data_set["name"] for data_set in _data_sets(world, fold)]


def contents() -> dict[str, str]:
    """Each file's path below ``datasets/splits``, with its text."""
    files = {}
    for world in WORLDS:
        table = f"tables/mini2_{world.name}.yaml"
        lines = [f"# The classes of the mini data, version 2, world {world.name}: {_maker()}"]
        for c in world.categories():
            lines.append(f"- {{id: {c.id}, name: {c.name}, isthing: {int(c.isthing)}}}")
        files[table] = "\n".join([*lines, ""])
        for fold in (None, *range(1, FOLDS + 1)):
            which = "all classes are seen" if fold is None else f"fold {fold} of {FOLDS}"
            hidden = [] if fold is None else unseen(world, fold)
            lines = [
                f"# The mini data, version 2: world {world.name}, {which}. {_maker()}",
                f"name: {prefix(world, fold)}",
                f"categories: ../{table}",
                "unseen:" if hidden else "unseen: []",
                *(f"  - {name}" for name in hidden),
                "data_sets:",
            ]
            for data_set in _data_sets(world, fold):
                lines += [f"  {'  ' if i else '- '}{key}: {value}" for i, (key, value) in enumerate(data_set.items())]
            files[f"mini2/{world.name}_{_part(fold)}.yaml"] = "\n".join([*lines, ""])
    return files


def _maker() -> str:
    return "Made by: python -m PADing.data.mini_v2.split_files --write"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__, prog="python -m PADing.data.mini_v2.split_files")
    parser.add_argument("--write", action="store_true", help="write the files that differ")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    root = REPOSITORY / "datasets" / "splits"
    wrong = [path for path, text in contents().items() if not _is(root / path, text)]
    if wrong and not args.write:
        names = ", ".join(wrong[:3]) + (" ..." if len(wrong) > 3 else "")
        raise UserError(f"{len(wrong)} split files are missing or differ ({names}). Write them with --write.")
    for path in wrong:
        with replacing(root / path) as temporary:
            temporary.write_text(contents()[path], encoding="utf-8")
    print(f"{len(contents())} files below {root}: {len(wrong)} written")


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
