"""The generator's objective: synthesis of seen embeddings, disentanglement, and alignment of class relations."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.generation.losses import cosine_similarity, mmd, similarity_kl
from PADing.generation.networks import generate

# Fixed factors of the published objective; the configurable ones are StructureWeights and ``classification``.
UNRELATED_WEIGHT = 0.5
RELATION_WEIGHT = 0.2

# s: seen, u: unseen, su: between the two. a: alignment, u_: unrelated part, rel: relation, rec: reconstruction.
GENERATOR_TERMS = (
    "L_G", "L_cls", "L_rel_s", "L_rel_u", "L_u_s", "L_a_s", "L_a_u", "L_a_su", "L_u_u", "L_rec_s", "L_rec_u",
)  # fmt: skip


class GeneratorParts(NamedTuple):
    """The modules that the generator step trains, and the classifier that judges their output."""

    projection: nn.Module  # class vector (.., e) -> query (.., d)
    primitives: Tensor | None  # (p, d), see ``generate``
    generator: nn.Module
    related: nn.Module | None  # None with ``unrelated`` and ``decoder``: embeddings are not disentangled
    unrelated: nn.Module | None
    relation: nn.Module | None
    decoder: nn.Module | None
    classifier: nn.Module  # (.., d) -> logits (.., C + 1)


class StructureWeights(NamedTuple):
    """Factors of the structure loss: all of it; alignment and unrelated terms; relation terms; reconstruction terms."""

    total: float = 0.0001
    alignment: float = 1.0
    relation: float = 1.0
    reconstruction: float = 1.0


def generator_terms(
    parts: GeneratorParts,
    weights: StructureWeights | None,
    *,
    align: bool = True,
    classification: float = 0.001,
    real: Tensor,
    class_logit: Tensor,
    logit_columns: slice | Tensor,
    class_row: Tensor,
    class_vectors: Tensor,
    unseen_vectors: Tensor,
) -> dict[str, Tensor]:
    """All terms of the generator's loss and their weighted sum (PADing Sec. 3.2 and 3.3).

    ``generate_loss = L_G + L_cls + total * (alignment * (L_align + L_unrel) + relation * L_relat
    + reconstruction * L_recon)`` with ``L_align`` the mean of the three alignment terms, ``L_unrel`` half the mean of
    both unrelated terms, ``L_relat`` a fifth of the mean of both relation terms, ``L_recon`` the mean of both
    reconstruction terms. A term that is switched off is zero.

    Without ``parts.related`` the alignment and relation terms work on whole embeddings, and there are no unrelated and
    reconstruction terms. Without ``weights`` the generator is fitted by least squares: ``L_G`` is the mean squared
    error to the real embedding of the same row, and there is no structure loss.

    Args:
        parts: the networks.
        weights: factors of the structure loss, or None.
        align: False: no alignment terms.
        classification: factor of ``L_cls``. ``L_G`` compares sets, whatever the classes in them, so this term alone
            ties what is generated for a class to that class.
        real: (M, d) class embeddings of the matched queries, without gradient. M may be 0 (a batch without ground
            truth): every term that needs a seen class is then zero.
        class_logit: (M,) int64, the label of each row among the logits that ``logit_columns`` picks.
        logit_columns: which of the classifier's columns take part in ``L_cls``.
        class_row: (M,) int64, the row of ``class_vectors`` that belongs to each real embedding.
        class_vectors: (k, e) vectors of the classes among which the relation net tells seen embeddings apart.
        unseen_vectors: (U, e).

    Returns:
        float scalars by name: ``GENERATOR_TERMS`` (``L_cls`` with its factor, the others before theirs),
        and ``generate_loss``.
    """
    terms = dict.fromkeys(GENERATOR_TERMS, real.new_zeros((), dtype=torch.float32))

    # Seen classes come first, then the unseen ones: the order of random draws is part of the published procedure.
    has_seen = len(real) > 0
    if has_seen:
        keys = parts.projection(class_vectors)
        seen_queries = keys[class_row]
        fake = generate(parts.generator, parts.primitives, seen_queries)
        terms["L_G"] = F.mse_loss(fake, real) if weights is None else mmd(fake, real)
        terms["L_cls"] = classification * F.cross_entropy(parts.classifier(fake)[:, logit_columns], class_logit)
    if weights is None:
        # Every step needs a gradient, if a zero one: a batch without ground truth still ends in a backward pass.
        nothing = 0.0 if has_seen else 0.0 * parts.projection(unseen_vectors).sum()
        terms["generate_loss"] = terms["L_G"] + terms["L_cls"] + nothing
        return terms

    if has_seen:
        related, terms["L_u_s"], terms["L_rec_s"] = _disentangle(parts, fake)
        # The relation net's scores, already between 0 and 1, serve as logits.
        terms["L_rel_s"] = F.cross_entropy(parts.relation(related, keys), class_row)
    queries = parts.projection(unseen_vectors)
    fake = generate(parts.generator, parts.primitives, queries)
    unseen_related, terms["L_u_u"], terms["L_rec_u"] = _disentangle(parts, fake)
    own = torch.arange(len(queries), device=queries.device)
    terms["L_rel_u"] = F.cross_entropy(parts.relation(unseen_related, queries), own)
    if align:
        terms["L_a_u"] = _alignment(unseen_related, unseen_related, queries, queries)
        if has_seen:
            terms["L_a_s"] = _alignment(related, related, seen_queries, seen_queries)
            terms["L_a_su"] = _alignment(related, unseen_related, seen_queries, queries)

    terms["generate_loss"] = terms["L_G"] + terms["L_cls"] + weights.total * _structure(terms, weights)
    return terms


def _disentangle(parts: GeneratorParts, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(the part (n, d) that alignment and relation terms work on, unrelated term, reconstruction term)."""
    if parts.related is None:
        return fake, fake.new_zeros(()), fake.new_zeros(())
    related, unrelated = parts.related(fake), parts.unrelated(fake)
    noise = torch.randn(fake.shape, device=fake.device)
    rebuilt = parts.decoder(related, unrelated)
    return related, similarity_kl(unrelated, noise), F.l1_loss(rebuilt, fake)


def _alignment(a: Tensor, b: Tensor, query_a: Tensor, query_b: Tensor) -> Tensor:
    """How far the similarities between generated embeddings are from those between their class queries."""
    return similarity_kl(cosine_similarity(a, b), cosine_similarity(query_a, query_b))


def _structure(terms: dict[str, Tensor], weights: StructureWeights) -> Tensor:
    alignment = (terms["L_a_s"] + terms["L_a_u"] + terms["L_a_su"]) / 3
    unrelated = UNRELATED_WEIGHT * (terms["L_u_s"] + terms["L_u_u"]) / 2
    relation = RELATION_WEIGHT * (terms["L_rel_s"] + terms["L_rel_u"]) / 2
    reconstruction = (terms["L_rec_s"] + terms["L_rec_u"]) / 2
    return (
        weights.alignment * (alignment + unrelated)
        + weights.relation * relation
        + weights.reconstruction * reconstruction
    )
