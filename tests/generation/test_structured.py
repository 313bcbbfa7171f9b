"""The generator's objective: its factors, its gradients, and the order in which random numbers are drawn."""

from types import SimpleNamespace

import torch
from torch.nn import functional as F

from PADing.config import load_config
from PADing.generation import PrimitiveGenerator
from PADing.generation.feature_generator import GeneratorStep
from PADing.generation.structured import GENERATOR_TERMS

WIDTH, VECTOR, CLASSES, SEEN = 8, 5, 6, 4


def generator(weights=(0.0001, 1.0, 1.0, 1.0)):
    """A primitive generator without chance."""
    keys = {"HIDDEN_DIM": WIDTH, "NHEADS": 2, "TRANS_MEMORY_NUM_QUERY": 7, "TRANS_NUM_LAYER": 2, "NOISE": False}
    keys |= dict(zip(("STRUCTURE_WEIGHT", "WEIGHT_1", "WEIGHT_2", "WEIGHT_3"), weights, strict=True))
    keys |= {"TRANS_DROP_RATE": 0.0, "DROP_OUT_ED": 0.0}
    opts = [item for key, value in keys.items() for item in (f"MODEL.MASK_FORMER.{key}", value)]
    torch.manual_seed(0)
    return PrimitiveGenerator(load_config("", opts).MODEL.MASK_FORMER, VECTOR)


def terms_of(network, labels, classification=0.001, seed=1):
    torch.manual_seed(seed)
    embeddings = torch.randn(CLASSES, VECTOR)
    tables = {"embeddings": embeddings, "row": torch.arange(CLASSES), "unseen_embeddings": embeddings[SEEN:]}
    classes = SimpleNamespace(**tables)
    features, classifier = torch.randn(len(labels), WIDTH), torch.randn(CLASSES + 1, WIDTH)

    def term(generated, of):
        return classification * F.cross_entropy(generated @ classifier.T, of)

    return network.terms(GeneratorStep(features, labels, classes, term))


def test_total_is_the_weighted_sum_of_its_terms():
    """The factors inside the structure loss: thirds, 0.5 halves, 0.2 halves, halves."""
    t = terms_of(generator((0.7, 0.9, 0.6, 0.3)), torch.tensor([0, 2, 2]))
    structure = (
        0.9 * ((t["L_a_s"] + t["L_a_u"] + t["L_a_su"]) / 3 + 0.25 * (t["L_u_s"] + t["L_u_u"]))
        + 0.6 * 0.1 * (t["L_rel_s"] + t["L_rel_u"])
        + 0.3 * 0.5 * (t["L_rec_s"] + t["L_rec_u"])
    )
    torch.testing.assert_close(t["generate_loss"], t["L_G"] + t["L_cls"] + 0.7 * structure)
    assert all(t[name] > 0 for name in GENERATOR_TERMS)


def test_the_classification_term_is_added_as_it_is():
    published, raised = (terms_of(generator(), torch.tensor([0, 2]), factor) for factor in (0.001, 0.5))
    torch.testing.assert_close(raised["L_cls"], 500 * published["L_cls"])
    difference = raised["generate_loss"] - published["generate_loss"]
    torch.testing.assert_close(difference, raised["L_cls"] - published["L_cls"], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(raised[t], published[t]) for t in GENERATOR_TERMS if t != "L_cls")


def test_every_network_receives_a_gradient():
    network = generator((1.0, 1.0, 1.0, 1.0))
    terms_of(network, torch.tensor([0, 1, 3]))["generate_loss"].backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]


def test_batch_without_ground_truth_trains_on_the_unseen_terms_alone():
    """Crops without any annotated object are ordinary; they must neither be NaN nor stop the training."""
    network = generator((1.0, 1.0, 1.0, 1.0))
    terms = terms_of(network, torch.zeros(0, dtype=torch.int64))
    for name in ("L_G", "L_cls", "L_rel_s", "L_u_s", "L_a_s", "L_a_su", "L_rec_s"):
        assert terms[name].item() == 0
    terms["generate_loss"].backward()
    assert torch.isfinite(terms["generate_loss"])
    assert network.generator.layers[0].linear1.weight.grad.abs().sum() > 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


def test_random_draws_come_in_the_published_order(monkeypatch):
    """One Gaussian sample for the seen features, then one for the unseen, whatever else a reader changes."""
    drawn, original = [], torch.randn
    network = generator()
    monkeypatch.setattr(torch, "randn", lambda *size, **options: drawn.append(size) or original(*size, **options))
    terms_of(network, torch.tensor([0, 1, 3]))
    assert [tuple(size[0]) for size in drawn[-2:]] == [(3, WIDTH), (CLASSES - SEEN, WIDTH)]
