"""The loss of PADing's generator: feature synthesis, disentanglement, and alignment of class relations."""

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.generation.feature_generator import FeatureGenerator, GeneratorStep
from PADing.generation.losses import cosine_similarity, mmd, similarity_kl
from PADing.generation.networks import Decoder, Encoder, RelationNet

# Fixed factors of the published objective; the configurable ones are STRUCTURE_WEIGHT and WEIGHT_1 to 3.
UNRELATED_WEIGHT = 0.5
RELATION_WEIGHT = 0.2

# Suffix s: seen, u: unseen, su: between both. L_a: alignment, L_u: unrelated, L_rel: relation, L_rec: reconstruction.
GENERATOR_TERMS = (
    "L_G", "L_cls", "L_rel_s", "L_rel_u", "L_u_s", "L_a_s", "L_a_u", "L_a_su", "L_u_u", "L_rec_s", "L_rec_u",
)  # fmt: skip
# The order of the networks in the optimizer.
TRAINED = (
    "generator", "fc_projection", "dict_feature", "projection_related", "projection_unrelated", "relation", "decoder",
)  # fmt: skip


class StructuredGenerator(FeatureGenerator):
    """A generator trained to match the distribution of query features and the relations between class embeddings.

    A subclass defines :meth:`make_generator` and :meth:`generate`.
    """

    def __init__(self, node: CfgNode, embedding_width: int) -> None:
        super().__init__(node, embedding_width)
        width, drop_rate = node.HIDDEN_DIM, node.DROP_OUT_ED
        self.disentangle, self.align = node.DISENTANGLE, node.ALIGN
        self.weights = node.STRUCTURE_WEIGHT, node.WEIGHT_1, node.WEIGHT_2, node.WEIGHT_3
        # This order decides the random initial weights.
        self.make_generator(node)
        if self.disentangle:
            self.projection_related = Encoder(drop_rate, width)
            self.projection_unrelated = Encoder(drop_rate, width)
        self.relation = RelationNet(width, width)
        if self.disentangle:
            self.decoder = Decoder(drop_rate, width)

    def make_generator(self, node: CfgNode) -> None:
        """Create the networks that :meth:`generate` uses beside ``fc_projection``."""
        raise NotImplementedError

    def trained_networks(self) -> list[nn.Module]:
        """In the published order; networks of other names come last."""
        children = dict(self.named_children())
        published = [children.pop(name) for name in TRAINED if name in children]
        return published + list(children.values())

    def terms(self, step: GeneratorStep) -> dict[str, Tensor]:
        """All terms of the generator's loss and their weighted sum (PADing Sec. 3.2 and 3.3).

        ``generate_loss = L_G + L_cls + STRUCTURE_WEIGHT * (WEIGHT_1 * (L_align + L_unrel) + WEIGHT_2 * L_relat
        + WEIGHT_3 * L_recon)`` with ``L_align`` the mean of the three alignment terms, ``L_unrel`` half the mean
        of both unrelated terms, ``L_relat`` a fifth of the mean of both relation terms, ``L_recon`` the mean of both
        reconstruction terms. ``L_G`` ignores classes; only ``L_cls`` ties the features generated for a class to
        that class. A term that is switched off is zero. In a batch without ground truth, so is every term that needs
        seen classes.

        Returns:
            ``GENERATOR_TERMS`` (``L_cls`` with its factor, the others without), and ``generate_loss``.
        """
        classes, terms = step.classes, dict.fromkeys(GENERATOR_TERMS, step.query_features.new_zeros(()).float())
        # Seen classes first, then unseen ones: the published order of random draws.
        has_seen = len(step.labels) > 0
        if has_seen:
            keys, row = self.fc_projection(classes.embeddings), classes.row[step.labels]
            seen_queries = keys[row]
            generated = self.generate(seen_queries)
            terms["L_G"] = self.synthesis(generated, step)
            terms["L_cls"] = step.classification(generated, step.labels)
            related, terms["L_u_s"], terms["L_rec_s"] = self._take_apart(generated)
            # The relation net's scores in (0, 1) are used as logits.
            terms["L_rel_s"] = F.cross_entropy(self.relation(related, keys), row)
        queries = self.fc_projection(classes.unseen_embeddings)
        unseen_related, terms["L_u_u"], terms["L_rec_u"] = self._take_apart(self.generate(queries))
        own = torch.arange(len(queries), device=queries.device)
        terms["L_rel_u"] = F.cross_entropy(self.relation(unseen_related, queries), own)
        if self.align:
            terms["L_a_u"] = _alignment(unseen_related, unseen_related, queries, queries)
            if has_seen:
                terms["L_a_s"] = _alignment(related, related, seen_queries, seen_queries)
                terms["L_a_su"] = _alignment(related, unseen_related, seen_queries, queries)
        terms["generate_loss"] = terms["L_G"] + terms["L_cls"] + self._structure(terms)
        return terms

    def synthesis(self, generated: Tensor, step: GeneratorStep) -> Tensor:
        """The term ``L_G`` of features (M, d) generated for the step's labels: MMD of both sets, without classes."""
        return mmd(generated, step.query_features)

    def _take_apart(self, generated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The part (n, d) for the alignment and relation terms, the unrelated term, the reconstruction term."""
        if not self.disentangle:
            return generated, generated.new_zeros(()), generated.new_zeros(())
        related, unrelated = self.projection_related(generated), self.projection_unrelated(generated)
        noise = torch.randn(generated.shape, device=generated.device)
        rebuilt = self.decoder(related, unrelated)
        return related, similarity_kl(unrelated, noise), F.l1_loss(rebuilt, generated)

    def _structure(self, terms: dict[str, Tensor]) -> Tensor:
        total, first, second, third = self.weights
        alignment = (terms["L_a_s"] + terms["L_a_u"] + terms["L_a_su"]) / 3
        unrelated = UNRELATED_WEIGHT * (terms["L_u_s"] + terms["L_u_u"]) / 2
        relation = RELATION_WEIGHT * (terms["L_rel_s"] + terms["L_rel_u"]) / 2
        reconstruction = (terms["L_rec_s"] + terms["L_rec_u"]) / 2
        return total * (first * (alignment + unrelated) + second * relation + third * reconstruction)


def _alignment(a: Tensor, b: Tensor, query_a: Tensor, query_b: Tensor) -> Tensor:
    """KL divergence of the similarities of generated features from those of their projected class embeddings."""
    return similarity_kl(cosine_similarity(a, b), cosine_similarity(query_a, query_b))
