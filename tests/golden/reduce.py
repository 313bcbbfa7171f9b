"""``python -m tests.golden.reduce GOLDEN_FOLDER``: write the reduced set that lies in the repository, ``reduced/``.

It keeps the recorded numbers as they are and leaves out cases: every kind of module is there once, so that anybody's
test run compares with the published code. The rest is in the full set.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).resolve().parent / "reduced"
WHOLE = (
    "fill.py fill_check.json datasets_metadata.json preprocess_weights.json matcher.npz criterion.npz "
    "backbone_r50.npz pading_instance.npz keys/maskformer_panoptic_pretrain.json keys/pading_instance.json "
    "keys/d2zero_48_17_w2v.json configs evaluators"
).split()
# Cases that stay, of the files that have a list of cases and arrays called "<case>.<name>".
CASES = {"msda": [0, 1, 3, 4, 5, 6, 7]}
# Inference modes that stay, of the whole models with modes.
MODES = {"d2zero_48_17_w2v": ["gzsis"]}


def main(source: Path) -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    for name in WHOLE:
        (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, TARGET / name)
    for name, cases in CASES.items():
        arrays, info = _load(source, name)
        info["cases"] = [info["cases"][case] for case in cases]
        number = {str(case): i for i, case in enumerate(cases)}
        parts = [(*key.split(".", 1), array) for key, array in arrays.items()]
        _save(name, {f"{number[case]}.{key}": array for case, key, array in parts if case in number}, info)
    for name, modes in MODES.items():
        arrays, info = _load(source, name)
        dropped = {mode for mode in info["modes"] if mode not in modes}
        info["modes"] = {mode: info["modes"][mode] for mode in modes}
        _save(name, {key: a for key, a in arrays.items() if not dropped & set(key.split(".")[:2])}, info)
    _write_schedules(source)
    size = sum(path.stat().st_size for path in TARGET.rglob("*") if path.is_file())
    print(f"{TARGET}: {size / 1e6:.2f} MB")


def _write_schedules(source: Path) -> None:
    """Every tenth iteration, and the optimizers of the models whose keys are kept."""
    recorded = json.loads((source / "lr_schedules.json").read_text())
    for part in recorded.values():
        if "schedules" in part:
            for schedule in part["schedules"].values():
                schedule["lr_used_at_iteration"] = schedule["lr_used_at_iteration"][::10]
            groups = part["optimizer_groups"]
            part["optimizer_groups"] = {n: g for n, g in groups.items() if (TARGET / f"keys/{n}.json").is_file()}
    (TARGET / "lr_schedules.json").write_text(json.dumps(recorded))


def _load(source: Path, name: str) -> tuple[dict, dict]:
    with np.load(source / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("info")))


def _save(name: str, arrays: dict, info: dict) -> None:
    np.savez_compressed(TARGET / f"{name}.npz", info=np.array(json.dumps(info)), **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
