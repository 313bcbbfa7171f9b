"""The map of embeddings must show what the classifier of PADing saw, not something that looks like it."""

import json
import os

import numpy as np
import pytest
import torch

from minibench import analysis
from minibench.report.embeddings import ANALYSIS, analysis_is_fresh
from minibench.report.predictions import open_validation
from PADing.config import load_config
from PADing.errors import UserError
from PADing.inference import load_model
from tests.minibench.benchmark_folder import DATA, draw_data

CONFIG = "configs/mini/panoptic-PADing.yaml"
SMALL = ["MODEL.MASK_FORMER.DEC_LAYERS", "2", "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A benchmark folder with one untrained PADing run."""
    from detectron2.modeling import build_model

    import PADing.meta_arch  # noqa: F401  registers the meta-architectures

    folder = tmp_path_factory.mktemp("benchmark")
    data = draw_data(folder)
    out = folder / "run"
    out.mkdir()
    cfg = load_config(CONFIG, [*SMALL, "MODEL.CLASS_EMBEDDINGS", str(data / "class_vectors.npz")])
    (out / "config.yaml").write_text(cfg.dump())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(cfg)
    torch.save({"model": model.state_dict()}, out / "model_final.pth")
    return folder


def _model(folder, *opts):
    vectors = str(folder / DATA / "mini" / "class_vectors.npz")
    weights = str(folder / "run" / "model_final.pth")
    return load_model(load_config(CONFIG, [*SMALL, "MODEL.WEIGHTS", weights, "MODEL.CLASS_EMBEDDINGS", vectors, *opts]))


@pytest.fixture(scope="module")
def content(folder):
    path = analysis.analyse(folder / "run", folder / DATA, samples=30)
    with np.load(path) as archive:
        return dict(archive)


def test_every_annotated_segment_has_its_embedding(folder, content):
    truth = json.loads((folder / DATA / "mini" / "annotations" / "panoptic_val.json").read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    expected = sorted(names[s["category_id"]] for item in truth["annotations"] for s in item["segments_info"])
    assert sorted(content["names"][content["real_class"]]) == expected
    assert content["real"].shape == (len(expected), 64)


def test_real_features_are_those_of_queries_on_these_images(folder, content):
    model = _model(folder)
    validation = open_validation(folder / "run", folder / DATA)
    cfg = load_config(CONFIG)
    sample = next(analysis._samples(cfg, validation, 1))
    with torch.no_grad():
        queries = model.segment(model.preprocess([sample]))["pred_embed"][0]
    # The first image's segments come first; each has one of its queries, and no two the same.
    own = torch.from_numpy(content["real"][: len(sample["instances"])])
    distance = torch.cdist(own, queries)
    assert distance.min(dim=1).values.max() < 1e-4
    assert len(set(distance.argmin(dim=1).tolist())) == len(own)


def test_generated_features_are_those_of_unseen_classes_in_order(folder):
    # Without noise and dropout, the generator's answer for one class is always the same.
    model = _model(folder, "MODEL.MASK_FORMER.NOISE", "False", "MODEL.MASK_FORMER.TRANS_DROP_RATE", "0.0")
    fake = analysis.generated_features(model, samples=3)
    assert fake.shape == (6, 3, 64)
    np.testing.assert_allclose(fake[:, 0], fake[:, 2], atol=1e-5)
    with torch.no_grad():
        for row, vector in zip(fake, model.classes.unseen_embeddings, strict=True):
            query = model.fc_projection(vector)[None, None]
            alone = model.generator(query, model.dict_feature.weight[:, None]).reshape(-1)
            np.testing.assert_allclose(row[0], alone.numpy(), atol=1e-5)
    assert len(np.unique(fake[:, 0].round(4), axis=0)) == 6
    assert not model.generator.training


def test_samples_differ_as_in_training(content):
    samples = content["generated"].reshape(6, 30, 64)
    assert samples.std(axis=1).min() > 0
    assert content["generated_class"].tolist() == np.repeat(content["unseen"], 30).tolist()
    names = {"striped disc", "dotted bar", "checkered triangle", "plain star", "teal waves", "brown sand"}
    assert set(content["names"][content["unseen"]]) == names


def test_it_is_repeatable_and_leaves_the_random_state_alone(folder, content):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    path = analysis.analyse(folder / "run", folder / DATA, images=1, samples=30)
    assert torch.equal(before, torch.random.get_rng_state())
    with np.load(path) as again:
        assert again["real"].shape[0] < content["real"].shape[0]
        np.testing.assert_array_equal(again["real"], content["real"][: len(again["real"])])


def test_it_is_done_again_only_when_the_weights_are_newer(folder, content, monkeypatch):
    run = folder / "run"
    arguments = [str(run), "--data", str(folder / DATA)]
    calls = []
    monkeypatch.setattr(analysis, "analyse", lambda *given: calls.append(given))
    assert analysis.main(arguments) == 0
    assert analysis_is_fresh(run) and not calls
    later = (run / ANALYSIS).stat().st_mtime + 10
    os.utime(run / "model_final.pth", (later, later))
    assert analysis.main(arguments) == 0
    assert not analysis_is_fresh(run) and calls == [(run, folder / DATA, analysis.IMAGES)]


def test_a_model_that_generates_nothing_is_refused(folder, tmp_path):
    from detectron2.modeling import build_model

    cfg = load_config("configs/mini/panoptic-pretrain.yaml", SMALL)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model_final.pth")
    with pytest.raises(UserError, match="not a PADing run"):
        analysis.analyse(tmp_path, folder / DATA)
