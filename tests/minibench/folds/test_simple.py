"""If these fail, the simple baselines and the limits of version 2 are not what their names say."""

import numpy as np
import pytest

from minibench.folds.features import Features
from minibench.folds.simple import SIMPLE, World, conse, oracle_label, oracle_probe, stacking

KINDS, WIDTH, QUERIES = 20, 12, 5
UNSEEN = np.arange(KINDS) % 5 == 4


def _world(seed: int = 0, noise: float = 0.05) -> tuple[Features, World, np.ndarray]:
    """Features that are a linear map of class vectors, with noise; also the true classes of validation queries."""
    draws = np.random.default_rng(seed)
    vectors = draws.normal(size=(KINDS, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centres = vectors @ draws.normal(size=(6, WIDTH))

    def made(images: int, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = draws.choice(classes, size=(images, QUERIES))
        labels[:, -1] = KINDS  # matched with nothing
        features = np.concatenate([centres, np.zeros((1, WIDTH))])[labels]
        return (features + noise * draws.normal(size=features.shape)).astype(np.float32), labels

    train, train_labels = made(80, np.flatnonzero(~UNSEEN))
    other, other_labels = made(60, np.arange(KINDS))
    val, labels = made(40, np.arange(KINDS))
    logits = 12 * (val @ np.concatenate([centres, np.zeros((1, WIDTH))]).T)
    logits[..., :-1][..., UNSEEN] = -5
    logits[:, -1] = np.array([-5.0] * KINDS + [5.0])
    logits[:, :-1, -1] = logits[:, :-1].max(-1) - 5
    place = np.argwhere(labels < KINDS)
    found = np.concatenate([place, labels[labels < KINDS][:, None]], axis=1)
    return (
        Features(
            np.stack([train] * 2, 1), np.stack([train_labels] * 2, 1), other, other_labels, other_labels,
            np.zeros((80, 2, QUERIES), np.float32), np.zeros((60, QUERIES), np.float32), val,
            logits.astype(np.float32), np.zeros((40, QUERIES, 2, 2), np.float32), np.arange(40), found,
        ),
        World(vectors, UNSEEN),
        labels,
    )  # fmt: skip


def _accuracy(logits: np.ndarray, labels: np.ndarray, unseen: bool) -> float:
    chosen = (labels < KINDS) & (np.append(UNSEEN, False)[labels] == unseen)
    return float((logits[chosen].argmax(-1) == labels[chosen]).mean())


def _nothing(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted[..., -1] / shifted.sum(-1)


@pytest.mark.parametrize("name", ["conse", "stacking"])
def test_baselines_keep_the_segmenters_probability_of_no_object(name):
    features, world, _ = _world()
    logits = SIMPLE[name].classify(features, world, 0)
    assert logits.shape == features.val_logits.shape and logits.dtype == np.float32
    np.testing.assert_allclose(_nothing(logits), _nothing(features.val_logits).clip(1e-6, 1 - 1e-6), atol=1e-4)


def test_conse_by_hand():
    """Two seen classes at equal probability give the direction between them, where the unseen class lies."""
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    logits = np.array([[[3.0, 3.0, 9.0, 0.0], [9.0, 0.0, 9.0, 0.0]]], dtype=np.float32)
    features = _world()[0]
    features = Features(**{**features.__dict__, "val_logits": logits})
    found = conse(features, World(vectors, np.array([False, False, True])), 0)
    cosines = (found[0, 0, :3] - found[0, 0, 2]) / 20 + 1
    np.testing.assert_allclose(cosines, [np.sqrt(0.5), np.sqrt(0.5), 1], atol=1e-5)
    assert found[0, 1].argmax() == 0  # its own logit of an unseen class counts for nothing


def test_a_linear_world_is_solved_by_ridge_regression():
    features, world, labels = _world()
    logits = stacking(features, world, 0)
    assert _accuracy(logits, labels, unseen=True) > 0.8 and _accuracy(logits, labels, unseen=False) > 0.8


def test_baselines_see_neither_unseen_features_nor_validation_classes():
    features, world, _ = _world()
    blind = {"other_features": np.nan, "other_classes": 0, "found": 0}
    changed = Features(**{**features.__dict__, **{k: np.full_like(getattr(features, k), v) for k, v in blind.items()}})
    for row in SIMPLE.values():
        if not row.limit:
            np.testing.assert_array_equal(row.classify(features, world, 0), row.classify(changed, world, 0))


def test_the_probe_learns_unseen_classes_from_their_features():
    features, world, labels = _world()
    logits = oracle_probe(features, world, 1)
    assert _accuracy(logits, labels, unseen=True) > 0.9 and _accuracy(logits, labels, unseen=False) > 0.9
    assert (logits[labels == KINDS].argmax(-1) == KINDS).mean() > 0.6
    np.testing.assert_array_equal(logits, oracle_probe(features, world, 1))


def test_true_names_are_given_to_found_segments_alone():
    features, world, labels = _world()
    part = Features(**{**features.__dict__, "found": features.found[::2]})
    logits = oracle_label(part, world, 0)
    image, query, label = part.found.T
    assert (logits[image, query].argmax(-1) == label).all()
    logits[image, query] = features.val_logits[image, query]
    others = np.ones(labels.shape, dtype=bool)
    others[image, query] = False
    assert (logits[others].argmax(-1) == KINDS).all()
