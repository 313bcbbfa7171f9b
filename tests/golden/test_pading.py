"""PADing as a whole: both training steps, three iterations of them, and inference, for every recorded task."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

import PADing.meta_arch  # noqa: F401  registers the architecture
from tests.golden.class_vectors import embedding_overrides
from tests.golden.util import (
    GOLDEN,
    Draws,
    assert_close,
    batch,
    check_grads,
    check_instances,
    check_losses,
    check_panoptic,
    check_semantic,
    digest,
    fill_model,
    golden_cfg,
    golden_files,
    load,
    requires_golden,
)

pytestmark = requires_golden

TERMS = 3e-5
STEPS = 3e-3
AFTER_STEPS = 1e-3
GRADIENT = 5e-4

FILES = golden_files("pading_*.npz")
_FILLED: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
RUNS = [(name, run) for name in FILES for run in ("plain", "noise", "structure") if f"{run}.draws" in load(name)[1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("class_vectors")


@pytest.fixture
def build(folder):
    """build(info, extra overrides) -> the filled model."""

    def make(info: Mapping, extra: Mapping | None = None):
        # The recorded VEC_PATH is a sentence about the file, not a path.
        overrides = {k: v for k, v in info["overrides"].items() if not k.endswith("VEC_PATH")} | dict(extra or {})
        overrides |= embedding_overrides(golden_cfg(info["config"], overrides), folder)
        model = build_model(golden_cfg(info["config"], overrides))
        model.load_state_dict(filled(model, info["config"], info["salt"]))
        return model

    return make


def filled(model, config: str, salt: str) -> dict[str, torch.Tensor]:
    """The weights by the rule; they depend on keys and shapes only, and drawing them takes longer than a test."""
    if (config, salt) not in _FILLED:
        _FILLED[config, salt] = {key: value.clone() for key, value in fill_model(model, salt=salt).state_dict().items()}
    return _FILLED[config, salt]


def run_overrides(info: Mapping, run: str) -> dict:
    return info.get(f"{run}.overrides", {"MODEL.MASK_FORMER.NOISE": run == "noise"})


def inputs(info: Mapping, model, train: bool = True) -> list[dict]:
    unseen = set(info["unseen_index"])
    classes = [c for c in range(model.sem_seg_head.num_classes) if c not in unseen]
    return batch(info["inputs"], classes, train)


def tasks(pattern: str) -> list[str]:
    return [path.stem for path in sorted((GOLDEN / "keys").glob(pattern))]


@pytest.mark.parametrize("name", tasks("pading_*.json"))
def test_state_dict(name):
    """A key or shape that differs is a weight of a published checkpoint that is silently not loaded."""
    want = json.loads((GOLDEN / "keys" / f"{name}.json").read_text())
    model = build_model(golden_cfg(want["config"]))
    state, buffers = model.state_dict(), dict(model.named_buffers())
    assert [[key, list(t.shape), key in buffers] for key, t in state.items()] == want["keys"]
    parameters = dict(model.named_parameters())
    assert [key for key, p in parameters.items() if p.requires_grad] == want["trainable"]
    assert [key for key, p in parameters.items() if not p.requires_grad] == want["frozen"]
    assert sum(p.numel() for p in parameters.values()) == want["elements_in_parameters"]
    assert sum(t.numel() for t in state.values()) == want["elements_in_state_dict"]
    for key, shape in want["non_persistent_buffers"]:
        assert key not in state and list(buffers[key].shape) == shape
    versions = [[key, m["version"]] for key, m in state._metadata.items() if m.get("version", 1) != 1]
    assert sorted(versions) == sorted(want["module_versions"])


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_generator_step(name, run, build):
    """Every term of the generator's loss and every gradient, with recorded points and noise."""
    arrays, info = load(name)
    model = build(info, run_overrides(info, run)).train()
    draws = info[f"{run}.draws"]
    with Draws(draws, stop=draws.get("generator_step_calls")):
        terms, embeddings, target_classes = model.generator_terms(inputs(info, model))
    terms["generate_loss"].backward()
    check_losses(terms, info["generator_loss_names"], arrays[f"{run}.generator.losses"], TERMS)
    check_grads(model, arrays, f"{run}.generator.", info, strict=GRADIENT)
    if run == "plain":
        assert_close(embeddings, arrays["real_embeddings"], what="real embeddings")
        assert np.array_equal(target_classes, arrays["target_classes"])


@pytest.mark.parametrize(("name", "run"), [(name, run) for name, run in RUNS if run != "structure"])
def test_classifier_step(name, run, build):
    """Loss and gradient of the classifier on the same, not yet updated model."""
    arrays, info = load(name)
    model = build(info, run_overrides(info, run)).train()
    with Draws(info[f"{run}.draws"]):
        _, embeddings, target_classes = model.forward_train_generator(inputs(info, model))
        losses = model(None, real_embeddings=embeddings, target_classes=target_classes)
    sum(losses.values()).backward()
    check_losses(losses, info["classifier_loss_names"], arrays[f"{run}.classifier.losses"], TERMS)
    check_grads(model, arrays, f"{run}.classifier.", info, strict=GRADIENT)


@pytest.mark.parametrize(("name", "run"), [(name, run) for name, run in RUNS if run != "structure"])
def test_alternating_steps(name, run, build):
    """Three iterations of both steps with their optimizers: order, schedule of updates, and what is left alone."""
    arrays, info = load(name)
    model = build(info, run_overrides(info, run)).train()
    _, generator_rate = info["steps_optimizers"]["generator"]
    kind, rate, momentum, decay = info["steps_optimizers"]["classifier"]
    assert (info["steps_optimizers"]["generator"][0], kind) == ("Adam", "SGD")
    first = torch.optim.Adam(model.generator_parameters(), generator_rate)
    momentum, decay = float(momentum.split()[1]), float(decay.split()[1])
    second = torch.optim.SGD(model.classifier_parameters(), rate, momentum=momentum, weight_decay=decay)
    with Draws(info[f"{run}.steps_draws"]):
        for row in arrays[f"{run}.steps.losses"]:
            terms, embeddings, target_classes = model.generator_terms(inputs(info, model))
            first.zero_grad()
            terms["generate_loss"].backward()
            first.step()
            losses = model.forward_train_classifier(embeddings, target_classes)
            second.zero_grad()
            losses["dis_loss"].backward()
            second.step()
            check_losses(terms | losses, info["steps_columns"], row, STEPS)
    trained = dict(model.named_parameters())
    changed = [key for key, p in trained.items() if p.requires_grad]
    assert sorted(changed) == sorted(info["trained_names"])
    for key, want in zip(info["trained_names"], arrays[f"{run}.steps.after_digest"], strict=True):
        delta = np.abs(digest(trained[key]) - want)[:3].max()
        assert delta <= AFTER_STEPS * want[2], f"{key} afterwards: {delta:.3g}"


@pytest.mark.parametrize("name", FILES)
def test_inference(name, build):
    """Results come from the finetuned classifier, never from the segmenter's own."""
    arrays, info = load(name)
    model = build(info).eval()
    with torch.no_grad():
        results = model(inputs(info, model, train=False))
    for i, result in enumerate(results):
        assert ("sem_seg" in result) == (f"sem_seg{i}.strided" in arrays)
        assert ("panoptic_seg" in result) == (f"panoptic{i}.map" in arrays)
        assert ("instances" in result) == (f"inst{i}.scores" in arrays)
        if "sem_seg" in result:
            check_semantic(result["sem_seg"], arrays, f"sem_seg{i}")
        if "panoptic_seg" in result:
            segments = info[f"panoptic{i}.segments_info"]
            check_panoptic(result["panoptic_seg"], arrays[f"panoptic{i}.map"], segments, f"panoptic{i}")
        if "instances" in result:
            check_instances(result["instances"], arrays, f"inst{i}")
