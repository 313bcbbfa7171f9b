"""The second classifier on models of other methods: what is joined in each case, and with which words."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from PADing.class_space import ClassSpace
from PADing.config import load_config
from PADing.data.embedding_sources import clip_embeddings
from PADing.data.embeddings import embedding_source, save_class_embeddings
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.export.program import check_outputs
from PADing.inference import Predictor
from PADing.meta_arch.second_classifier import reclassified
from PADing.visualization.image_files import read_rgb

METHODS = ["MaskFormer", "PADing", "D2Zero"]
WORDS = ("zebra", "lamp")


@pytest.fixture(scope="module")
def with_clip(clips, text):
    """The options that put CLIP on a model."""

    def function(architecture: str, kind: str = "convnext", **keys) -> list[str]:
        plugins = '("d2zero", "frozenclip")' if architecture == "D2Zero" else '("frozenclip",)'
        values = {
            "PLUGINS": plugins,
            "MODEL.SECOND_CLASSIFIER.NAME": "FrozenCLIPClassifier",
            "MODEL.FROZENCLIP.NAME": str(getattr(clips, kind)),
            "MODEL.FROZENCLIP.CLASS_EMBEDDINGS": str(getattr(text, kind)),
            **{key.replace("__", "."): str(value) for key, value in keys.items()},
        }
        return [item for pair in values.items() for item in pair]

    return function


@pytest.fixture(scope="module")
def sample(drawn):
    # Sides that are no multiples of 32, so that there is padding.
    return {"image": torch.from_numpy(read_rgb(drawn.images[0])[:50, :60].transpose(2, 0, 1).copy())}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(model, sample, own_logits, mask_logits, table) -> np.ndarray:
    """Probabilities (Q, K + 1) by the formula, step by step."""
    encoder, p = model.second_classifier.encoder, softmax(own_logits)
    mean, std = (255 * np.array(values).reshape(3, 1, 1) for values in (encoder.clip.mean, encoder.clip.std))
    height, width = sample["image"].shape[1:]
    image = np.zeros((3, -(-height // 32) * 32, -(-width // 32) * 32), dtype=np.float32)
    image[:, :height, :width] = (sample["image"].numpy() - mean) / std
    with torch.no_grad():
        last = encoder.maps(torch.from_numpy(image)[None])[-1]
        inside = mask_logits > 0
        step = image.shape[1] // inside.shape[1]
        inside[:, -(-height // step) :] = False
        inside[:, :, -(-width // step) :] = False
        cells = inside.reshape(len(inside), last.shape[2], -1, last.shape[3], inside.shape[2] // last.shape[3])
        shares = cells.mean((2, 4))
        regions = encoder.embed(last, torch.from_numpy(shares)[None].float())[0].double().numpy()
    cosines = regions @ table.vectors.double().numpy().T
    second = softmax(float(encoder.logit_scale.exp()) * cosines)
    first = softmax(own_logits[:, :-1])
    share = np.where(table.seen.numpy(), 0.4, 0.8)
    mixed = first ** (1 - share) * second**share
    mixed = np.where(shares.sum((1, 2))[:, None] > 0, mixed / mixed.sum(-1, keepdims=True), first)
    return np.concatenate([(1 - p[:, -1:]) * mixed, p[:, -1:]], axis=-1)


@torch.no_grad()
def both(model, sample):
    """The model's own class logits, those with CLIP, and the mask logits, of one image."""
    images = model.preprocess([sample])
    own, masks = model.predict(images)
    return own[0], reclassified(model, own, masks, images)[0], masks[0]


@pytest.mark.parametrize("architecture", METHODS)
def test_the_models_own_probabilities_are_joined_with_clips(architecture, model_options, with_clip, sample):
    """D2Zero's logits are divided by a temperature before its softmax; the others are logits of a softmax."""
    (_, file), opts = model_options(architecture)
    model = Predictor(load_config(file, [*opts, *with_clip(architecture)])).model
    own, joined, masks = both(model, sample)
    scale = 0.2 if architecture == "D2Zero" else 1.0
    assert model.inverse_temperature == scale
    want = expected(model, sample, scale * own.double().numpy(), masks.numpy().copy(), model.second_classifier.table)
    np.testing.assert_allclose((scale * joined).softmax(-1).numpy(), want, atol=1e-6)
    if architecture == "D2Zero":  # the scores of instances are these, too
        scores, queries, labels = model.instance_rule().pairs(joined)
        np.testing.assert_allclose(scores.numpy(), want[queries.numpy(), labels.numpy()], atol=1e-6)


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_on_unseen_classes_alone_only_these_compete(architecture, model_options, with_clip, sample, drawn):
    """A share of the probability that went to classes which cannot be predicted would be lost."""
    (_, file), opts = model_options(architecture)
    opts = [
        *opts,
        "DATASETS.TRAIN",
        "tools_mini_train_instance",
        "DATASETS.TEST",
        "tools_mini_val_instance_unseen_only",
    ]
    opts += ["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "False", "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", "False"]
    opts += ["MODEL.MASK_FORMER.TEST.GENERALIZED", "False"] if architecture == "D2Zero" else []
    cfg = load_config(file, [*opts, *with_clip(architecture)])
    model = build_model(cfg).eval()
    model.set_test_metadata(MetadataCatalog.get(cfg.DATASETS.TEST[0]))
    own, joined, _ = both(model, sample)
    names, scale = model.output_names(), model.inverse_temperature
    assert joined.shape[1] == own.shape[1] == len(names) + 1
    p = (scale * joined).softmax(-1).numpy()
    unseen = np.array([name in drawn.unseen for name in names])
    assert p[:, :-1][:, ~unseen].max(initial=0) == 0 and np.isfinite(p).all() and p[:, :-1].sum() > 0
    _, _, labels = model.instance_rule().pairs(joined)
    assert labels.max() < sum(unseen)


@pytest.mark.parametrize("architecture", METHODS)
def test_without_a_share_nothing_changes(architecture, model_options, with_clip, sample):
    (_, file), opts = model_options(architecture)
    keys = {"MODEL__FROZENCLIP__ALPHA": 0.0, "MODEL__FROZENCLIP__BETA": 0.0}
    model = Predictor(load_config(file, [*opts, *with_clip(architecture, "resnet", **keys)])).model
    own, joined, _ = both(model, sample)
    scale = model.inverse_temperature
    torch.testing.assert_close((scale * joined).softmax(-1), (scale * own).softmax(-1))


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_new_words_are_encoded_by_clip_not_by_the_models_source(
    architecture, model_options, with_clip, clips, drawn, sample, tmp_path
):
    (_, file), opts = model_options(architecture)
    predictor = Predictor(load_config(file, [*opts, *with_clip(architecture)]))
    before = predictor.model([dict(sample)])[0]["instances"].scores
    vectors = np.random.RandomState(4).randn(len(WORDS), 32).astype(np.float32)
    save_class_embeddings(tmp_path / "words.npz", WORDS, vectors, embedding_source(drawn.vectors)[0])
    space = predictor.set_vocabulary("zebra; plain disc; lamp", embeddings=tmp_path / "words.npz")
    table = predictor.model.second_classifier.table
    want = clip_embeddings(list(WORDS), str(clips.convnext), templates=("a photo of a {}.",))
    for word, vector in zip(WORDS, want, strict=True):
        torch.testing.assert_close(table.vectors[space.class_names.index(word)], vector, rtol=1e-5, atol=1e-6)
    assert [name for name, seen in zip(space.class_names, table.seen, strict=True) if seen] == ["plain disc"]
    own, joined, masks = both(predictor.model, sample)
    scale = predictor.model.inverse_temperature
    want = expected(predictor.model, sample, scale * own.double().numpy(), masks.numpy().copy(), table)
    np.testing.assert_allclose((scale * joined).softmax(-1).numpy(), want, atol=1e-6)
    predictor.set_vocabulary(None)
    assert torch.equal(predictor.model([dict(sample)])[0]["instances"].scores, before)
    assert set(ClassSpace.of(predictor.metadata).class_names) <= set(drawn.classes)


def test_evaluation_with_it_and_a_checkpoint_without_it(model_options, with_clip, tmp_path):
    (_, file), opts = model_options("PADing")
    cfg = load_config(file, [*opts, *with_clip("PADing"), "OUTPUT_DIR", str(tmp_path)])
    model = Predictor(cfg).model
    assert not [key for key in model.state_dict() if "encoder.visual" in key or "second" in key]
    results = Trainer.test(cfg, model)
    assert {"PQ_hm"} <= set(results["panoptic_seg"])
    with pytest.raises(UserError, match="exported models cannot run"):
        check_outputs(model, ["panoptic"])


def test_test_time_augmentation_joins_in_each_view(model_options, with_clip, drawn):
    (_, file), opts = model_options("PADing")
    views = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "[64, 96]", "TEST.AUG.FLIP", "True"]
    result = Predictor(load_config(file, [*opts, *with_clip("PADing"), *views]))(read_rgb(drawn.images[0]))
    assert result["sem_seg"].isfinite().all() and result["instances"].scores.isfinite().all()


def test_images_in_the_order_blue_green_red_give_the_same(model_options, with_clip, sample):
    (_, file), opts = model_options("MaskFormer")
    joined, logits, masks = [], None, None
    for order in ("RGB", "BGR"):
        model = Predictor(load_config(file, [*opts, *with_clip("MaskFormer"), "INPUT.FORMAT", order])).model
        pixels = sample["image"] if order == "RGB" else sample["image"].flip(0)
        images = model.preprocess([{"image": pixels}])
        with torch.no_grad():
            if logits is None:
                logits, masks = model.predict(images)
            joined.append(reclassified(model, logits, masks, images))
    torch.testing.assert_close(joined[0], joined[1], rtol=1e-4, atol=1e-4)
