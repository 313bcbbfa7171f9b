"""The primitive generator: features assembled from learned primitives (PADing, Sec. 3.2)."""

from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.generation.feature_generator import GENERATOR_REGISTRY
from PADing.generation.structured import StructuredGenerator
from PADing.modeling import TransformerDecoder, TransformerDecoderLayer


@GENERATOR_REGISTRY.register("primitive")
class PrimitiveGenerator(StructuredGenerator):
    """A small transformer decoder whose queries are projected class embeddings and whose memory are primitives.

    ``TRANS_MEMORY_NUM_QUERY`` primitives; ``TRANS_NUM_LAYER`` layers with ``NHEADS`` heads and dropout
    ``TRANS_DROP_RATE``; with ``NOISE`` each layer adds Gaussian noise, in training and in evaluation.
    """

    def make_generator(self, node: CfgNode) -> None:
        """The primitives ``dict_feature`` (p, d) and the decoder."""
        width = node.HIDDEN_DIM
        self.dict_feature = nn.Embedding(node.TRANS_MEMORY_NUM_QUERY, width)
        layer = TransformerDecoderLayer(
            width, node.NHEADS, 4 * width, node.TRANS_DROP_RATE, pre_norm=False, noise=node.NOISE
        )
        self.generator = TransformerDecoder(layer, node.TRANS_NUM_LAYER)

    def generate(self, queries: Tensor) -> Tensor:
        """Each query is a separate sequence, so the feature of a class does not depend on the other classes."""
        n, width = queries.shape
        memory = self.dict_feature.weight.unsqueeze(1).expand(-1, n, -1)
        return self.generator(queries.unsqueeze(0), memory).reshape(n, width)
