"""Rows that need no training: simple baselines, and the limits that show how far a method can get.

All classify the queries of the fold's frozen segmenter. "No object" keeps the probability that the segmenter gives it.
None of the baselines looks at unseen classes, but for their class vectors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from minibench.folds.features import Features
from minibench.folds.regions import region_metrics

__all__ = ["SIMPLE", "Simple", "World"]

CONSE_CLASSES = 10  # of a convex combination, as published
SCALE = 20.0  # of cosines in a softmax
PENALTIES = tuple(10.0**power for power in range(-3, 4))
PARTS = 4  # of the cross-validation over seen classes
PROBE_ITERATIONS, PROBE_BATCH = 500, 1024


@dataclass(frozen=True)
class World:
    """What a row may know beside the features: class vectors (K, e) float64 and unseen classes (K,) bool."""

    vectors: np.ndarray
    unseen: np.ndarray


def conse(features: Features, world: World, seed: int) -> np.ndarray:
    """ConSE (Norouzi et al., ICLR 2014): class vectors of the likeliest seen classes, weighted by their probability.

    The combination is compared with all class vectors by cosine. Returns logits (M, Q, K + 1).
    """
    seen = np.flatnonzero(~world.unseen)
    probability = _softmax(features.val_logits[..., :-1][..., seen].astype(np.float64))
    most = min(CONSE_CLASSES, len(seen))
    least = np.partition(probability, -most, axis=-1)[..., -most, None]
    kept = np.where(probability >= least, probability, 0.0)
    combined = kept @ _unit(world.vectors[seen])
    return _beside_no_object(SCALE * _unit(combined) @ _unit(world.vectors).T, features.val_logits)


def stacking(features: Features, world: World, seed: int) -> np.ndarray:
    """Ridge regression of class vectors on features, then calibrated stacking (Chao et al., ECCV 2016).

    The penalty and the bias on unseen classes are chosen on the training features by cross-validation over seen
    classes: a part of them plays the unseen ones. Returns logits (M, Q, K + 1).
    """
    matched = features.train_classes < len(world.unseen)
    inputs, labels = features.train_features[matched].astype(np.float64), features.train_classes[matched]
    penalty, bias = _calibrated(inputs, labels, world)
    mapped = _ridge(inputs, labels, world.vectors, penalty)(features.val_features.astype(np.float64))
    scores = SCALE * _unit(mapped) @ _unit(world.vectors).T
    scores[..., world.unseen] += bias
    return _beside_no_object(scores, features.val_logits)


def _calibrated(inputs: np.ndarray, labels: np.ndarray, world: World) -> tuple[float, float]:
    """The penalty with the best AUSUC on held-out seen classes, and the bias with the best harmonic mean there."""
    seen = np.flatnonzero(~world.unseen)
    draws = np.random.default_rng(22)
    order, images = draws.permutation(seen), draws.permutation(len(labels))
    tested = np.isin(np.arange(len(labels)), images[: len(labels) // 5])
    found = []
    for penalty in PENALTIES:
        areas, biases = [], []
        for part in range(PARTS):
            hidden = np.isin(np.arange(len(world.unseen)), order[part::PARTS])
            fitted = ~tested & ~hidden[labels]
            judged = tested | hidden[labels]
            mapped = _ridge(inputs[fitted], labels[fitted], world.vectors, penalty)(inputs[judged])
            scores = SCALE * _unit(mapped) @ _unit(world.vectors[seen]).T
            place = np.searchsorted(seen, labels[judged])
            areas.append(region_metrics(scores, place, hidden[seen])["acc_AUSUC"])
            biases.append(_best_bias(scores, place, hidden[seen]))
        found.append((float(np.mean(areas)), penalty, float(np.mean(biases))))
    _, penalty, bias = max(found)
    return penalty, bias


def _best_bias(scores: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> float:
    """The bias with the highest harmonic mean of accuracies, among quantiles of those that change a prediction."""
    change = scores[:, ~unseen].max(1) - scores[:, unseen].max(1)
    candidates = np.quantile(change, np.linspace(0.02, 0.98, 25))
    harmonic = [region_metrics(scores + bias * unseen, labels, unseen)["acc_hm"] for bias in candidates]
    return float(candidates[int(np.argmax(harmonic))])


def _ridge(
    inputs: np.ndarray, labels: np.ndarray, vectors: np.ndarray, penalty: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Least squares of class vectors on standardised inputs; each class has the same weight."""
    mean, spread = inputs.mean(0), inputs.std(0) + 1e-6
    counts = np.bincount(labels, minlength=len(vectors))
    weight = 1 / counts[labels]
    centre = vectors[np.unique(labels)].mean(0)
    x = (inputs - mean) / spread
    gram = (x * weight[:, None]).T @ x + penalty * np.eye(x.shape[1])
    solution = np.linalg.solve(gram, (x * weight[:, None]).T @ (vectors[labels] - centre))
    return lambda values: (values - mean) / spread @ solution + centre


def oracle_probe(features: Features, world: World, seed: int) -> np.ndarray:
    """The frozen segmenter with a linear classifier that is trained on real features of all classes, unseen ones, too.

    No method that trains a linear classifier on generated features can expect more. Returns logits (M, Q, K + 1).
    """
    inputs = [features.train_features.reshape(-1, features.train_features.shape[-1])]
    labels = [features.train_classes.reshape(-1)]
    if len(features.other_features):
        inputs.append(features.other_features.reshape(-1, inputs[0].shape[1]))
        labels.append(features.other_classes.reshape(-1))
    x, y = torch.from_numpy(np.concatenate(inputs)), torch.from_numpy(np.concatenate(labels))
    kinds = len(world.unseen)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.ones(kinds + 1)
    weight[-1] = 0.1  # as in the segmenter's loss
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(x.shape[1], kinds + 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, PROBE_ITERATIONS)
    with torch.enable_grad():
        for _ in range(PROBE_ITERATIONS):
            rows = torch.randint(len(y), (PROBE_BATCH,), generator=generator)
            loss = F.cross_entropy(layer(x[rows]), y[rows], weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return layer(torch.from_numpy(features.val_features)).numpy()


def oracle_label(features: Features, world: World, seed: int) -> np.ndarray:
    """The frozen segmenter's masks with their true names: what segmentation alone leaves to lose.

    A query that has found a segment (``minibench.folds.regions``) gets its class; all others are no object.
    """
    logits = np.zeros(features.val_logits.shape, dtype=np.float32)
    logits[..., -1] = 20
    image, query, label = features.found.T
    logits[image, query, -1] = 0
    logits[image, query, label] = 20
    return logits


def seen_only(features: Features, world: World, seed: int) -> np.ndarray:
    """The segmenter's own class logits: it was trained on seen classes alone."""
    return features.val_logits


@dataclass(frozen=True)
class Simple:
    """A row of ``SIMPLE``: ``limit`` rows are shown in grey and not ranked; ``seeded``: depends on the seed."""

    title: str
    classify: Callable[[Features, World, int], np.ndarray]
    limit: bool = False
    seeded: bool = False


SIMPLE: Mapping[str, Simple] = {
    "conse": Simple("ConSE", conse),
    "stacking": Simple("ridge regression with calibrated stacking", stacking),
    "oracle_probe": Simple("oracle: linear classifier on real features", oracle_probe, limit=True, seeded=True),
    "oracle_label": Simple("oracle: predicted masks, true names", oracle_label, limit=True),
}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def _beside_no_object(scores: np.ndarray, segmenter: np.ndarray) -> np.ndarray:
    """Logits (M, Q, K + 1) float32 of scores (M, Q, K), so that "no object" has the segmenter's probability."""
    nothing = _softmax(segmenter.astype(np.float64))[..., -1:].clip(1e-6, 1 - 1e-6)
    highest = scores.max(-1, keepdims=True)
    total = highest + np.log(np.exp(scores - highest).sum(-1, keepdims=True))
    last = total + np.log(nothing) - np.log1p(-nothing)
    return np.concatenate([scores, last], axis=-1).astype(np.float32)
