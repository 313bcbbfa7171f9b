"""A second training on the same weights and images takes the segmenter's answers from disk, and ends the same."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from PADing.config import load_config
from PADing.engine.recipes import TRAINING_RECIPE_REGISTRY
from PADing.generation.segmenter_cache import SegmenterCache

from .test_pading import CONFIG, batch, build, vectors  # noqa: F401  a fixture

KEY = "MODEL.MASK_FORMER.SEGMENTER_CACHE"


def count_runs(model, monkeypatch) -> list:
    """A list that grows by one with every run of the backbone."""
    runs, forward = [], model.backbone.forward
    monkeypatch.setattr(model.backbone, "forward", lambda images: (runs.append(1), forward(images))[1])
    return runs


def train(model, batches):
    """Two iterations and a look at an image; the trained classifier, and the answer."""
    recipe = TRAINING_RECIPE_REGISTRY.get("GeneratorClassifier")(load_config(CONFIG), model.train())
    torch.manual_seed(3)
    with EventStorage(0):
        for images in batches:
            recipe.step(model, images, 0.0)
    with torch.no_grad():
        (answer,) = model.eval()(batches[0][:1])
    return model.new_fc.weight.detach().clone(), answer["sem_seg"]


def test_training_is_the_same_to_the_last_bit_and_the_segmenter_runs_once(vectors, tmp_path, monkeypatch):  # noqa: F811
    model = build(vectors)
    batches = [batch(model) for _ in range(2)]
    plain = train(model, batches)
    for expected in (3, 0):
        model = build(vectors, KEY, str(tmp_path / "cache"))
        runs = count_runs(model, monkeypatch)
        for value, wanted in zip(train(model, batches), plain, strict=True):
            assert torch.equal(value, wanted)
        assert len(runs) == expected
    assert len(list((tmp_path / "cache").iterdir())) == 3, "two batches, one image"


@pytest.mark.parametrize("change", ["weights", "pixels", "running statistics", "precision"])
def test_other_weights_images_or_precision_are_not_mistaken(vectors, tmp_path, monkeypatch, change):  # noqa: F811
    model = build(vectors, KEY, str(tmp_path)).train()
    model.begin_second_stage()
    images = batch(model)
    runs = count_runs(model, monkeypatch)
    first = model.match(images)[0]
    assert torch.equal(model.match(images)[0], first) and len(runs) == 1
    with torch.no_grad():
        if change == "weights":
            model.sem_seg_head.predictor.query_feat.weight += 1.0
        elif change == "running statistics":
            next(b for name, b in model.backbone.named_buffers() if "running_mean" in name).add_(1.0)
        elif change == "pixels":
            images[0]["image"] = 255 - images[0]["image"]
    with torch.autocast("cpu", torch.bfloat16, enabled=change == "precision"):
        assert not torch.equal(model.match(images)[0].float(), first)
    assert len(runs) == 2


def test_a_segmenter_that_is_not_frozen_is_never_remembered(vectors, tmp_path):  # noqa: F811
    model = build(vectors, KEY, str(tmp_path / "cache")).eval()
    with torch.no_grad():
        model(batch(model))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("left", [0, 100])
def test_an_answer_that_was_cut_off_is_made_again(vectors, tmp_path, left):  # noqa: F811
    model = build(vectors, KEY, str(tmp_path)).train()
    model.begin_second_stage()
    images = batch(model)
    first = model.match(images)[0]
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    assert torch.equal(model.match(images)[0], first) and len(path.read_bytes()) == len(whole)


def test_another_module_with_the_same_weights_is_not_mistaken():
    class Other(torch.nn.Linear):
        pass

    images, keys = torch.zeros(1, 3, 4, 4), set()
    for kind in (torch.nn.Linear, Other):
        torch.manual_seed(0)
        keys.add(SegmenterCache("unused", [kind(2, 2)])._key(images))
    assert len(keys) == 2


def test_every_precision_has_answers_of_its_own():
    cache, images = SegmenterCache("unused", [torch.nn.Linear(2, 2)]), torch.zeros(1, 3, 4, 4)
    plain = cache._key(images)
    keys = {plain, cache._key(images.double())}
    for precision in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", precision):
            keys.add(cache._key(images))
        with torch.autocast("cpu", precision, enabled=False):
            assert cache._key(images) == plain
    assert len(keys) == 4
