"""The semantic projection: the generated feature of a class is a linear map of its class embedding.

Use it with ``MODEL.MASK_FORMER.GENERATOR linear``. The map is fitted by least squares. There is no structure loss;
``NOISE``, ``DISENTANGLE`` and ``ALIGN`` have no effect, and nothing is random.
"""

from torch import Tensor
from torch.nn import functional as F

from PADing.generation.feature_generator import GENERATOR_REGISTRY, FeatureGenerator, GeneratorStep


@GENERATOR_REGISTRY.register("linear")
class SemanticProjection(FeatureGenerator):
    """Minimises the squared error between projected class embeddings and the query features of their classes."""

    def generate(self, queries: Tensor) -> Tensor:
        """The projected class embeddings (n, d) unchanged."""
        return queries

    def terms(self, step: GeneratorStep) -> dict[str, Tensor]:
        """``L_G`` (the squared error), ``L_cls`` and their sum; in a batch without labels all are zero."""
        generated = self.fc_projection(step.classes.embeddings)[step.classes.row[step.labels]]
        error = classification = generated.sum()
        if len(step.labels):
            error = F.mse_loss(generated, step.query_features)
            classification = step.classification(generated, step.labels)
        return {"L_G": error, "L_cls": classification, "generate_loss": error + classification}
