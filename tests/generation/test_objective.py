import torch
from torch import nn

from PADing.generation import (
    GENERATOR_TERMS,
    Decoder,
    Encoder,
    GeneratorParts,
    RelationNet,
    StructureWeights,
    generator_terms,
)

WIDTH, VECTOR, CLASSES, SEEN = 8, 5, 6, 4


def networks(seed=0):
    torch.manual_seed(seed)
    layer = nn.TransformerDecoderLayer(WIDTH, 2, 16, dropout=0.0)
    return nn.ModuleDict(
        {
            "projection": nn.Linear(VECTOR, WIDTH),
            "primitives": nn.Embedding(7, WIDTH),
            "generator": nn.TransformerDecoder(layer, 2, nn.LayerNorm(WIDTH)),
            "related": Encoder(0.0, WIDTH),
            "unrelated": Encoder(0.0, WIDTH),
            "relation": RelationNet(WIDTH, WIDTH),
            "decoder": Decoder(0.0, WIDTH),
            "classifier": nn.Linear(WIDTH, CLASSES + 1),
        }
    )


def terms_of(modules, labels, weights=None, seed=1, **options):
    parts = GeneratorParts(**{k: m.weight if k == "primitives" else m for k, m in modules.items()})
    torch.manual_seed(seed)
    vectors = torch.randn(CLASSES, VECTOR)
    return generator_terms(
        parts,
        weights or StructureWeights(),
        real=torch.randn(len(labels), WIDTH),
        class_logit=labels,
        logit_columns=slice(None, 156),
        class_row=labels,
        class_vectors=vectors,
        unseen_vectors=vectors[SEEN:],
        **options,
    )


def test_the_classification_term_has_a_factor_of_its_own():
    """Published as 0.001; another factor changes this term in proportion and no other one."""
    published, raised = (terms_of(networks(), torch.tensor([0, 2]), **o) for o in ({}, {"classification": 0.5}))
    torch.testing.assert_close(raised["L_cls"], 500 * published["L_cls"])
    difference = raised["generate_loss"] - published["generate_loss"]
    torch.testing.assert_close(difference, raised["L_cls"] - published["L_cls"], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(raised[t], published[t]) for t in GENERATOR_TERMS if t != "L_cls")


def test_total_is_the_weighted_sum_of_its_terms():
    """The factors inside the structure loss: thirds, 0.5 halves, 0.2 halves, halves."""
    t = terms_of(networks(), torch.tensor([0, 2, 2]), StructureWeights(0.7, 0.9, 0.6, 0.3))
    structure = (
        0.9 * ((t["L_a_s"] + t["L_a_u"] + t["L_a_su"]) / 3 + 0.25 * (t["L_u_s"] + t["L_u_u"]))
        + 0.6 * 0.1 * (t["L_rel_s"] + t["L_rel_u"])
        + 0.3 * 0.5 * (t["L_rec_s"] + t["L_rec_u"])
    )
    torch.testing.assert_close(t["generate_loss"], t["L_G"] + t["L_cls"] + 0.7 * structure)
    assert all(t[name] > 0 for name in GENERATOR_TERMS)


def test_every_network_receives_a_gradient():
    modules = networks()
    terms_of(modules, torch.tensor([0, 1, 3]), StructureWeights(1.0))["generate_loss"].backward()
    without = [name for name, p in modules.named_parameters() if p.grad is None]
    assert not without


def test_batch_without_ground_truth_trains_on_the_unseen_terms_alone():
    """Crops without any annotated object are ordinary; they must neither be NaN nor stop the training."""
    modules = networks()
    terms = terms_of(modules, torch.zeros(0, dtype=torch.int64), StructureWeights(1.0))
    for name in ("L_G", "L_cls", "L_rel_s", "L_u_s", "L_a_s", "L_a_su", "L_rec_s"):
        assert terms[name].item() == 0
    terms["generate_loss"].backward()
    assert torch.isfinite(terms["generate_loss"])
    assert modules["generator"].layers[0].linear1.weight.grad.abs().sum() > 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in modules.parameters())


def test_random_draws_come_in_the_published_order():
    """One Gaussian sample for the seen embeddings, then one for the unseen, whatever else a reader changes."""
    drawn = []
    original = torch.randn

    def spy(*args, **kwargs):
        result = original(*args, **kwargs)
        drawn.append(tuple(result.shape))
        return result

    modules = networks()
    torch.randn, keep = spy, torch.randn
    try:
        terms_of(modules, torch.tensor([0, 1, 3]))
    finally:
        torch.randn = keep
    assert drawn[-2:] == [(3, WIDTH), (CLASSES - SEEN, WIDTH)]
