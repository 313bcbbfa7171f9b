"""Golden files: find them, regenerate their weights and inputs, replay their random draws, compare within tolerance.

The numbers were recorded from the published implementations; their folder's README says how, and how close a correct
implementation comes. Nothing here knows a size, a case or a name: all of that is read from the files.
"""

import importlib.util
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from torch import Tensor, nn

from PADing.config import load_config

REPOSITORY = Path(__file__).resolve().parents[2]
REDUCED = Path(__file__).resolve().parent / "reduced"  # a part of the full set, so that every test run has numbers


def _folder() -> Path:
    """$GOLDEN_DIR, or the full set beside the repository, or the reduced set in it."""
    full = REPOSITORY.parent / "shared" / "golden"
    return Path(os.environ.get("GOLDEN_DIR") or (full if (full / "fill.py").is_file() else REDUCED))


GOLDEN = _folder()
requires_golden = pytest.mark.skipif(
    not (GOLDEN / "fill.py").is_file(), reason=f"no golden numbers in {GOLDEN}; set GOLDEN_DIR to their folder"
)

# Accepted differences, from the table of tolerances.
OUTPUT = 2e-5
LOSS = 5e-5
SMALL_LOSS = 0.01  # losses below this are compared as if they were this large
MAP_PIXELS = 1e-3
MASK_PIXELS = 6
SCORE = 5e-4


def _import_fill():
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fill = _import_fill() if (GOLDEN / "fill.py").is_file() else None


def load(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and ``info`` of ``<name>.npz``."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("info")))


def golden_files(pattern: str) -> list[str]:
    """Names, for ``load``, of the files that match; empty where there are no golden numbers."""
    return sorted(path.stem for path in GOLDEN.glob(pattern))


def cases(name: str, key: str = "cases") -> range:
    """Indices of the cases of one file, for ``pytest.mark.parametrize``; empty where there are no golden numbers."""
    return range(len(load(name)[1][key])) if (GOLDEN / f"{name}.npz").is_file() else range(0)


# ---- models, weights, inputs


def golden_cfg(config: str, overrides: Mapping | None = None):
    """Frozen config of a shipped YAML (``configs/...``) with a file's overrides, on the CPU, no weights, no AMP."""
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "SOLVER.AMP.ENABLED", False]
    for key, value in (overrides or {}).items():
        opts += [key, value]
    cfg = load_config(REPOSITORY / (config if config.startswith("configs/") else f"configs/{config}"), opts)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        _complete_metadata(name)
    return cfg


def _complete_metadata(name: str) -> None:
    """Give a data set the recorded metadata, as far as nobody has registered them."""
    metadata, recorded = MetadataCatalog.get(name), json.loads((GOLDEN / "datasets_metadata.json").read_text())
    recorded = recorded.get("datasets", recorded).get(name, {})
    for key, value in recorded.get("metadata", recorded).items():
        if value is not None and key not in ("name", "files") and not hasattr(metadata, key):
            if key.endswith("_to_contiguous_id"):
                value = {int(k): v for k, v in value.items()}
            setattr(metadata, key, value)


@torch.no_grad()
def fill_model(model: nn.Module, prefix: str = "", salt: str = "") -> nn.Module:
    """Overwrite every weight and buffer by the rule; ``prefix`` is what the whole model's keys have in front."""
    state = model.state_dict()
    for key, value in fill.fill({prefix + key: tensor for key, tensor in state.items()}, salt).items():
        state[key[len(prefix) :]].copy_(torch.from_numpy(value))
    return model


def normal(name: str, shape: Iterable[int], requires_grad: bool = False) -> Tensor:
    return torch.from_numpy(fill.normal(name, tuple(shape))).requires_grad_(requires_grad)


def target_list(descriptions: Iterable) -> list[dict[str, Tensor]]:
    """``[name, h, w, n, classes]`` of each image -> ``[{"labels": (n) int64, "masks": (n, h, w) bool}]``."""
    result = []
    for name, h, w, n, classes in descriptions:
        labels, masks = fill.targets(name, h, w, n, range(classes))
        result.append({"labels": torch.from_numpy(labels), "masks": torch.from_numpy(masks)})
    return result


def batch(inputs: Iterable[Mapping], classes: str | Iterable[int], train: bool) -> list[dict]:
    """The model's input for a file's ``inputs``; ``classes`` is the file's ``target_classes``."""
    from detectron2.structures import Instances

    result = []
    for item in inputs:
        h, w = item["size"]
        record = {"image": torch.from_numpy(fill.image(item["image"], h, w)), "height": item["height"]}
        record["width"] = item["width"]
        if train:
            labels, masks = fill.targets(item["targets"], h, w, item["n_targets"], class_list(classes))
            record["instances"] = Instances((h, w))
            record["instances"].gt_classes = torch.from_numpy(labels)
            record["instances"].gt_masks = torch.from_numpy(masks)
        result.append(record)
    return result


def class_list(classes: str | Iterable[int]) -> list[int]:
    """``"range(133)"`` or a list of contiguous ids -> list."""
    if isinstance(classes, str):
        return list(range(*(int(n) for n in re.fullmatch(r"range\((.*)\)", classes)[1].split(","))))
    return list(classes)


# ---- random draws


class Draws:
    """Replace ``torch.rand``, ``torch.randn`` and ``torch.randperm`` by recorded draws, in their recorded order.

    ``with Draws(info["train.draws"]): ...``. A call of another kind or shape than the recorded one fails, and so does
    leaving the block before every recorded draw was asked for. ``start`` and ``stop`` choose a part of the calls.
    """

    def __init__(self, recorded: Mapping, start: int = 0, stop: int | None = None):
        self.stream = recorded["stream"]
        self.calls = [(k, kind, tuple(shape)) for k, kind, shape, _ in recorded["calls"]][start:stop]
        self.used = 0

    def _next(self, kind: str, shape: tuple, kwargs: dict) -> Tensor:
        if len(shape) == 1 and not isinstance(shape[0], int):
            shape = shape[0]
        asked = (kind, tuple(int(n) for n in shape))
        assert self.used < len(self.calls), f"one draw too many: {asked}, after {self.used}"
        k, *recorded = self.calls[self.used]
        assert asked == tuple(recorded), f"draw {k} was recorded as {tuple(recorded)}, but {asked} is asked for"
        self.used += 1
        value = torch.from_numpy(fill.draw(self.stream, k, kind, recorded[1]))
        return value.to(device=kwargs.get("device"), dtype=kwargs.get("dtype"))

    def __enter__(self) -> "Draws":
        self._patches = [
            mock.patch.object(torch, name, lambda *shape, _kind=kind, **kwargs: self._next(_kind, shape, kwargs))
            for name, kind in (("rand", "uniform"), ("randn", "normal"), ("randperm", "perm"))
        ]
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, kind, *_) -> None:
        for patch in self._patches:
            patch.stop()
        assert kind or self.used == len(self.calls), f"only {self.used} of {len(self.calls)} recorded draws were used"


# ---- comparison


def array(value) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def assert_close(got, want, rel: float = OUTPUT, what: str = "") -> None:
    """``max |got - want| <= rel * max |want|``, shapes equal."""
    got, want = array(got).astype(np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, recorded {want.shape}"
    if want.size:
        limit, delta = rel * np.abs(want).max(), np.abs(got - want).max()
        assert delta <= limit, f"{what}: differs by {delta:.3g}, accepted {limit:.3g}"


def check_losses(got: Mapping[str, Tensor], names: Iterable[str], want, rel: float = LOSS) -> None:
    """Every recorded loss is there and close, and there is no other."""
    names = list(names)
    assert set(got) == set(names), f"losses that differ: {set(got) ^ set(names)}"
    for name, value in zip(names, np.asarray(want), strict=True):
        loss = float(array(got[name]))
        limit = rel * max(abs(value), SMALL_LOSS)
        assert abs(loss - value) <= limit, f"{name}: {loss:.7g}, recorded {value:.7g}"


def probe(value) -> float:
    return fill.probe(array(value))


def digest(value) -> np.ndarray:
    """Mean, population standard deviation, largest absolute value, probe; in float64."""
    value = array(value).astype(np.float64)
    return np.array([value.mean(), value.std(), np.abs(value).max(), probe(value)])


def check_digest(value, want, gradient: bool = False, what: str = "") -> None:
    got, value = digest(value), array(value)
    limit = (5e-4 if gradient else 1e-5) * want[2]
    assert (np.abs(got - want)[:3] <= limit).all(), f"{what}: mean, std, absmax {got[:3]}, recorded {want[:3]}"
    limit = (1e-2 if gradient else 2e-5) * want[1] * value.size**0.5
    assert abs(got[3] - want[3]) <= limit, f"{what}: probe {got[3]:.6g}, recorded {want[3]:.6g}, accepted {limit:.2g}"


def check_grads(model: nn.Module, arrays: Mapping[str, np.ndarray], prefix: str, info: Mapping, strict: float = 4e-3):
    """Gradients of ``model`` against ``<prefix>grad_names``, ``grad_norm`` and ``grad_probe``.

    A parameter that is not recorded must have no gradient. Recorded names may begin with ``info["prefix"]``.
    """
    front = info.get("prefix", "")
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    names = [str(name).removeprefix(front) for name in arrays[f"{prefix}grad_names"]]
    assert set(grads) == set(names), f"gradients in one set only: {sorted(set(grads) ^ set(names))[:8]}"
    norms, probes = arrays[f"{prefix}grad_norm"], arrays[f"{prefix}grad_probe"]
    scale = norms + 1e-5 * norms.max()
    delta_norm = np.array([abs(float(grads[n].double().norm()) - v) for n, v in zip(names, norms, strict=True)]) / scale
    delta_probe = np.array([abs(probe(grads[n]) - v) for n, v in zip(names, probes, strict=True)]) / scale
    worst = names[int(delta_norm.argmax())]
    assert delta_norm.max() <= strict, f"gradient norm of {worst}: relative difference {delta_norm.max():.2g}"
    assert np.quantile(delta_norm, 0.9) <= 3e-4, (
        f"a tenth of the gradient norms is off by {np.quantile(delta_norm, 0.9)}"
    )
    worst = names[int(delta_probe.argmax())]
    assert delta_probe.max() <= 2e-2, f"gradient of {worst}: probe differs by {delta_probe.max():.2g}"


def unpack(packed: np.ndarray, shape: Iterable[int]) -> np.ndarray:
    """Inverse of ``np.packbits`` of a bool array of that shape."""
    shape = tuple(int(n) for n in shape)
    return np.unpackbits(packed, count=int(np.prod(shape))).astype(bool).reshape(shape)


def check_map(got, want, what: str = "") -> None:
    """Label maps of one shape that agree in all but 0.1 % of the pixels."""
    got = array(got)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, recorded {want.shape}"
    different = (got != want).mean()
    assert different <= MAP_PIXELS, f"{what}: {different:.2%} of the pixels differ"


def check_semantic(scores: Tensor, arrays: Mapping[str, np.ndarray], name: str) -> None:
    """(C, H, W) scores against ``<name>.shape``, ``.strided``, ``.class_mean``, ``.argmax``."""
    assert tuple(scores.shape) == tuple(arrays[f"{name}.shape"])
    assert_close(scores[::4, ::6, ::6], arrays[f"{name}.strided"], what=name)
    assert_close(scores.mean((1, 2)), arrays[f"{name}.class_mean"], what=f"{name}, class means")
    check_map(scores.argmax(0), arrays[f"{name}.argmax"], f"{name}, argmax")


def check_panoptic(result: tuple[Tensor, list[dict]], want_map: np.ndarray, want_segments: list[dict], what: str = ""):
    got_map, segments = result
    keys = ("id", "isthing", "category_id")
    assert [{k: s[k] for k in keys} for s in segments] == [{k: s[k] for k in keys} for s in want_segments], what
    check_map(got_map, want_map, what)


def check_instances(instances, arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Instances in any order against ``<name>.scores`` and so on, which are sorted by falling score, then class.

    Scores closer than their tolerance may have changed places, so every recorded instance is looked up.
    """
    want = {key: arrays[f"{name}.{key}"] for key in ("scores", "classes", "boxes", "area")}
    want_masks = unpack(arrays[f"{name}.masks_packed"], arrays[f"{name}.masks_shape"])
    scores, classes = array(instances.scores), array(instances.pred_classes)
    masks, boxes = array(instances.pred_masks) > 0.5, array(instances.pred_boxes.tensor)
    assert masks.shape == want_masks.shape, f"{name}: masks {masks.shape}, recorded {want_masks.shape}"
    free = np.ones(len(scores), bool)
    for i in range(len(scores)):
        fits = free & (classes == want["classes"][i]) & (np.abs(scores - want["scores"][i]) <= SCORE)
        pixels = (masks != want_masks[i]).sum((1, 2))
        fits &= pixels <= MASK_PIXELS
        fits &= np.abs(boxes - want["boxes"][i]).max(1) <= np.where(pixels > 0, 1, 0)
        assert fits.any(), f"{name}: nothing fits recorded instance {i}, class {want['classes'][i]}"
        j = int(np.flatnonzero(fits)[pixels[fits].argmin()])
        free[j] = False
        assert abs(int(masks[j].sum()) - int(want["area"][i])) <= MASK_PIXELS
