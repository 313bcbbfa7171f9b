"""The semantic projection: a class's feature is a linear map of its class embedding, fitted by least squares.

``MODEL.MASK_FORMER.GENERATOR linear``. There is no structure loss, whatever its weights; ``NOISE``, ``DISENTANGLE`` and
``ALIGN`` have no effect, and nothing random is drawn.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from PADing.generation import FeatureGenerator
from PADing.generation.class_tables import ClassTables


class SemanticProjection(FeatureGenerator, name="linear"):
    """Mean squared error between projected class embeddings and the query features of their classes."""

    def generate(self, queries: Tensor) -> Tensor:
        """The projected class embeddings themselves."""
        return queries

    def terms(
        self,
        query_features: Tensor,
        labels: Tensor,
        classes: ClassTables,
        classification: Callable[[Tensor, Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """``L_G``, the squared error, and ``L_cls``; both are zero, with a zero gradient, in a batch without labels."""
        generated = self.fc_projection(classes.embeddings)[classes.row[labels]]
        if len(labels):
            terms = {"L_G": F.mse_loss(generated, query_features), "L_cls": classification(generated, labels)}
        else:
            terms = {"L_G": generated.sum(), "L_cls": generated.sum()}
        return {**terms, "generate_loss": terms["L_G"] + terms["L_cls"]}
