"""The semantic projection: a class's feature is a linear map of its class embedding, fitted by least squares.

``MODEL.MASK_FORMER.GENERATOR linear``. The structure loss is left out; ``NOISE``, ``DISENTANGLE`` and
``ALIGN`` have no effect, and nothing random is drawn.
"""

from torch import Tensor
from torch.nn import functional as F

from PADing.generation.feature_generator import GENERATOR_REGISTRY, FeatureGenerator, GeneratorStep


@GENERATOR_REGISTRY.register("linear")
class SemanticProjection(FeatureGenerator):
    """Mean squared error between projected class embeddings and the query features of their classes."""

    def generate(self, queries: Tensor) -> Tensor:
        """The projected class embeddings themselves."""
        return queries

    def terms(self, step: GeneratorStep) -> dict[str, Tensor]:
        """``L_G``, the squared error, and ``L_cls``; both are zero, with a zero gradient, in a batch without labels."""
        generated = self.fc_projection(step.classes.embeddings)[step.classes.row[step.labels]]
        error = classification = generated.sum()
        if len(step.labels):
            error = F.mse_loss(generated, step.query_features)
            classification = step.classification(generated, step.labels)
        return {"L_G": error, "L_cls": classification, "generate_loss": error + classification}
