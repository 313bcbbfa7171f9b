"""If these fail, second stages train on other features than the segmenter's, or are scored on other images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from minibench.folds.diagnose import Gradients, feature_norms, unseen_only, weighted
from minibench.folds.features import check_order, compute, frozen_model, mapped, read_features, write_features
from minibench.folds.second import _Average, _batches, _Matches, predict, train
from minibench.folds.truth import read_truth
from PADing.config import load_config
from PADing.data.dataset_mappers import build_mapper
from PADing.data.mini_v2.files import make_world
from PADing.data.registration import register_split
from PADing.data.splits import split_from_dict
from PADing.engine.loss_values import Diverged
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.files import REPOSITORY

CONFIG = REPOSITORY / "configs" / "mini" / "panoptic-PADing.yaml"
SMALL = [
    "MODEL.SEM_SEG_HEAD.CONVS_DIM",
    "32",
    "MODEL.SEM_SEG_HEAD.MASK_DIM",
    "32",
    "MODEL.MASK_FORMER.HIDDEN_DIM",
    "32",
]
SMALL += ["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "1", "MODEL.MASK_FORMER.DEC_LAYERS", "2"]
TRAIN, VAL = 24, 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Fold 1 and the split without unseen classes, with few images and names of their own."""
    root = tmp_path_factory.mktemp("folds")
    make_world("test", root / "mini2" / "test", train=TRAIN, val=VAL)
    registered = []
    for part in ("fold1", "all"):
        path = REPOSITORY / "datasets" / "splits" / "mini2" / f"test_{part}.yaml"
        content = yaml.safe_load(path.read_text())
        for entry in content["data_sets"]:
            entry["name"] = entry["name"].replace("mini2_test_", "tiny_")
            registered.append(entry["name"])
        register_split(split_from_dict({**content, "name": f"tiny_{part}"}, str(path)), root=str(root))
    yield root / "mini2" / "test"
    for name in registered:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def cfg(data, tmp_path_factory):
    """A second stage on a segmenter with random weights."""
    weights = tmp_path_factory.mktemp("weights") / "weights.pth"
    opts = [*SMALL, "DATASETS.TRAIN", "('tiny_fold1_train_panoptic',)", "DATASETS.TEST", "('tiny_fold1_val_panoptic',)"]
    opts += ["MODEL.CLASS_EMBEDDINGS", str(data / "class_vectors_clip.npz"), "SOLVER.MAX_ITER", "4"]
    opts += ["SOLVER.IMS_PER_BATCH", "3", "OUTPUT_DIR", str(weights.parent), "MODEL.WEIGHTS", str(weights)]
    cfg = load_config(CONFIG, opts)
    torch.manual_seed(3)
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, weights)
    return cfg


@pytest.fixture(scope="module")
def truth(data):
    return read_truth("tiny_fold1_val_panoptic")


@pytest.fixture(scope="module")
def features(cfg, truth, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "features.npz"
    write_features(path, compute(cfg, truth, "tiny_all_train_panoptic"))
    return read_features(path)


def _samples(cfg) -> list[dict]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.RANDOM_FLIP = "none"
    records = get_detection_dataset_dicts(list(cfg.DATASETS.TRAIN), filter_empty=True)
    return mapped(build_mapper(cfg), records)


@torch.no_grad()
def test_cached_features_are_those_of_the_segmenter(cfg, features):
    model, samples = frozen_model(cfg), _samples(cfg)
    model.eval()
    assert len(features.train_features) == len(samples) and len(features.other_features) == TRAIN - len(samples)
    for place, sample in enumerate(samples):
        flipped = {**sample, "image": sample["image"].flip(-1)}
        for mirrored, image in enumerate((sample, flipped)):
            outputs = model.segment(model.preprocess([image]))
            np.testing.assert_allclose(
                features.train_features[place, mirrored], outputs["pred_embed"][0], rtol=1e-3, atol=1e-4
            )
            classes = features.train_classes[place, mirrored]
            wanted = sorted(sample["instances"].gt_classes.tolist())
            assert sorted(classes[classes < 60].tolist()) == wanted


def test_a_fold_trains_on_seen_classes_and_the_oracle_on_others(features, truth):
    own, other = (part[part < 60] for part in (features.train_classes, features.other_classes))
    assert not truth.unseen[own].any() and truth.unseen[other].any()
    unseen_in_each = [(truth.unseen[row[row < 60]]).any() for row in features.other_classes]
    assert all(unseen_in_each)


def test_self_training_sees_seen_segments_of_other_images_alone(features, truth):
    """A label of an unseen class there would be the answer; a mask on nothing annotated must count as free."""
    own = features.other_known
    assert own.shape == features.other_classes.shape and not truth.unseen[own[own < 60]].any()
    seen = [sum(not truth.unseen[c] for c in row[row < 60]) for row in features.other_classes]
    assert [(row < 60).sum() for row in own] == seen
    for covered, shape in (
        (features.train_covered, features.train_classes.shape),
        (features.other_covered, own.shape),
    ):
        assert covered.shape == shape and covered.dtype == np.float32
        finite = covered[np.isfinite(covered)]
        assert 0 <= finite.min() and finite.max() <= 1 + 1e-5
    # Unannotated segments leave pixels free; in the fold's own images only distractors do.
    means = [part[np.isfinite(part)].mean() for part in (features.other_covered, features.train_covered)]
    assert means[0] < means[1]


@torch.no_grad()
def test_cached_inference_is_inference(cfg, features, truth):
    model = frozen_model(cfg).eval()
    model.set_test_metadata(MetadataCatalog.get(cfg.DATASETS.TEST[0]))
    expected = []
    for records in Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]):
        expected.append(model.predict(model.preprocess(records))[0].numpy())
    logits, names = predict(model, cfg, features)
    np.testing.assert_allclose(logits, np.concatenate(expected), rtol=1e-3, atol=1e-4)
    assert names == truth.names and logits.shape == (VAL, 20, 61)


def test_training_repeats_itself_and_leaves_the_segmenter_alone(cfg, features):
    before = frozen_model(cfg).state_dict()
    states = []
    for seed in (1, 1, 2):
        own = cfg.clone()
        own.defrost()
        own.SEED = seed
        states.append(train(own, features).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["new_fc.weight"], states[2]["new_fc.weight"])
    for key, value in before.items():
        if key.startswith(("backbone.", "sem_seg_head.")):
            assert torch.equal(value, states[2][key]), key
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], states[0][key])}
    assert "new_fc" in changed and "generator" in changed


def test_other_images_and_pseudo_labels_are_used_when_they_are_asked_for(cfg, features, truth):
    """A first model that is sure of one class: free unmatched queries get its label, for the classifier alone."""
    unseen = np.flatnonzero(truth.unseen)
    sure = torch.nn.Linear(32, 61)
    sure.weight.data.zero_()
    sure.bias.data.zero_()[unseen[3]] = 20.0
    own, every = _Matches(features, other=False), _Matches(features, other=True)
    assert (own.images, every.images) == (len(features.train_features), TRAIN)
    every.relabel(sure, torch.from_numpy(unseen), 0.5, 0.1)
    place = own.images  # the first other image
    found, given, labels, (_, query) = every([{"place": place, "mirrored": 1}])
    np.testing.assert_array_equal(found[0], features.other_features[0])
    free = (features.other_known[0] == 60) & (features.other_covered[0] <= 0.1)
    np.testing.assert_array_equal(given[0], np.where(free, unseen[3], features.other_known[0]))
    np.testing.assert_array_equal(labels, features.other_known[0][query])
    assert not truth.unseen[labels].any()
    seen: list[int] = []
    model = train(cfg, features, True, sure, lambda model, batch, iteration: seen.append(iteration))
    assert seen == [0, 1, 2, 3]
    assert not torch.equal(model.new_fc.weight, train(cfg, features).new_fc.weight)


def test_looking_at_gradients_changes_no_training_and_sees_the_whole_loss(cfg, features):
    look, plain = Gradients(cfg.SOLVER.MAX_ITER), train(cfg, features)
    looked = train(cfg, features, look=look)
    assert all(torch.equal(value, looked.state_dict()[key]) for key, value in plain.state_dict().items())
    found = look.metrics()
    assert found["gradient_synthesis"] > 0 and found["gradient_alignment"] > 0
    assert found["gradient_structure_share"] == pytest.approx(
        np.mean(look.norms["structure"]) / np.mean(look.norms["others"])
    )
    model = frozen_model(cfg).train()
    model.match = _Matches(features, other=False)
    terms, _, _ = model.generator_terms([{"place": 0, "mirrored": 0}, {"place": 1, "mirrored": 1}])
    parts = weighted(terms, model.feature_generator.weights)
    torch.testing.assert_close(sum(parts.values()), terms["generate_loss"])


def test_norms_and_accuracies_are_those_of_the_features(cfg, features, truth):
    model = train(cfg, features)
    norms = feature_norms(model, features)
    real = features.other_features[np.append(truth.unseen, False)[features.other_classes]]
    assert norms["norm_real_unseen"] == pytest.approx(np.linalg.norm(real, axis=-1).mean(), rel=1e-5)
    assert norms["norm_ratio_unseen"] == pytest.approx(norms["norm_generated_unseen"] / norms["norm_real_unseen"])
    image = np.repeat(np.arange(VAL), 2)
    stuff, things = (np.flatnonzero(truth.unseen & kind)[:2] for kind in (~truth.things, truth.things))
    label = np.tile([stuff[0], things[1]], VAL)
    known = replace(features, found=np.stack([image, np.tile([0, 1], VAL), label], axis=1))
    logits = np.zeros((VAL, 20, 61), np.float32)
    logits[:, 0, stuff[0]] = logits[:3, 1, things[1]] = 1.0
    logits[..., np.flatnonzero(~truth.unseen)] = 9.0  # seen classes do not compete
    logits[3:, 1, things[0]] = 2.0
    assert unseen_only(logits, known, truth) == {"acc_un_only_things": 60.0, "acc_un_only_stuff": 100.0}


def test_a_training_that_diverges_says_so(cfg, features):
    wild = cfg.clone()
    wild.defrost()
    wild.SOLVER.BASE_LR = 1e30
    with pytest.raises(Diverged, match="Lower"):
        predict(train(wild, features), wild, features)


def test_the_average_is_that_of_the_added_values():
    parameter = torch.nn.Parameter(torch.zeros(2))
    average = _Average([parameter])
    for value in (1.0, 4.0, 7.0):
        parameter.data.fill_(value)
        if value > 1:
            average.add()
    average.apply()
    assert parameter.tolist() == [5.5, 5.5]


def test_batches_show_all_images_equally_often_and_half_of_them_mirrored():
    batches = _batches(7, 4, seed=1)
    shown = [sample for _ in range(70) for sample in next(batches)]
    assert np.bincount([sample["place"] for sample in shown]).tolist() == [40] * 7
    assert 0.35 < np.mean([sample["mirrored"] for sample in shown]) < 0.65
    assert next(_batches(7, 4, seed=1)) != next(_batches(7, 4, seed=2))


def test_other_images_and_damaged_files_are_refused(truth, tmp_path):
    check_order(list(truth.images), truth)
    with pytest.raises(UserError, match="another order"):
        check_order(list(truth.images)[::-1], truth)
    (tmp_path / "features.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match="Delete it and run the same command again"):
        read_features(tmp_path / "features.npz")
    with pytest.raises(UserError, match="cannot be read"):
        read_features(tmp_path / "none.npz")


def test_truth_has_distractors_as_void(truth, data):
    import json

    panoptic = json.loads((data / "annotations" / "panoptic_val.json").read_text())
    for number, entry in enumerate(panoptic["annotations"]):
        assert len(truth.labels[number]) == len(entry["segments_info"])
        areas = np.bincount(truth.maps[number].reshape(-1), minlength=len(entry["segments_info"]) + 1)[1:]
        assert areas.tolist() == [segment["area"] for segment in entry["segments_info"]]
    assert (truth.maps == 0).any() and truth.unseen.sum() == 16 and truth.things.sum() == 48
