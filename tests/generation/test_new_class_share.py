"""New classes together take a limited share of the known ones; wrong here means that a long vocabulary drowns them."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import expit, logsumexp
from torch import nn

from PADing.generation.new_class_share import lowered, samples_per_class
from PADing.generation.new_classes import generated_features, vocabulary_rows

KNOWN, WIDTH, FEATURES, SHARE = 7, 12, 84, 0.2


@pytest.fixture
def world():
    """Rows of known classes (and of "no object"), features of these classes, and a function that makes new rows."""
    random = torch.Generator().manual_seed(3)
    centres = 2 * torch.randn(KNOWN, WIDTH, generator=random)
    known = torch.cat([torch.cat([centres, torch.zeros(1, WIDTH)]), torch.zeros(KNOWN + 1, 1)], dim=1)
    known[:-1, -1] = -(centres**2).sum(1) / 2
    noise = torch.randn(FEATURES, WIDTH, generator=random)
    features = torch.cat([centres.repeat_interleave(FEATURES // KNOWN, 0) + noise, torch.ones(FEATURES, 1)], dim=1)

    def new(count: int):
        centres = 2 * torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(count))
        return torch.cat([centres, 6 - (centres**2).sum(1, keepdim=True) / 2], dim=1)  # 6: an advantage

    return known, features.double(), new


def log_odds(rows, known, features):
    rows, known, features = (x.double().numpy() for x in (rows, known, features))
    return features @ rows.T - logsumexp(features @ known.T, axis=1)[:, None]


def taken(odds):
    """The mean probability of the new classes, from their log odds (n, N)."""
    return expit(logsumexp(odds, axis=1)).mean()


@pytest.mark.parametrize(("count", "raised"), [(1, 0), (2, 0), (30, 0), (1000, 0), (1, 40), (3, 20)])
def test_the_lowering_solves_the_stated_equation(world, count, raised):
    """Against a root finder on the formula in NumPy; a row with a far too large bias is lowered by all of it."""
    known, features, new_rows = world

    def new(count):
        rows = new_rows(count)
        rows[:, -1] += raised
        return rows

    odds = log_odds(new(count), known, features)
    height = np.log(np.exp(odds).mean(0))
    result = lowered(new(count), known, features, SHARE)
    if taken(odds) <= SHARE:
        assert not raised
        assert torch.equal(result, new(count))
        return

    def too_much(t):
        return taken(odds - np.maximum(0, height + t)) - SHARE

    t = brentq(too_much, -60, np.log(count / SHARE), xtol=1e-12)
    assert t <= np.log(count / SHARE)
    lowering = (new(count) - result)[:, -1].numpy()
    assert lowering == pytest.approx(np.maximum(0, height + t), abs=1e-5)
    assert taken(log_odds(result, known, features)) == pytest.approx(SHARE, abs=1e-6)


def test_few_new_classes_keep_their_rows_and_many_are_lowered(world):
    known, features, new = world
    for count, changed in ((1, False), (2, False), (1000, True)):
        assert (taken(log_odds(new(count), known, features)) > SHARE) == changed
        assert torch.equal(lowered(new(count), known, features, SHARE), new(count)) != changed
    near = torch.nn.functional.pad(known[:1, :-1], (0, 1))  # takes one class; the least change of its bias would show
    odds = log_odds(near, known, features)
    assert taken(odds) < 0.5 and np.exp(odds).mean() > 1
    assert torch.equal(lowered(near, known, features, 0.5), near)


def test_known_classes_are_recognised_among_a_thousand_new_ones(world):
    known, features, new = world
    labels = torch.arange(KNOWN).repeat_interleave(FEATURES // KNOWN)

    def right(rows):
        logits = features @ torch.cat([known, rows]).double().T
        return (logits.argmax(1) == labels).double().mean()

    assert right(new(1000)) < 0.3 and right(lowered(new(1000), known, features, SHARE)) > 0.75


def test_only_biases_change_and_no_row_is_raised(world):
    known, features, new = world
    rows = new(1000)
    rows[0, -1] = -100  # claims nothing
    copies = known.clone(), rows.clone()
    result = lowered(rows, known, features, SHARE)
    assert torch.equal(known, copies[0]) and torch.equal(rows, copies[1])
    assert torch.equal(result[:, :-1], rows[:, :-1]) and (result[:, -1] <= rows[:, -1]).all()
    assert result[0, -1] == -100


def test_the_order_changes_no_bit(world):
    known, features, new = world
    for count in (2, 1000):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
        first = lowered(new(count), known, features, 0.05)
        assert torch.equal(lowered(new(count)[order], known, features, 0.05), first[order])


def test_nothing_is_lowered_without_known_classes_or_with_the_whole_share(world):
    known, features, new = world
    assert torch.equal(lowered(new(1000), known, features, 1.0), new(1000))
    assert torch.equal(lowered(new(1000), known[-1:], features[:0], SHARE), new(1000))
    assert lowered(new(0), known, features, SHARE).shape == (0, WIDTH + 1)


def test_features_are_bounded_for_long_lists_of_known_classes():
    assert [samples_per_class(n) for n in (0, 1, 24, 133, 5000)] == [32, 32, 32, 5, 4]


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc_projection = nn.Linear(4, 6)

    def generate(self, queries):
        return 3 * queries + torch.randn(queries.shape)


class Tables:
    missing, favour, unseen = "", 3.0, torch.tensor([1, 3])

    def __init__(self):
        self.vectors = torch.randn(5, 4)

    def all_embeddings(self):
        return self.vectors


class Words:
    """A vocabulary: positions of known classes, -1 for new ones, and all class embeddings."""

    def __init__(self, tables, kept, vectors):
        self.kept, self.state = kept, {}
        vectors = iter(vectors)
        self.embeddings = torch.stack([tables.vectors[i] if i >= 0 else next(vectors) for i in kept])


def test_rows_of_a_vocabulary():
    """Known rows are copies bit by bit, known classes that are named are protected, and state keeps the fitted rows."""
    torch.manual_seed(5)
    generator, classifier, tables, vectors = Generator(), nn.Linear(6, 6), Tables(), torch.randn(40, 4)

    def rows(kept, vectors, share):
        words = Words(tables, kept, vectors)
        weight, bias = vocabulary_rows(words, generator, classifier, tables, share)
        return torch.cat([weight, bias[:, None]], dim=1), words

    kept = (3, *[-1] * 40, 0)
    found, words = rows(kept, vectors, 0.1)
    whole = torch.cat([classifier.weight, classifier.bias[:, None]], dim=1).detach()
    assert torch.equal(found[[0, -2, -1]], whole[[3, 0, 5]])
    fitted = words.state["rows"]
    assert torch.equal(rows(kept, vectors, 1.0)[0][1:-2], fitted)
    features = generated_features(generator, tables.vectors[[0, 3]], 32)
    assert torch.equal(found[1:-2], lowered(fitted, whole[[0, 3, 5]], features, 0.1)) and not found[1:-2].equal(fitted)
    order = torch.randperm(40)
    again = rows((0, *[-1] * 40, 3), vectors[order], 0.1)[0]
    assert torch.equal(again[1:-2], found[1:-2][order])
    assert torch.equal(rows((-1,) * 40, vectors, 0.1)[0][:-1], fitted)  # no known class is named
    weight, bias = vocabulary_rows(words, generator, classifier, tables, 0.1)  # from the rows in state
    assert torch.equal(torch.cat([weight, bias[:, None]], dim=1), found)
