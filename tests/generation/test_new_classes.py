"""Rows of new classes; wrong here means that a class depends on its neighbours, or that the fit is none."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from PADing.generation.new_classes import EVIDENCE, NEGATIVES, POSITIVES, RowFitter, generated_features

CLASSES, WIDTH, EMBEDDING, FAVOUR = 5, 6, 4, 3.0


class Generator(nn.Module):
    """A linear map with noise."""

    def __init__(self):
        super().__init__()
        self.fc_projection = nn.Linear(EMBEDDING, WIDTH)

    def generate(self, queries):
        return 3 * queries + 0.3 * torch.randn(queries.shape)


@pytest.fixture
def parts():
    torch.manual_seed(1)
    return Generator(), nn.Linear(WIDTH, CLASSES + 1), torch.randn(CLASSES, EMBEDDING), torch.tensor([1, 3])


def features(generator, embedding, count):
    return generated_features(generator, embedding[None], count).numpy()


def test_the_row_is_the_minimum_of_the_stated_loss(parts):
    """Against a general optimiser on the loss written out in NumPy."""
    generator, classifier, embeddings, learned = parts
    fitter, embedding = RowFitter(*parts, FAVOUR), torch.randn(EMBEDDING, generator=torch.Generator().manual_seed(2))
    rows = np.concatenate([classifier.weight.detach().numpy(), classifier.bias.detach().numpy()[:, None]], 1).astype(
        float
    )
    mean, variance = rows[learned].mean(0), rows[learned].var(0, ddof=1)
    variance = np.array([variance[:-1].mean()] * WIDTH + [variance[-1]])
    own = features(generator, embedding, POSITIVES)
    others = np.concatenate([features(generator, e, NEGATIVES) for e in embeddings])

    def loss(row):
        def log_shares(x):  # of the new class, and of the model's own classes with "no object"
            new, old = x @ row, np.log(np.exp(x @ rows.T).sum(1))
            total = np.logaddexp(new, old)
            return (new - total).sum(), (old - total).sum()

        groups = np.split(others, len(embeddings))
        weights = [FAVOUR if i in learned else 1.0 for i in range(len(groups))]
        lost = sum(weight * log_shares(group)[1] for weight, group in zip(weights, groups, strict=True))
        error = -EVIDENCE * (FAVOUR**2 / POSITIVES * log_shares(own)[0] + lost / NEGATIVES)
        return error + ((row - mean) ** 2 / variance / 2).sum()

    best = minimize(loss, mean, options={"gtol": 1e-6})
    assert fitter.fit(embedding).numpy() == pytest.approx(best.x, abs=2e-4)


def test_a_new_class_is_told_from_the_own_ones(parts):
    generator, classifier, embeddings, learned = parts
    with torch.no_grad():  # a classifier that knows its own classes
        centres = 3 * generator.fc_projection(embeddings)
        classifier.weight[:-1], classifier.weight[-1] = centres, 0.0
        classifier.bias[:-1] = -(centres**2).sum(1) / 2
    embedding = 2 * torch.randn(EMBEDDING, generator=torch.Generator().manual_seed(3))
    row = RowFitter(generator, classifier, embeddings, learned, FAVOUR).fit(embedding)
    with torch.no_grad():
        for wanted, vector in [(CLASSES + 1, embedding), *enumerate(embeddings)]:
            x = generator.generate(generator.fc_projection(vector.expand(200, -1)))
            logits = torch.cat([classifier(x), (x @ row[:-1] + row[-1])[:, None]], 1)
            assert (logits.argmax(1) == wanted).float().mean() > 0.9


def test_a_row_depends_on_its_embedding_alone(parts):
    """Not on the order, on the other new classes, or on the state of the random generator, which is left as it was."""
    fitter, vectors = RowFitter(*parts, FAVOUR), torch.randn(3, EMBEDDING)
    first = [fitter.fit(vector) for vector in vectors]
    torch.manual_seed(77)
    state = torch.get_rng_state()
    again = RowFitter(*parts, FAVOUR)
    assert all(torch.equal(again.fit(vectors[i]), first[i]) for i in (2, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_equal_rows_and_equal_features_have_a_fit(parts):
    """An untrained classifier, a generator without noise: the variance of the prior is zero, the data are collinear."""
    generator, classifier, embeddings, _ = parts
    zero = nn.Linear(WIDTH, CLASSES + 1)
    nn.init.zeros_(zero.weight), nn.init.zeros_(zero.bias)
    for learned in (torch.tensor([], dtype=torch.int64), torch.tensor([2])):
        assert RowFitter(generator, zero, embeddings, learned, FAVOUR).fit(embeddings[0]).isfinite().all()
