"""Invented annotation and predictions: rectangles on a ground with void pixels, and masks that find most of them."""

import numpy as np

from minibench.folds.truth import Truth

SIZE, QUERIES = 32, 9
NAMES = ("thing a", "thing b", "thing c", "thing d", "ground e", "ground f", "ground g")
THINGS = np.array([True] * 4 + [False] * 3)
UNSEEN = np.array([False, True, False, True, False, False, True])


def drawn(seed: int = 0, images: int = 12) -> tuple[Truth, np.ndarray, np.ndarray]:
    """The annotation, class logits (N, Q, K + 1) and mask logits (N, Q, h, w), both float32."""
    draws = np.random.default_rng(seed)
    maps, labels, logits, masks = [], [], [], []
    for _ in range(images):
        own = np.ones((SIZE, SIZE), dtype=np.uint8)
        classes = [int(draws.integers(4, 7))]
        if draws.random() < 0.5:  # a second ground
            own[:, SIZE // 2 :] = 2
            classes.append(4 + (classes[0] - 3) % 3)
        for _ in range(int(draws.integers(1, 4))):
            top, left = draws.integers(0, SIZE - 14, size=2)
            height, width = draws.integers(8, 14, size=2)
            classes.append(int(draws.integers(0, 4)))
            own[top : top + height, left : left + width] = len(classes)
        own[:4, :12] = 0  # void
        kept = [number for number in range(1, len(classes) + 1) if (own == number).any()]
        numbers = np.zeros(len(classes) + 1, dtype=np.uint8)
        numbers[kept] = np.arange(1, len(kept) + 1)
        maps.append(numbers[own])
        labels.append(np.array([classes[number - 1] for number in kept], dtype=np.int64))
        found, scores = _predicted(draws, maps[-1], labels[-1])
        masks.append(found)
        logits.append(scores)
    images_ids = tuple(range(1, images + 1))
    truth = Truth(np.stack(maps), tuple(labels), NAMES, THINGS, UNSEEN, images_ids)
    return truth, np.stack(logits).astype(np.float32), np.stack(masks).astype(np.float32)


def _predicted(draws, own: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    small = SIZE // 4
    masks = draws.normal(-3, 2, size=(QUERIES, small, small))
    logits = draws.normal(0, 1, size=(QUERIES, len(NAMES) + 1))
    logits[:, -1] += 2
    for query in range(QUERIES - 1):
        segment = 1 + query % len(labels)
        share = (own == segment).reshape(small, 4, small, 4).mean((1, 3))
        masks[query] = 10 * (share - 0.5) + draws.normal(0, 1, size=share.shape)
        logits[query, labels[segment - 1]] += draws.choice([4.0, 1.0])
        logits[query, -1] -= 2
    return masks, logits
