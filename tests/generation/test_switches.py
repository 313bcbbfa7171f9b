"""PADing with parts of it switched off: what is left in the loss, what is trained, what a checkpoint holds."""

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from PADing.config import load_config
from PADing.engine.recipes import TRAINING_RECIPE_REGISTRY
from PADing.errors import UserError
from PADing.generation.losses import mmd

from .test_pading import CONFIG, batch, build, vectors  # noqa: F401  a fixture

NODE = "MODEL.MASK_FORMER."
# Without dropout and noise a second computation sees the same numbers.
CALM = [NODE + "TRANS_DROP_RATE", 0.0, NODE + "DROP_OUT_ED", 0.0, NODE + "NOISE", False]
STRONG = [NODE + "STRUCTURE_WEIGHT", 0.7, NODE + "WEIGHT_1", 0.9, NODE + "WEIGHT_2", 0.6, NODE + "WEIGHT_3", 0.3]
ALIGNMENT = {"L_a_s", "L_a_u", "L_a_su"}
TAKEN_APART = {"L_u_s", "L_u_u", "L_rec_s", "L_rec_u"}
STRUCTURE = ALIGNMENT | TAKEN_APART | {"L_rel_s", "L_rel_u"}
SEGMENTER = ("backbone", "sem_seg_head", "criterion")

MODULES = {"fc_projection", "relation", "projection_related", "projection_unrelated", "decoder"}
# Overrides; names of the modules that the generator step trains; terms that are left out.
VARIANTS = {
    "primitive": ([], MODULES | {"dict_feature", "generator"}, set()),
    "mlp": ([NODE + "GENERATOR", "mlp"], MODULES | {"generator"}, set()),
    "linear": ([NODE + "GENERATOR", "linear"], {"fc_projection"}, STRUCTURE),
    "whole": ([NODE + "DISENTANGLE", False], {"fc_projection", "relation", "dict_feature", "generator"}, TAKEN_APART),
    "unaligned": ([NODE + "ALIGN", False], MODULES | {"dict_feature", "generator"}, ALIGNMENT),
    "neither": (
        [NODE + "ALIGN", False, NODE + "DISENTANGLE", False],
        {"fc_projection", "relation", "dict_feature", "generator"},
        ALIGNMENT | TAKEN_APART,
    ),
    "plain mlp": (
        [NODE + "GENERATOR", "mlp", NODE + "DISENTANGLE", False],
        {"fc_projection", "relation", "generator"},
        TAKEN_APART,
    ),
}


def unseen_features(model):
    """What is generated for the unseen classes."""
    return model.feature_generator.generate(model.fc_projection(model.classes.unseen_embeddings))


@pytest.fixture(params=VARIANTS)
def variant(request, vectors):  # noqa: F811
    opts, modules, absent = VARIANTS[request.param]
    return build(vectors, *CALM, *STRONG, *opts).train(), modules, absent


def test_loss_trained_parameters_and_checkpoint(variant):
    """A switched-off part must neither weigh on the loss nor lie about in checkpoints and optimizers."""
    model, modules, absent = variant
    before = {name for name, _ in model.named_parameters()}
    assert {name.split(".")[0] for name in before if not name.startswith(SEGMENTER)} == modules | {"new_fc"}
    terms, embeddings, classes = model.generator_terms(batch(model))
    t = {name: term.item() for name, term in terms.items()}
    t = dict.fromkeys(STRUCTURE, 0.0) | t
    assert {name for name in STRUCTURE if t[name] == 0} == absent
    assert t["L_G"] > 0 and t["L_cls"] > 0
    structure = (
        0.9 * ((t["L_a_s"] + t["L_a_u"] + t["L_a_su"]) / 3 + 0.5 * (t["L_u_s"] + t["L_u_u"]) / 2)
        + 0.6 * 0.2 * (t["L_rel_s"] + t["L_rel_u"]) / 2
        + 0.3 * (t["L_rec_s"] + t["L_rec_u"]) / 2
    )
    assert t["generate_loss"] == pytest.approx(t["L_G"] + t["L_cls"] + 0.7 * structure, rel=1e-5)

    terms["generate_loss"].backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in trained if not name.startswith("new_fc")} == {
        name for name in before if name.split(".")[0] in modules
    }
    held = {id(p) for p in model.generator_parameters()}
    assert held == {id(p) for name, p in model.named_parameters() if name.split(".")[0] in modules}
    model.zero_grad()
    model(None, real_embeddings=embeddings, target_classes=classes)["dis_loss"].backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"new_fc.weight", "new_fc.bias"}


def test_whole_steps_change_both_sides_and_the_checkpoint_returns(variant, vectors, request):  # noqa: F811
    """Three iterations of the recipe; a batch without any object among them must not stop a training."""
    model, modules, _ = variant
    recipe = TRAINING_RECIPE_REGISTRY.get("GeneratorClassifier")(load_config(CONFIG), model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with EventStorage():
        for objects in (3, 0, 2):
            recipe.step(model, batch(model, objects=objects), 0.0)
    after = model.state_dict()
    changed = {key.split(".")[0] for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == modules | {"new_fc"}
    opts, _, _ = VARIANTS[request.node.callspec.params["variant"]]
    again = build(vectors, *CALM, *STRONG, *opts)
    again.load_state_dict({key: value.clone() for key, value in after.items()})
    model.eval(), again.eval()
    with torch.no_grad():
        one, two = unseen_features(model), unseen_features(again)
    assert torch.equal(one, two)


def test_linear_generator_is_least_squares(vectors):  # noqa: F811
    """The semantic projection: its loss in numpy from weights, class embeddings and the matched queries."""
    model = build(vectors, NODE + "GENERATOR", "linear", NODE + "GENERATOR_CLS_WEIGHT", "0.25").train()
    inputs = batch(model)
    model.begin_second_stage()
    torch.manual_seed(5)
    embeddings, _, labels, matched = model.match(inputs)
    torch.manual_seed(5)
    terms = model.generator_terms(inputs)[0]
    weight, bias = (p.detach().numpy().astype(np.float64) for p in model.fc_projection.parameters())
    generated = model.classes.embeddings.numpy()[labels.numpy()] @ weight.T + bias
    real = embeddings[matched].numpy()
    assert len(real) == 6
    assert terms["L_G"].item() == pytest.approx(((generated - real) ** 2).mean(), rel=1e-4)
    logits = generated @ model.new_fc.weight.detach().numpy().T + model.new_fc.bias.detach().numpy()
    chosen = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels.numpy()]
    assert terms["L_cls"].item() == pytest.approx(0.25 * chosen.mean(), rel=1e-4)
    assert terms["generate_loss"].item() == pytest.approx(terms["L_G"].item() + terms["L_cls"].item(), rel=1e-6)


def test_linear_generator_draws_nothing(vectors):  # noqa: F811
    model = build(vectors, NODE + "GENERATOR", "linear").train()
    state = torch.get_rng_state()
    first = unseen_features(model)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, model.fc_projection(model.classes.unseen_embeddings))


def test_mlp_generator_by_hand(vectors):  # noqa: F811
    """[query ; noise] -> (Linear, LeakyReLU 0.2) for each of TRANS_NUM_LAYER -> Linear, against the MMD."""
    opts = [NODE + "GENERATOR", "mlp", NODE + "TRANS_DROP_RATE", 0.0, NODE + "TRANS_NUM_LAYER", 3]
    model = build(vectors, *opts)
    queries = torch.randn(4, 64)
    linear = [m for m in model.generator.layers if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(128, 256), (256, 256), (256, 256), (256, 64)]
    torch.manual_seed(2)
    got = model.feature_generator.generate(queries)
    torch.manual_seed(2)
    x = torch.cat([queries, torch.randn(4, 64)], dim=1)
    for m in linear[:-1]:
        x = x @ m.weight.T + m.bias
        x = torch.where(x > 0, x, 0.2 * x)
    torch.testing.assert_close(got, x @ linear[-1].weight.T + linear[-1].bias)
    silent = build(vectors, *opts, NODE + "NOISE", False).generator
    assert silent.layers[0].in_features == 64
    assert torch.equal(silent(queries), silent(queries))


def test_mlp_generator_keeps_the_moment_matching_loss(vectors):  # noqa: F811
    model = build(vectors, *CALM, NODE + "GENERATOR", "mlp").train()
    inputs = batch(model)
    model.begin_second_stage()
    torch.manual_seed(5)
    embeddings, _, labels, matched = model.match(inputs)
    torch.manual_seed(5)
    got = model.generator_terms(inputs)[0]["L_G"]
    generated = model.generator(model.fc_projection(model.classes.embeddings[labels]))
    torch.testing.assert_close(got, mmd(generated, embeddings[matched]))


def test_relations_of_whole_embeddings(vectors):  # noqa: F811
    """DISENTANGLE False: the generated features themselves are aligned and told apart; worked out for unseen ones."""
    model = build(vectors, *CALM, NODE + "DISENTANGLE", False).train()
    terms = model.generator_terms(batch(model))[0]
    queries, generated = model.fc_projection(model.classes.unseen_embeddings), unseen_features(model)

    def distribution(x):
        cosine = F.cosine_similarity(x.unsqueeze(1), x.unsqueeze(0), dim=-1)
        return (cosine / 0.1).softmax(1)

    p, t = distribution(generated), distribution(queries)
    torch.testing.assert_close(terms["L_a_u"], (t * (t / p).log()).mean(), rtol=1e-3, atol=1e-6)
    pairs = torch.stack([torch.stack([torch.cat([f, q]) for q in queries]) for f in generated])
    net = model.relation
    scores = torch.sigmoid(net.fc2(F.relu(net.fc1(pairs)))).squeeze(-1)
    torch.testing.assert_close(terms["L_rel_u"], -scores.log_softmax(1).diagonal().mean())


def test_a_switch_leaves_the_other_terms_alone(vectors):  # noqa: F811
    """ALIGN False must not shift the random draws, or the ablation would compare two different runs."""
    values = []
    for align in (True, False):
        model = build(vectors, NODE + "ALIGN", align).train()
        torch.manual_seed(7)
        values.append(model.generator_terms(batch(model))[0])
    with_, without = values
    for name in set(with_) - ALIGNMENT - {"generate_loss"}:
        assert torch.equal(with_[name], without[name]), name


def draws(model, monkeypatch):
    """How often Gaussian noise is drawn for one set of generated features, and whether two sets are equal."""
    original, count = torch.randn, []
    monkeypatch.setattr(torch, "randn", lambda *a, **k: count.append(1) or original(*a, **k))
    model.eval()
    one, two = (unseen_features(model) for _ in range(2))
    monkeypatch.undo()
    return len(count) / 2, torch.equal(one, two)


@pytest.mark.parametrize(("generator", "expected"), [("primitive", 3), ("mlp", 1)])
def test_noise_is_removed_in_every_layer(vectors, monkeypatch, generator, expected):  # noqa: F811
    opts = [NODE + "GENERATOR", generator, NODE + "TRANS_NUM_LAYER", 3]
    assert draws(build(vectors, *opts), monkeypatch) == (expected, False)
    assert draws(build(vectors, *opts, NODE + "NOISE", False), monkeypatch) == (0, True)


def test_refusals(vectors):  # noqa: F811
    with pytest.raises(UserError, match="GENERATOR is 'gan'.*primitive,.* mlp, linear"):
        build(vectors, NODE + "GENERATOR", "gan")
    with pytest.raises(UserError, match="TRANS_NUM_LAYER is 0.*hidden layer"):
        build(vectors, NODE + "GENERATOR", "mlp", NODE + "TRANS_NUM_LAYER", 0)
