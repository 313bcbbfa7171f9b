"""The primitive generator: features assembled from learned primitives (PADing, Sec. 3.2)."""

from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.generation.feature_generator import GENERATOR_REGISTRY
from PADing.generation.structured import StructuredGenerator
from PADing.modeling import TransformerDecoder, TransformerDecoderLayer


@GENERATOR_REGISTRY.register("primitive")
class PrimitiveGenerator(StructuredGenerator):
    """A small transformer decoder whose queries are projected class embeddings and whose memory are primitives.

    Args:
        embedding_width: e, of class embeddings. width: d, of features.
        primitives: their number. layers, heads, drop_rate: of the decoder.
        noise: add Gaussian noise in every layer, in training and in evaluation.
        structure: see :meth:`StructuredGenerator.add_structure`.
    """

    def __init__(
        self,
        embedding_width: int,
        width: int,
        *,
        primitives: int,
        layers: int,
        heads: int,
        drop_rate: float,
        noise: bool,
        structure: dict,
    ) -> None:
        super().__init__(embedding_width, width)
        self.dict_feature = nn.Embedding(primitives, width)
        layer = TransformerDecoderLayer(width, heads, 4 * width, drop_rate, pre_norm=False, noise=noise)
        self.generator = TransformerDecoder(layer, layers)
        self.add_structure(width, **structure)

    @classmethod
    def from_config(cls, cfg: CfgNode, embedding_width: int) -> "PrimitiveGenerator":
        """Sizes and switches from ``MODEL.MASK_FORMER``."""
        node = cfg.MODEL.MASK_FORMER
        return cls(
            embedding_width,
            node.HIDDEN_DIM,
            primitives=node.TRANS_MEMORY_NUM_QUERY,
            layers=node.TRANS_NUM_LAYER,
            heads=node.NHEADS,
            drop_rate=node.TRANS_DROP_RATE,
            noise=node.NOISE,
            structure=cls.structure_of(cfg),
        )

    def generate(self, queries: Tensor) -> Tensor:
        """Each query is a sequence of its own, so a class's feature does not depend on which others are asked for."""
        n, width = queries.shape
        memory = self.dict_feature.weight.unsqueeze(1).expand(-1, n, -1)
        return self.generator(queries.unsqueeze(0), memory).reshape(n, width)
